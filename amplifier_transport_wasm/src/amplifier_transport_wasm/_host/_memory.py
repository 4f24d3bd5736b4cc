"""The linear memory of a module with ``limits.memory_bytes``: given by this process, page by page as it is touched.

Owns the bound. A store's own limit would let ``memory.grow`` fail, and most programs go on with a null pointer then:
here what wants more than the limit ends, with the right cause. What wants more than WebAssembly or its own declaration
has room for is refused by the engine, and goes on. The engine checks each access itself, as it is told of no pages
around the memory that would fault.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from wasmtime import _ffi as ffi  # the C API: the classes above it have no word for this

if TYPE_CHECKING:
    from collections.abc import Callable

    import wasmtime

_PAGE = 65536
_OUT_OF_MEMORY = 137
_LINGER = 5.0  # seconds in which the kernel looks at the report, and ends this process


class BoundedMemory:
    """Gives a module at most ``limit`` bytes. ``tell`` gets their number whenever it changes, or would be too large."""

    def __init__(self, limit: int, tell: Callable[[int], None]) -> None:
        self._limit = limit
        self._tell = tell
        self._size = 0
        self._mapped: mmap.mmap
        self._is_made = False
        self._create_memory = ffi.wasmtime_new_memory_callback_t(_sure(self._create))
        self._callbacks = (
            ffi.wasmtime_memory_get_callback_t(_sure(self._get)),
            ffi.wasmtime_memory_grow_callback_t(_sure(self._grow)),
            _NOTHING,
        )

    def configure(self, config: wasmtime.Config) -> None:
        """Make an engine's modules have this memory. There is one, in one store."""
        ffi.wasmtime_config_memory_reservation_set(config.ptr(), 0)
        ffi.wasmtime_config_memory_reservation_for_growth_set(config.ptr(), 0)
        ffi.wasmtime_config_memory_guard_size_set(config.ptr(), 0)
        ffi.wasmtime_config_memory_init_cow_set(config.ptr(), False)  # noqa: FBT003 - the name says it
        creator = ffi.wasmtime_memory_creator_t(None, self._create_memory, _NOTHING)
        ffi.wasmtime_config_host_memory_creator_set(config.ptr(), ctypes.byref(creator))

    def _create(self, _: Any, __: Any, size: int, most: int, reserved: int, guard: int, made: Any) -> int:
        """Give the memory of an instance: ``size`` bytes, all zero, with room for what it may have."""
        if size > self._limit:
            self._refuse(size)
        if reserved or guard or self._is_made:
            return _error("the engine expects another kind of memory")
        room = max(min(self._limit, most) // _PAGE, 1) * _PAGE
        try:
            self._mapped = mmap.mmap(-1, room)
        except (OSError, ValueError, MemoryError) as error:
            return _error(f"{room} bytes of memory cannot be had here: {error}")
        self._is_made = True
        self._take(size)
        made[0].get_memory, made[0].grow_memory, made[0].finalizer = self._callbacks
        return 0

    def _get(self, _: Any, size: Any, room: Any) -> int:
        """Tell where the memory is, and how much of it there is."""
        size[0], room[0] = self._size, len(self._mapped)
        return ctypes.addressof(ctypes.c_char.from_buffer(self._mapped))

    def _grow(self, _: Any, size: int) -> int:
        """Make the memory larger. What is new has not been touched, and is zero."""
        if size > len(self._mapped):
            self._refuse(size)
        self._take(size)
        return 0

    def _take(self, size: int) -> None:
        self._size = size
        self._tell(size)

    def _refuse(self, size: int) -> NoReturn:
        """End the process: the kernel does it, and says why. It looks many times a second."""
        self._tell(size)
        problem = f"the module wanted {size} bytes of memory; limits.memory_bytes is {self._limit}"
        print(problem, file=sys.stderr, flush=True)
        time.sleep(_LINGER)
        os._exit(_OUT_OF_MEMORY)


_NOTHING = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)


def _sure(callback: Callable[..., int]) -> Callable[..., int]:
    """Make a callback that ends the process if it fails: the engine would take that for success."""

    def call(*arguments: Any) -> int:
        try:
            return callback(*arguments)
        except BaseException:  # noqa: BLE001 - nothing can be raised through the engine
            os._exit(_OUT_OF_MEMORY)

    return call


def _error(problem: str) -> int:
    """Make an error of the engine's."""
    return ctypes.cast(ffi.wasmtime_error_new(problem.encode()), ctypes.c_void_p).value or 1
