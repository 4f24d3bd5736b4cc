"""Plugins: found by explicit name among the installed entry points, loaded then, and asked to open what they are for.

Owns the lookup and the opening. Each name has a pluggy manager of its own, so no plugin can answer for another name.
What is done with a transport, a sink or an isolation is for those who open it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from amplifier_core._protocol.errors import BadRequest, Internal, KernelError, one_line
from amplifier_core.hookspecs import ISOLATIONS, PROJECT, SINKS, TRANSPORTS, IsolationSpec, SinkSpec, TransportSpec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class _Group(NamedTuple):
    """One kind of plugin: its hooks, the hook that opens one, and what the opened thing has."""

    spec: type
    opens: str
    members: tuple[str, ...]


_GROUPS = {
    TRANSPORTS: _Group(TransportSpec, "open_transport", ("local", "unenforced", "start", "request", "close")),
    SINKS: _Group(SinkSpec, "open_sink", ("write", "close")),
    ISOLATIONS: _Group(IsolationSpec, "open_isolation", ("name", "trial", "describe", "unenforced", "confine")),
}


class Plugins:
    """The plugins that one kernel has loaded."""

    def __init__(self) -> None:
        self._hooks: dict[tuple[str, str], Any] = {}

    def open(self, group: str, name: str, **arguments: Any) -> Any:
        """Have the plugin of that name open a transport's connection, a sink or an isolation.

        Raises ``BadRequest`` for a plugin that is not there or opens nothing for these arguments, and ``Internal`` for
        one that fails or opens something else.
        """
        what = f"{_noun(group)} {name!r}"
        try:
            opened = getattr(self.hook(group, name), _GROUPS[group].opens)(**arguments)
        except Exception as error:
            if isinstance(error, KernelError):
                raise
            raise KernelError.from_exception(error, what) from error
        if opened is None:
            raise BadRequest(f"{what}: the plugin opens nothing for the given {next(iter(arguments))}")
        missing = [member for member in _GROUPS[group].members if not hasattr(opened, member)]
        if missing:
            raise Internal(f"{what}: the plugin opened {type(opened).__name__}, which has no {missing[0]}")
        return opened

    def hook(self, group: str, name: str) -> Any:
        """Load the plugin of that name, once, and give its hooks. Raises ``BadRequest`` with one line."""
        hooks = self._hooks.get((group, name))
        if hooks is None:
            manager = pluggy.PluginManager(PROJECT)
            manager.add_hookspecs(_GROUPS[group].spec)
            point = _only(group, name)
            plugin = _load(point)
            try:
                manager.register(plugin, name)
            except Exception as error:
                story = " ".join(str(error).split())  # pluggy tells it in three lines
                raise BadRequest(f"{_noun(group)} {name!r} of {_provider(point)}: {story}") from error
            if not any(caller.has_spec() for caller in manager.get_hookcallers(plugin) or ()):
                raise BadRequest(f"{_noun(group)} {name!r}: the plugin implements no hook of {group}")
            hooks = self._hooks[group, name] = manager.hook
        return hooks

    def loaded(self, group: str) -> dict[str, Any]:
        """Give the hooks of the plugins that were loaded so far, by name."""
        return {name: hooks for (within, name), hooks in self._hooks.items() if within == group}

    def installed(self, group: str) -> list[str]:
        """List the names that are installed, in order; nothing is loaded."""
        from importlib.metadata import entry_points  # noqa: PLC0415 - 9 ms, and only what is named is looked up

        return sorted({point.name for point in entry_points(group=group)})


def _only(group: str, name: str) -> EntryPoint:
    from importlib.metadata import entry_points  # noqa: PLC0415 - 9 ms, and only what is named is looked up

    installed = entry_points(group=group)
    found = [point for point in installed if point.name == name]
    noun = _noun(group)
    if not found:
        names = ", ".join(sorted({point.name for point in installed})) or "none"
        raise BadRequest(
            f"{noun} {name!r} is not installed (installed: {names}); try: pip install {_distribution(noun, name)}",
            details={"installed": sorted({point.name for point in installed})},
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
    except (Exception, SystemExit) as error:  # a plugin is foreign code, and its import may fail in any way
        raise BadRequest(
            f"{_noun(point.group)} {point.name!r} of {_provider(point)} fails to import: {one_line(error)}"
        ) from error


def _distribution(noun: str, name: str) -> str:
    return f"amplifier-{noun}-{name if re.fullmatch(r'[A-Za-z0-9._-]+', name) else 'NAME'}"


def _provider(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _noun(group: str) -> str:
    return group.rpartition(".")[2].removesuffix("s")
