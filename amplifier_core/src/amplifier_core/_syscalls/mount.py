"""Mounting: check, ask policy, start, verify, then add. A mount that fails leaves nothing of the module behind.

Owns the system calls ``mount``, ``unmount``, ``mounts`` and ``describe``. `invoke` owns the calls to a mounted module.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from amplifier_core._modules.module import Module, as_connection
from amplifier_core._modules.thread import in_thread
from amplifier_core._protocol.description import check_description
from amplifier_core._protocol.descriptor import ModuleDescriptor
from amplifier_core._protocol.errors import BadRequest, Forbidden, Internal, KernelError, Unreachable, failure_of, short
from amplifier_core._protocol.json import decode_checked, encode_checked
from amplifier_core._protocol.message import result_of
from amplifier_core._sessions.namespace import MOUNT_PATHS, Mount
from amplifier_core._sessions.policy import MOUNT, Question, authorize
from amplifier_core.hookspecs import TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from amplifier_core._protocol.gate import Decision
    from amplifier_core._protocol.ids import Span
    from amplifier_core._sessions.state import SessionState
    from amplifier_core.hookspecs import Connection, Isolation

    from .turns import Invocation

_MODULE_EVENTS = ("module:start", "module:exit", "module:noise", "events:dropped")


class MountRequest(msgspec.Struct, frozen=True):
    """The arguments of the system call ``mount`` (section 8). ``timeout`` is in seconds."""

    path: str
    descriptor: ModuleDescriptor | Mapping[str, Any]
    timeout: float
    trusted: bool = False


async def mount(state: SessionState, request: MountRequest, caller: Invocation | None = None) -> dict[str, str]:
    """Mount one module. Nothing of it runs before policy has allowed the mount.

    Success and failure are both recorded as ``mount:add``. ``caller`` is the invocation whose system call this is.
    """
    state.check_open()
    descriptor = _checked(request, caller)
    full = f"{request.path}/{descriptor.name}"
    if full in state.namespace.mounts or full in state.mounting:
        raise BadRequest(f"{full}: a module of that name is mounted there already; unmount it first")
    runtime = state.runtime
    span = runtime.ids.child(caller.span) if caller else runtime.ids.root()
    began = runtime.clock.monotonic()
    failure: KernelError | None = None
    unkept: Sequence[str] = ()
    state.mounting |= {full}
    try:
        unkept = await _bring_up(state, request, descriptor, span, caller)
    except BaseException as error:
        failure = failure_of(error)
        failure.details.setdefault("module", full)
        raise
    finally:
        state.mounting -= {full}
        duration_ms = round((runtime.clock.monotonic() - began) * 1000, 3)
        data, status = _describe_mount(descriptor, unkept), "error" if failure else "ok"
        state.record("mount:add", span, module=full, status=status, duration_ms=duration_ms, data=data, error=failure)
    return {"name": descriptor.name, "path": full}


def _checked(request: MountRequest, caller: Invocation | None) -> ModuleDescriptor:
    """Check the arguments of a mount, and give the descriptor. Raises ``BadRequest``."""
    if request.path not in MOUNT_PATHS:
        raise BadRequest(f"path: expected one of {', '.join(MOUNT_PATHS)}, got {short(request.path)}")
    if not isinstance(request.trusted, bool):
        raise BadRequest(f"trusted: expected True or False, got {short(request.trusted)}")
    descriptor = request.descriptor
    if not isinstance(descriptor, ModuleDescriptor):
        descriptor = ModuleDescriptor.from_mapping(descriptor)
    return descriptor if caller is None else attrs.evolve(descriptor, caller=caller.module.path)


def _describe_mount(descriptor: ModuleDescriptor, unkept: Sequence[str]) -> dict[str, Any]:
    """Build the ``data`` of ``mount:add``. Fields that the kernel does not know are listed: they may be misspelled."""
    data = {
        "kind": descriptor.kind,
        "version": descriptor.version,
        "capabilities": list(descriptor.capabilities),
        "unenforced": list(unkept),
        "unknown": list(descriptor.unknown),
    }
    return {name: value for name, value in data.items() if value or name in ("version", "capabilities")}


async def unmount(state: SessionState, path: str, name: str | None, span: Span | None = None) -> list[str]:
    """Unmount one module, or all at a mount path. Modules that no other session holds are closed on return."""
    state.check_open()
    mounts = state.namespace.mounts
    _check_text(path, "path")
    full = f"{path}/{name}" if name is not None else path
    removed = [full] if full in mounts else [at for at in mounts if name is None and at.rpartition("/")[0] == path]
    if not removed:
        raise BadRequest(f"path: nothing is mounted at {full!r}")
    namespace = state.own_namespace()
    unheld = [namespace.remove(at) for at in removed]
    for at in removed:
        state.record("mount:remove", span, module=at, status="ok")
    await state.runtime.close(*(list(chain.from_iterable(groups)) for groups in zip(*unheld, strict=True)))
    return removed


async def _bring_up(
    state: SessionState, request: MountRequest, descriptor: ModuleDescriptor, span: Span, caller: Invocation | None
) -> list[str]:
    """Open, allow, start, verify and add a module. Return the limits that nothing keeps here."""
    path, trusted = f"{request.path}/{descriptor.name}", request.trusted
    report = _Reporter(state, path, span)
    opened = state.runtime.plugins.open(
        TRANSPORTS, descriptor.transport["type"], descriptor=descriptor, notify=report, host=state.runtime.host
    )
    connection = as_connection(opened)
    module: Module | None = None
    try:
        with state.runtime.deadlines.within(request.timeout, f"mounting {path}", state):
            isolation = await _isolation(state, path, connection, trusted=trusted)
            module = Module(path, descriptor, connection, isolation, trusted=trusted and connection.local)
            _check_enforceable(module)
            if caller is None:
                await _plan(module)
            decision = await _authorize(state, module, span, caller)
            module.granted = decision.granted
            if caller is not None:  # nothing that a module names is looked at before policy has allowed it
                await _plan(module)
            await module.start(state.runtime.host)
            await _verify(module)
    except BaseException:
        if module is not None:
            await state.runtime.close([module])
        raise
    report.span = None
    state.own_namespace().add(Mount(module, decision.granted, session_wide=decision.scope == "session"))
    limits = [name for name in ("memory_bytes", "cpu_ms") if getattr(descriptor.limits, name) is not None]
    return [] if module.budget else [f"limits.{name}" for name in limits]


async def _authorize(state: SessionState, module: Module, span: Span, caller: Invocation | None) -> Decision:
    """Ask policy whether the module may be mounted, and with which capabilities."""
    args = {"path": module.path.rpartition("/")[0], "descriptor": _shown(module.descriptor), **_opened(module)}
    caller_path = caller.module.path if caller else None
    capabilities = module.descriptor.capabilities
    question = Question(MOUNT, module, capabilities, args=msgspec.Raw(encode_checked(args)), caller=caller_path)
    return await authorize(state, question, span)


async def _isolation(state: SessionState, path: str, connection: Connection, *, trusted: bool) -> Isolation | None:
    """Give the isolation of a local module; ``None`` for a trusted or remote one. Raises ``Forbidden``."""
    if trusted or not connection.local:
        return None
    try:
        return await state.runtime.host.isolation()
    except Forbidden as error:
        raise Forbidden(f"{path}: {error.message}", details=error.details) from None


def _check_enforceable(module: Module) -> None:
    """Refuse capabilities that the isolation cannot enforce here. Policy alone knows the meaning of ``x-`` words.

    Sets ``module.unenforced``.
    """
    isolation = module.isolation
    module.unenforced = tuple(module.connection.unenforced)
    if isolation is None:
        return
    with _blaming(isolation):
        module.unenforced = tuple(isolation.unenforced(module.unenforced))
    if refused := [word for word in module.unenforced if not word.startswith("x-")]:
        raise Forbidden(
            f"{module.path}: {isolation.name} cannot enforce {', '.join(refused)} on this host; "
            "mount(..., trusted=True) runs the module without isolation",
            details={"capabilities": refused},
        )


async def _plan(module: Module) -> None:
    """Let the isolation plan how the module is confined. In a thread, which is given up at the deadline."""
    isolation = module.isolation
    if isolation is None:
        return
    with _blaming(isolation):
        planned = await in_thread(partial(isolation.plan, module.connection.launch(), module.descriptor))
    if not hasattr(planned, "confine") or not hasattr(planned, "shown"):
        what = type(planned).__name__
        raise Internal(f"isolation {isolation.name!r} planned {what}, which has no confine or no shown")
    module.confinement = planned


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
    """Describe the module for policy. Objects in ``transport``, such as headers, show their keys alone: no secrets."""
    transport = {
        key: dict.fromkeys(value, "…") if isinstance(value, Mapping) else value
        for key, value in descriptor.transport.items()
    }
    limits = {name: value for name, value in attrs.asdict(descriptor.limits).items() if value is not None}
    return {"name": descriptor.name, "kind": descriptor.kind, "transport": transport, "limits": limits}


class _Reporter:
    """A connection's ``Notify``: records its reports, in the span of the mount until the module is added."""

    def __init__(self, state: SessionState, path: str, span: Span) -> None:
        self.span: Span | None = span
        self._state = state
        self._path = path

    def __call__(self, event: str, data: Mapping[str, Any], error: KernelError | None = None) -> None:
        if event not in _MODULE_EVENTS:
            raise Internal(f"a transport reported {event!r}, which is none of {', '.join(_MODULE_EVENTS)}")
        status = "error" if error else "ok"
        self._state.record(event, self.span, module=self._path, status=status, data=data, error=error)


async def _verify(module: Module) -> None:
    """Call ``health`` and ``describe``, and check the description against the descriptor."""
    path = module.path
    health = result_of(await module.call("health", b"{}"), f"{path} health")
    if not isinstance(health, dict) or health.get("status") != "ok":
        raise Unreachable(f'{path}: health: expected {{"status": "ok"}}, got {short(health)}')
    described = result_of(await module.call("describe", b"{}"), f"{path} describe")
    module.description = encode_checked(check_description(described, module.descriptor, path))


def _check_text(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise BadRequest(f"{name}: expected text, got {type(value).__name__}")


def mounts(state: SessionState, path: str | None) -> list[dict[str, Any]]:
    """List the mounts, or those at or below ``path``, in the order of mounting."""
    state.check_open()
    if path is not None:
        _check_text(path, "path")
    return [
        {
            "path": at,
            "name": mount.module.descriptor.name,
            "kind": mount.module.descriptor.kind,
            "version": mount.module.descriptor.version,
            "capabilities": list(mount.granted),
        }
        for at, mount in state.namespace.mounts.items()
        if path is None or at == path or at.startswith(f"{path}/")
    ]


def describe(state: SessionState, path: str) -> dict[str, Any]:
    """Give a module's description, as it was verified when it was mounted."""
    state.check_open()
    _check_text(path, "path")
    mount = state.namespace.mounts.get(path)
    if mount is None:
        raise BadRequest(f"path: nothing is mounted at {path!r}")
    description: dict[str, Any] = decode_checked(mount.module.description)
    return description
