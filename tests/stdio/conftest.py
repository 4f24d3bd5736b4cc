"""Every test of STDIO runs twice: on a loop that watches pipes, and on one that does not. On Windows no loop does."""

import asyncio
import sys
import threading

import pytest


class Blind(asyncio.SelectorEventLoop):
    """A loop that offers no watching of descriptors."""

    add_reader = asyncio.AbstractEventLoop.add_reader
    remove_reader = asyncio.AbstractEventLoop.remove_reader
    add_writer = asyncio.AbstractEventLoop.add_writer
    remove_writer = asyncio.AbstractEventLoop.remove_writer


def pytest_asyncio_loop_factories(config, item):
    if sys.platform == "win32":
        marker = item.get_closest_marker("asyncio")
        names = (marker and marker.kwargs.get("loop_factories")) or ["threads"]
        return dict.fromkeys(names, asyncio.ProactorEventLoop)
    return {"watched": asyncio.SelectorEventLoop, "threads": Blind}


@pytest.fixture(autouse=True)
def no_thread_is_left(nothing_is_left):
    """Fail a test that leaves a thread behind which waits for a process or its pipes."""
    yield
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("wait ", "stdin ", "stdout ", "stderr "))]
