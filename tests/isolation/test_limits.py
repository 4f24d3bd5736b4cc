"""The limits of processes, and the cgroups for uid 0, which RLIMIT_NPROC does not bind."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.isolation.conftest import DESCRIPTOR, SMALL, confine, launch, start

from amplifier_core import Kernel, Plan, Unreachable
from amplifier_isolation_bwrap import _limits, open_isolation
from amplifier_isolation_bwrap._cgroup import Cgroups, _remove_all, _remove_ended
from amplifier_isolation_bwrap._limits import find_limits, nproc_prefix, why_not_counted
from amplifier_isolation_bwrap._options import Options

pytestmark = pytest.mark.usefixtures("linux")


def test_each_process_has_its_limits(confined):
    told = confined("prlimit", "--raw", "--noheadings", "--output=RESOURCE,SOFT,HARD").stdout
    limits = {name: (soft, hard) for name, soft, hard in map(str.split, told.splitlines())}
    assert limits["NOFILE"] == (str(SMALL["open_files"]),) * 2
    assert limits["FSIZE"] == (str(SMALL["file_bytes"]),) * 2
    assert limits["CORE"] == ("1", "1")  # with 0, Linux still starts the program that takes dumps
    assert limits["MEMLOCK"] == (str(8 << 20),) * 2
    assert limits["SIGPENDING"] == ("1024", "1024")
    assert limits["MSGQUEUE"] == limits["NICE"] == limits["RTPRIO"] == ("0", "0")


LOWER = """
import resource
from amplifier_isolation_bwrap._limits import find_limits
from amplifier_isolation_bwrap._options import Options
resource.setrlimit(resource.RLIMIT_SIGPENDING, (500, 500))
limits = find_limits(Options(open_files=1 << 30)).rlimits
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
print(limits[resource.RLIMIT_SIGPENDING], limits[resource.RLIMIT_NOFILE] <= most)
"""


def test_a_limit_that_the_kernel_has_itself_is_not_raised():
    done = subprocess.run([sys.executable, "-c", LOWER], capture_output=True, text=True, check=True)
    assert done.stdout == "500 True\n"


def test_an_ordinary_user_is_counted_by_namespace(isolation, as_nobody):
    confined = confine(
        isolation, launch("prlimit", "--raw", "--noheadings", "--nproc", "--output=SOFT"), DESCRIPTOR, ()
    )
    assert start(confined, prefix=as_nobody).stdout == f"{SMALL['processes']}\n"


@pytest.mark.parametrize(
    ("release", "uid", "reason"),
    [
        ("6.1.0-13-amd64", 1000, ""),
        ("5.14", 1000, ""),
        ("5.10.0", 1000, "before Linux 5.14, RLIMIT_NPROC counts the user's other processes too"),
        ("6.1.0", 0, "RLIMIT_NPROC does not bind uid 0"),
    ],
)
def test_when_the_limit_of_processes_holds(release, uid, reason):
    assert why_not_counted(release, uid) == reason


@pytest.mark.parametrize(
    ("why", "options", "said"),
    [
        ("", {}, "at most 512: RLIMIT_NPROC"),
        ("it would not", {}, "not limited: it would not, and no cgroup is given"),
        ("it would not", {"cgroup": "."}, "at most 512: a cgroup"),
    ],
)
def test_the_limit_of_processes_is_described(monkeypatch, folder_of_cgroups, why, options, said):
    monkeypatch.setattr(_limits, "why_not_counted", lambda *_: why)
    monkeypatch.chdir(folder_of_cgroups)
    limits = find_limits(Options(**options))
    assert limits.processes == said
    assert any("--nproc" in word for word in limits.command_prefix) == said.endswith("NPROC")
    assert bool(limits.bwrap_prefix()) == said.endswith("cgroup")


@pytest.fixture
def cgroup():
    """Return a folder of this host in which cgroups with the pids controller can be made."""
    for place in map(Path, ("/sys/fs/cgroup/pids", "/sys/fs/cgroup")):
        controllers = place / "cgroup.subtree_control"
        if os.access(place, os.W_OK) and (not controllers.exists() or "pids" in controllers.read_text()):
            return str(place)
    pytest.skip("this host does not let us make cgroups with the pids controller")


async def test_a_cgroup_limits_root_too(cgroup, attack, log):
    async with Kernel(event_log=log, isolation={"type": "bwrap", **SMALL, "cgroup": cgroup}) as kernel:
        session = await kernel.session.create(Plan(goal="attack"))
        await session.mount("/mnt/tools", attack("processes"))
        result = await session.invoke("/mnt/tools/processes", "try", {}, timeout=20)
        assert "Resource temporarily unavailable" in result["stopped"]
        assert await session.invoke("/mnt/tools/processes", "try", {}, timeout=20) == result
    async with asyncio.timeout(20):  # the last processes may still be ending
        while _remove_ended(Path(cgroup), f"amplifier-{os.getpid()}-", 0.0):
            await asyncio.sleep(0.01)


def test_without_the_program_that_sets_limits_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(_limits, "_PATH", str(tmp_path))
    with pytest.raises(Unreachable, match="prlimit is not installed; try: apt install util-linux"):
        nproc_prefix(1)


@pytest.fixture
def folder_of_cgroups(tmp_path, monkeypatch):
    """Make a folder that behaves like one of cgroups: it can be removed although it has files."""
    folder = tmp_path / "cgroups"
    folder.mkdir()

    def rmdir(path):
        (path / "pids.max").unlink(missing_ok=True)
        os.rmdir(path)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    return folder


def test_a_folder_that_takes_no_cgroups_is_refused(tmp_path):
    reason = open_isolation({"cgroup": str(tmp_path / "none")}).trial()
    assert reason == f"isolation bwrap: cgroup: {tmp_path}/none: No such file or directory"


def test_a_folder_without_the_controller_is_left_as_it_was(folder_of_cgroups, monkeypatch):
    def write_text(*_):
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", write_text)
        with pytest.raises(PermissionError):
            Cgroups(folder_of_cgroups, 5)
    assert list(folder_of_cgroups.iterdir()) == []


def test_a_launch_joins_a_cgroup_that_holds_so_many(folder_of_cgroups):
    cgroups = Cgroups(folder_of_cgroups, 5)
    *command, file = cgroups.join_prefix()
    assert command == ["/bin/sh", "-c", 'echo 0 >"$0" && exec "$@"']
    assert Path(file).parent.parent == folder_of_cgroups
    assert (Path(file).parent / "pids.max").read_text() == "8"
    folder_of_cgroups.chmod(0o755)
    shutil.rmtree(folder_of_cgroups)
    with pytest.raises(Unreachable, match="no cgroup can be made"):
        cgroups.join_prefix()


def test_ended_cgroups_are_removed_and_others_stay(tmp_path):
    for name in ("amplifier-1-0", "amplifier-2-0", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "amplifier-2-0" / "running").touch()
    assert not _remove_ended(tmp_path, "amplifier-", 60.0)  # they are new, and a process may still join
    assert _remove_ended(tmp_path, "amplifier-", 0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["amplifier-2-0", "other"]
    assert not _remove_ended(tmp_path / "none", "amplifier-", 0.0)


def test_the_last_processes_are_waited_for_a_short_time(tmp_path, monkeypatch):
    (tmp_path / "amplifier-1-0").mkdir()
    (tmp_path / "amplifier-1-0" / "dying").touch()
    looks = []

    def sleep(_):
        looks.append(1)
        if len(looks) == 3:
            (tmp_path / "amplifier-1-0" / "dying").unlink()

    monkeypatch.setattr("amplifier_isolation_bwrap._cgroup.time.sleep", sleep)
    _remove_all(tmp_path, "amplifier-1-")
    assert len(looks) == 3
    (tmp_path / "amplifier-1-0").mkdir()
    (tmp_path / "amplifier-1-0" / "living").touch()
    _remove_all(tmp_path, "amplifier-1-")
    assert len(looks) == 3 + 20
