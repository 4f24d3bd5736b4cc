"""What SECURITY.md says that isolation does not stop: if one of these fails, the page can promise more."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from tests.isolation.conftest import DESCRIPTOR, confine
from tests.isolation.test_later_mounts import mount, shared

from amplifier_core.hookspecs import Launch

pytestmark = pytest.mark.usefixtures("linux")
__all__ = ["shared"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "granted").mkdir()
    return tmp_path / "granted"


@pytest.fixture
def talking(isolation):
    """Start a module that answers a line when the test has done something outside."""
    started = []

    def start(*command, granted=()):
        wanted = Launch(command=tuple(map(str, command)), cwd="/", env={"PATH": os.environ["PATH"]})
        process = confine(isolation, wanted, DESCRIPTOR, granted).start(stdin=-1, stdout=-1, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def python(code, *words):
    return (sys.executable, "-c", code, *words)


def test_with_the_network_come_the_hosts_addresses(confined):
    table = Path("/proc/net/dev")
    inside = confined("cat", table, granted=["net:connect:*"]).stdout
    assert devices(inside) == devices(table.read_text("ascii"))


def devices(table):
    return {line.split(":")[0].strip() for line in table.splitlines()}


def test_a_reader_of_a_folder_writes_to_a_pipe_in_it(confined, folder):
    os.mkfifo(folder / "pipe")
    reading = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        confined("sh", "-c", f"echo hello >{folder}/pipe", granted=[f"fs:read:{folder}"])
        assert os.read(reading, 100) == b"hello\n"
    finally:
        os.close(reading)


def test_a_reader_reads_a_file_elsewhere_that_has_a_link_here(confined, folder):
    (folder.parent / "elsewhere").write_text("elsewhere")
    os.link(folder.parent / "elsewhere", folder / "link")
    assert confined("cat", folder / "link", granted=[f"fs:read:{folder}"]).stdout == "elsewhere"


LOCK = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('ready', flush=True); input()"


def test_a_reader_locks_a_file(talking, folder):
    fcntl = pytest.importorskip("fcntl")  # Windows has none
    (folder / "file").touch()
    talking(*python(LOCK, folder / "file"), granted=[f"fs:read:{folder}"])
    with (folder / "file").open("w") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_file_system_that_was_there_at_the_start_stays(talking, shared):
    mount("-t", "tmpfs", "amplifier-test", shared / "stick")
    (shared / "stick" / "file").write_text("still there")
    module = talking("sh", "-c", f"echo ready; read x; cat {shared}/stick/file", granted=[f"fs:read:{shared}"])
    subprocess.run(["umount", "-l", shared / "stick"], check=True)
    assert module.communicate("go\n", timeout=20)[0] == "still there"


PIPES = "import os; held = [os.pipe() for _ in range(64)]; print(sum(os.write(to, bytes(65536)) for _, to in held))"


def test_pipes_hold_memory_that_no_process_has(confined):
    assert int(confined(*python(PIPES)).stdout) >= 64 * 4096


def test_facts_about_the_machine_are_visible(confined, folder):
    told = confined("sh", "-c", "uname -r; cat /proc/self/mountinfo /proc/uptime", granted=[f"fs:read:{folder}"]).stdout
    assert told.splitlines()[0] == os.uname().release
    assert str(folder) in told


WATCH = """
import ctypes, os
libc = ctypes.CDLL(None)
watching = libc.inotify_init()
assert libc.inotify_add_watch(watching, b"/usr/bin/env", 0x20) > 0  # IN_OPEN
print("ready", flush=True)
os.read(watching, 1000)
print("opened", flush=True)
"""


def test_a_module_notices_when_others_open_a_file_that_it_can_see(talking):
    module = talking(*python(WATCH))
    subprocess.run(["/usr/bin/env", "true"], check=True)
    assert select.select([module.stdout], [], [], 20)[0]
    assert module.stdout.readline() == "opened\n"
