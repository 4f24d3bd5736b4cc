import asyncio
import gc
import json
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from tests.core.strategies import json_values

import amplifier_core
from amplifier_core import BadRequest, Cancelled, Internal, KernelError, Timeout
from amplifier_core._protocol.errors import causes, failure_of, one_line, path_of, reason_of, short

CODES = {
    "timeout": "Timeout",
    "oom": "Oom",
    "unreachable": "Unreachable",
    "bad_request": "BadRequest",
    "forbidden": "Forbidden",
    "internal": "Internal",
    "unsupported_op": "UnsupportedOp",
    "cancelled": "Cancelled",
    "budget_exceeded": "BudgetExceeded",
}


@pytest.mark.parametrize("code", CODES)
def test_each_code_of_the_protocol_has_a_class(code):
    kind = getattr(amplifier_core, CODES[code])
    error = KernelError.from_body(code, "why", {"a": 1})
    assert type(error) is kind
    assert issubclass(kind, KernelError)
    assert (error.code, error.message, error.details) == (code, "why", {"a": 1})
    assert error.body() == {"code": code, "message": "why", "details": {"a": 1}}
    assert str(error) == f"{code}: why"


def test_a_modules_own_code_passes_through():
    error = KernelError.from_body("no_such_word", "why")
    assert type(error) is KernelError
    assert (error.code, error.body()) == ("no_such_word", {"code": "no_such_word", "message": "why"})
    assert KernelError("x").code == "internal"


def test_details_are_a_copy():
    details = {"a": 1}
    error = BadRequest("x", details=details)
    error.details["b"] = 2
    assert details == {"a": 1}


def test_an_error_of_the_kernel_is_not_wrapped():
    error = Timeout("late")
    assert KernelError.from_exception(error, "hook") is error
    assert failure_of(error) is error


def chained():
    error = ValueError("bad\nworse")
    error.__cause__ = OSError("disk")
    return error


def test_an_exception_of_foreign_code_is_internal_with_its_causes():
    error = KernelError.from_exception(chained(), "hook x")
    assert type(error) is Internal
    assert error.message == "hook x raised ValueError: bad"
    assert error.details == {"causes": ["ValueError: bad", "OSError: disk"]}


def test_the_end_of_an_operation_has_an_error():
    assert failure_of(asyncio.CancelledError()).body() == {"code": "cancelled", "message": "the caller gave up"}
    assert isinstance(failure_of(asyncio.CancelledError()), Cancelled)
    bug = failure_of(KeyError("x"))
    assert bug.body() == {
        "code": "internal",
        "message": "the kernel broke its contract: KeyError: 'x'",
        "details": {"causes": ["KeyError: 'x'"]},
    }


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("x"), "ValueError: x"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (ValueError("\n a\nb"), "ValueError: a"),
        (KeyError("a"), "KeyError: 'a'"),
        (BadRequest("x"), "BadRequest: bad_request: x"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
def test_any_exception_is_one_line(error, line):
    assert one_line(error) == line


@pytest.mark.parametrize("end", ["\r\n", "\r", "\x0b", "\x1c", "\x85", "\u2028"], ids=ascii)
def test_every_line_separator_ends_the_line(end):
    assert one_line(ValueError(f"a{end}b")) == "ValueError: a"


def test_a_foreign_message_becomes_text_that_json_can_hold():
    for text in (one_line(ValueError("bad \udcff")), *causes(ValueError("\ud800"))):
        assert json.dumps(text, ensure_ascii=False).encode()


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no words")


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def test_an_exception_that_can_not_be_printed_is_one_line():
    assert one_line(Speechless()) == "Speechless"


def test_the_chain_of_causes_follows_the_context_too():
    error = ValueError("bad")
    error.__context__ = OSError("disk")
    assert causes(error) == ["ValueError: bad", "OSError: disk"]


def test_a_cause_that_was_hidden_on_purpose_stays_hidden():
    error = ValueError("bad")
    error.__context__ = OSError("disk")
    error.__suppress_context__ = True
    assert causes(error) == ["ValueError: bad"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "'x'"),
        ("a\nb", r"'a\nb'"),
        ("\ud800", r"'\ud800'"),
        ([1, 2], "[1, 2]"),
        ("x" * 1000, f"'{'x' * 58}…"),
        (10**5000, "a int that cannot be shown"),
    ],
    ids=range(6),
)
def test_a_wrong_value_is_shown_in_short(value, text):
    assert short(value) == text


def test_a_value_without_a_repr_is_named_by_its_class():
    thing = Unprintable()
    assert short(thing) == "a Unprintable that cannot be shown"


def nested(levels):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


LARGE = [
    ("x" * 30_000_000, "'xxxx"),
    (b"x" * 30_000_000, "b'xxx"),
    (list(range(1_000_000)), "[0, 1, 2"),
    ((["x" * 1000] * 1000,) * 1000, "(['xxxx"),
    ({n: {"a": "x" * 1000} for n in range(100_000)}, "{0: {'a': 'xx"),
    ({"k" * 30_000_000: 0}, "{'kkkk"),
    (nested(100_000), "[[[[[["),
]


@pytest.mark.parametrize(("value", "start"), LARGE, ids=range(len(LARGE)))
@pytest.mark.parametrize("width", [60, 200])
def test_of_a_large_value_no_more_is_looked_at_than_is_shown(value, start, width):
    gc.collect()  # which takes long among all that LARGE has
    began = time.thread_time()
    shown = short(value, width)
    assert time.thread_time() - began < 0.02
    assert shown.startswith(start)
    assert len(shown) == width


@given(json_values)
@example([[], {}, (), "it's", 'say "it"', {"a": [1, {"b": "x" * 100}]}])
def test_what_is_shown_is_the_start_of_the_repr(value):
    text = repr(value).encode(errors="backslashreplace").decode()
    shown = short(value)
    assert (shown == text) if len(text) <= 60 else shown.endswith("…")
    assert shown[:59].replace('"', "'")[:20] == text[:59].replace('"', "'")[:20]


def test_an_error_is_shown_on_one_line():
    error = KernelError("one\ntwo\r\u2028\x1b[31m\x9b é 中", code="mi\nne")
    assert str(error) == r"mi\nne: one\ntwo\r\u2028\x1b[31m\x9b é 中"
    assert error.message.startswith("one\ntwo")


def test_a_long_line_of_foreign_code_is_cut():
    assert len(one_line(ValueError("x" * 1_000_000))) < 3000


def test_a_path_that_is_too_long_is_shown_in_short():
    assert path_of("/x" * 4096) == "/x" * 4096
    assert len(path_of("/x" * 4097)) == 60


def test_a_path_is_shown_whole_if_it_is_one_line_of_text():
    assert path_of("/x" * 1000) == "/x" * 1000
    assert path_of(Path("/x y")) == "/x y"
    assert path_of("a\nb") == r"'a\nb'"
    assert path_of("\ud800") == r"'\ud800'"


def test_the_reason_of_a_file_error_is_in_the_words_of_the_system_or_of_python():
    assert reason_of(OSError(2, "No such file or directory", "/x")) == "No such file or directory"
    assert reason_of(OSError("odd")) == "OSError: odd"
    assert reason_of(ValueError("embedded null byte")) == "ValueError: embedded null byte"


def test_a_circle_of_causes_has_an_end():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert causes(one) == ["ValueError: one", "ValueError: other"] * 8
    assert causes(None) == []
