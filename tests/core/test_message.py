import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET
from tests.core.strategies import json_values, thorough

from amplifier_core import BadRequest, Internal, KernelError
from amplifier_core._protocol.json import NotJson
from amplifier_core._protocol.message import (
    ErrorBody,
    Message,
    Pending,
    SystemCall,
    decode_message,
    encode_message,
    result_of,
    result_size,
)

WHY = {"code": "bad_request", "message": "no"}

REPLIES = [
    {"ok": True, "result": None},
    {"ok": True, "result": {"words": 2}, "events": [{"event": "a:b", "data": {}}]},
    {"id": "r1", "ok": True, "result": [], "unknown": 1},
    {"ok": False, "error": WHY},
    {"ok": False, "error": {**WHY, "details": {"a": 1}, "unknown": 1}},
    {"pending": {"syscalls": [], "state": None}},
]
NOTHING = {"id": None, "chunk": None, "ok": None, "result": None, "error": None, "pending": None, "events": None}
NO_REPLIES = [
    {},
    {"id": "r1"},
    {"ok": True},
    {"ok": True, "error": WHY},
    {"ok": True, "result": 1, "error": WHY},
    {"ok": True, "result": 1, "pending": {"syscalls": []}},
    {"ok": False},
    {"ok": False, "result": 1},
    {"ok": False, "error": WHY, "result": 1},
    {"ok": False, "error": WHY, "pending": {"syscalls": []}},
    {"result": 1},
    {"error": WHY},
    {"pending": {"syscalls": []}, "result": 1},
    {"pending": {"syscalls": []}, "error": WHY},
]


def text(value):
    return json.dumps(value).encode()


@pytest.mark.parametrize("more", [*REPLIES, {"ok": True}, {"ok": False}, {"result": 1}, {"error": WHY}], ids=json.dumps)
def test_a_chunk_that_is_a_reply_too_is_refused(more):
    with pytest.raises(NotJson, match=r"^expected a chunk or a reply, got both in one message$"):
        decode_message(text({**more, "chunk": 1}))


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("more", [{"events": [], "more": 1}, {**NOTHING, "id": "r1"}], ids=json.dumps)
def test_a_chunk_has_nothing_of_a_reply_or_null_there(chunk, more):
    message = decode_message(text({**more, "chunk": chunk}))
    assert message.chunk == chunk
    assert not message.is_reply()


@pytest.mark.parametrize("value", [*REPLIES, *NO_REPLIES], ids=json.dumps)
def test_null_is_absent_in_everything_optional(value):
    told = {
        name: null for name, null in NOTHING.items() if name != "chunk" and not (name == "result" and value.get("ok"))
    }
    message, same = decode_message(text(value)), decode_message(text({**told, **value}))
    assert same.is_reply() == message.is_reply()
    for name in ("id", "ok", "error", "pending", "events"):
        assert getattr(same, name) == getattr(message, name)


@pytest.mark.parametrize("value", [*REPLIES, {"result": 1}, {"error": WHY}, {"ok": True}], ids=json.dumps)
def test_a_message_with_more_than_a_chunk_that_is_null_is_none(value):
    message, same = decode_message(text(value)), decode_message(text({"chunk": None, **value}))
    same.size = message.size
    assert same == message


def test_details_that_are_null_are_none():
    error = error_of(details=None)
    assert error.body() == {"code": "mine", "message": "no"}


@pytest.mark.parametrize("value", REPLIES, ids=json.dumps)
def test_a_reply_has_one_of_three_shapes(value):
    assert decode_message(text(value)).is_reply()


@pytest.mark.parametrize("value", NO_REPLIES, ids=json.dumps)
def test_a_reply_of_no_shape_or_of_two_breaks_the_contract(value):
    message = decode_message(text(value))
    assert not message.is_reply()
    with pytest.raises(Internal, match=r"^internal: /mnt/tools/a broke its contract: the reply is none of the three"):
        result_of(message, "/mnt/tools/a")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"5",
        b"null",
        b"{",
        b'{"ok":true,"result":NaN}',
        b'{"ok":true,"result":1e999}',
        b'{"ok":true,"result":"\xff"}',
        b'{"ok":true,"result":1,"unknown":"\xff"}',
        b'{"ok":true,"result":1,"\xff":1}',
        b'{"pending":{"syscalls":[],"state":"\xed\xa0\x80"}}',
        b'{"ok":true,"result":1} x',
        b'{"ok":true,"result":' + b"[" * 50_000,
        *map(text, [{"ok": 1}, {"ok": "true"}, {"id": 5}, {"error": "no"}, {"error": {"code": "x"}}]),
        *map(text, [{"error": {**WHY, "details": []}}, {"error": {**WHY, "code": 5}}, {"pending": []}, {"events": {}}]),
        *map(text, [{"events": [5]}, {"events": [None]}, {"pending": {}}, {"pending": {"syscalls": {}}}]),
        *map(text, [{"pending": {"syscalls": [{"name": 5}]}}, {"pending": {"syscalls": [{"name": "a", "args": []}]}}]),
    ],
    ids=lambda raw: ascii(raw)[:50],
)
def test_a_text_that_is_no_message_is_refused_in_one_line(raw):
    with pytest.raises(NotJson) as caught:
        decode_message(raw)
    assert len(str(caught.value).splitlines()) == 1


@thorough
@given(json_values)
@example({"words": 2})
def test_a_result_comes_back_unchanged(value):
    assert json.dumps(result_of(decode_message(text({"ok": True, "result": value})), "who")) == json.dumps(value)


def test_a_message_does_not_change_with_the_buffer_that_it_was_read_from():
    buffer = bytearray(text({"pending": {"syscalls": [], "state": {"n": 1}}}))
    message = decode_message(buffer)  # type: ignore[arg-type]
    assert message.pending
    buffer[:] = b" " * len(buffer)
    assert bytes(message.pending.state) == b'{"n": 1}'


def test_a_result_may_be_null():
    assert result_of(decode_message(text({"ok": True, "result": None})), "who") is None


def test_a_failure_is_raised_with_its_code():
    with pytest.raises(BadRequest) as caught:
        result_of(decode_message(text({"ok": False, "error": {**WHY, "details": {"a": 1}}})), "who")
    assert caught.value.body() == {**WHY, "details": {"a": 1}}


def test_a_modules_own_code_passes_through():
    with pytest.raises(KernelError) as caught:
        result_of(decode_message(text({"ok": False, "error": {"code": "mine", "message": "no"}})), "who")
    assert caught.value.body() == {"code": "mine", "message": "no"}


def test_pending_is_refused_where_no_system_calls_are_made():
    with pytest.raises(Internal, match="who answered pending"):
        result_of(decode_message(text({"pending": {"syscalls": [], "state": 1}})), "who")


def test_a_sender_can_not_set_the_size_of_its_message():
    raw = text({"ok": True, "result": 1, "size": 10**9})
    assert decode_message(raw).size == len(raw)


def test_pending_has_system_calls_and_a_state():
    raw = text(
        {"pending": {"syscalls": [{"name": "emit"}, {"name": "invoke", "args": {"a": 1}}], "state": {"step": 1}}}
    )
    pending: Any = decode_message(raw).pending
    assert [(call.name, call.args) for call in pending.syscalls] == [("emit", {}), ("invoke", {"a": 1})]
    assert json.loads(bytes(pending.state)) == {"step": 1}
    pending = decode_message(text({"pending": {"syscalls": []}})).pending
    assert bytes(pending.state) == b"null"


def test_messages_share_nothing():
    failed = text({"ok": False, "error": {**WHY, "details": {"b": 2}}})
    errors: list[Any] = [decode_message(failed).error for _ in range(2)]
    errors[0].details["a"] = 1
    assert errors[1].details == {"b": 2}


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


unambiguous = st.recursive(  # every encoder of compact JSON writes these alike: no floats
    st.text() | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
replies = st.fixed_dictionaries(
    {"ok": st.just(value=True), "result": unambiguous},
    optional={"id": st.text(), "events": st.lists(st.dictionaries(st.text(), st.text() | st.integers(), max_size=2))},
)


@thorough
@given(replies)
def test_a_results_size_is_the_length_of_its_json(reply):
    assert result_size(decode_message(compact(reply))) == len(compact(reply["result"]))


@thorough
@given(replies, st.sampled_from([None, 1, 8]))
def test_the_senders_spaces_count_too(reply, indent):
    raw = json.dumps(reply, ensure_ascii=False, indent=indent).encode()
    assert len(compact(reply["result"])) <= result_size(decode_message(raw)) <= len(raw)


def test_a_message_that_was_not_decoded_has_no_size():
    assert result_size(Message(result=1)) == 0


# the kernel's own spelling of these events is twice as long as the sender's
def test_a_sender_can_not_hide_a_large_result_from_the_log():
    result = "x" * 10_000
    numbers = ",".join(["1e9"] * 2_000)
    raw = f'{{"ok":true,"events":[{{"data":{{"a":[{numbers}]}}}}],"result":"{result}"}}'.encode()
    assert result_size(decode_message(raw)) >= len(result) + 2


@pytest.mark.parametrize(
    "text",
    [
        b'{"ok":true,"result":{"a":[1,2.5,null]}}',
        b'{"id":"r1","ok":true,"result":null}',
        b'{"chunk":"x"}',
        b'{"id":"r1","ok":false,"error":{"code":"oom","message":"much","details":{"n":1}}}',
        b'{"ok":true,"result":1,"events":[{"event":"a:b","data":{}}]}',
        b'{"pending":{"syscalls":[{"name":"invoke","args":{"n":18446744073709551616}}],"state":{"a": 1}}}',
    ],
)
def test_a_message_is_encoded_as_it_was_decoded(text):
    assert encode_message(decode_message(text)) == text


def test_a_message_that_a_program_makes_is_encoded_without_its_size():
    calls = [SystemCall("mounts")]
    assert encode_message(Message(pending=Pending(calls), size=7)) == (
        b'{"pending":{"syscalls":[{"name":"mounts","args":{}}],"state":null}}'
    )
    assert encode_message(Message(ok=False, error=ErrorBody("a", "b"), result=UNSET)) == (
        b'{"ok":false,"error":{"code":"a","message":"b"}}'
    )


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (Message(ok=True, result={"a": float("nan")}), "result.a"),
        (Message(chunk=b"x"), "chunk"),
        (Message(ok=False, error=ErrorBody("a", "b", {"c": {1}})), "error.details.c"),
        (Message(pending=Pending([SystemCall("a", {"b": [set()]})])), r"pending.syscalls\[0\].args.b"),
    ],
)
def test_a_message_that_is_not_json_is_refused_with_its_path(message, path):
    with pytest.raises(NotJson, match=f"^{path}"):
        encode_message(message)


def error_of(code="mine", message="no", details=None):
    """Give the error that a module's reply becomes."""
    reply = {"ok": False, "error": {"code": code, "message": message, "details": details}}
    with pytest.raises(KernelError) as caught:
        result_of(decode_message(text(reply)), "/mnt/tools/m")
    return caught.value


@pytest.mark.parametrize("code", ["oom", "budget_exceeded", "unreachable"])
def test_the_kernels_own_codes_are_not_for_modules(code):
    error = error_of(code, "used too much")
    assert type(error) is Internal
    assert error.message == (
        f"/mnt/tools/m broke its contract: it replied with the code {code!r}, which is the kernel's own: used too much"
    )


@pytest.mark.parametrize("code", ["timeout", "bad_request", "forbidden", "internal", "unsupported_op", "cancelled"])
def test_the_other_codes_of_section_5_are(code):
    assert (error_of(code).code, error_of(code).message) == (code, "no")


@pytest.mark.parametrize("code", ["", "x" * 65, "a\nb", "a\n", "a\x1bb", "a b", "ü", ".a"])
def test_a_code_is_a_short_word(code):
    assert error_of("x" * 64).code == "x" * 64
    assert error_of("E.quota:7-a").code == "E.quota:7-a"
    assert str(error_of(code)).startswith("internal: /mnt/tools/m broke its contract: it replied with a code that is")


def test_what_a_module_claims_of_what_the_kernel_says_is_apart():
    claimed = {"module": "/mnt/tools/other", "stderr": "x", "exit_code": 1, "signal": "SIGKILL", "pid": 1, "causes": []}
    assert error_of(details={**claimed, "mine": 1}).details == {"mine": 1, "claimed": claimed}
    assert error_of(details={"claimed": 1}).details == {"claimed": {"claimed": 1}}
    assert error_of(details={"mine": {"module": 1}}).details == {"mine": {"module": 1}}


@pytest.mark.parametrize("message", ["", "two\nlines", "a\x1b[31m"])
def test_a_message_passes_as_it_is_and_is_shown_on_one_line(message):
    error = error_of(message=message)
    assert error.message == message
    assert len(f"{error}.".splitlines()) == 1


def test_a_long_message_is_cut():
    assert error_of(message="x" * 8192).message == "x" * 8192
    assert error_of(message="x" * 8193).message == "x" * 8191 + "…"


@pytest.mark.parametrize(
    "details", [{"a": "x" * 70_000}, {"a": "x" * 300_000}, {str(n): "x" * 300 for n in range(1000)}]
)
def test_large_details_are_left_out(details):
    assert error_of(details=details).details.keys() == {"$omitted"}


def test_small_details_are_kept_beside_a_long_message():
    assert error_of(message="x" * 300_000, details={"a": 1}).details == {"a": 1}


def test_details_have_at_most_so_many_members():
    assert len(error_of(details={str(n): 0 for n in range(1000)}).details) == 257


@pytest.mark.parametrize("code", ["mine", "oom", "x" * 65])
def test_details_go_with_whatever_code_up_to_their_bound(code):
    for size, kept in ((64 * 1024, True), (64 * 1024 + 1, False), (300_000, False)):
        details = {"a": "x" * (size - len('{"a":""}'))}
        reply = {"ok": False, "error": {"code": code, "message": "no" * 50, "details": details}}
        with pytest.raises(KernelError) as caught:
            result_of(decode_message(text(reply)), "who")
        assert (caught.value.details == details) is kept
        if not kept:  # that of a large message is an estimate: what is left without the code and the message
            estimated = size > 256 * 1024
            assert size + estimated <= caught.value.details["$omitted"] <= size + 100 * estimated


def test_the_size_of_details_is_estimated_only_beyond_what_a_turn_of_the_loop_may_take():
    for at_most, estimated in ((256 * 1024, False), (256 * 1024 + 1, True)):
        frame = b'{"ok":false,"error":{"code":"mine","message":"no","details":{"a":"%b"}}}'
        reply = frame % (b"x" * (at_most - len(frame % b"") + len("mine") + len("no")))
        with pytest.raises(KernelError) as caught:
            result_of(decode_message(reply), "who")
        assert (caught.value.details["$omitted"] == at_most) is estimated
