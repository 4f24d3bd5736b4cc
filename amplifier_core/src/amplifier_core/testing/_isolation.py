"""The check of an isolation: attacks on what it says it confines, and the use of what it grants.

Owns the table of the attacks, and the host on which they are tried. What an attack does is in ``_attacks.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from amplifier_core._modules.confinement import CheckedConfinement
from amplifier_core._modules.host import misfit
from amplifier_core._modules.thread import in_thread
from amplifier_core._protocol.descriptor import load_descriptor
from amplifier_core._protocol.errors import Forbidden, KernelError, Unreachable, one_line, printable
from amplifier_core.hookspecs import Launch

from ._check import Check

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from amplifier_core.hookspecs import Isolation

_SECTION = "6"
_RUN_SECONDS = 10.0  # of one attack
_END_SECONDS = 2.0  # what runs on for so long has been left behind
_TOKEN = "AMPLIFIER_CHECK_TOKEN"  # noqa: S105 - the name of a variable
_PROGRAM = Path(__file__).with_name("_attacks.py")


class _Attack(NamedTuple):
    """``sure``: without an isolation it may fail too, since the kernel starts a module with nothing to find."""

    area: str
    rule: str
    name: str
    args: Mapping[str, str] = MappingProxyType({})
    granted: str = ""
    sure: bool = False


_ATTACKS = (
    _Attack("files", "reads no file that was not granted", "read", {"path": "secret"}),
    _Attack("files", "reads none through a link in a granted folder", "read_by_link", {}, "fs:write:{open}"),
    _Attack("files", "reads none by another name of it", "read_by_hard_link", {}, "fs:write:{open}"),
    _Attack("files", "reads none through another process", "read_by_process"),
    _Attack("files", "writes to none that was not granted", "write", {"path": "outside"}),
    _Attack("files", "writes to none that was granted to be read", "write", {"path": "granted"}, "fs:read:{open}"),
    _Attack("files", "does not change its own code", "write", {"path": "code"}),
    _Attack("network", "reaches no service by TCP", "tcp"),
    _Attack(
        "network", "reaches none by a socket in a granted folder", "unix_socket", {"path": "socket"}, "fs:write:{open}"
    ),
    _Attack("network", "reaches none by a socket that is no file", "unix_socket", {"path": "abstract"}),
    _Attack("environment", "has no variable that was not given to it", "variable", {"name": "token_name"}, sure=True),
    _Attack("environment", "sees no variable of another process", "variable_of_others"),
    _Attack("environment", "has no descriptor that was not given to it", "descriptor", sure=True),
    _Attack("processes", "sees no other process", "see_others"),
    _Attack("processes", "signals no other process", "signal_others"),
    _Attack("processes", "leaves no process behind", "survive"),
    _Attack("processes", "ends when what was started is killed", "outlive", sure=True),
)
_GRANTS = (
    _Attack("files", "reads a file that was granted", "read", {"path": "granted"}, "fs:read:{open}"),
    _Attack("files", "writes to a folder that was granted", "write", {"path": "new"}, "fs:write:{open}"),
    _Attack("files", "writes to its scratch folder, in TMPDIR", "scratch", {}, "fs:write:$tmp"),
    _Attack("network", "reaches a network that was granted", "tcp", {}, "net:connect:*"),
    _Attack("environment", "has the variables of the launch", "variable", {"name": "given_name"}),
)
_LIVES = ("survive", "outlive")


async def check_isolation(isolation: Isolation, *, seconds: float = 120.0) -> list[Check]:
    """Check an isolation: the use of what was granted, then attacks on each part of what it says it ``confines``.

    Each starts a Python of this program's, as a module of its own that has no packages. An attack that fails on this
    host without an isolation too shows nothing, and is left out; so is the use of what the isolation cannot enforce.

    Each rule is one finding, with the ``problem`` of a flaw. Whatever the isolation does, this raises nothing and
    returns within ``seconds``. It is for systems with POSIX's processes. It shows that these attacks fail, and no more:
    an isolation has to promise more.
    """
    with _host() as host:
        async with _services(host) as port:
            probe = _Probe(isolation, host | {"port": port})
            try:
                await asyncio.wait_for(in_thread(probe.run), seconds)
            except TimeoutError:
                probe.add("the check ends", f"it had not ended after {seconds:g} s")
            return list(probe.found)


@contextlib.contextmanager
def _host() -> Iterator[dict[str, Any]]:
    """Set up a secret, folders and another process; give the arguments of the attacks."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="check-"))).resolve()
        code, open_, hidden = (place / name for name in ("code", "open", "hidden"))
        for folder in (code, open_, hidden):
            folder.mkdir()
        (hidden / "secret").write_text("the secret")
        (open_ / "granted").write_text("what was granted")
        (code / "attacks.py").write_bytes(_PROGRAM.read_bytes())
        token = f"amplifier-{place.name}"
        stack.enter_context(_variable(_TOKEN, token))
        command = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()", token]
        victim = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))  # noqa: S603 - a Python
        stack.callback(victim.kill)
        secret = os.open(hidden / "secret", os.O_RDONLY)
        stack.callback(os.close, secret)
        os.set_inheritable(secret, True)  # noqa: FBT003 - its only argument
        yield {
            "folder": str(code), "secret": str(hidden / "secret"), "outside": str(hidden / "planted"),
            "open": str(open_), "granted": str(open_ / "granted"), "new": str(open_ / "new"), "mark": str(place),
            "code": str(code / "attacks.py"), "socket": str(open_ / "service"), "abstract": f"@{token}",
            "token_name": _TOKEN, "given_name": f"{_TOKEN}_GIVEN", "token": token, "victim": victim.pid,
        }  # fmt: skip


@contextlib.asynccontextmanager
async def _services(host: Mapping[str, Any]) -> AsyncIterator[int]:
    """Greet on a port, on a socket that is a file and on one that is none; give the port."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(await asyncio.start_server(_greet, "127.0.0.1", 0))
        await stack.enter_async_context(await asyncio.start_unix_server(_greet, host["socket"]))
        if sys.platform == "linux":  # pragma: no branch - elsewhere each socket is a file
            await stack.enter_async_context(
                await asyncio.start_unix_server(_greet, host["abstract"].replace("@", "\0"))
            )
        yield server.sockets[0].getsockname()[1]


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    writer.close()


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


class _Probe:
    """One isolation on that host. It runs in a thread: its processes are waited for."""

    def __init__(self, isolation: Isolation, ground: dict[str, Any]) -> None:
        self._isolation = isolation
        self._ground = ground
        self.found: list[Check] = []

    def add(self, rule: str, problem: str) -> bool:
        """Add a finding, and tell whether it is a flaw."""
        self.found.append(Check(rule, _SECTION, printable(problem)))
        return bool(problem)

    def run(self) -> None:
        """Look at one rule after the other. Without a module that starts, there is nothing to attack."""
        try:
            if not any(self.add(rule, look()) for rule, look in self._basics()):
                for use in _GRANTS:
                    self._use(use)
                for attack in _ATTACKS:
                    self._attack(attack)
        except Exception as error:  # noqa: BLE001 - foreign code
            self.add("it raises nothing but errors of the kernel", f"it raised {one_line(error)}")

    def _basics(self) -> Iterator[tuple[str, Callable[[], str]]]:
        yield "it says what it confines", lambda: misfit(self._isolation.confines)
        yield "its trial passes", self._isolation.trial
        yield "plan and confine leave no descriptor open", self._leak
        yield "a module starts, and answers", partial(self._fails, _Attack("", "", "read", {"path": "code"}))

    def _use(self, use: _Attack) -> None:
        if use.area in self._isolation.confines and not self._isolation.unenforced(self._words(use)):
            self.add(f"{use.area}: a module {use.rule}", self._fails(use))

    def _fails(self, use: _Attack) -> str:
        """Say why a module cannot do what it has to be able to do."""
        try:
            got, why = self._try(use)
        except KernelError as error:
            why, got = error.message, False
        return "" if got else f"it did not: {why}"

    def _attack(self, attack: _Attack) -> None:
        if attack.area not in self._isolation.confines or not (attack.sure or self._try(attack, confined=False)[0]):
            return
        problem = ""
        try:
            got, why = self._try(attack)
            problem = f"it did not hold: {why}" if got else ""
        except (Forbidden, Unreachable):  # it refuses what it does not confine
            pass
        except KernelError as error:
            problem = error.message
        self.add(f"{attack.area}: a module {attack.rule}", problem)

    def _try(self, attack: _Attack, *, confined: bool = True) -> tuple[bool, str]:
        """Run an attack, and give whether it succeeded, and what it got or why not."""
        args = {name: self._ground[of] for name, of in attack.args.items()}
        asked = json.dumps({"attack": attack.name, **self._ground, **args})
        command = (sys.executable, "-I", "-S", self._ground["code"], asked)
        env = {"PATH": os.environ.get("PATH", ""), self._ground["given_name"]: "given"}
        launch = Launch(command=command, cwd=self._ground["folder"], env=env)
        return _run(self._confine(launch, self._words(attack)) if confined else launch, attack.name)

    def _confine(self, launch: Launch, words: Sequence[str]) -> Launch:
        file = Path(self._ground["folder"], "m.json")
        told = {"name": "m", "kind": "tool", "capabilities": words, "transport": {"type": "stdio", "command": ["x"]}}
        file.write_text(json.dumps(told))
        try:
            planned = self._isolation.plan(launch, load_descriptor(file))
        except Exception as error:
            raise KernelError.from_exception(error, "plan") from error
        return CheckedConfinement(self._isolation.name, planned).confine(launch, words)

    def _words(self, attack: _Attack) -> list[str]:
        return [attack.granted.format(**self._ground)] if attack.granted else []

    def _leak(self) -> str:
        launch = Launch(command=(sys.executable, "-V"), cwd=self._ground["folder"], env={})
        before = _descriptors()
        self._confine(launch, ()).close()
        return "" if (left := _descriptors() - before) <= 0 else f"{left} are open once the launch is closed"


def _descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def _run(launch: Launch, name: str) -> tuple[bool, str]:
    """Start an attack and wait for its end. Two of them succeed if something does not end."""
    piped = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with launch.start(**piped) as process:
        try:
            if name in _LIVES:
                _end(process, name)
                return False, "it ended"
            said = process.communicate(timeout=_RUN_SECONDS)[0]
        except subprocess.TimeoutExpired:
            lives = name in _LIVES
            return lives, f"it ran on for {_END_SECONDS:g} s" if lives else f"no end within {_RUN_SECONDS:g} s"
        finally:
            process.kill()
    last = (said.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    return last.startswith('{"got": '), last


def _end(process: subprocess.Popen[str], name: str) -> None:
    """Let the process end, or kill it. Whatever it has started has its stdout, so that ends with the last of them."""
    if name == "outlive":
        process.stdout.readline()  # type: ignore[union-attr]  # it is piped
        process.kill()
    process.wait(_RUN_SECONDS)
    process.communicate(timeout=_END_SECONDS)
