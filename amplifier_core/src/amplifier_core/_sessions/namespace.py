"""A session's namespace: its mounts with their grants, and its hooks.

Owns copy on write: a fork shares its parent's namespace until one of the two changes it, so the cost of a fork does not
depend on what is mounted. Counts for each module and observer the namespaces that hold it, and names those that no
namespace holds any more. It starts, calls and closes nothing.
"""

from __future__ import annotations

import bisect
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import msgspec

from amplifier_core._protocol.event import matches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from amplifier_core._events.observer import Observer
    from amplifier_core._modules.module import Module

    from .runtime import Closable

    Unheld = Sequence[Sequence[Closable]]  # what no namespace holds any more, in closing order

MountPath = Literal["/mnt/providers", "/mnt/tools", "/mnt/agents", "/mnt/hooks", "/mnt/orchestrators", "/mnt/context"]
MountPath.__doc__ = "Where modules are mounted (protocol, section 8)."

MOUNT_PATHS: tuple[str, ...] = get_args(MountPath)


class Mount(msgspec.Struct, frozen=True):
    """A module in one session: its grants there, and how long they hold.

    ``session_wide`` has the policy hooks whose decision lasts as long as the session has these and no other ones.
    ``None``: policy is asked each time.
    """

    module: Module
    granted: tuple[str, ...]
    session_wide: tuple[PolicyHook, ...] | None


class PolicyHook(msgspec.Struct, frozen=True, eq=False):
    """A policy hook, and the ``module`` that answers for it. It is compared by identity: each is asked for itself.

    ``may_grant`` is false if a fork or a module (``maker``) registered it: its allow adds nothing. ``unmounted`` is
    true in the session that unmounted its module: there it denies, although the module may go on elsewhere.
    """

    name: str
    ask: Callable[..., Awaitable[Any]]
    priority: int
    may_grant: bool
    module: Module | None = None
    maker: Module | None = None
    unmounted: bool = False


class ObserverHook(msgspec.Struct, frozen=True):
    """An observer of the events that match a pattern. ``module`` is the path, if the observer is a module."""

    pattern: str
    observer: Observer
    priority: int
    module: str | None
    maker: Module | None = None


_Hook = TypeVar("_Hook", PolicyHook, ObserverHook)


class Namespace:
    """Mounts by path, and hooks in order. Only a namespace that ``unshared`` returned may be changed."""

    __slots__ = ("_observers_of", "mounts", "observers", "policy", "sharers")

    def __init__(self) -> None:
        self.mounts: dict[str, Mount] = {}
        self.policy: tuple[PolicyHook, ...] = ()
        self.observers: tuple[ObserverHook, ...] = ()
        self.sharers: int = 1
        self._observers_of: dict[str, tuple[Observer, ...]] = {}

    def share(self) -> Namespace:
        """Count one more session that uses this namespace, and return it."""
        self.sharers += 1
        return self

    def unshared(self) -> Namespace:
        """Give a namespace that one session alone uses: this one, or a copy of it."""
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
        """End the use by one session. Give what no namespace holds any more."""
        self.sharers -= 1
        if self.sharers:
            return []
        in_modules = [hook.observer for hook in self.observers if hook.module]
        callables = [hook.observer for hook in self.observers if not hook.module]
        return _unheld(in_modules, [mount.module for mount in self.mounts.values()], callables)

    def add(self, mount: Mount) -> None:
        """Add a mount at its module's path."""
        mount.module.holders += 1
        self.mounts[mount.module.path] = mount

    def remove(self, path: str) -> Unheld:
        """Remove a module and its observers; give what no namespace holds any more. Its policy hooks stay, and deny.

        They become other hooks, so that they deny as well what they allowed a moment ago and what still goes on.
        """
        observers = [hook.observer for hook in self.observers if hook.module == path]
        self.observers = tuple(hook for hook in self.observers if hook.module != path)
        self._observers_of = {}
        module = self.mounts.pop(path).module
        if any(hook.module is module for hook in self.policy):
            self.policy = tuple(_unmounted(hook) if hook.module is module else hook for hook in self.policy)
        return _unheld(observers, [module])

    def add_policy(self, hook: PolicyHook) -> None:
        """Add a policy hook, behind those of the same or a lower priority.

        No earlier grant holds for the session any more: the hook is asked about everything from now on.
        """
        self.policy = _inserted(self.policy, hook)

    def add_observer(self, hook: ObserverHook) -> None:
        """Add an observer, behind those of the same or a lower priority."""
        hook.observer.holders += 1
        self.observers = _inserted(self.observers, hook)
        self._observers_of = {}

    def made_by_modules(self) -> Iterator[PolicyHook | ObserverHook]:
        """Give each hook that a module registered."""
        hooks: Iterator[PolicyHook | ObserverHook] = chain(self.policy, self.observers)
        return (hook for hook in hooks if hook.maker is not None)

    def observers_of(self, event: str) -> Sequence[Observer]:
        """List the observers of an event's name, in order. The lists are cached, since most names are the kernel's."""
        found = self._observers_of.get(event)
        return self._find_observers(event) if found is None else found

    def _find_observers(self, event: str) -> Sequence[Observer]:
        found = tuple(hook.observer for hook in self.observers if matches(hook.pattern, event))
        if len(self._observers_of) < _NAMES_MAX:
            self._observers_of[event] = found
        return found


def together(own: tuple[PolicyHook, ...], above: tuple[PolicyHook, ...]) -> tuple[PolicyHook, ...]:
    """Put the policy hooks of two sessions together, by their priorities. If one tuple has all of them, it is that."""
    known = set(map(id, above))
    more = [hook for hook in own if id(hook) not in known]
    if not more:
        return above
    if known.issubset(map(id, own)):
        return own
    return tuple(sorted([*above, *more], key=lambda hook: hook.priority))


_NAMES_MAX = 256  # names in the cache: modules may emit any number of names


def _unmounted(hook: PolicyHook) -> PolicyHook:
    return msgspec.structs.replace(hook, unmounted=True)


def _inserted(hooks: tuple[_Hook, ...], hook: _Hook) -> tuple[_Hook, ...]:
    inserted = list(hooks)
    bisect.insort(inserted, hook, key=lambda other: other.priority)
    return tuple(inserted)


def _unheld(*groups: Sequence[Closable]) -> Unheld:
    for each in chain.from_iterable(groups):
        each.holders -= 1
    return [[each for each in group if each.holders == 0] for group in groups]
