"""What the host mounts later, below a folder that a module sees: it stays outside."""

import contextlib
import os
import subprocess

import pytest
from tests.conftest import missing_here
from tests.isolation.conftest import DESCRIPTOR, SMALL, confine, start

from amplifier_core.hookspecs import Launch
from amplifier_isolation_bwrap import _isolation, open_isolation
from amplifier_isolation_bwrap._private_mounts import find_private_prefix, follow_others

pytestmark = pytest.mark.usefixtures("linux")

LOOK = 'echo ready; read -r line; ls -A "$0/stick"; echo x >"$0/stick/written"; grep -c -e " shared:" -e " master:" {}'
LOOK = LOOK.format("/proc/self/mountinfo")


def mount(*words):
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing_here(f"this user cannot mount: {done.stderr.strip()}")


@pytest.fixture
def shared(tmp_path):
    """Mount a folder that passes on what is mounted in it, as / does on most hosts."""
    folder = tmp_path / "shared"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        mount("-t", "tmpfs", "-o", "mode=0777", "amplifier-test", folder)
        stack.callback(subprocess.run, ["umount", "-R", "-l", folder], check=True)
        mount("--make-shared", folder)
        (folder / "stick").mkdir()
        for place in (folder, *folder.parents[: len(folder.parents) - 1]):
            if place.stat().st_uid == os.getuid() and not place.stat().st_mode & 0o001:
                place.chmod(place.stat().st_mode | 0o111)
        (folder / "stick").chmod(0o777)
        yield folder


def seen(isolation, folder, granted, prefix=()):
    """Start a module, mount something below its folder, and return what the module finds there."""
    wanted = Launch(command=("sh", "-c", LOOK, str(folder)), cwd="/", env={"PATH": os.environ["PATH"]})
    confined = confine(isolation, wanted, DESCRIPTOR, granted)
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with confined.start(args=(*prefix, *confined.command), **piped) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            mount("-t", "tmpfs", "-o", "mode=0777", "amplifier-test", folder / "stick")
            (folder / "stick" / "planted").touch()
            return process.communicate("go\n", timeout=20)[0].split()
        finally:
            process.kill()


@pytest.mark.parametrize("action", ["read", "write"])
def test_it_stays_outside(isolation, shared, action):
    assert seen(isolation, shared, [f"fs:{action}:{shared}"]) == ["0"]
    assert not (shared / "stick" / "written").exists()


def test_it_stays_outside_for_an_ordinary_user(isolation, as_nobody, shared):
    assert seen(isolation, shared, [f"fs:read:{shared}"], as_nobody) == ["0"]
    assert not (shared / "stick" / "written").exists()


def test_without_the_program_for_it_the_description_says_that_it_appears_inside(monkeypatch, shared):
    monkeypatch.setattr(_isolation, "find_private_prefix", tuple)
    isolation = open_isolation(SMALL)
    assert isolation.trial() == ""
    assert isolation.describe()["later_mounts"].startswith("appear inside, if the host shares its mounts: ")
    found = seen(isolation, shared, [f"fs:read:{shared}"])
    assert found[0] == "planted"
    assert int(found[1]) > 0


def test_where_mounts_cannot_be_made_private_modules_are_isolated_all_the_same(isolation, monkeypatch):
    monkeypatch.setattr(_isolation, "find_private_prefix", lambda: ("/bin/false",))
    other = open_isolation(SMALL)
    assert other.trial() == ""
    told = other.describe()
    assert told["later_mounts"].startswith("appear inside")
    assert told["scratch_files"].startswith("not limited: ")
    wanted = Launch(command=("sh", "-c", "echo x >/tmp/x && cat /tmp/x; ls /dev/shm"), cwd="/", env={})
    assert start(confine(other, wanted, DESCRIPTOR, ["fs:write:$tmp"])).stdout == "x\n"
    told = isolation.describe()
    assert told["later_mounts"] == "stay outside"
    assert told["scratch_files"] == SMALL["scratch_bytes"] // 4096


def test_the_words_before_bwrap_are_there_where_a_mount_follows_others(isolation, monkeypatch):
    wanted = Launch(command=("true",), cwd="/", env={"PATH": os.environ["PATH"]})
    confinement = isolation.plan(wanted, DESCRIPTOR)
    for follows in (True, False):
        monkeypatch.setattr(_isolation, "follow_others", lambda follows=follows: follows)
        confined = confinement.confine(wanted, ())
        confined.close()
        assert (confined.command[0] == find_private_prefix()[0]) is follows


@pytest.mark.parametrize(
    ("fields", "follows"),
    [
        ("rw,relatime - ext4", False),
        ("rw,relatime shared:1 - ext4", True),
        ("rw,relatime master:1 - ext4", True),
        ("rw,relatime shared:2 master:1 - ext4", True),
        ("rw,relatime unbindable - ext4", False),
    ],
)
def test_a_mount_that_follows_others_is_told_by_its_line(tmp_path, fields, follows):
    table = tmp_path / "mountinfo"
    table.write_bytes(f"27 1 254:0 / /shared:\\0401 {fields} /dev/\xe9 rw\n".encode("latin-1"))
    assert follow_others(table) is follows


def test_without_unshare_there_are_no_words(monkeypatch, tmp_path):
    monkeypatch.setattr("amplifier_isolation_bwrap._private_mounts._PATH", str(tmp_path))
    assert find_private_prefix() == ()
