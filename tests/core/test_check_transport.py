"""The check of transports: ours pass, one from outside too, and each flaw is found, one by one."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.conftest import MODULES

from amplifier_core import ModuleDescriptor
from amplifier_core.hookspecs import TRANSPORTS
from amplifier_core.testing import ProbeModule, check_transport
from amplifier_transport_inproc import descriptor_of

pytestmark = pytest.mark.newest

SECRET = "s3cret-token"
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OUTSIDE = HERE.parent / "thirdparty" / "amplifier-thirdparty-example" / "src" / "amplifier_thirdparty_example"
PROBE = [sys.executable, str(MODULES / "probe.py")]
ENV = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "TOKEN": SECRET}


def over(plugin, **fields):
    told = {"name": "probe", "kind": "tool", "capabilities": [], "limits": {"message_bytes": 2 << 20}}
    return ModuleDescriptor.from_mapping({**told, "transport": {"type": plugin, **fields}})


@contextlib.contextmanager
def served(*options, program=PROBE):
    """Serve the module of the check in a process, and give what it says that it listens on."""
    pipe, env = subprocess.PIPE, os.environ | ENV
    with subprocess.Popen([*program, *options], cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


async def check(descriptor, **options):
    found = await check_transport(descriptor, secrets=[SECRET], **options)
    assert not any("\n" in each.problem for each in found)
    return found, {each.name: each.problem for each in found if each.problem}


async def passes(descriptor):
    found, problems = await check(descriptor)
    assert problems == {}
    assert len({each.name for each in found}) == len(found) == 17


async def test_stdio_passes():
    await passes(over("stdio", command=PROBE, env=ENV))


async def test_a_transport_over_another_stream_passes(site):
    site.install(TRANSPORTS, "tcp", (HERE / "tcp.py").read_text())
    with served("--port") as port:
        await passes(over("tcp", port=int(port)))


async def test_http_passes():
    with served("--http") as port:
        await passes(over("http", url=f"http://127.0.0.1:{port}", headers={"authorization": SECRET}))


class Inproc:
    """The module of the check as an object in this process, which nothing ends."""

    def __init__(self):
        self._module = ProbeModule()

    def describe(self):
        return {"name": "probe", "kind": "tool", "capabilities": []}

    def inproc(self):
        return self

    async def answer(self, method, params, send):
        reply = await self._module.answer(method, json.loads(params), lambda text: send(text.encode()))
        return (reply or "").encode()

    async def close(self):
        pass


async def test_inproc_passes():
    found, problems = await check(descriptor_of(Inproc(), limits={"message_bytes": 2 << 20}), without=[ENDS])
    assert problems == {}
    assert len(found) == 16


async def test_grpc_passes(grpc_is_up):
    with served(program=[sys.executable, "-m", "tests.grpc_transport.probe"]) as port:
        fields = {"target": f"dns:///127.0.0.1:{port}", "tls": False, "metadata": {"authorization": SECRET}}
        await passes(over("grpc", **fields))


async def test_a_transport_from_outside_passes(site):
    site.install(TRANSPORTS, "unixsocket", (OUTSIDE / "unixsocket.py").read_text())
    folder = tempfile.TemporaryDirectory(dir="/tmp")  # a socket's path has 103 bytes at most
    with folder as short, served("--socket", f"{short}/s"), contextlib.chdir(short):
        await passes(over("unixsocket", path="s"))


@pytest.fixture
def direct(site):
    site.install(TRANSPORTS, "direct", (MODULES / "direct.py").read_text())
    return lambda kind: over("direct", kind=kind, token=SECRET)


async def test_a_transport_without_a_flaw_has_no_problem(direct):
    await passes(direct("Direct"))


UNSTARTED = "one that was not started can be closed"
STARTS = "it starts, and answers health and describe"
VALUES = "arguments and results pass unchanged"
LARGE = "large messages pass"
LIMIT = "a message beyond limits.message_bytes is internal"
AT_ONCE = "16 requests run at once"
ERRORS = "errors pass with code, message and details"
PENDING = "pending passes, with its state"
EVENTS = "events of a reply pass"
BROKEN = "a reply that is no JSON is internal"
CHUNKS = "chunks come in order, before the reply"
HOLDS = "a slow reader of chunks holds the module back"
CANCEL = "a cancelled request ends, alone, and its module is told"
ENDS = "an end fails what is in flight, and the next request starts anew"
SECRETS = "no secret is shown"
REPORTS = "only events of transports are reported"
CLOSE = "close ends everything, and may be called twice"


@pytest.mark.parametrize(
    ("kind", "rule", "said"),
    [
        ("NeedsStart", UNSTARTED, "it raised AttributeError: 'NoneType'"),
        ("NoStart", STARTS, "it raised Unreachable: unreachable: no such module"),
        ("BareHealth", STARTS, "health gave Message("),
        ("NoMessage", STARTS, "request gave dict, expected a Message"),
        ("Floats", VALUES, "they came back as {"),
        ("Cuts", LARGE, "1048576 bytes came back as {"),
        ("NoLimit", LIMIT, "it gave Message("),
        ("BreaksAtTheLimit", LIMIT, "the next request gave TypeError"),
        ("OneAtATime", AT_ONCE, "no end within 5 s"),
        ("MixesUp", AT_ONCE, "replies went to other requests: ["),
        ("NoDetails", ERRORS, "bad_request came as ErrorBody("),
        ("NoState", PENDING, "it came as Pending("),
        ("NoEvents", EVENTS, "they came as None"),
        ("RaisesWhatever", BROKEN, "it gave NotJson("),
        ("BreaksOnce", BROKEN, "the next request gave TypeError"),
        ("Backwards", CHUNKS, "not each one once and in order, before the reply: [99, 98,"),
        ("LateChunks", CHUNKS, "not each one once and in order, before the reply: []"),
        ("OtherReply", CHUNKS, "the reply is another one"),
        ("NeverPauses", HOLDS, "of 200 chunks were dropped: pause while put gives False"),
        ("LosesChunks", HOLDS, "199 chunks of 200 came"),
        ("TellsNobody", CANCEL, "of 2 cancelled requests the module heard of 0"),
        ("Hides", CANCEL, "wait: it had not ended 1 s after its cancellation"),
        ("Answers", CANCEL, "wait: a cancelled request ended with Unreachable("),
        ("OtherMessage", CANCEL, "wait: the CancelledError has another message: anyio knows its own by it"),
        ("CancelsAll", CANCEL, "it raised Unreachable: unreachable: the module went away"),
        ("LateReply", CANCEL, "a late reply went to another request"),
        ("HangsAtTheEnd", ENDS, "no end within 5 s"),
        ("LeavesOthers", ENDS, "what was in flight has neither an answer nor an error"),
        ("OtherError", ENDS, "it gave OSError('broken pipe'), expected Unreachable"),
        ("OneError", ENDS, "two requests have the same error object"),
        ("StartsTwice", ENDS, "two requests at once started it "),
        ("StaysDown", ENDS, "the next request gave Unreachable("),
        ("Shows", SECRETS, "a secret is shown: <Shows s3cret-token>"),
        ("ShowsInErrors", SECRETS, "a secret is shown: Unreachable("),
        ("Chatty", REPORTS, "it reports 'module:progress', which is none of module:start, "),
        ("ClosesOnce", CLOSE, "it raised ValueError: it is closed"),
        ("LeavesRequests", CLOSE, "no end within 5 s"),
        ("LeavesTask", CLOSE, "a task runs on: <Task pending name='keeps alive'"),
        ("AnswersOn", CLOSE, "a request after it gave Message("),
    ],
)
async def test_each_flaw_is_found(direct, kind, rule, said):
    _, problems = await check(direct(kind), seconds=5)
    assert said in problems[rule]
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def test_a_rule_can_be_left_out(direct):
    found, problems = await check(direct("NoEvents"), without=[EVENTS])
    assert problems == {}
    assert len(found) == 16


async def test_the_module_of_the_check_knows_no_other_operation():
    async def send(_):
        raise AssertionError

    told = await ProbeModule().answer("invoke", {"op": "dance"}, send)
    assert json.loads(told or "")["error"] == {
        "code": "unsupported_op",
        "message": "probe does not know 'dance'",
        "details": {},
    }
