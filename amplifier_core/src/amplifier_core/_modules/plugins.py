"""Plugins: found by name among the installed entry points, loaded at first use, and called to open an object.

Owns the lookup, the loading and the opening. The object, a connection, a sink or an isolation, belongs to the caller.
Each name has its own pluggy manager, so no plugin can answer for another name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

from amplifier_core._protocol.errors import BadRequest, Internal, KernelError, meant, one_line
from amplifier_core.hookspecs import ISOLATIONS, PROJECT, SINKS, TRANSPORTS, IsolationSpec, SinkSpec, TransportSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.metadata import EntryPoint, EntryPoints


_GROUPS: dict[str, tuple[type, str, tuple[str, ...]]] = {
    TRANSPORTS: (TransportSpec, "open_transport", ("local", "unenforced", "start", "request", "close")),
    SINKS: (SinkSpec, "open_sink", ("write", "close")),
    ISOLATIONS: (IsolationSpec, "open_isolation", ("name", "trial", "describe", "confines", "unenforced", "plan")),
}
"""For each kind of plugin, its hooks, the hook that opens an object, and the members that the object must have."""


class Plugins:
    """The plugins that one kernel has loaded, by group and name.

    ``open_transport`` is the embedder's own function of that name. The plugin opens what it gives ``None`` for.
    """

    def __init__(self, open_transport: Callable[..., Any] | None = None) -> None:
        self._hooks: dict[tuple[str, str], Any] = {}
        self._open_transport = open_transport

    def open(self, group: str, name: str, **arguments: Any) -> Any:
        """Call the plugin of that name to open a connection, a sink or an isolation.

        Raises ``BadRequest`` if it is not installed or opens nothing for the arguments; ``Internal`` if it fails or the
        object lacks a member.
        """
        what = f"{_noun(group)} {name!r}"
        _, opens, members = _GROUPS[group]
        try:
            opened = None
            if self._open_transport is not None and group == TRANSPORTS:
                opened = self._open_transport(**arguments)
            if opened is None:
                opened = getattr(self.hook(group, name), opens)(**arguments)
        except Exception as error:
            if isinstance(error, KernelError):
                raise
            raise KernelError.from_exception(error, what) from error
        if opened is None:
            raise BadRequest(f"{what}: the plugin opens nothing for the given {next(iter(arguments))}")
        missing = [member for member in members if not hasattr(opened, member)]
        if missing:
            raise Internal(f"{what}: the plugin opened {type(opened).__name__}, which has no {missing[0]}")
        return opened

    def hook(self, group: str, name: str) -> Any:
        """Load the plugin of that name, once, and give its hooks. Raises ``BadRequest``."""
        hooks = self._hooks.get((group, name))
        if hooks is None:
            manager = pluggy.PluginManager(PROJECT)
            manager.add_hookspecs(_GROUPS[group][0])
            point = _only(group, name)
            plugin = _load(point)
            try:
                manager.register(plugin, name)
            except Exception as error:
                reason = " ".join(str(error).split())  # pluggy's message has three lines
                raise BadRequest(f"{_noun(group)} {name!r} of {_provider(point)}: {reason}") from error
            if not any(caller.has_spec() for caller in manager.get_hookcallers(plugin) or ()):
                raise BadRequest(f"{_noun(group)} {name!r}: the plugin implements no hook of {group}")
            hooks = self._hooks[group, name] = manager.hook
        return hooks

    def loaded(self, group: str) -> dict[str, Any]:
        """Give the hooks of each plugin that is loaded, by name."""
        hooks = list(self._hooks.items())  # at once: a thread may load another one meanwhile
        return {name: hook for (within, name), hook in hooks if within == group}

    def installed(self, group: str) -> list[str]:
        """List the installed names, sorted. Loads none of them."""
        return sorted({point.name for point in _entry_points(group)})


def _entry_points(group: str) -> EntryPoints:
    from importlib.metadata import entry_points  # noqa: PLC0415 - the import takes 9 ms

    return entry_points(group=group)


def _only(group: str, name: str) -> EntryPoint:
    points = _entry_points(group)
    found = [point for point in points if point.name == name]
    noun = _noun(group)
    if not found:
        installed = sorted({point.name for point in points})
        raise BadRequest(
            f"{noun} {name!r} is not installed (installed: {', '.join(installed) or 'none'})"
            f"{_advice(noun, name, installed)}",
            details={"installed": installed},
        )
    providers = sorted({_provider(point) for point in found})
    if len(found) > 1:
        raise BadRequest(
            f"{noun} {name!r} is provided by {' and '.join(providers)}: uninstall all but one",
            details={"providers": providers},
        )
    return found[0]


def _load(point: EntryPoint) -> object:
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # foreign code: its import may fail in any way
        raise BadRequest(
            f"{_noun(point.group)} {point.name!r} of {_provider(point)} fails to import: {one_line(error)}"
        ) from error


_OURS = {
    "transport": ("stdio", "http", "grpc", "inproc", "mcp", "nats", "wasm"),
    "isolation": ("bwrap",),
    "sink": ("otel",),
}
"""The names for which there is a distribution of our own. A name that nobody owns yet invites others to take it."""


def _advice(noun: str, name: str, installed: Sequence[str]) -> str:
    """Say what to do, if that is sure."""
    if name in _OURS[noun]:
        return f"; try: pip install amplifier-{noun}-{name}"
    return meant(name, [*installed, *_OURS[noun]])


def _provider(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _noun(group: str) -> str:
    return group.rpartition(".")[2].removesuffix("s")
