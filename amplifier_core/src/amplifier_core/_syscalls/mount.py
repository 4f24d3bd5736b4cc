"""Mounting: check, ask policy, start, verify, then add. A mount that fails leaves nothing of the module behind.

Owns the system calls ``mount``, ``unmount`` and ``mounts``. `invoke` owns the calls to a mounted module.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from amplifier_core._protocol.descriptor import ModuleDescriptor
from amplifier_core._protocol.errors import BadRequest, KernelError, failure_of, short
from amplifier_core._sessions.current import current_span
from amplifier_core._sessions.namespace import MOUNT_PATHS

from .delegation import read_descriptor
from .describe import flaws
from .recording import describe_module, record_mount
from .startup import Startup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amplifier_core._modules.module import Module
    from amplifier_core._protocol.ids import Span
    from amplifier_core._sessions.state import SessionState

    from .turns import Invocation


class MountRequest(msgspec.Struct, frozen=True):
    """The arguments of the system call ``mount`` (section 8). ``timeout`` is in seconds."""

    path: str  # one of `MOUNT_PATHS`
    descriptor: ModuleDescriptor | Mapping[str, Any]
    timeout: float
    trusted: bool = False
    isolation: str | None = None


async def mount(state: SessionState, request: MountRequest, caller: Invocation | None = None) -> dict[str, str]:
    """Mount one module. Nothing of it runs before policy has allowed the mount.

    Success and failure are both recorded as ``mount:add``. ``caller`` is the invocation whose system call this is.
    """
    state.check_call()
    descriptor = _checked(request, caller)
    state.runtime.host.check(request.isolation)
    full = f"{request.path}/{descriptor.name}"
    _doubt(state, descriptor, full)
    if full in state.namespace.mounts or full in state.mounting:
        raise BadRequest(f"{full}: a module of that name is mounted there already; unmount it first")
    runtime = state.runtime
    above = caller.span if caller else current_span(runtime)
    span = runtime.ids.child(above) if above else runtime.ids.root()
    began = runtime.clock.monotonic()
    failure: KernelError | None = None
    startup: Startup | None = None
    unkept: Sequence[str] = ()
    flawed: dict[str, Any] = {}
    state.mounting |= {full}
    if runtime.settings.recording:
        record_mount(state, full, descriptor, span, trusted=request.trusted)
    try:
        startup = Startup(state, full, descriptor, span, caller, trusted=request.trusted, isolation=request.isolation)
        try:
            with runtime.deadlines.within(request.timeout, f"mounting {full}", state) as deadline:
                runtime.ids.take_end(span, deadline.fail)
                added = await startup.run()
        except BaseException as error:
            if isinstance(error, KernelError):
                startup.explain(error)
            await startup.close()
            raise
        state.own_namespace().add(added)
        unkept, flawed = _unkept(startup.module), flaws(startup.module)
    except BaseException as error:
        failure = failure_of(error)
        if caller is None or "path" not in failure.details:  # a module is told the same whatever it names a module
            failure.details.setdefault("module", full)
        raise
    finally:
        state.mounting -= {full}
        data, status = _describe_mount(descriptor, unkept) | flawed, "error" if failure else "ok"
        if startup is not None and runtime.settings.recording:
            data |= describe_module(startup.module)
        state.record("mount:add", span, module=full, status=status, began=began, data=data, error=failure)
    return {"name": descriptor.name, "path": full}


def _doubt(state: SessionState, descriptor: ModuleDescriptor, path: str) -> None:
    """Warn of what is likely to be a mistake, and is none by the protocol."""
    doubts = [f"mounting {path}: {doubt}" for doubt in descriptor.doubts()]
    place = path.split("/")[2]
    if descriptor.kind != place.removesuffix("s"):
        article = "an" if descriptor.kind[0] in "ao" else "a"  # of the kinds that there are
        doubts.append(
            f"mounting {path}: {descriptor.source}: $.kind: {article} {descriptor.kind} is mounted at /mnt/{place}"
        )
    for doubt in doubts:
        state.runtime.bus.warn(doubt, doubt)


def _checked(request: MountRequest, caller: Invocation | None) -> ModuleDescriptor:
    """Check the arguments of a mount, and give the descriptor. Raises ``BadRequest``."""
    if request.path not in MOUNT_PATHS:
        raise BadRequest(f"path: expected one of {', '.join(MOUNT_PATHS)}, got {short(request.path)}")
    if not isinstance(request.trusted, bool):
        raise BadRequest(f"trusted: expected True or False, got {short(request.trusted)}")
    if request.trusted and request.isolation is not None:
        raise BadRequest(f"isolation: expected none for a module that is trusted, got {short(request.isolation)}")
    descriptor = request.descriptor
    if isinstance(descriptor, ModuleDescriptor):
        return descriptor
    return ModuleDescriptor.from_mapping(descriptor) if caller is None else read_descriptor(descriptor, caller)


def _unkept(module: Module) -> list[str]:
    """List what confines the module, what was granted and what limits it, as far as nothing keeps it here."""
    words = [*module.unconfined, *(word for word in module.granted if word in module.unenforced)]
    limits = module.descriptor.limits
    names = [name for name in ("memory_bytes", "cpu_ms") if getattr(limits, name) is not None and not module.budget]
    return [*words, *(f"limits.{name}" for name in names)]


def _describe_mount(descriptor: ModuleDescriptor, unkept: Sequence[str]) -> dict[str, Any]:
    """Build the ``data`` of ``mount:add``. Fields that the kernel does not know are listed: they may be misspelled."""
    data = {
        "kind": descriptor.kind,
        "version": descriptor.version,
        "transport": descriptor.transport["type"],
        "capabilities": list(descriptor.capabilities),
        "unenforced": list(unkept),
        "unknown": list(descriptor.unknown),
    }
    return {name: value for name, value in data.items() if value or name in ("version", "capabilities")}


async def unmount(state: SessionState, path: str, name: str | None, span: Span | None = None) -> list[str]:
    """Unmount one module, or all at a mount path. Modules that no other session holds are closed on return."""
    state.check_call()
    mounts = state.namespace.mounts
    _check_text(path, "path")
    full = f"{path}/{name}" if name is not None else path
    removed = [full] if full in mounts else [at for at in mounts if name is None and at.rpartition("/")[0] == path]
    if not removed:
        raise BadRequest(f"path: nothing is mounted at {short(full)}")
    namespace = state.own_namespace()
    unheld = [namespace.remove(at) for at in removed]
    span = span or current_span(state.runtime)
    for at in removed:
        state.record("mount:remove", span, module=at, status="ok")
    await state.runtime.close(*(list(chain.from_iterable(groups)) for groups in zip(*unheld, strict=True)))
    return removed


def _check_text(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise BadRequest(f"{name}: expected text, got {type(value).__name__}")


def mounts(state: SessionState, path: str | None) -> list[dict[str, Any]]:
    """List the mounts, or those at or below ``path``, in the order of mounting."""
    state.check_call()
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
