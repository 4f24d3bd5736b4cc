"""Each flaw is found, by the id of the rule that it breaks, and nothing is found beside it."""

import pytest
from tests.check.conftest import EXAMPLES, HOOK, SLOW

pytestmark = pytest.mark.newest  # the flaws are the same on each Python

SAID = {  # the flaw: the rule
    "args-internal": "OP-05",
    "args-unchecked": "OP-05",
    "chunk-and-reply": "MSG-03",
    "describe-capability": "DESCRIBE-03",
    "describe-draft-7": "DESCRIBE-04",
    "describe-kind": "DESCRIBE-02",
    "describe-latest": "DESCRIBE-01",
    "describe-many": "DESCRIBE-05",
    "describe-name": "DESCRIBE-02",
    "describe-no-op": "DESCRIBE-05",
    "describe-nonsense": "DESCRIBE-04",
    "describe-number": "DESCRIBE-01",
    "describe-protocol": "DESCRIBE-06",
    "describe-silent": "MSG-01",
    "describe-text": "DESCRIBE-01",
    "describe-version": "DESCRIBE-02",
    "error-code": "ERROR-01",
    "error-details": "ERROR-01",
    "error-expected": "OP-02",
    "error-kernels-code": "ERROR-02",
    "error-no-message": "ERROR-01",
    "error-text": "ERROR-01",
    "error-unexpected": "OP-02",
    "event-kernels-name": "EVENT-02",
    "event-no-data": "EVENT-01",
    "event-no-name": "EVENT-01",
    "event-text": "EVENT-01",
    "events-many": "EVENT-03",
    "example-silent": "MSG-01",
    "health-dead": "MSG-01",
    "health-ill": "HEALTH-01",
    "hook-maybe": "HOOK-01",
    "inputs-narrow": "OP-04",
    "outputs-circle": "OP-03",
    "outputs-elsewhere": "OP-03",
    "pending-empty": "PENDING-01",
    "pending-malformed": "PENDING-01",
    "pending-ungranted": "PENDING-03",
    "pending-unknown": "PENDING-02",
    "reply-both": "MSG-02",
    "reply-ok-text": "MSG-02",
    "reply-shapeless": "MSG-02",
    "result-outputs": "OP-03",
    "resume-fails": "PENDING-04",
    "resume-silent": "PENDING-04",
    "unknown-member": "MSG-05",
    "unknown-op-internal": "OP-01",
    "unknown-op-ok": "OP-01",
    "unknown-op-silent": "MSG-01",
}
ON_LINES = {
    "banner": "STDIO-01",
    "bom": "STDIO-06",
    "chunk-after": "STDIO-07",
    "closes-stdin": "STDIO-10",
    "closes-stdout": "STDIO-10",
    "crossed": "OP-06",
    "cut": "STDIO-08",
    "exits": "STDIO-10",
    "exits-on-op": "STDIO-10",
    "floods": "STDIO-01",
    "list-id": "STDIO-03",
    "large-request": "MSG-04",
    "nan": "STDIO-08",
    "no-id": "STDIO-03",
    "no-params": "MSG-06",
    "noise-json": "STDIO-02",
    "noise-number": "STDIO-02",
    "noise-request": "STDIO-02",
    "noise-text": "STDIO-01",
    "not-utf-8": "STDIO-08",
    "null-id": "STDIO-03",
    "number-id": "STDIO-03",
    "pretty": "STDIO-05",
    "python-repr": "STDIO-01",
    "separators": "STDIO-09",
    "stays": "STDIO-11",
    "too-large": "MSG-07",
    "twice": "STDIO-04",
    "twice-later": "STDIO-04",
    "two-on-a-line": "STDIO-08",
    "wrong-id": "STDIO-03",
    "wrong-id-health": "STDIO-03",
}
CANCELLED = {
    "cancel-answered": "CANCEL-02",
    "cancel-dies": "CANCEL-01",
    "cancel-fails": "CANCEL-02",
    "cancel-ignored": "CANCEL-01",
}
IN_RESPONSES = {
    "http-after-reply": "HTTP-04",
    "http-after-unended": "HTTP-04",
    "http-bom": "HTTP-01",
    "http-breaks-off": "HTTP-09",
    "http-cancel-dies": "CANCEL-03",
    "http-elsewhere": "HTTP-09",
    "http-health-404": "HEALTH-01",
    "http-health-stream": "HTTP-02",
    "http-html": "HTTP-01",
    "http-number": "HTTP-01",
    "http-plain": "HTTP-06",
    "http-request-id": "HTTP-08",
    "http-status": "HTTP-07",
    "http-stream-as-json": "HTTP-05",
    "http-stream-as-text": "HTTP-05",
    "http-stream-garbage": "HTTP-01",
    "http-stream-mixed": "MSG-03",
    "http-stream-numbers": "HTTP-01",
    "http-stream-unended": "HTTP-03",
    "http-too-large": "MSG-07",
    "http-two": "HTTP-01",
    "http-wrapped": "HTTP-02",
}
SAID_BY_HTTP_TOO = [  # what is said is judged alike over every transport: these are about how it is said, too
    "chunk-and-reply", "describe-name", "error-unexpected", "event-no-name", "example-silent", "health-dead",
    "health-ill", "pending-empty", "reply-shapeless", "resume-fails", "resume-silent", "unknown-member",
    "unknown-op-silent",
]  # fmt: skip
SHOULD = ("args-internal", "args-unchecked", "inputs-narrow", "http-plain", "http-status")
OPS = [word for text in EXAMPLES.values() for word in ("--op", text)]
PATIENT = ["--timeout", "3"]


def test_the_program_without_a_flaw_is_sound(over_stdio, over_http):
    for run in (over_stdio, over_http):
        checked = run("none", *OPS, "--op", SLOW, "--strict")
        assert checked.ids == []
        assert checked.status == 0


def test_what_is_unusual_and_no_flaw_is_found_sound(over_stdio, over_http):
    for run, oddity in (
        (over_stdio, "nearly-too-large"),
        (over_stdio, "dialects"),
        (over_stdio, "stays-once"),
        (over_http, "http-unended-line"),
    ):
        checked = run(oddity, *OPS, "--strict")
        assert checked.ids == []
        assert checked.status == 0


@pytest.mark.parametrize("flaw", [*SAID, *ON_LINES, *CANCELLED])
def test_a_flaw_over_stdio_is_found_and_nothing_else(over_stdio, flaw):
    slow = ["--op", SLOW] if flaw in CANCELLED else ["--op", HOOK] if flaw == "hook-maybe" else []
    checked = over_stdio(flaw, *OPS, *slow, *PATIENT)
    assert checked.ids == [{**SAID, **ON_LINES, **CANCELLED}[flaw]]
    assert checked.status == (0 if flaw in SHOULD else 1)


@pytest.mark.parametrize("flaw", [*SAID_BY_HTTP_TOO, *IN_RESPONSES])
def test_a_flaw_over_http_is_found_and_nothing_else(over_http, flaw):
    slow = ["--op", SLOW] if flaw == "http-cancel-dies" else []
    checked = over_http(flaw, *OPS, *slow, *PATIENT)
    assert checked.ids == [{**SAID, **IN_RESPONSES}[flaw]]
    assert checked.status == (0 if flaw in SHOULD else 1)
