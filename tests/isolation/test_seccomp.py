"""The system call filter: its decisions in an interpreter of its program, and in the operating system."""

import errno
import platform
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from tests.conftest import missing_here

from amplifier_isolation_bwrap import _seccomp
from amplifier_isolation_bwrap._seccomp import build_filter, is_supported

X86, ARM = 0xC000003E, 0xC00000B7
ARCHITECTURES = {"x86_64": X86, "aarch64": ARM}
ALLOW, KILL = 0x7FFF0000, 0x80000000
machines = pytest.mark.parametrize("machine", sorted(ARCHITECTURES))


def decide(machine, number, *arguments, network=False, architecture=None):
    """Interpret the program for one system call; return "allow", "kill" or the name of an error."""
    filled = [*arguments, *[0] * (6 - len(arguments))]
    chosen = ARCHITECTURES[machine] if architecture is None else architecture
    data = struct.pack("=IIQ6Q", number, chosen, 0, *(value & (1 << 64) - 1 for value in filled))
    steps = list(struct.iter_unpack("=HBBI", build_filter(machine, network=network)))
    at = accumulator = 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += then if accumulator == value else otherwise
            case 0x35:
                at += then if accumulator >= value else otherwise
            case 0x45:
                at += then if accumulator & value else otherwise
            case 0x54:
                accumulator &= value
            case 0x05:
                at += value
            case 0x06:
                break
            case _:
                raise AssertionError(code)
    return {ALLOW: "allow", KILL: "kill"}.get(value) or errno.errorcode[value & 0xFFFF]


def number(machine, name):
    """Look a system call up in the filter's own tables."""
    column = sorted(ARCHITECTURES, reverse=True).index(machine)
    tables: list[dict] = [_seccomp._EPERM, _seccomp._ENOSYS]
    tables += [{call: numbers for call, (numbers, _) in table.items()} for table in (_seccomp._MODES, _seccomp._OPENS)]
    tables += [_seccomp._JUDGED]
    return next(table[name][column] for table in tables if name in table)


@machines
@pytest.mark.parametrize(("table", "expected"), [("_EPERM", "EPERM"), ("_ENOSYS", "ENOSYS")])
def test_the_listed_calls_are_refused(machine, table, expected):
    for name in getattr(_seccomp, table):
        call = number(machine, name)
        if call is not None:
            assert decide(machine, call) == expected, name


@machines
def test_the_calls_of_ordinary_programs_are_allowed(machine):
    ordinary = {"x86_64": (0, 1, 3, 9, 39, 59, 202, 262, 318, 334), "aarch64": (63, 64, 57, 222, 172, 221, 98, 79, 278)}
    assert {decide(machine, call) for call in ordinary[machine]} == {"allow"}


@machines
def test_another_architectures_calls_kill(machine):
    assert decide(machine, 1, architecture=0x40000003) == "kill"
    other = ARM if machine == "x86_64" else X86
    assert decide(machine, 1, architecture=other) == "kill"


def test_an_x32_call_kills():
    assert decide("x86_64", 0x40000000 + 1) == "kill"


@machines
def test_calls_newer_than_the_filter_do_not_exist(machine):
    assert decide(machine, 463) == decide(machine, 467) == decide(machine, 1000) == "ENOSYS"
    assert decide(machine, 462) == decide(machine, 448) == decide(machine, 424) == "allow"
    first = {"x86_64": 336, "aarch64": 295}[machine]  # after rseq's, and x86's uretprobe
    assert {decide(machine, call) for call in range(first, 424)} == {"ENOSYS"}
    assert decide(machine, first - 2) == "allow"


@machines
def test_clone_makes_processes_but_no_namespaces(machine):
    clone = number(machine, "clone")
    assert decide(machine, clone, 17) == "allow"
    assert decide(machine, clone, 0x3D0F00) == "allow"  # a thread
    for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(machine, clone, bit | 17) == "EPERM"


@machines
def test_no_module_types_into_a_terminal(machine):
    ioctl = number(machine, "ioctl")
    assert decide(machine, ioctl, 0, 0x5413) == "allow"
    for command in (0x5412, 0x541C, 0x5412 | 1 << 32, 0xFFFFFFFF00005412):  # the kernel looks at the lower half
        assert decide(machine, ioctl, 0, command) == "EPERM"
    assert decide(machine, ioctl, 0, 0x5423) == "EPERM"  # nor chooses the driver behind one
    assert decide(machine, ioctl, 0, 0x5424) == "allow"


@machines
def test_fcntl_takes_no_lease_and_no_command_that_is_newer_than_the_filter(machine):
    fcntl = number(machine, "fcntl")
    told = {command: decide(machine, fcntl, 3, command) for command in (*range(64), *range(1024, 1100))}
    assert [command for command, said in told.items() if said == "EPERM"] == [1024, 1026, 1031]
    assert [command for command, said in told.items() if said == "EINVAL"] == list(range(1039, 1100))
    assert decide(machine, fcntl, 3, 1 << 32 | 1024) == "EPERM"
    assert decide(machine, fcntl, 3, 1 << 32 | 3) == "allow"
    assert decide(machine, fcntl, 3, 0xFFFFFFFF) == "EINVAL"


@machines
def test_the_personality_stays_linuxs(machine):
    personality = number(machine, "personality")
    for allowed in (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert decide(machine, personality, allowed) == "allow"
    for other in (1, 0x40000, 0x400000, 0x440000, 0xFFFFFFFE, 1 << 32 | 0x40000):
        assert decide(machine, personality, other) == "EPERM"


FLAGS = (0, 0x800, 0x80000, 0x80800)  # SOCK_NONBLOCK, SOCK_CLOEXEC


@machines
@pytest.mark.parametrize("network", [False, True])
def test_a_pair_of_sockets_is_of_streams(machine, network):
    pair = number(machine, "socketpair")
    for flags in FLAGS:
        kinds = [kind for kind in range(16) if decide(machine, pair, 1, kind | flags, network=network) == "allow"]
        assert kinds == [1]
    families = [family for family in range(64) if decide(machine, pair, family, 1, network=network) == "allow"]
    assert families == [1]
    assert decide(machine, pair, 1, 2, network=network) == "EACCES"


@machines
def test_with_the_network_nothing_is_bound_that_may_be_a_unix_address(machine):
    bind = number(machine, "bind")
    assert [size for size in range(111) if decide(machine, bind, 3, 0, size, network=True) == "allow"] == [16, 28]
    assert decide(machine, bind, 3, 0, 14, network=True) == "EACCES"
    assert decide(machine, bind, 3, 0, 128, network=True) == "allow"  # sockaddr_storage
    assert {decide(machine, bind, 3, 0, size) for size in range(200)} == {"allow"}  # in a namespace of its own


@machines
def test_a_connection_stays_one_of_tcp(machine):
    option = number(machine, "setsockopt")
    for network in (True, False):
        assert decide(machine, option, 3, 6, 31, network=network) == "ENOENT"
        assert decide(machine, option, 3, 6, 1, network=network) == "allow"  # TCP_NODELAY
        assert decide(machine, option, 3, 1, 31, network=network) == "allow"  # of another level


@machines
def test_no_page_comes_from_the_hosts_pool_of_huge_ones(machine):
    mmap = number(machine, "mmap")
    assert decide(machine, mmap, 0, 4096, 3, 0x22) == "allow"
    assert decide(machine, mmap, 0, 2 << 20, 3, 0x22 | 0x40000) == "ENOMEM"
    assert decide(machine, mmap, 0, 1 << 30, 3, 0x22 | 0x40000 | 30 << 26) == "ENOMEM"


@machines
def test_sockets_need_the_network_and_a_known_protocol(machine):
    socket = number(machine, "socket")
    families = range(64)
    assert {decide(machine, socket, family, 1, 0) for family in families} == {"EACCES"}
    allowed = [family for family in families if decide(machine, socket, family, 1, 0, network=True) == "allow"]
    assert allowed == [2, 10]
    spoken = [known for known in range(300) if decide(machine, socket, 2, 1, known, network=True) == "allow"]
    assert spoken == [0, 1, 6, 17, 58]
    for flags in FLAGS:  # with protocol 0, other kinds choose SCTP or DCCP
        kinds = [kind for kind in range(16) if decide(machine, socket, 10, kind | flags, 0, network=True) == "allow"]
        assert kinds == [1, 2]
    assert decide(machine, socket, 2, 1, 262, network=True) == "EPROTONOSUPPORT"
    assert decide(machine, socket, 1, 1, 0, network=True) == "EACCES"


@machines
def test_no_file_gets_a_set_id_bit(machine):
    for name, (_, argument) in _seccomp._MODES.items():
        call = number(machine, name)
        if call is not None:
            before = [0] * argument
            assert decide(machine, call, *before, 0o755) == "allow", name
            assert decide(machine, call, *before, 0o4755) == decide(machine, call, *before, 0o2755) == "EPERM", name
    for name, (_, argument) in _seccomp._OPENS.items():
        call = number(machine, name)
        if call is not None:
            before = [0] * argument
            assert decide(machine, call, *before, 0o2, 0o6777) == "allow", name  # no file is made: no mode
            assert decide(machine, call, *before, 0o101, 0o644) == "allow", name
            assert decide(machine, call, *before, 0o101, 0o4755) == "EPERM", name
            assert decide(machine, call, *before, 0o20200001, 0o4755) == "EPERM", name


@machines
def test_linux_accepts_the_program(machine):
    """Jumps go forward and stay inside, and the last instruction returns."""
    steps = list(struct.iter_unpack("=HBBI", build_filter(machine, network=True)))
    assert len(steps) < 4096
    assert steps[-1][0] == 0x06
    for at, (code, then, otherwise, value) in enumerate(steps):
        if code in (0x15, 0x35, 0x45):
            assert at + 1 + max(then, otherwise) < len(steps)
        if code == 0x05:
            assert at + 1 + value < len(steps)


def test_there_is_a_filter_for_two_machines():
    assert is_supported("x86_64")
    assert is_supported("aarch64")
    assert not is_supported("riscv64")


@machines
def test_the_numbers_are_those_of_the_systems_headers(machine):
    pattern = {"x86_64": "/usr/include/*/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}[machine]
    files = list(Path("/").glob(pattern.lstrip("/")))
    if not files or (machine == "x86_64" and platform.machine() != machine):
        missing_here("no headers of Linux are installed")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", files[0].read_text())
    known = {name: int(value) for name, value in found}
    tables = [*_seccomp._EPERM, *_seccomp._ENOSYS, *_seccomp._MODES, *_seccomp._OPENS, *_seccomp._JUDGED]
    for name in tables:
        if name in known and number(machine, name) is not None:
            assert known[name] == number(machine, name), name
        assert name in known or number(machine, name) is None or number(machine, name) > 450 or machine == "aarch64", (
            name
        )


def test_the_page_about_the_filter_says_what_it_does():
    page = Path(_seccomp.__file__).parents[2] / "FILTER.md"
    rows = re.findall(r"^\| (.+?) \| (.+?) \| .* \|$", page.read_text("utf-8"), re.MULTILINE)
    listed = {*_seccomp._EPERM, *_seccomp._ENOSYS, *_seccomp._MODES, *_seccomp._OPENS, *_seccomp._JUDGED}
    told: dict[bool, set[str]] = {True: set(), False: set()}
    for calls, ours in rows:
        told[ours == "allowed"] |= set(re.findall(r"`([a-z0-9_]+)`", calls)) - {"mseal"}
    assert len(told[False]) > 40
    assert told[False] <= listed
    assert not told[True] & listed


PROBE = r"""
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int n, char **words) {
    for (int i = 1; i < n; i++) {
        errno = 0;
        long got = syscall(atoi(words[i]), -1, -1, -1, -1, -1, -1);
        printf("%s %d\n", words[i], got == -1 ? errno : 0);
    }
}
"""


def test_the_operating_system_reads_it_the_same_way(confined, tmp_path):
    if shutil.which("gcc") is None:
        missing_here("gcc is not installed")
    (tmp_path / "probe.c").write_text(PROBE)
    subprocess.run(["gcc", "-o", tmp_path / "probe", tmp_path / "probe.c"], check=True)
    machine = platform.machine()
    column = {"x86_64": 0, "aarch64": 1}[machine]
    wanted = {}
    for table, expected in ((_seccomp._EPERM, errno.EPERM), (_seccomp._ENOSYS, errno.ENOSYS)):
        wanted |= {numbers[column]: expected for numbers in table.values() if numbers[column] is not None}
    told = confined(tmp_path / "probe", *wanted).stdout
    assert {int(call): int(error) for call, error in map(str.split, told.splitlines())} == wanted


def test_the_filter_is_on_and_privileges_are_gone(confined):
    facts = confined("cat", "/proc/self/status").stdout
    for name, value in {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16, "CapBnd": "0" * 16}.items():
        assert re.search(rf"^{name}:\t{value}$", facts, re.MULTILINE), name
