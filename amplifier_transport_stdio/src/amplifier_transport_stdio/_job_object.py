"""A job object of Windows: the system's own list of a process and of all that it starts.

Owns the calls of Windows, by ctypes. What starts in a job never leaves it, since these jobs allow no breakaway. When
the last handle of a job is closed, which the system does as well if this program is killed, all its processes end.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from ctypes import wintypes
from typing import TYPE_CHECKING, Any

from amplifier_core import Oom

assert sys.platform == "win32"  # noqa: S101 - for the type checker

if TYPE_CHECKING:
    from collections.abc import Iterator

SUSPENDED = 4
"""The flag of a process that runs only when it is in its job: CREATE_SUSPENDED."""

MOST = 16_384
"""Processes of one module that are looked at."""

_ACCOUNTING, _PROCESSES, _LIMITS = 1, 3, 9  # of JOBOBJECTINFOCLASS
_KILL_ON_JOB_CLOSE = 0x2000
_TERMINATE, _SET_QUOTA, _QUERY, _SUSPEND_RESUME = 0x1, 0x100, 0x400, 0x800  # rights to a process
_MORE_DATA = 234  # ERROR_MORE_DATA
_KILLED = 1  # the exit code, as that of `Popen.kill`
_MS = 10_000  # a millisecond, in units of 100 ns


class _Accounting(ctypes.Structure):
    _fields_ = (
        ("user_time", ctypes.c_int64),
        ("kernel_time", ctypes.c_int64),
        ("period_user_time", ctypes.c_int64),
        ("period_kernel_time", ctypes.c_int64),
        ("page_faults", wintypes.DWORD),
        ("processes", wintypes.DWORD),
        ("active", wintypes.DWORD),
        ("terminated", wintypes.DWORD),
    )


class _Limits(ctypes.Structure):
    _fields_ = (
        ("process_time", ctypes.c_int64),
        ("job_time", ctypes.c_int64),
        ("flags", wintypes.DWORD),
        ("working_sets", ctypes.c_size_t * 2),
        ("active", wintypes.DWORD),
        ("affinity", ctypes.c_size_t),
        ("priority", wintypes.DWORD),
        ("scheduling", wintypes.DWORD),
        ("io", ctypes.c_uint64 * 6),
        ("memory", ctypes.c_size_t * 4),
    )


class _Processes(ctypes.Structure):
    _fields_ = (("assigned", wintypes.DWORD), ("count", wintypes.DWORD), ("pids", ctypes.c_size_t * MOST))


class _Memory(ctypes.Structure):
    _fields_ = (
        ("size", wintypes.DWORD),
        ("faults", wintypes.DWORD),
        ("others", ctypes.c_size_t * 6),
        ("committed", ctypes.c_size_t),  # PagefileUsage: private memory, in pages or swapped out
        ("peak", ctypes.c_size_t),
    )


class JobObject:
    """A job without a process. Raises ``OSError`` where the system refuses one of its calls."""

    def __init__(self) -> None:
        self._handle: int | None = _checked(_kernel.CreateJobObjectW(None, None))  # no child inherits the handle
        limits = _Limits(flags=_KILL_ON_JOB_CLOSE)
        _checked(_kernel.SetInformationJobObject(self._handle, _LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)))

    def run(self, pid: int) -> None:
        """Take in a process that was started ``SUSPENDED``, and let it run."""
        with _opened(pid, _SET_QUOTA | _TERMINATE | _SUSPEND_RESUME) as process:
            _checked(_kernel.AssignProcessToJobObject(self._handle, process))
            if status := _nt.NtResumeProcess(process):
                raise OSError(f"NtResumeProcess: status {status & 0xFFFFFFFF:#x}")

    def kill(self) -> None:
        """Kill every process; it may have none."""
        _kernel.TerminateJobObject(self._handle, _KILLED)

    @property
    def active(self) -> int:
        """How many processes there are."""
        return int(self._ask(_ACCOUNTING, _Accounting()).active)

    def measure(self) -> tuple[float, int]:
        """Give milliseconds of CPU time, also of what has ended, and the bytes of memory that no file stands for.

        Raises ``Oom`` if there are more than ``MOST`` processes.
        """
        used = self._ask(_ACCOUNTING, _Accounting())
        found = self._ask(_PROCESSES, _Processes())
        return (used.user_time + used.kernel_time) / _MS, sum(map(self._memory, found.pids[: found.count]))

    def close(self) -> None:
        """Give the job up, with what is left in it."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _kernel.CloseHandle(handle)

    def _ask(self, kind: int, answer: Any) -> Any:
        if not _kernel.QueryInformationJobObject(self._handle, kind, ctypes.byref(answer), ctypes.sizeof(answer), None):
            if ctypes.get_last_error() == _MORE_DATA:
                raise Oom(f"the module has more than {MOST} processes, too many to measure")
            raise ctypes.WinError(ctypes.get_last_error())
        return answer

    def _memory(self, pid: int) -> int:
        memory = _Memory(size=ctypes.sizeof(_Memory))
        with contextlib.suppress(OSError), _opened(pid, _QUERY) as process:  # it may have ended
            ours = wintypes.BOOL()
            _checked(_kernel.IsProcessInJob(process, self._handle, ctypes.byref(ours)))  # not: another has its pid
            if ours.value:
                _checked(_kernel.K32GetProcessMemoryInfo(process, ctypes.byref(memory), memory.size))
        return int(memory.committed)


@contextlib.contextmanager
def _opened(pid: int, rights: int) -> Iterator[int]:
    process = _checked(_kernel.OpenProcess(rights, False, pid))  # noqa: FBT003 - a call of C
    try:
        yield process
    finally:
        _kernel.CloseHandle(process)


def _checked(result: int | None) -> int:
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


def _declare(library: ctypes.WinDLL, **calls: tuple[Any, ...]) -> ctypes.WinDLL:
    """Declare the calls of a library: what each returns, and takes. A handle would else be cut to 32 bits."""
    for name, (returned, *taken) in calls.items():
        function = getattr(library, name)
        function.restype, function.argtypes = returned, taken
    return library


_HANDLE, _DWORD, _BOOL, _ANY = wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, ctypes.c_void_p
_kernel = _declare(
    ctypes.WinDLL("kernel32", use_last_error=True),
    AssignProcessToJobObject=(_BOOL, _HANDLE, _HANDLE),
    CloseHandle=(_BOOL, _HANDLE),
    CreateJobObjectW=(_HANDLE, _ANY, wintypes.LPCWSTR),
    IsProcessInJob=(_BOOL, _HANDLE, _HANDLE, _ANY),
    K32GetProcessMemoryInfo=(_BOOL, _HANDLE, _ANY, _DWORD),
    OpenProcess=(_HANDLE, _DWORD, _BOOL, _DWORD),
    QueryInformationJobObject=(_BOOL, _HANDLE, ctypes.c_int, _ANY, _DWORD, _ANY),
    SetInformationJobObject=(_BOOL, _HANDLE, ctypes.c_int, _ANY, _DWORD),
    TerminateJobObject=(_BOOL, _HANDLE, wintypes.UINT),
)
_nt = _declare(ctypes.WinDLL("ntdll"), NtResumeProcess=(wintypes.LONG, _HANDLE))
