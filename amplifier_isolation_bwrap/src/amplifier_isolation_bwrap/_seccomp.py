"""The system call filter: a classic BPF program for bubblewrap's ``--seccomp``, for two kinds of machine.

Owns the list of the system calls that no module may make. Files and processes are not its part: namespaces hide them.

A call that is not listed is allowed: a list of the allowed calls would change with each C library and runtime. A call
that is newer than the list gets ENOSYS, so it stays closed until this list covers it.
"""

from __future__ import annotations

import errno
import functools
import struct
from operator import itemgetter
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    _Numbers = tuple[int | None, int | None]

_MACHINES = ("x86_64", "aarch64")  # in the order of the numbers below
_ARCHITECTURES = (0xC000003E, 0xC00000B7)  # AUDIT_ARCH_…: a 32-bit call has another one, and other numbers
_X32 = 0x40000000  # the bit that marks the numbers of the x32 ABI
_NEWEST = 462  # mseal
_GAPS = ((336, 423), (295, 423))  # numbers that had no call when this list was made: new ones come here, too

# In each table: the number of a call on x86_64 and on aarch64; None where there is no such call.

# access to other processes, and around the filter
_EPERM: dict[str, _Numbers] = {"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271)}
_EPERM |= {"process_madvise": (440, 440), "pidfd_getfd": (438, 438), "kcmp": (312, 272)}
# the kernel's keys, counters, programs and page faults: shared with the host, or often attacked
_EPERM |= {"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "perf_event_open": (298, 241)}
_EPERM |= {"bpf": (321, 280), "userfaultfd": (323, 282), "lookup_dcookie": (212, 18), "syslog": (103, 116)}
_EPERM |= {"fanotify_init": (300, 262)}
# namespaces and mounts
_EPERM |= {"unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "chroot": (161, 51)}
_EPERM |= {"pivot_root": (155, 41), "open_tree": (428, 428), "move_mount": (429, 429), "open_by_handle_at": (304, 265)}
_EPERM |= {"fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433)}
_EPERM |= {"mount_setattr": (442, 442), "statmount": (457, 457), "listmount": (458, 458)}
# the machine itself
_EPERM |= {"init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106)}
_EPERM |= {"kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142)}
_EPERM |= {"swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89)}
_EPERM |= {"quotactl": (179, 60), "quotactl_fd": (443, 443), "settimeofday": (164, 170), "clock_settime": (227, 112)}
_EPERM |= {"clock_adjtime": (305, 266), "adjtimex": (159, 171), "vhangup": (153, 58)}
_EPERM |= {"sethostname": (170, 161), "setdomainname": (171, 162)}
_EPERM |= {"iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "uselib": (134, None)}
# memory that belongs to no process, so no limit counts it
_EPERM |= {"shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180)}
# where memory lies, which costs other programs of the host theirs
_EPERM |= {"mbind": (237, 235), "set_mempolicy": (238, 237), "get_mempolicy": (239, 236)}
_EPERM |= {"set_mempolicy_home_node": (450, 450), "migrate_pages": (256, 238), "move_pages": (279, 239)}

_ENOSYS = {  # programs do without these, as on an older kernel
    "clone3": (435, 435),  # a filter cannot read its flags, which are behind a pointer; nor openat2's
    "openat2": (437, 437),
    "io_uring_setup": (425, 425),  # it makes system calls that no filter sees
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),  # all programs of the host share fs.aio-max-nr
    "io_destroy": (207, 1),
    "io_submit": (209, 2),
    "io_cancel": (210, 3),
    "io_getevents": (208, 4),
    "io_pgetevents": (333, 292),
    "memfd_create": (319, 279),  # memory that belongs to no process
    "memfd_secret": (447, 447),
    "ustat": (136, None),  # they tell about file systems that are not in the sandbox
    "sysfs": (139, None),
}

_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_COMMANDS_OF_IOCTL = (0x5412, 0x541C, 0x5423)  # TIOCSTI and TIOCLINUX type into a terminal; TIOCSETD loads a driver
_COMMANDS_OF_FCNTL = (1024, 1026, 1031)  # F_SETLEASE and F_NOTIFY watch files that others open; F_SETPIPE_SZ
_NEWEST_OF_FCNTL = 1038  # F_SET_FILE_RW_HINT; a newer one is F_SETDELEG, a lease of a folder
_PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # Linux, for 32 bits, with an old version's name; a question
_SET_ID = 0o6000  # the mode of a program that runs with its owner's rights
_CREATE_FLAGS = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_STREAM, _DATAGRAM = 1, 2
_KIND = 0xF  # the kind of a socket, without SOCK_CLOEXEC and SOCK_NONBLOCK
_PROTOCOLS = (0, 1, 6, 17, 58)  # any, ICMP, TCP, UDP, ICMPv6; rules of firewalls often miss MPTCP, SCTP …
_ADDRESS_SIZES = (16, 28)  # of sockaddr_in and sockaddr_in6
_LONGEST_UNIX_ADDRESS = 110
_TCP, _TCP_ULP = 6, 31  # the option that turns a connection into one of TLS or SMC, inside the operating system
_HUGE = 0x40000  # MAP_HUGETLB: pages of a pool that the whole host shares, and that no process's memory counts

# calls that set a mode, with the index of that argument
_MODES: dict[str, tuple[_Numbers, int]] = {"chmod": ((90, None), 1), "fchmod": ((91, 52), 1)}
_MODES |= {"creat": ((85, None), 1), "mknod": ((133, None), 1)}
_MODES |= {"fchmodat": ((268, 53), 2), "fchmodat2": ((452, 452), 2), "mknodat": ((259, 33), 2)}
_OPENS = {"open": ((2, None), 1), "openat": ((257, 56), 2)}  # with the index of the flags; the mode is next
# other calls that are judged by their arguments
_JUDGED: dict[str, _Numbers] = {"clone": (56, 220), "ioctl": (16, 29), "fcntl": (72, 25), "personality": (135, 92)}
_JUDGED |= {"socket": (41, 198), "socketpair": (53, 199), "bind": (49, 200), "setsockopt": (54, 208), "mmap": (9, 222)}

_LEAF_SIZE = 3  # numbers that are compared one after another
_JUMP = 0x05
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ERRNO = 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets into struct seccomp_data


@attrs.frozen
class _Instruction:
    """One instruction. A test skips ``then`` of the instructions after it if it holds, and ``otherwise`` if not."""

    code: int
    value: int
    then: int = 0
    otherwise: int = 0


_ALLOW, _KILL = _Instruction(_RETURN, 0x7FFF0000), _Instruction(_RETURN, 0x80000000)


def is_supported(machine: str) -> bool:
    """Tell whether there is a filter for this kind of machine, as ``os.uname`` names it."""
    return machine in _MACHINES


@functools.cache  # there are two filters for a machine, and they are the same for every module
def build_filter(machine: str, *, network: bool) -> bytes:
    """Build the filter. With ``network`` it allows sockets of TCP, UDP and ICMP; without it, only ``socketpair``.

    It never allows Unix sockets: by the path of one in a readable folder, a module would reach a service of the host.
    A pair of streams is allowed, as neither half can be connected to anything else.
    """
    column = _MACHINES.index(machine)
    steps = [_Instruction(_LOAD, _ARCHITECTURE), _Instruction(_EQUAL, _ARCHITECTURES[column], 1), _KILL]
    steps += [_Instruction(_LOAD, _NUMBER)]
    if machine == "x86_64":
        steps += [_Instruction(_AT_LEAST, _X32, 0, 1), _KILL]
    steps += [_Instruction(_AT_LEAST, _NEWEST + 1, 0, 1), _refuse(errno.ENOSYS)]
    first, last = _GAPS[column]
    steps += [_Instruction(_AT_LEAST, last + 1, 2), _Instruction(_AT_LEAST, first, 0, 1), _refuse(errno.ENOSYS)]
    rules = [(numbers[column], rule) for numbers, rule in _rules(network=network)]
    steps += _search_tree(sorted(((number, rule) for number, rule in rules if number is not None), key=itemgetter(0)))
    return b"".join(struct.pack("=HBBI", step.code, step.then, step.otherwise, step.value) for step in steps)


def _rules(*, network: bool) -> Iterator[tuple[_Numbers, list[_Instruction]]]:
    """Yield each call that is not always allowed, with the instructions that decide on it."""
    for table, number in ((_EPERM, errno.EPERM), (_ENOSYS, errno.ENOSYS)):
        for numbers in table.values():
            yield numbers, [_refuse(number)]
    judges = _judges(network=network)
    for name, numbers in _JUDGED.items():
        yield numbers, [*judges[name], _ALLOW]
    for numbers, argument in _MODES.values():
        yield numbers, [*_refuse_if_any(argument, _SET_ID), _ALLOW]
    for numbers, argument in _OPENS.values():
        yield numbers, [*_refuse_set_id(argument), _ALLOW]


def _judges(*, network: bool) -> dict[str, list[_Instruction]]:
    """Return the instructions for each of ``_JUDGED``. They refuse a call, or run to their end."""
    return {
        "clone": _refuse_if_any(0, _NAMESPACES),
        "ioctl": _refuse_if_equal(1, _COMMANDS_OF_IOCTL),
        "fcntl": [*_refuse_if_equal(1, _COMMANDS_OF_FCNTL), *_refuse_above(1, _NEWEST_OF_FCNTL)],
        "personality": _refuse_others(0, _PERSONALITIES, errno.EPERM),
        "socket": _refuse_all_but_internet() if network else [_refuse(errno.EACCES)],
        "socketpair": _refuse_all_but_streams(),
        "bind": _refuse_unix_addresses() if network else [],
        "setsockopt": _refuse_upper_protocols(),
        "mmap": _refuse_if_any(3, _HUGE, errno.ENOMEM),
    }


def _search_tree(rules: Sequence[tuple[int, list[_Instruction]]]) -> list[_Instruction]:
    """Look up a call's number by binary search: before a process starts, Linux runs the filter once for each number."""
    if len(rules) <= _LEAF_SIZE:
        tests = [step for number, rule in rules for step in (_Instruction(_EQUAL, number, 0, len(rule)), *rule)]
        return [*tests, _ALLOW]
    middle = len(rules) // 2
    below, above = _search_tree(rules[:middle]), _search_tree(rules[middle:])
    return [_Instruction(_AT_LEAST, rules[middle][0], 0, 1), _Instruction(_JUMP, len(below)), *below, *above]


def _refuse(number: int) -> _Instruction:
    return _Instruction(_RETURN, _ERRNO | number)


def _argument(index: int) -> _Instruction:
    """Load the lower half of an argument: of flags, modes and commands the kernel reads no more (little-endian)."""
    return _Instruction(_LOAD, _ARGUMENTS + 8 * index)


def _refuse_if_any(argument: int, bits: int, number: int = errno.EPERM) -> list[_Instruction]:
    return [_argument(argument), _Instruction(_ANY_BIT, bits, 0, 1), _refuse(number)]


def _refuse_if_equal(argument: int, values: Sequence[int]) -> list[_Instruction]:
    tests = [step for value in values for step in (_Instruction(_EQUAL, value, 0, 1), _refuse(errno.EPERM))]
    return [_argument(argument), *tests]


def _refuse_above(argument: int, value: int) -> list[_Instruction]:
    return [_argument(argument), _Instruction(_AT_LEAST, value + 1, 0, 1), _refuse(errno.EINVAL)]


def _refuse_others(argument: int, values: Sequence[int], number: int, bits: int = 0xFFFFFFFF) -> list[_Instruction]:
    """Refuse all values but these; of the argument, only ``bits`` count."""
    tests = [_Instruction(_EQUAL, value, len(values) - n) for n, value in enumerate(values)]
    return [_argument(argument), _Instruction(_AND, bits), *tests, _refuse(number)]


def _refuse_set_id(flags: int) -> list[_Instruction]:
    """Refuse to make a set-id file. If the call makes no file, the register of the mode may hold anything."""
    refusal = _refuse_if_any(flags + 1, _SET_ID)
    return [_argument(flags), _Instruction(_ANY_BIT, _CREATE_FLAGS, 0, len(refusal)), *refusal]


def _refuse_all_but_internet() -> list[_Instruction]:
    """Refuse other families, and other kinds: with protocol 0, a kind chooses SCTP or DCCP."""
    families = _refuse_others(0, (_AF_INET, _AF_INET6), errno.EACCES)
    kinds = _refuse_others(1, (_STREAM, _DATAGRAM), errno.EACCES, _KIND)
    return [*families, *kinds, *_refuse_others(2, _PROTOCOLS, errno.EPROTONOSUPPORT)]


def _refuse_all_but_streams() -> list[_Instruction]:
    """Refuse pairs whose halves can be connected to others: a datagram can be sent to any Unix socket."""
    return [*_refuse_others(0, (_AF_UNIX,), errno.EACCES), *_refuse_others(1, (_STREAM,), errno.EACCES, _KIND)]


def _refuse_upper_protocols() -> list[_Instruction]:
    """Answer as a Linux that has none: programs then do TLS themselves."""
    refusal = [_argument(2), _Instruction(_EQUAL, _TCP_ULP, 0, 1), _refuse(errno.ENOENT)]
    return [_argument(1), _Instruction(_EQUAL, _TCP, 0, len(refusal)), *refusal]


def _refuse_unix_addresses() -> list[_Instruction]:
    """Refuse what may be the address of a Unix socket: half a pair would take a service's abstract name away.

    A filter sees only its size. Longer ones are no Unix address, and some programs pass more than they use.
    """
    sizes = _refuse_others(2, _ADDRESS_SIZES, errno.EACCES)
    return [_argument(2), _Instruction(_AT_LEAST, _LONGEST_UNIX_ADDRESS + 1, len(sizes)), *sizes]
