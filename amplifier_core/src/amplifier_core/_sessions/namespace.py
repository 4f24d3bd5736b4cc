"""A session's namespace: its mounts, with what was granted to each, and its hooks.

Owns sharing: a fork shares its parent's namespace until one of them changes something, so a fork costs the same
whatever is mounted, and the last namespace that holds a module or an observer lets it be closed. It runs nothing.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from amplifier_core._protocol.event import matches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from amplifier_core._events.observer import Observer
    from amplifier_core._modules.module import Module

    from .runtime import Closable

    Unheld = Sequence[Sequence[Closable]]  # what nobody holds any more, in the order in which it is to be closed

MOUNT_PATHS = tuple(f"/mnt/{name}" for name in ("providers", "tools", "agents", "hooks", "orchestrators", "context"))
"""Where modules are mounted (protocol, section 8)."""


class Mount(msgspec.Struct, frozen=True):
    """A module in one session: what it may do there, and whether that holds for the session or is asked each time."""

    module: Module
    granted: tuple[str, ...]
    session_wide: bool


class PolicyHook(msgspec.Struct, frozen=True):
    """Somebody who is asked. ``may_grant`` is False if a fork registered it: it can deny, its allow adds nothing."""

    name: str
    ask: Callable[..., Awaitable[Any]]
    priority: int
    may_grant: bool


class ObserverHook(msgspec.Struct, frozen=True):
    """Somebody who is told of the events that a pattern means; ``module`` is the path of its module, if it is one."""

    pattern: str
    observer: Observer
    priority: int
    module: str | None


class Namespace:
    """Mounts by path and hooks in order. Call ``own`` before any change, and change what it returns."""

    __slots__ = ("_observers_of", "mounts", "observers", "policy", "sharers")

    def __init__(self) -> None:
        self.mounts: dict[str, Mount] = {}
        self.policy: tuple[PolicyHook, ...] = ()
        self.observers: tuple[ObserverHook, ...] = ()
        self.sharers = 1
        self._observers_of: dict[str, tuple[Observer, ...]] = {}

    def share(self) -> Namespace:
        """Give the same namespace to one session more."""
        self.sharers += 1
        return self

    def own(self) -> Namespace:
        """Give a namespace that one session alone holds: this one, or a copy that holds the same things."""
        if self.sharers == 1:
            return self
        self.sharers -= 1
        copy = Namespace()
        copy.mounts, copy.policy, copy.observers = dict(self.mounts), self.policy, self.observers
        for mount in copy.mounts.values():
            mount.module.holders += 1
        for hook in copy.observers:
            hook.observer.holders += 1
        return copy

    def release(self) -> Unheld:
        """Let one session go, and give what nobody holds any more."""
        self.sharers -= 1
        if self.sharers:
            return []
        in_modules = [hook.observer for hook in self.observers if hook.module]
        others = [hook.observer for hook in self.observers if not hook.module]
        return _unheld(in_modules, [mount.module for mount in self.mounts.values()], others)

    def add(self, mount: Mount) -> None:
        """Hold a module."""
        mount.module.holders += 1
        self.mounts[mount.module.path] = mount

    def remove(self, path: str) -> Unheld:
        """Let a module and its observers go, and give what nobody holds any more. Its policy hooks stay, and deny."""
        observers = [hook.observer for hook in self.observers if hook.module == path]
        self.observers = tuple(hook for hook in self.observers if hook.module != path)
        self._observers_of = {}
        return _unheld(observers, [self.mounts.pop(path).module])

    def add_policy(self, hook: PolicyHook) -> None:
        """Have a hook asked: lowest priority first, then in the order of registration.

        It is asked about everything from now on: nothing is granted for the session any more.
        """
        for path, mount in self.mounts.items():
            self.mounts[path] = msgspec.structs.replace(mount, session_wide=False)
        self.policy = tuple(sorted((*self.policy, hook), key=lambda hook: hook.priority))

    def add_observer(self, hook: ObserverHook) -> None:
        """Have an observer told."""
        hook.observer.holders += 1
        self.observers = tuple(sorted((*self.observers, hook), key=lambda hook: hook.priority))
        self._observers_of = {}

    def observers_of(self, event: str) -> Sequence[Observer]:
        """List the observers of an event's name. The lists are kept, since names are few."""
        found = self._observers_of.get(event)
        return self._find_observers(event) if found is None else found

    def _find_observers(self, event: str) -> Sequence[Observer]:
        found = tuple(hook.observer for hook in self.observers if matches(hook.pattern, event))
        if len(self._observers_of) < _NAMES_MAX:
            self._observers_of[event] = found
        return found


_NAMES_MAX = 256  # modules make up names of their own


def _unheld(*groups: Sequence[Closable]) -> Unheld:
    for thing in chain.from_iterable(groups):
        thing.holders -= 1
    return [[thing for thing in group if thing.holders == 0] for group in groups]
