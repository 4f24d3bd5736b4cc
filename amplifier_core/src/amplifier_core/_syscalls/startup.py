"""The startup of one module in a session: opened, allowed by policy, planned, started and verified, in this order.

Owns the order, and that each step is taken only while what was decided still holds. `mount` owns the system call.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from amplifier_core._modules.confinement import CheckedConfinement, unconfined_by, why_left_open
from amplifier_core._modules.module import Module, as_connection
from amplifier_core._modules.thread import in_thread
from amplifier_core._protocol.errors import BadRequest, Forbidden, Internal, KernelError, Timeout, Unreachable, short
from amplifier_core._protocol.json import encode_checked
from amplifier_core._sessions.namespace import Mount
from amplifier_core._sessions.policy import MOUNT, Question, authorize, authorize_again
from amplifier_core.hookspecs import TRANSPORTS

from .delegation import check_granted, handed_on, take_share, wanted_of
from .describe import check_health, note_change, verify_description
from .secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Mapping, Sequence

    from amplifier_core._protocol.descriptor import ModuleDescriptor
    from amplifier_core._protocol.ids import Span
    from amplifier_core._sessions.namespace import PolicyHook
    from amplifier_core._sessions.state import SessionState
    from amplifier_core.hookspecs import Isolation

    from .turns import Invocation

_ISOLATION = "the plan of its isolation"
_MODULE_EVENTS = ("module:start", "module:exit", "module:noise", "module:changed", "events:dropped")


class Startup:
    """One module on its way into a session. After a failure, ``close`` ends what there is of it.

    ``caller`` is the invocation whose system call mounts it. Making one opens the connection, which starts nothing.
    """

    def __init__(
        self,
        state: SessionState,
        path: str,
        descriptor: ModuleDescriptor,
        span: Span,
        caller: Invocation | None,
        *,
        trusted: bool,
        isolation: str | None = None,
    ) -> None:
        self._isolation = isolation
        self._state, self._span, self._caller = state, span, caller
        self._waits_for = _ISOLATION
        self._report = _Reporter(state, path, span)
        opened = state.runtime.plugins.open(
            TRANSPORTS,
            descriptor.transport["type"],
            descriptor=descriptor,
            notify=self._report,
            host=state.runtime.host,
        )
        connection = as_connection(opened)
        mounter = caller.module if caller else None
        trusted = trusted and connection.local and not connection.confined
        self.module = Module(path, descriptor, connection, None, trusted=trusted, mounter=mounter)
        self._report.module = self.module
        if isolation is not None and (connection.confined or not connection.local):
            where = "is confined by its transport" if connection.confined else "runs elsewhere"
            raise BadRequest(f"isolation: {path} {where}, and {short(isolation)} cannot confine it")
        self._wanted = wanted_of(connection, descriptor)
        self._check_caller()
        take_share(self.module)

    async def run(self) -> Mount:
        """Bring the module up. What this returns holds now, so it has to be added without a wait."""
        module, wanted = self.module, self._wanted
        await self._choose_isolation()
        if self._caller is None:
            await _plan(module, module.descriptor)
        decision = await authorize(self._state, self._question(wanted), self._span)
        policy = asked = self._state.policy
        module.granted = decision.granted
        check_enforceable(module)
        for step in self._steps():
            await step
            asked = await self._confirm(asked)
        self._report.span = None
        return Mount(module, decision.granted, session_wide=policy if decision.scope == "session" else None)

    def explain(self, error: KernelError) -> None:
        """Add to an error what the module has said since its start, before it is ended."""
        clues = {} if error.replied else self.module.clues()
        if isinstance(error, Unreachable):
            self.module.name_in(error)
        error.details |= clues
        if "stderr" in clues:  # it is all of this mount, whichever request failed
            error.details.pop("earlier_stderr", None)
        if isinstance(error, Timeout) and "phase" not in error.details:
            error.details["phase"] = "isolation" if self._waits_for == _ISOLATION else "module"
            error.reword(f"{error.message}; it waited for {self._waits_for}")
        from amplifier_core._modules.reasons import MOUNT as BY_MOUNT  # noqa: PLC0415 - as for `invoke`
        from amplifier_core._modules.reasons import explain  # noqa: PLC0415

        explain(error, self.module, BY_MOUNT)

    async def close(self) -> None:
        """End what there is of the module."""
        await self._state.runtime.close([self.module])

    def _steps(self) -> Iterator[Awaitable[None]]:
        module = self.module
        if self._caller is not None:  # nothing that a module names is looked at before policy has allowed it
            yield _plan(module, attrs.evolve(module.descriptor, capabilities=module.granted))
        self._waits_for = "its start"
        yield module.start(self._state.runtime.host)
        self._waits_for = "its answer to health"
        yield check_health(module)
        self._waits_for = "its answer to describe"
        yield verify_description(module)

    async def _confirm(self, asked: tuple[PolicyHook, ...]) -> tuple[PolicyHook, ...]:
        """Go on only while the session is open, the caller has what it hands on, and all policy hooks were asked."""
        if asked is not self._state.policy:
            asked = await authorize_again(self._state, self._question(self.module.granted), self._span, asked)
        self._state.check_open()
        self._check_caller()
        return asked

    def _check_caller(self) -> None:
        if self._caller is not None:
            check_granted(self._caller, handed_on(self._wanted))

    async def _choose_isolation(self) -> None:
        """Give a local module that is not trusted its isolation, unless its transport is one.

        Raises ``Forbidden`` if there is none.
        """
        module = self.module
        if module.connection.local and not module.connection.confined and not module.trusted:
            try:
                module.isolation = await self._state.runtime.host.isolation(self._isolation)
            except Forbidden as error:
                module.connection.launch()  # one that no isolation could confine says so
                raise Forbidden(f"{module.path}: {error.message}", details=error.details) from None
            module.unconfined = unconfined_by(module.isolation)
        if self._caller is None and not module.connection.local:
            self._waits_for = "what its host enforces"
            await module.survey()
        module.unenforced = await module.find_unenforced(self._wanted)

    def _question(self, wanted: Sequence[str]) -> Question:
        """Ask whether the module may be mounted, and with which capabilities."""
        module = self.module
        args = {"path": module.path.rpartition("/")[0], "descriptor": _shown(module.descriptor), **_opened(module)}
        told = self._caller.names_seen_from(self._state) if self._caller else {}
        return Question(MOUNT, module, wanted, args=msgspec.Raw(encode_checked(args)), **told)


def check_enforceable(module: Module) -> None:
    """Refuse a grant that nobody can keep: what confines the module cannot enforce it here, whatever was asked for.

    Who trusts a module, or one that runs elsewhere, was told.
    """
    refused = [word for word in module.granted if word in module.unenforced]
    if not refused or not (module.isolation or module.connection.confined):
        return
    said = ", ".join(refused)
    if module.isolation is None:
        who, remedy = f"transport {module.descriptor.transport['type']!r}", ""
    else:
        said = ", ".join(why_left_open(module.isolation, word) for word in refused)
        who, remedy = module.isolation.name, "; mount(..., trusted=True) runs the module without isolation"
    told = f"{module.path}: {who} cannot enforce {said} on this host{remedy}"
    raise Forbidden(told, details={"capabilities": refused})


async def _plan(module: Module, descriptor: ModuleDescriptor) -> None:
    """Let the isolation plan how the module is confined. In a thread, which is given up at the deadline."""
    isolation = module.isolation
    if isolation is None:
        return
    with _blaming(isolation):
        planned = await in_thread(partial(isolation.plan, module.connection.launch(), descriptor))
    if not hasattr(planned, "confine") or not hasattr(planned, "shown"):
        what = type(planned).__name__
        raise Internal(f"isolation {isolation.name!r} planned {what}, which has no confine or no shown")
    module.confinement = CheckedConfinement(isolation.name, planned)


def _opened(module: Module) -> dict[str, Any]:
    """Describe for policy what the isolation would open to the module if every capability is granted, if it is known.

    It is not for what a module mounts: to know it, the kernel would have to look at what policy has not allowed yet.
    """
    if module.isolation is None:
        return {}
    with _blaming(module.isolation):
        return {
            "isolation": {"name": module.isolation.name, **(module.confinement.shown if module.confinement else {})}
        }


@contextmanager
def _blaming(isolation: Isolation) -> Iterator[None]:
    """Turn an exception of foreign code into ``Internal``, which names the isolation."""
    try:
        yield
    except Exception as error:
        if isinstance(error, KernelError):
            raise
        raise KernelError.from_exception(error, f"isolation {isolation.name!r}") from error


def _shown(descriptor: ModuleDescriptor) -> dict[str, Any]:
    """Describe the module for policy, without secrets."""
    limits = {name: value for name, value in attrs.asdict(descriptor.limits).items() if value is not None}
    transport = without_secrets(descriptor.transport)
    return {"name": descriptor.name, "kind": descriptor.kind, "transport": transport, "limits": limits}


class _Reporter:
    """A connection's ``Notify``: records its reports, in the span of the mount until the module is added."""

    def __init__(self, state: SessionState, path: str, span: Span) -> None:
        self.span: Span | None = span
        self.module: Module | None = None
        self._state = state
        self._path = path

    def __call__(self, event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
        if event not in _MODULE_EVENTS:
            raise Internal(f"a transport reported {event!r}, which is none of {', '.join(_MODULE_EVENTS)}")
        if event == "module:changed" and (self.module is None or not note_change(self.module)):
            return
        status = "error" if error else "ok"
        self._state.record(event, self.span, module=self._path, status=status, data=data, error=error)
        if event == "module:noise":
            text = f"{self._path}: lines of stdout that were no protocol: {data.get('count')}"
            quoted = f"{text}; the first: {short(data.get('first'))}"
            self._state.runtime.bus.warn(f"noise {self._path}", quoted, text)
        elif event == "events:dropped":
            text = f"{self._path}: {data.get('count')} events were dropped"
            quoted = f"{text}: {error.message if error else 'they came too late'}"
            self._state.runtime.bus.warn(f"dropped {self._path}", quoted, text)
