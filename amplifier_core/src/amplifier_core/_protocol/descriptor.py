"""Module descriptors: how an embedder names a module, read strictly (protocol, section 1).

Owns the fields that every transport shares. It does not check a transport's own fields: the transport's plugin does.
"""

from __future__ import annotations

import errno
import functools
import math
import os
import re
import stat
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn

from .capability import WORDS_MAX, canonical
from .errors import BadRequest, meant, path_of, reason_of, short
from .json import NotJson, encode, finish
from .weight import MESSAGE_BYTES, look, needs_look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ModuleKind = Literal["provider", "tool", "agent", "hook", "orchestrator", "context"]
ModuleKind.__doc__ = "The kinds of module (protocol, section 1)."

KINDS: tuple[str, ...] = get_args(ModuleKind)

NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
"""The form of a module's name, a regular expression."""

_FILE_MAX = 1 << 20  # bytes of a descriptor file
_VERSION_MAX = 256
_DOUBTS_MAX = 16
_SHOWN = 80  # characters of a wrong value, or of a wrong name
_NUMBER = "(?:0|[1-9][0-9]*)"
_LABEL = f"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMANTIC_VERSION = (
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_LABEL}(?:\.{_LABEL})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)


class FieldError(BadRequest):
    """A field has a wrong value. ``path`` is its JSON path, below the object that was read."""

    def __init__(self, path: str, expected: str) -> None:
        super().__init__(f"descriptor: {path_of(f'$.{path}')}: {expected}", details={"path": f"$.{path}"})
        self.path = path
        self.expected = expected


_COUNT_MAX = 2**63 - 1  # bytes or milliseconds: more than any machine has


def _is_transport(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("type"), str)


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _are_ops(value: object) -> bool:
    """Tell whether a value describes operations: an object each, in which ``idempotent`` is true or false."""
    return isinstance(value, Mapping) and all(
        isinstance(told, Mapping) and isinstance(told.get("idempotent"), bool | None) for told in value.values()
    )


def is_version(value: object) -> bool:
    """Tell whether a value is a semantic version of bounded length, or ``None``."""
    if not isinstance(value, str):
        return value is None
    return len(value) <= _VERSION_MAX and re.fullmatch(_SEMANTIC_VERSION, value) is not None


@attrs.frozen(kw_only=True, unsafe_hash=False)  # to generate a hash costs a tenth of the import
class Limits:
    """What an invocation may use. ``None`` stands for the kernel's default, or for no limit if there is no default."""

    timeout_ms: int | None = None
    idle_ms: int | None = None
    memory_bytes: int | None = None
    cpu_ms: int | None = None
    message_bytes: int | None = None
    concurrency: int | None = None

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(Limits):
            value = getattr(self, field.name)
            if value is not None and not (type(value) is int and 0 < value <= _COUNT_MAX):
                raise FieldError(field.name, f"expected a positive integer, got {short(value)}")


@attrs.frozen(kw_only=True, unsafe_hash=False)
class ModuleDescriptor:
    """One module, as an embedder named it. Making one checks it and raises ``BadRequest``.

    ``capabilities`` have their canonical form, with paths resolved against ``base``, the descriptor's folder.
    ``unknown`` keeps the fields that this version does not know, those of ``limits`` as ``limits.NAME``. ``source``
    names the file in errors. ``caller`` is the path of the module whose system call sent the descriptor, ``None`` if
    the embedder did: the kernel trusts only the embedder to say which files are the module's own. So the paths in the
    ``capabilities`` of a descriptor with a ``caller`` have to be absolute, and no file is looked at for them.
    ``ops`` tells of an operation whether it is ``idempotent``: whether it may be repeated if nobody knows that it was
    done. ``spellings`` are the words as they were given: what the module describes is compared with them first.
    """

    name: str
    kind: str
    transport: Mapping[str, Any]
    capabilities: tuple[str, ...]
    version: str | None = None
    limits: Limits = attrs.field(factory=Limits)
    ops: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    base: Path = attrs.field(factory=Path.cwd, eq=False)
    source: str = attrs.field(default="descriptor", eq=False)
    caller: str | None = attrs.field(default=None, eq=False)
    unknown: Mapping[str, Any] = attrs.field(factory=dict, eq=False)
    spellings: tuple[str, ...] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for name, (expected, fits) in _FIELDS.items():
            if not fits(value := getattr(self, name)):
                hidden = name == "transport" and isinstance(value, Mapping)  # its values may be secrets
                got = dict.fromkeys(value, "…") if hidden else value
                raise FieldError(name, f"expected {expected}, got {short(got)}")
        if len(self.capabilities) > WORDS_MAX:
            raise FieldError("capabilities", f"expected at most {WORDS_MAX}, got {len(self.capabilities)}")
        given = dict.fromkeys(self.capabilities)
        object.__setattr__(self, "capabilities", tuple(dict.fromkeys(self._canonical())))
        if self.caller is None:
            given |= dict.fromkeys(canonical(word, self.base, resolve=False) for word in given)
        object.__setattr__(self, "spellings", tuple(given))
        try:
            encode(dict(self.transport), "transport")
        except NotJson as error:
            raise FieldError(error.path, error.problem) from None

    def _canonical(self) -> Iterator[str]:
        base = self.base if self.caller is None else None
        for n, word in enumerate(self.capabilities):
            try:
                yield canonical(word, base, resolve=base is not None)
            except ValueError as error:
                raise FieldError(f"capabilities[{n}]", str(error)) from None

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, Any],
        *,
        base: Path | None = None,
        source: str = "descriptor",
        caller: str | None = None,
    ) -> ModuleDescriptor:
        """Read a descriptor from an object of section 1. Relative paths are below ``base`` (default: the cwd).

        ``caller`` is the path of the module that sent it: then there is no base, and a relative path does not fit.
        Raises ``BadRequest`` with one line: the source, the JSON path and what was expected.
        """
        if not isinstance(mapping, Mapping):
            raise _no_object(mapping, source)
        known = {name: mapping[name] for name in _FIELDS if name in mapping}
        known = {name: value for name, value in known.items() if value is not None or name not in _OPTIONAL}
        if isinstance(transport := known.get("transport"), Mapping):
            known["transport"] = {name: value for name, value in transport.items() if value is not None}
        more = {name: value for name, value in mapping.items() if name not in _FIELDS}
        if isinstance(limits := mapping.get("limits"), Mapping):
            names = {field.name for field in attrs.fields(Limits)}
            more |= {f"limits.{name}": limits.get(name) for name in limits if name not in names}
        located = {**known, "base": base or Path.cwd(), "source": source, "caller": caller, "unknown": more}
        try:
            return _converter().structure(located, cls)
        except ClassValidationError as error:
            path, expected = _first_fault(error)
            if expected is _MISSING and (typo := next((name for name in more if meant(str(name), [path])), None)):
                expected += f"; is it meant by the unknown {path_of(f'$.{typo}')}?"
            path = f"$.{path}"
            raise BadRequest(f"{source}: {path_of(path)}: {expected}", details={"path": path}) from None

    def doubts(self) -> list[str]:
        """Say of each unknown field, a line each, that it has no effect, and which one may be meant."""
        names = [field.name for field in attrs.fields(Limits)]
        return [
            f"{self.source}: {path_of(f'$.{name}')}: unknown, and without effect"
            f"{meant(str(name).removeprefix('limits.'), names if str(name).startswith('limits.') else _FIELDS)}"
            for name in islice(self.unknown, _DOUBTS_MAX)
        ]

    @property
    def message_bytes(self) -> int:
        """The largest single message in either direction, in bytes of JSON."""
        return self.limits.message_bytes or MESSAGE_BYTES

    def misfit(self, path: str, expected: str, *got: object) -> BadRequest:
        """Make the error for a wrong field of ``transport``. The plugin that owns the field raises it.

        ``got`` is the field's value, unless it may be a secret; ``None`` is shown as nothing.
        """
        path = f"$.transport{path}"
        shown = "".join(f", got {'nothing' if value is None else short(value, _SHOWN)}" for value in got)
        return BadRequest(f"{self.source}: {path_of(path)}: {expected}{shown}", details={"path": path})

    def check_known(self, known: Sequence[str], path: str = "", fields: Mapping[str, Any] | None = None) -> None:
        """Refuse each field of ``transport``, or of an object below it, that a plugin does not know: ``BadRequest``.

        A misspelt field would leave out what it is for, such as a credential.
        """
        for name in self.transport if fields is None else fields:
            if name not in known:
                raise self.misfit(f"{path}.{name[:_SHOWN]}", f"expected one of {', '.join(known)}")

    def file(self, path: str, expected: str, value: object) -> Path | None:
        """Read a field of ``transport`` that names a file of this host. Paths are relative to the descriptor's folder.

        ``None`` names none. Raises ``BadRequest``, for each file that a module's descriptor names as well.
        """
        if value is None:
            return None
        if self.caller is not None:  # an error would tell whether the file is there
            raise self.misfit(path, "expected none: a module wrote the descriptor, and names no file of this host")
        if not isinstance(value, str) or not value or "\0" in value:
            raise self.misfit(path, expected, value)
        return self.base / value


def _no_object(given: object, source: str) -> BadRequest:
    more = "; load_descriptor(path) reads a file" if isinstance(given, str | os.PathLike) else ""
    return BadRequest(f"{source}: $: expected an object, got {type(given).__name__}{more}")


_FIELDS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "name": (f"a name like {NAME}", lambda value: isinstance(value, str) and re.fullmatch(NAME, value)),
    "kind": (f"one of {', '.join(KINDS)}", lambda value: value in KINDS),
    "transport": ("an object whose type is text", _is_transport),
    "capabilities": ("a list of text", _is_list_of_text),
    "version": ("a semantic version like 1.2.0", is_version),
    "ops": ("an object of objects, in each of which idempotent is true or false", _are_ops),
    "limits": ("limits", lambda value: isinstance(value, Limits)),
}
"""For each field, the words of its error and its test. attrs' validators would take twice as long to import."""

_OPTIONAL = ("version", "limits", "ops")
"""``null`` reads as absent in them, in each limit, and in each field of the transport."""


def load_descriptor(path: str | Path) -> ModuleDescriptor:
    """Read a descriptor file. Raises ``BadRequest`` with one line: the file, the JSON path and what was expected."""
    import json  # 1.4 ms, and only files need it

    file = path_of(path)
    try:
        content = read_file(Path(path), _FILE_MAX)
        text = content.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"{file}: $: expected UTF-8, got {error.reason} at byte {error.start}") from error
    except (OSError, TypeError, ValueError) as error:
        raise BadRequest(f"{file}: cannot be read: {reason_of(error)}") from error
    try:
        if needs_look(content, MESSAGE_BYTES):
            finish(look(content, MESSAGE_BYTES))
        mapping = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_without_duplicates
        )
        json.dumps(mapping, ensure_ascii=False).encode()  # refuses a lone surrogate
    except UnicodeEncodeError:
        raise BadRequest(f"{file}: $: expected Unicode text, got a lone surrogate") from None
    except ValueError as error:
        raise BadRequest(f"{file}: $: expected JSON: {error}") from None
    return ModuleDescriptor.from_mapping(mapping, base=Path(path).resolve().parent, source=file)


def read_file(path: Path, at_most: int) -> bytes:
    """Read a regular file of at most so many bytes, without waiting. Raises ``OSError``.

    A named pipe in its place would hold the loop for ever.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "expected a regular file")
        text = file.read(at_most + 1)
    if len(text) > at_most:
        raise OSError(errno.EFBIG, f"expected at most {at_most} bytes")
    return text


# cattrs would turn "net" into three capabilities and 5 into "5". So it copies values as they are. `_FIELDS` checks
# them, and cattrs finds the missing fields and the paths of errors.
@functools.cache  # made when the first descriptor is read: importing the kernel need not wait for it
def _converter() -> Converter:
    converter = Converter(detailed_validation=True)
    for primitive in (str, int):
        converter.register_structure_hook(primitive, lambda value, _: value)
    converter.register_structure_hook_func(lambda kind: kind not in (ModuleDescriptor, Limits), lambda value, _: value)
    structure = make_dict_structure_fn(Limits, converter)

    def limits(value: Any, kind: type[Limits]) -> Limits:
        if not isinstance(value, Mapping):
            raise FieldError("", f"expected an object, got {short(value)}")
        return structure(value, kind)

    converter.register_structure_hook(Limits, limits)
    return converter


def _first_fault(error: BaseException) -> tuple[str, str]:
    """Follow the first branch of cattrs' tree of errors; its notes name the attributes on the way."""
    path: list[str] = []
    while True:
        path += [note.name for note in getattr(error, "__notes__", ()) if hasattr(note, "name")]
        if not isinstance(error, BaseExceptionGroup):
            break
        error = error.exceptions[0]
    below = getattr(error, "path", "")  # of a FieldError; the other error is the KeyError of a missing field
    return ".".join([*path, below] if below else path), getattr(error, "expected", _MISSING)


_MISSING = "expected a value, got nothing"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{text} is out of range")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} appears twice")
        found[key] = value
    return found
