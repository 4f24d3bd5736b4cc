"""Which object a descriptor means: one that it names by its import path, or a live one that it holds.

Owns the fields of ``transport``. What shape the object has is the connection's question.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from amplifier_core import BadRequest, ModuleDescriptor, Unreachable
from amplifier_core.hookspecs import causes

if TYPE_CHECKING:
    from collections.abc import Callable

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_PATH_MAX = 1024  # characters
_SHOWN = 60  # characters of a value in an error


@attrs.frozen(kw_only=True, eq=False)
class LiveDescriptor(ModuleDescriptor):
    """A descriptor that holds its object. So no table has to, and the object lives as long as what was mounted."""

    target: object = attrs.field(repr=False)


def descriptor_of(module: Any, *, limits: Mapping[str, int] | None = None) -> ModuleDescriptor:
    """Describe a live object, so that a session can mount it, with ``trusted=True``.

    ``name``, ``kind``, ``version`` and ``capabilities`` are those that its ``describe()`` gives, which is called here;
    the limits are ``limits``, or else the object's own attribute of that name. The descriptor may be mounted any number
    of times, in any kernel of this process. Raises ``BadRequest`` with one line.
    """
    kind = type(module)
    source = f"{kind.__module__}.{kind.__qualname__}"
    describe = getattr(module, "describe", None)
    told = describe() if callable(describe) and not inspect.iscoroutinefunction(describe) else None
    if not isinstance(told, dict):
        raise BadRequest(f"{source}: expected an object whose describe() gives a dict, and is no `async def`")
    names = ("name", "kind", "version", "capabilities")
    fields = {name: told[name] for name in names if told.get(name) is not None}
    own = getattr(module, "limits", None)
    bounds = (own if isinstance(own, Mapping) else {}) if limits is None else limits
    transport = {"type": "inproc", "instance_of": source}
    read = ModuleDescriptor.from_mapping({**fields, "transport": transport, "limits": bounds}, source=source)
    kept = {each.name: getattr(read, each.name) for each in attrs.fields(ModuleDescriptor) if each.init}
    return LiveDescriptor(**kept, target=module)


def find_object(descriptor: ModuleDescriptor) -> Callable[[], object]:
    """Read the fields strictly, and give what finds the object. Raises ``BadRequest`` with the JSON path.

    What it gives may import modules, and so take long. It raises ``Unreachable``.
    """
    if isinstance(descriptor, LiveDescriptor):
        return lambda: descriptor.target
    for name in descriptor.transport:
        if name not in ("type", "object"):
            raise descriptor.misfit(f".{name[:_SHOWN]}", "expected one of type, object")
    path = descriptor.transport.get("object")
    if not isinstance(path, str) or len(path) > _PATH_MAX or not _PATH.fullmatch(path):
        shown = repr(path[:_SHOWN] if isinstance(path, str) else path)[:_SHOWN]
        raise descriptor.misfit(".object", f"expected an import path like package.module:name, got {shown}")
    return lambda: _import(path)


def _import(path: str) -> object:
    try:
        return pkgutil.resolve_name(path)
    except BaseException as error:  # the import of foreign code may end in any way
        raise Unreachable(
            f"{path} cannot be imported: {causes(error)[0]}", details={"causes": causes(error)}
        ) from error
