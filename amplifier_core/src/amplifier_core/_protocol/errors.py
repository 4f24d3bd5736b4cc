"""The errors of the kernel: one exception class for each code of the protocol, section 5.

Owns the mapping between exceptions and wire bodies. It does not decide when an error is raised.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_CHAIN_MAX = 16  # a chain of causes may be a circle
_LINE_MAX = 2000  # characters of a line that foreign code wrote
_NAME_MAX, _ALIKE = 100, 0.75  # characters of a wrong name, and how like to a known one it has to be
_PATH_MAX = 8192  # characters: more than any system takes


class KernelError(Exception):
    """A failure: its ``code``, one line of text, and ``details`` that help to find the cause (protocol, section 5).

    A code that a module made up arrives as plain ``KernelError``.
    ``details`` is JSON: exit code, signal, tail of stderr, HTTP status, JSON path, causes. What of it a person needs is
    in the exception's notes, which a traceback prints.
    """

    code: str = "internal"
    replied: bool = False
    """Whether a module replied with this error. If not, the kernel or a plugin made it."""

    def __init_subclass__(cls, code: str | None = None) -> None:
        super().__init_subclass__()
        cls.code = code or cls.code

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message: str = message
        self.details: dict[str, Any] = dict(details) if details else {}
        if code is not None:
            self.code = code
            self.replied = code not in _BY_CODE

    def __str__(self) -> str:
        return printable(f"{self.code}: {self.message}")

    def reword(self, message: str) -> None:
        """Replace the message, before anybody has seen it."""
        self.message = message
        super().__init__(message)  # it sets `args`

    def body(self) -> dict[str, Any]:
        """Return the wire form: ``code``, ``message`` and, if there are any, ``details``."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            body["details"] = self.details
        return body

    @staticmethod
    def from_body(code: str, message: str, details: Mapping[str, Any] | None = None) -> KernelError:
        """Make the exception for a wire body: of the code's own class, or a ``KernelError`` for a module's own code."""
        return _BY_CODE.get(code, KernelError)(message, details=details, code=code)

    @staticmethod
    def from_exception(error: Exception, what: str) -> KernelError:
        """Wrap an exception of foreign code as ``Internal``, with its causes in ``details``. Keep a ``KernelError``."""
        if isinstance(error, KernelError):
            return error
        return Internal(f"{what} raised {one_line(error)}", details={"causes": causes(error)})


class Timeout(KernelError, code="timeout"):
    """The deadline or the idle limit passed."""


class Oom(KernelError, code="oom"):
    """The memory budget was exceeded."""


class Unreachable(KernelError, code="unreachable"):
    """The module could not be started or reached, or went away."""


class BadRequest(KernelError, code="bad_request"):
    """The caller's input does not fit."""


class Forbidden(KernelError, code="forbidden"):
    """A capability was not granted."""


class Internal(KernelError, code="internal"):
    """The module or the kernel broke its contract; the message says which."""


class UnsupportedOp(KernelError, code="unsupported_op"):
    """The module does not know the operation."""


class Cancelled(KernelError, code="cancelled"):
    """The caller gave up. Cancelling the caller's own task raises ``asyncio.CancelledError`` there, as always."""


class BudgetExceeded(KernelError, code="budget_exceeded"):
    """The CPU budget was exceeded."""


_BY_CODE = {kind.code: kind for kind in KernelError.__subclasses__()}  # the nine above: no other code has run yet


def failure_of(error: BaseException) -> KernelError:
    """Return the error for an operation's event: the error itself, ``Cancelled``, or ``Internal`` for a kernel bug."""
    if isinstance(error, KernelError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return Cancelled("the caller gave up", details={k: v for k, v in clues_of(error).items() if k == "given_up"})
    return Internal(f"the kernel broke its contract: {one_line(error)}", details={"causes": causes(error)})


def add_clues(error: BaseException, **clues: Any) -> None:
    """Attach to the cancellation of a request what may explain that no answer came. A timeout has it in ``details``.

    ``phase`` is what the request waited for, in a word, and ``waited_for`` in words of a sentence. Without them it
    waited for the module.
    """
    vars(error).setdefault("clues", {}).update(clues)


def clues_of(error: BaseException | None) -> dict[str, Any]:
    """Give what was attached to a cancellation."""
    return dict(getattr(error, "clues", ()))


def one_line(error: BaseException) -> str:
    """Describe any exception in one line: its class and the first line of its text."""
    text = _say(str, error)[:_LINE_MAX].strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def printable(text: str) -> str:
    """Show text on one line: line ends, control characters and the like are escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def short(value: object, width: int = 60) -> str:
    """Show a value in an error message: its ``repr``, cut to ``width`` characters."""
    text = _say(repr, _start_of(value, [width])) or f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _start_of(value: Any, left: list[int]) -> Any:
    """Copy of a value what is shown if at most ``left`` characters are: each item has one."""
    left[0] -= 1
    kind = type(value)
    if kind is str or kind is bytes:
        return value[: max(left[0], 0) + 2]
    if kind is dict:
        some = islice(value.items(), max(left[0], 0))
        return {_start_of(key, left): _start_of(child, left) for key, child in some}
    if kind is list or kind is tuple:
        return kind(_start_of(child, left) for child in islice(value, max(left[0], 0)))
    return value


def meant(name: str, known: Iterable[str]) -> str:
    """Say which of the known names a wrong one is most like, as the end of a message; empty if it is like none."""
    name = name[:_NAME_MAX]
    more = (f"{name}_", f"{name}/")  # of the whole name it may be the beginning, and of a path the end
    longer = [each for each in known if name and (each.startswith(more) or each.endswith(f"/{name}"))]
    if not longer:
        import difflib  # noqa: PLC0415 - 3 ms, and only a mistake needs it

        longer = difflib.get_close_matches(name, [*known], 1, _ALIKE)
    return f"; is {longer[0]} meant?" if longer else ""


def path_of(path: object) -> str:
    """Show a path in an error message: as it is if it is printable, else its ``repr``."""
    text = str(path)
    return text if len(text) <= _PATH_MAX and text.isprintable() else short(text)


def reason_of(error: Exception) -> str:
    """Say why a file could not be used, in the words of the system or else of Python."""
    return error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)


def _say(how: Callable[[object], str], value: object) -> str:
    """Convert a foreign object to text that JSON can hold, "" if the conversion raises."""
    try:
        return how(value).encode(errors="backslashreplace").decode()
    except Exception:  # foreign code; deep nesting and huge integers raise too
        return ""


def causes(error: BaseException | None) -> list[str]:
    """List an exception and its causes, at most sixteen, a line each, outermost first."""
    chain: list[str] = []
    while error is not None and len(chain) < _CHAIN_MAX:
        chain.append(one_line(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return chain
