"""Attacks of a hostile module: each one succeeds without isolation, and fails under bubblewrap.

The first half proves that the attack works: without it, a mistake in an attack would look like a defence.
"""

import json
import os
import platform

import attrs
import pytest
from tests.isolation.conftest import ATTACKS, confine, python_for_all, start

from amplifier_core import KernelError
from amplifier_transport_stdio._fields import read_fields

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="namespaces are Linux's")


@attrs.frozen
class Attack:
    """``root``: without isolation, only root succeeds. ``host``: the setting by which some hosts forbid it."""

    name: str
    capabilities: tuple = ()
    root: bool = False
    host: str = ""

    @property
    def label(self):
        return "-".join([self.name, *(word.split("{")[0].strip(":") for word in self.capabilities)])


OPEN, NET, SCRATCH, SOCKETS = ("fs:write:{open}",), ("net:connect:*",), ("fs:write:$tmp",), ("fs:write:{sockets}",)
TABLE = [
    # files
    Attack("read_secret"),
    Attack("read_secret", OPEN),
    Attack("write_outside"),
    Attack("write_outside", SCRATCH),
    Attack("symlink", OPEN),
    Attack("hardlink", OPEN),
    Attack("dotdot", OPEN),
    Attack("rename_out", OPEN),
    Attack("proc_root"),
    Attack("file_handle", root=True),
    Attack("chroot_escape", root=True),
    Attack("remount", root=True),
    Attack("device_node", OPEN, root=True),
    Attack("disk", root=True, host="a disk that is a device"),
    Attack("set_id", OPEN),
    Attack("set_id_at_birth", OPEN),
    Attack("accounts"),
    Attack("home"),
    Attack("host_tmp"),
    Attack("root_folder"),
    Attack("fifo"),
    # staying
    Attack("own_code"),
    Attack("plant_beside"),
    Attack("interpreter"),
    # the network, and sockets that are files
    Attack("tcp"),
    Attack("tcp_address"),
    Attack("udp"),
    Attack("listen"),
    Attack("mptcp", host="net.mptcp.enabled"),
    Attack("mptcp", NET, host="net.mptcp.enabled"),
    Attack("netlink"),
    Attack("netlink", NET),
    Attack("packet", root=True),
    Attack("packet", NET, root=True),
    Attack("abstract_socket"),
    Attack("abstract_socket", NET),
    Attack("path_socket"),
    Attack("path_socket", SOCKETS),
    Attack("pair_to_path"),
    Attack("pair_to_path", SOCKETS),
    Attack("pair_to_path", (*SOCKETS, *NET)),
    Attack("pair_to_abstract"),
    Attack("pair_to_abstract", NET),
    Attack("abstract_name", NET),
    # the kernel and other processes
    Attack("environ"),
    Attack("kernel_log"),
    Attack("forged_reply"),
    Attack("signal_others"),
    Attack("list_processes"),
    Attack("ptrace", host="kernel.yama.ptrace_scope"),
    Attack("trace_child"),
    Attack("process_vm", host="kernel.yama.ptrace_scope"),
    Attack("unfiltered"),
    Attack("posix_shm"),
    Attack("message_queue"),
    Attack("tiocsti", host="dev.tty.legacy_tiocsti"),
    # the operating system
    Attack("user_namespace", host="user namespaces"),
    Attack("clone_namespace", host="user namespaces"),
    Attack("clone3_namespace", host="user namespaces"),
    Attack("namespace_door", root=True),
    Attack("io_uring", host="kernel.io_uring_disabled"),
    Attack("keyctl"),
    Attack("perf", host="kernel.perf_event_paranoid"),
    Attack("bpf", root=True),
    Attack("userfaultfd", host="vm.unprivileged_userfaultfd"),
    Attack("old_calls", host="32-bit calls"),
    Attack("lease"),
    Attack("watch_folder", host="CONFIG_DNOTIFY"),
    Attack("aio"),
    Attack("personality"),
    Attack("memory_policy", host="CONFIG_NUMA"),
    Attack("line_discipline"),
    Attack("sysctl", root=True),
    Attack("trigger", root=True, host="kernel.sysrq"),
    Attack("sysfs"),
    Attack("hostname", root=True),
    # limits
    Attack("memfd"),
    Attack("sysv_shm"),
    Attack("own_queue"),
    Attack("big_pipe"),
    Attack("core_file", OPEN, host="kernel.core_pattern"),
    Attack("timers", host="RLIMIT_SIGPENDING"),
    Attack("realtime", root=True, host="CONFIG_RT_GROUP_SCHED"),
    Attack("descriptors"),
    Attack("big_file", OPEN),
    Attack("fill_scratch", SCRATCH),
    Attack("many_files", SCRATCH),
    Attack("processes"),
]
each = pytest.mark.parametrize("case", TABLE, ids=lambda case: case.label)


def test_every_attack_is_in_the_table():
    written = {file.stem for file in ATTACKS.iterdir() if file.is_file() and file.stem != "module"}
    assert written == {case.name for case in TABLE}
    assert len(written) >= 30


@each
async def test_without_isolation_the_attack_succeeds(case, attack, session):
    if case.root and os.getuid() != 0:
        pytest.skip("without isolation, only root can do this")
    descriptor = attack(case.name, case.capabilities)

    async def allow(_):
        return {"decision": "allow"}

    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/tools", descriptor, trusted=True)
    result = await session.invoke(f"/mnt/tools/{descriptor.name}", "try", {}, timeout=20)
    if case.host and "got" not in result:
        pytest.skip(f"this host itself forbids it ({case.host}): {result['stopped']}")
    assert result.get("got"), result


@each
async def test_under_isolation_it_fails(case, attack, isolated, isolation):
    if case.name == "processes" and (why := isolation.describe()["processes"]).startswith("not limited"):
        pytest.skip(f"processes are {why}")
    descriptor = attack(case.name, case.capabilities)
    await isolated.mount("/mnt/tools", descriptor)
    try:
        result = await isolated.invoke(f"/mnt/tools/{descriptor.name}", "try", {}, timeout=20)
    except KernelError as error:
        result = {"stopped": error.message}
    assert "stopped" in result, result


@each
def test_under_isolation_it_fails_for_an_ordinary_user(case, attack, isolation, as_nobody):
    descriptor = attack(case.name, case.capabilities, python=python_for_all())
    launch = read_fields(descriptor).launch(descriptor.capabilities)
    confined = confine(isolation, launch, descriptor, descriptor.capabilities)
    asked = '{"id":"r1","method":"invoke","params":{"op":"try","args":{}}}\n'
    done = start(confined, prefix=as_nobody, input=asked)
    assert done.stdout.count("\n") == 1, done.stderr
    assert "stopped" in json.loads(done.stdout)["result"], done.stdout
