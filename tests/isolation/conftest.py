"""Shared by the tests of the isolation: a host with secrets and services, modules that attack it, ways to run them."""

import contextlib
import ctypes
import json
import os
import platform
import pty
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import attrs
import pytest
from tests.conftest import missing_here

from amplifier_core import Kernel, ModuleDescriptor, Plan, load_descriptor
from amplifier_core.hookspecs import Launch
from amplifier_isolation_bwrap import open_isolation
from amplifier_isolation_bwrap._limits import Limits, nproc_prefix

ATTACKS = Path(__file__).parent / "attacks"
SMALL = {"open_files": 256, "processes": 64, "file_bytes": 8 << 20, "scratch_bytes": 4 << 20}
NOBODY = 65534
TOKEN = "AMPLIFIER_TEST_TOKEN"
DESCRIPTOR = ModuleDescriptor.from_mapping(
    {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "stdio"}}
)


def launch(*command):
    return Launch(command=command, cwd="/", env={"PATH": os.environ["PATH"]})


def confine(isolation, launch, descriptor, granted):
    """Confine one launch, as a kernel does it at the mount and the first start."""
    return isolation.plan(launch, descriptor).confine(launch, granted)


@pytest.fixture(scope="session")
def works():
    """Say why bwrap does not isolate on this host; empty if it does. The trial runs once."""
    return open_isolation({}).trial()


@pytest.fixture
def isolation(works):
    """Return an isolation with small limits, or skip the test if none works here."""
    if works:
        missing_here(works)
    made = open_isolation(SMALL)
    assert made.trial() == ""
    return made


@pytest.fixture
def confined(isolation):
    """Run a command under isolation, as the user who runs the tests, and return its outcome."""

    def run(*command, granted=(), cwd="/", env=None, descriptor=None, check=True, prefix=(), **fields):
        descriptor = descriptor or ModuleDescriptor.from_mapping(
            {"name": "m", "kind": "tool", "capabilities": list(granted), "transport": {"type": "stdio"}, **fields}
        )
        wanted = Launch(command=tuple(map(str, command)), cwd=str(cwd), env=env or {"PATH": os.environ["PATH"]})
        done = start(confine(isolation, wanted, descriptor, descriptor.capabilities), prefix=prefix)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def start(launch, prefix=(), **options):
    """Run a launch to its end."""
    asked = options.pop("input", None)
    stdin = subprocess.DEVNULL if asked is None else subprocess.PIPE
    piped = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with launch.start(args=(*prefix, *launch.command), **piped | options) as process:
        try:
            out, err = process.communicate(asked, timeout=30)
        finally:
            process.kill()
    return subprocess.CompletedProcess(launch.command, process.returncode, out, err)


@pytest.fixture
def as_nobody(isolation, ground):
    """Return the words before a launch that start it as an ordinary user, with an ordinary user's limits."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user; the other tests run as an ordinary user here")
    if shutil.which("setpriv") is None:
        missing_here("setpriv is not installed")
    if not open_to_all(ground.code):
        pytest.skip(f"an ordinary user cannot reach {ground.code}")
    # it is started by root: the limits are set before it becomes another user
    isolation.__dict__["_limits"] = Limits({}, nproc_prefix(SMALL["processes"]), "RLIMIT_NPROC")
    sizes = (f"--nofile={SMALL['open_files']}", f"--fsize={SMALL['file_bytes']}")
    limits = ("prlimit", "--core=1", "--sigpending=1024", "--msgqueue=0", *sizes)
    return (*limits, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "--")


def python_for_all():
    """Return a Python that every user can start."""
    candidates = map(Path, (os.path.realpath(sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"))
    for path in candidates:
        if path.exists() and open_to_all(path):
            return str(path)
    pytest.skip("there is no Python here that an ordinary user can start")


def open_to_all(path):
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Compile an attack in C, once, and return the program."""
    folder = tmp_path_factory.mktemp("compiled")

    def compile_one(name):
        program = folder / name
        if not program.exists():
            if shutil.which("gcc") is None:
                missing_here("gcc is not installed")
            subprocess.run(["gcc", "-O1", "-w", "-o", program, ATTACKS / f"{name}.c"], check=True)
        return program

    return compile_one


@attrs.frozen
class Ground:
    """A host with secrets and services, and the folder of a module's code."""

    code: Path
    open: Path
    sockets: Path
    env: dict

    def descriptor(self, name, command, capabilities):
        """Write the descriptor of a module beside its code, and load it."""
        capabilities = [word.format(open=self.open, sockets=self.sockets) for word in capabilities]
        told = {"name": name, "kind": "tool", "capabilities": capabilities}
        described = json.dumps({**told, "inputs": {}, "outputs": {}})
        transport = {"type": "stdio", "command": command, "env": {**self.env, "DESCRIPTION": described}}
        file = self.code / f"{name}.json"
        file.write_text(json.dumps({**told, "transport": transport}))
        return load_descriptor(file)


@pytest.fixture
def ground(monkeypatch, log):
    """Set up the host and its services while the test runs.

    It is not in pytest's folder: pytest lets no other user in there, and a second run would close the folder again.
    """
    monkeypatch.setenv(TOKEN, "a secret of the kernel's")
    with tempfile.TemporaryDirectory(prefix="ground-") as place:
        os.chmod(place, 0o755)
        yield from prepared(Path(place).resolve(), log)


def prepared(place, log):
    folders = {name: place / name for name in ("code", "secret", "outside", "open", "sockets", "home")}
    for folder in folders.values():
        folder.mkdir()
        folder.chmod(0o777)  # so that nothing but the isolation stops an ordinary user
    (folders["secret"] / "secret.txt").write_text("the secret")
    (folders["home"] / ".bashrc").write_text("private")
    os.mkfifo(folders["sockets"] / "fifo")
    with contextlib.ExitStack() as stack:
        env = {
            "SECRET": str(folders["secret"] / "secret.txt"),
            "OUTSIDE": str(folders["outside"]),
            "OPEN": str(folders["open"]),
            "HOME_OF_HOST": str(folders["home"]),
            "FIFO": str(folders["sockets"] / "fifo"),
            "SOCKET": str(folders["sockets"] / "service"),
            "ABSTRACT": f"amplifier-test-{os.getpid()}",
            "MAILBOX": str(folders["sockets"] / "mailbox"),
            "ABSTRACT_MAILBOX": f"amplifier-test-mailbox-{os.getpid()}",
            "TOKEN_NAME": TOKEN,
            "LOG": str(log),
            "SHM": f"amplifier-test-{os.getpid()}",
            "QUEUE": f"amplifier-test-{os.getpid()}",
            "VICTIM": str(stack.enter_context(victim()).pid),
            "TERMINAL": stack.enter_context(terminal()),
        }
        env["TCP"] = str(stack.enter_context(service(("127.0.0.1", 0)))[1])
        env["UDP"] = str(stack.enter_context(datagrams())[1])
        stack.enter_context(service(env["SOCKET"]))
        os.chmod(env["SOCKET"], 0o777)
        stack.enter_context(service("\0" + env["ABSTRACT"]))
        for address in (env["MAILBOX"], "\0" + env["ABSTRACT_MAILBOX"]):
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(address)
        os.chmod(env["MAILBOX"], 0o777)
        stack.enter_context(shared_memory(env["SHM"]))
        stack.enter_context(message_queue(env["QUEUE"]))
        yield Ground(folders["code"], folders["open"], folders["sockets"], env)


@contextlib.contextmanager
def victim():
    """Run a process for attacks to aim at; its output is a pipe."""
    with subprocess.Popen(["sleep", "600"], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def terminal():
    master, slave = pty.openpty()
    try:
        yield os.ttyname(slave)
    finally:
        os.close(master)
        os.close(slave)


@contextlib.contextmanager
def service(address):
    """Send hello on each connection."""
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()

        def greet():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.sendall(b"hello")

        with threaded(greet, server):
            yield server.getsockname()


@contextlib.contextmanager
def datagrams():
    """Answer each datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer():
            with contextlib.suppress(OSError):
                while address := server.recvfrom(100)[1]:
                    server.sendto(b"hello", address)

        with threaded(answer, server):
            yield server.getsockname()


@contextlib.contextmanager
def threaded(target, server):
    """Run a server's thread, and end it by shutting its socket down."""
    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)  # wakes the thread, also from a datagram socket, where it is an error
        thread.join()


@contextlib.contextmanager
def shared_memory(name):
    file = Path("/dev/shm", name)
    file.write_text("shared")
    try:
        yield
    finally:
        file.unlink()


@contextlib.contextmanager
def message_queue(name):
    librt = ctypes.CDLL("librt.so.1", use_errno=True)
    queue = librt.mq_open(f"/{name}".encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
    try:
        yield
    finally:
        if queue >= 0:
            os.close(queue)
            librt.mq_unlink(f"/{name}".encode())


@pytest.fixture
def attack(ground, compiled):
    """Put the program of an attack into the module's folder, and describe the module."""

    def describe(name, capabilities=(), python=sys.executable):
        for file in ATTACKS.glob("module.*"):
            shutil.copy(file, ground.code)
        if (ATTACKS / f"{name}.c").exists():
            shutil.copy(compiled(name), ground.code)
            command = [f"./{name}"]
        else:
            source = next(ATTACKS.glob(f"{name}.[ps][yh]"))
            shutil.copy(source, ground.code)
            command = [{".py": python, ".sh": "sh"}[source.suffix], str(ground.code / source.name)]
        return ground.descriptor(name.replace("_", "-"), command, capabilities)

    return describe


@pytest.fixture
async def isolated(log, works):
    """Yield a session of a kernel that isolates with small limits and grants each request."""
    if works:
        missing_here(works)
    async with Kernel(event_log=log, isolation={"type": "bwrap", **SMALL}) as kernel:
        session = await kernel.session.create(Plan(goal="attack", inputs={}))
        await session.register_hook("policy:request", allow)
        yield session


async def allow(_):
    return {"decision": "allow", "scope": "session"}


@pytest.fixture
def linux():
    if platform.system() != "Linux":
        pytest.skip("namespaces are Linux's")
