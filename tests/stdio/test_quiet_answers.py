"""What the parts of the transport say when there is nothing to say."""

import asyncio

import pytest

from amplifier_transport_stdio import _loop_pipes
from amplifier_transport_stdio._reply import ReplyFuture
from amplifier_transport_stdio._thread_pipes import ThreadPipes
from amplifier_transport_stdio._usage import children_of

NO_FILE = 1_000_000
NO_PROCESS = 2**22 + 1  # beyond the largest pid


def test_nothing_waits_in_a_pipe_that_is_closed():
    pytest.importorskip("termios", reason="Windows asks otherwise")
    assert _loop_pipes._waiting(NO_FILE) == 0


def test_a_process_that_is_gone_has_no_children():
    assert children_of(NO_PROCESS) == []


def test_threads_cannot_tell_what_was_not_read():
    assert object.__new__(ThreadPipes).unread == 0


async def test_clues_of_a_request_that_was_not_cancelled_are_nobodys():
    reply = ReplyFuture(asyncio.get_running_loop(), "r1", lambda _: None)
    reply.add_clues({"stderr": "x"})
    assert not reply.done()
