"""The check of isolations: bubblewrap passes, and each flaw is found. What confines nothing shows every attack."""

import asyncio
import json
import os
import sys
import threading
from types import MappingProxyType

import pytest
from msgspec.structs import replace

from amplifier_core import Forbidden, Unreachable
from amplifier_core.hookspecs import AREAS, Confinement, Isolation
from amplifier_core.testing import _attacks, _isolation, check_isolation

pytestmark = [pytest.mark.usefixtures("linux"), pytest.mark.newest]


class Plain(Isolation):
    """Confines nothing, whatever it says."""

    name = "plain"
    confines: tuple = ()
    unable: tuple = ()

    def trial(self):
        return ""

    def unenforced(self, capabilities):
        return tuple(word for word in capabilities if word.startswith(self.unable))

    def plan(self, launch, descriptor):
        return Confined(self)

    def confine(self, launch, granted):
        return launch


class Confined(Confinement):
    shown = MappingProxyType({})

    def __init__(self, isolation):
        self._isolation = isolation

    def confine(self, launch, granted):
        return self._isolation.confine(launch, granted)


async def check(isolation, **options):
    """Give the names of all rules that were looked at, and the problems."""
    found = await check_isolation(isolation, **options)
    assert {each.section for each in found} == {"6"}
    assert not any("\n" in each.problem for each in found)
    return [each.name for each in found], {each.name: each.problem for each in found if each.problem}


async def test_bubblewrap_passes(isolation):
    names, problems = await check(isolation)
    assert problems == {}
    attacks = [f"{attack.area}: a module {attack.rule}" for attack in (*_isolation._GRANTS, *_isolation._ATTACKS)]
    assert names[4:] == attacks
    assert len(attacks) == len(set(attacks)) == 22


async def test_one_that_says_that_it_confines_nothing_is_honest():
    names, problems = await check(Plain())
    assert problems == {}
    assert len(names) == 4


SURE = {attack.rule for attack in _isolation._ATTACKS if attack.sure}


@pytest.mark.parametrize("area", AREAS)
async def test_a_claim_that_is_not_kept_is_found_by_each_attack(area):
    isolation = Plain()
    isolation.confines = (area,)
    isolation.unable = ("fs:write:$tmp",)
    names, problems = await check(isolation)
    rules = [f"{area}: a module {attack.rule}" for attack in _isolation._ATTACKS if attack.area == area]
    assert len(rules) >= 3
    assert {rule for rule in rules if rule in names} == set(rules)
    expected = {rule for rule in rules if rule.removeprefix(f"{area}: a module ") not in SURE}
    assert set(problems) == expected
    assert all(problem.startswith("it did not hold: ") for problem in problems.values())


class Inherits(Plain):
    confines = ("environment",)

    def confine(self, launch, granted):
        return replace(launch, env=dict(os.environ))


class Lends(Plain):
    confines = ("environment",)

    def confine(self, launch, granted):
        return replace(launch, fds=(os.open(launch.cwd, os.O_RDONLY),))


class Wraps(Plain):
    """What it starts starts the program, and does not end it."""

    confines = ("processes",)

    def confine(self, launch, granted):
        code = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
        return replace(launch, command=(sys.executable, "-I", "-S", "-c", code, *launch.command))


@pytest.mark.parametrize(
    ("isolation", "rule", "said"),
    [
        (Inherits(), "environment: a module has no variable that was not given to it", "it did not hold: "),
        (Inherits(), "environment: a module has the variables of the launch", "it did not: KeyError: "),
        (Lends(), "environment: a module has no descriptor that was not given to it", "it did not hold: "),
        (Wraps(), "processes: a module ends when what was started is killed", "it did not hold: it ran on for 2 s"),
    ],
)
async def test_what_only_an_isolation_can_do_wrong_is_found(isolation, rule, said):
    assert (await check(isolation))[1][rule].startswith(said)


def flawed(**members):
    return type("Flawed", (Plain,), {"confines": AREAS, **members})()


def raises(*_):
    raise OSError("no pipe")


def leaks(isolation, launch, granted):
    os.open("/dev/null", os.O_RDONLY)
    return launch


@pytest.mark.parametrize(
    ("isolation", "rule", "said"),
    [
        (flawed(confines="files"), "it says what it confines", "confines: expected some of files, network,"),
        (flawed(confines=("disks",)), "it says what it confines", "confines: expected some of files, network,"),
        (flawed(trial=lambda _: "bwrap is not here"), "its trial passes", "bwrap is not here"),
        (flawed(trial=raises), "it raises nothing but errors of the kernel", "it raised OSError: no pipe"),
        (
            flawed(plan=raises),
            "it raises nothing but errors of the kernel",
            "it raised Internal: internal: plan raised",
        ),
        (flawed(plan=lambda *_: None), "it raises nothing but errors of the kernel", "it raised AttributeError"),
        (flawed(confine=lambda *_: None), "it raises nothing but errors of the kernel", "confine gave NoneType"),
        (
            flawed(confine=lambda _, launch, granted: replace(launch, command=("/no/such/program",))),
            "it raises nothing but errors of the kernel",
            "it raised FileNotFoundError",
        ),
        (
            flawed(confine=lambda _, launch, granted: replace(launch, command=("/bin/false",))),
            "a module starts, and answers",
            "it did not: exit code 1",
        ),
    ],
)
async def test_one_that_does_not_work_at_all_is_told_and_not_attacked(isolation, rule, said):
    names, problems = await check(isolation)
    assert said in problems[rule]
    assert len(problems) == 1
    assert not any(": a module " in name for name in names)


async def test_descriptors_that_are_left_open_are_found():
    opened = {int(name) for name in os.listdir("/proc/self/fd")}
    assert (await check(flawed(confine=leaks)))[1] == {
        "plan and confine leave no descriptor open": "1 are open once the launch is closed"
    }
    for fd in {int(name) for name in os.listdir("/proc/self/fd")} - opened:
        if os.path.exists(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}") == "/dev/null":
            os.close(fd)


class Refuses(Plain):
    """Refuses whatever is not sure, as it may; and what it grants as well."""

    confines = ("network",)
    error: Exception = Forbidden("no network")

    def confine(self, launch, granted):
        if '"attack": "tcp"' in launch.command[-1]:
            raise self.error
        return launch


async def test_an_attack_may_be_refused_and_what_was_granted_may_not():
    isolation = Refuses()
    _, problems = await check(isolation)
    assert problems.pop("network: a module reaches a network that was granted") == "it did not: no network"
    assert "network: a module reaches no service by TCP" not in problems
    isolation.error = Unreachable("no network")
    assert "network: a module reaches no service by TCP" not in (await check(isolation))[1]
    isolation.error = OSError("no pipe")
    told = (await check(isolation))[1]["network: a module reaches no service by TCP"]
    assert told == "isolation 'plain' raised OSError: no pipe"


async def test_one_that_hangs_is_left_in_bounded_time():
    free = threading.Event()
    before = set(threading.enumerate())
    _, problems = await check(flawed(trial=lambda _: free.wait(60) and "freed"), seconds=0.3)
    assert problems == {"the check ends": "it had not ended after 0.3 s"}
    free.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()


async def test_an_attack_that_takes_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(_isolation, "_RUN_SECONDS", 0.5)
    sleeps = (sys.executable, "-c", "import time; time.sleep(60)")
    _, problems = await check(flawed(confine=lambda _, launch, granted: replace(launch, command=sleeps)))
    assert problems == {"a module starts, and answers": "it did not: no end within 0.5 s"}


async def test_each_attack_does_what_it_says(monkeypatch, capsys):
    """They run in processes of their own as a rule, which are not measured."""
    monkeypatch.setattr(_attacks, "_LIFE_SECONDS", 0)
    got = {}
    with _isolation._host() as host:
        monkeypatch.setenv("TMPDIR", host["open"])
        monkeypatch.setenv(host["given_name"], "given")
        async with _isolation._services(host) as port:
            for attack in (*_isolation._ATTACKS, *_isolation._GRANTS):
                args = {name: host[of] for name, of in attack.args.items()}
                asked = {**host, "port": port, **args, "attack": attack.name}
                thread = threading.Thread(target=_attacks.run, args=(asked,))
                thread.start()
                while thread.is_alive():
                    await asyncio.sleep(0.01)
                got[attack.rule] = json.loads(capsys.readouterr().out.splitlines()[-1])["got"]
        os.wait()
    assert got["reads no file that was not granted"] == "the secret"
    assert got["reaches no service by TCP"] == "hello"
    assert got["has the variables of the launch"] == "given"
    assert len(got) == 22


def test_an_attack_that_finds_nothing_got_nothing(tmp_path):
    with pytest.raises(OSError, match="it is another one"):
        _attacks.see_others(os.getpid(), "of no process's command line")
    with pytest.raises(StopIteration):
        _attacks.read_by_process(str(tmp_path / "not there"))
