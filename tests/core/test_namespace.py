"""Namespaces: a module or an observer is given up exactly when the namespace of no open session contains it."""

import asyncio
from itertools import chain, count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.core.strategies import thorough

from amplifier_core import ModuleDescriptor
from amplifier_core._events.observer import Observer
from amplifier_core._modules.module import Module
from amplifier_core._sessions.namespace import MOUNT_PATHS, Mount, Namespace, ObserverHook, PolicyHook

NAMES = ("a", "b", "c")
PATTERNS = ("*", "module:*", "module:invoke", "session:end")
EVENTS = ("module:invoke", "module:start", "session:end", "my:event")
TOLD = {
    "*": set(EVENTS),
    "module:*": {"module:invoke", "module:start"},
    "module:invoke": {"module:invoke"},
    "session:end": {"session:end"},
}

picks = st.integers(0, 5)

connection: Any = None  # a namespace holds modules and calls none


def a_module(name):
    descriptor = ModuleDescriptor(name=name, kind="tool", transport={"type": "none"}, capabilities=())
    return Module(f"/mnt/tools/{name}", descriptor, connection, None, trusted=False)


async def an_observer():
    async def tell(line):
        raise AssertionError(line)

    return Observer("observer", tell, lambda event, data, error: None, 1)


class Sessions(RuleBasedStateMachine):
    """Sessions with their namespaces, against a simple model: there each session has its own copies of everything.

    In the model an observer is (pattern, observer, priority, path): `path` is its module's, or None.
    """

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()  # observers are tasks; its loop is made when the first of them needs it
        self.numbers = count()
        self.namespaces = {}
        self.mounts = {}
        self.observers = {}
        self.policy = {}
        self.observing = []
        self.create()

    def living(self, pick):
        """Choose one of the open sessions. There is always one."""
        return list(self.namespaces)[pick % len(self.namespaces)]

    def teardown(self):
        for session in list(self.namespaces):
            assert all(thing.holders == 0 for thing in chain.from_iterable(self.discard(session)))
        for observer in self.observing:
            self.runner.run(observer.close())
        self.runner.close()

    def held(self):
        """List the modules and observers of the open sessions, by the model."""
        mounted = {id(module) for mounts in self.mounts.values() for module, _ in mounts.values()}
        return mounted | {id(observer) for hooks in self.observers.values() for _, observer, _, _ in hooks}

    def given_up(self, unheld, before):
        """Check that each object that was held before and is not held any more is given up, once, and no other."""
        things = [id(thing) for thing in chain.from_iterable(unheld)]
        assert len(things) == len(set(things))
        assert set(things) == before - self.held()

    @rule()
    def create(self):
        session = next(self.numbers)
        self.namespaces[session] = Namespace()
        self.mounts[session], self.observers[session], self.policy[session] = {}, [], []

    @rule(pick=picks, children=st.integers(1, 3))
    def fork(self, pick, children):
        parent = self.living(pick)
        for _ in range(children):
            child = next(self.numbers)
            self.namespaces[child] = self.namespaces[parent].share()
            self.mounts[child] = dict(self.mounts[parent])
            self.observers[child] = list(self.observers[parent])
            self.policy[child] = list(self.policy[parent])

    @rule(pick=picks, name=st.sampled_from(NAMES), session_wide=st.booleans())
    def mount(self, pick, name, session_wide):
        session = self.living(pick)
        path = f"/mnt/tools/{name}"
        if path in self.mounts[session]:
            return
        module = a_module(name)
        namespace = self.namespaces[session] = self.namespaces[session].unshared()
        namespace.add(Mount(module, ("env:A",), namespace.policy if session_wide else None))
        self.mounts[session][path] = (module, session_wide)

    @rule(pick=picks, name=st.sampled_from(NAMES))
    def unmount(self, pick, name):
        session = self.living(pick)
        path = f"/mnt/tools/{name}"
        if path not in self.mounts[session]:
            return
        before = self.held()
        namespace = self.namespaces[session] = self.namespaces[session].unshared()
        unheld = namespace.remove(path)
        del self.mounts[session][path]
        self.observers[session] = [hook for hook in self.observers[session] if hook[3] != path]
        self.given_up(unheld, before)

    @rule(pick=picks, pattern=st.sampled_from(PATTERNS), priority=st.integers(-2, 2), name=st.sampled_from(NAMES))
    def observe(self, pick, pattern, priority, name):
        session = self.living(pick)
        path = f"/mnt/tools/{name}"
        observer = self.runner.run(an_observer())
        self.observing.append(observer)
        module = path if path in self.mounts[session] else None
        namespace = self.namespaces[session] = self.namespaces[session].unshared()
        namespace.add_observer(ObserverHook(pattern, observer, priority, module))
        self.observers[session].append((pattern, observer, priority, module))

    @rule(pick=picks, priority=st.integers(-2, 2), may_grant=st.booleans())
    def ask(self, pick, priority, may_grant):
        session = self.living(pick)
        hook = PolicyHook(f"hook {next(self.numbers)}", an_observer, priority, may_grant)
        namespace = self.namespaces[session] = self.namespaces[session].unshared()
        namespace.add_policy(hook)
        self.policy[session].append(hook)
        self.mounts[session] = {path: (module, False) for path, (module, _) in self.mounts[session].items()}

    @rule(pick=picks)
    def end(self, pick):
        before = self.held()
        self.given_up(self.discard(self.living(pick)), before)
        if not self.namespaces:
            self.create()

    def discard(self, session):
        del self.mounts[session], self.observers[session], self.policy[session]
        return self.namespaces.pop(session).release()

    @invariant()
    def every_session_sees_its_own(self):
        for session, namespace in self.namespaces.items():
            seen = {
                path: (mount.module, mount.session_wide is namespace.policy) for path, mount in namespace.mounts.items()
            }
            assert seen == self.mounts[session]
            assert list(seen) == list(self.mounts[session])  # in the order of mounting
            assert list(namespace.policy) == sorted(self.policy[session], key=lambda hook: hook.priority)
            hooks = sorted(self.observers[session], key=lambda hook: hook[2])
            for event in EVENTS:
                told = [observer for pattern, observer, _, _ in hooks if event in TOLD[pattern]]
                assert list(namespace.observers_of(event)) == told

    @invariant()
    def each_visible_object_is_held(self):
        for mounts in self.mounts.values():
            assert all(module.holders > 0 for module, _ in mounts.values())
        for hooks in self.observers.values():
            assert all(observer.holders > 0 for _, observer, _, _ in hooks)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(thorough, max_examples=60, stateful_step_count=30)


def test_mount_paths_are_those_of_the_protocol():
    assert MOUNT_PATHS == (
        "/mnt/providers",
        "/mnt/tools",
        "/mnt/agents",
        "/mnt/hooks",
        "/mnt/orchestrators",
        "/mnt/context",
    )


def test_a_fork_costs_the_same_whatever_is_mounted():
    namespace = Namespace()
    assert namespace.share() is namespace.share() is namespace
    assert namespace.unshared() is not namespace


def test_a_namespace_that_one_session_alone_holds_is_its_own():
    namespace = Namespace()
    assert namespace.unshared() is namespace
    namespace.share()
    copy = namespace.unshared()
    assert copy is not namespace
    assert namespace.unshared() is namespace
    assert copy.unshared() is copy


async def test_a_policy_hook_stays_when_its_module_goes():
    namespace = Namespace()
    module = a_module("a")
    namespace.add(Mount(module, (), session_wide=()))
    hook = PolicyHook(module.path, an_observer, 0, may_grant=True)
    namespace.add_policy(hook)
    assert list(chain.from_iterable(namespace.remove(module.path))) == [module]
    assert namespace.policy == (hook,)


async def test_observers_in_a_module_end_before_it_and_the_others_after_it():
    namespace = Namespace()
    module = a_module("a")
    namespace.add(Mount(module, (), session_wide=()))
    through, other = await an_observer(), await an_observer()
    namespace.add_observer(ObserverHook("*", other, 0, None))
    namespace.add_observer(ObserverHook("*", through, 1, module.path))
    assert list(namespace.share().release()) == []
    assert list(chain.from_iterable(namespace.release())) == [through, module, other]
    await through.close()
    await other.close()


async def test_observers_of_names_beyond_the_cache_are_found():
    namespace = Namespace()
    observer = await an_observer()
    namespace.add_observer(ObserverHook("my:*", observer, 0, None))
    for _ in range(2):
        assert [tuple(namespace.observers_of(f"my:{n}")) for n in range(1000)] == [(observer,)] * 1000
    assert len(namespace._observers_of) < 1000
    await observer.close()


async def test_a_module_and_an_observer_are_given_up_by_the_last_namespace():
    namespace = Namespace()
    module, observer = a_module("a"), await an_observer()
    namespace.add(Mount(module, (), session_wide=()))
    namespace.add_observer(ObserverHook("*", observer, 0, module.path))
    fork = namespace.share().unshared()
    assert list(chain.from_iterable(fork.remove(module.path))) == []
    assert (fork.mounts, fork.observers) == ({}, ())
    assert list(chain.from_iterable(namespace.release())) == [observer, module]
    assert list(chain.from_iterable(fork.release())) == []
    await observer.close()


@pytest.mark.parametrize("first", [0, 1])
async def test_the_last_of_two_sessions_gives_up_the_module(first):
    namespace = Namespace()
    module = a_module("a")
    namespace.add(Mount(module, (), session_wide=()))
    both = [namespace, namespace.share()]
    assert both[first].release() == []
    assert list(chain.from_iterable(both[1 - first].release())) == [module]
