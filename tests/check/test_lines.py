"""Which request a line of stdout belongs to, and what is wrong with it, one line after the other."""

import json

import pytest

from amplifier_tools._check._wires._lines import Lines

OK = {"ok": True, "result": {}}


class Taken:
    """Lines, and the rules that they broke."""

    def __init__(self):
        self.rules = []
        self.lines = Lines(100_000, lambda rule, problem, line: self.rules.append(rule))

    def take(self, *messages):
        for message in messages:
            text = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.lines.take(text + b"\n")


@pytest.fixture
async def taken():
    return Taken()


async def test_replies_come_in_any_order_with_chunks_before_them(taken):
    first, second = taken.lines.expect("r1"), taken.lines.expect("r2")
    taken.take({"id": "r2", "chunk": 1}, {"id": "r2", **OK}, {"id": "r1", "chunk": None, **OK})
    assert taken.rules == []
    assert (await first.reply)[0]["id"] == "r1"
    assert (await second.reply)[0]["id"] == "r2"


async def test_who_waits_when_the_lines_end_gets_nothing_and_so_does_who_comes_later(taken):
    before = taken.lines.expect("r1")
    taken.lines.end()
    assert await before.reply is None
    assert await taken.lines.expect("r2").reply is None


async def test_a_reply_to_a_request_that_was_given_up_is_not_held_against_the_module(taken):
    taken.lines.expect("r1")
    taken.lines.give_up("r1")
    taken.lines.give_up("r2")
    taken.take({"id": "r1", **OK}, {"id": "r1", **OK})
    assert taken.rules == []


async def test_each_odd_reply_gives_one_more_request_up(taken):
    waiting = [taken.lines.expect(f"r{n}") for n in (1, 2)]
    taken.take({"id": "x1", **OK}, {"id": "x2", **OK}, {"id": "x3", **OK})
    assert taken.rules == ["STDIO-03"] * 3
    assert [each.excused for each in waiting] == [True, True]
    assert [await each.reply for each in waiting] == [None, None]


async def test_an_odd_reply_while_nobody_waits_is_told_all_the_same(taken):
    taken.take({"id": {"a": 1}, **OK}, {"chunk": 1})
    assert taken.rules == ["STDIO-03", "STDIO-03"]


async def test_lines_that_are_no_message_together_are_other_text(taken):
    waiting = taken.lines.expect("r1")
    taken.take(b"{", b'  "a": 1', b"}", {"id": "r1", **OK})
    assert taken.rules == ["STDIO-01"] * 3
    assert (await waiting.reply)[0]["ok"]


async def test_text_that_has_no_end_is_not_kept(taken):
    taken.take(*[b"{" + b"x" * 1000] * 66)
    assert taken.rules == ["STDIO-01"] * 66


async def test_a_second_reply_is_late_if_its_request_was_answered_before(taken):
    taken.lines.expect("r1")
    taken.take({"id": "r1", **OK}, {"id": "r1", "chunk": 1})
    taken.lines.begin()
    late = []
    taken.lines._broke = lambda rule, problem, line: late.append((rule, taken.lines.late))
    taken.take({"id": "r1", **OK}, {"id": "r1", "chunk": 1}, {"id": "x", **OK})
    assert late == [("STDIO-04", True), ("STDIO-07", True), ("STDIO-03", False)]
    assert taken.rules == ["STDIO-07"]
