"""One module in eight languages, each written from the protocol's text alone: they behave alike."""

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.conftest import missing_here
from tests.polyglot.toolchains import LANGUAGES, ToolchainMissing, prepare

from amplifier_core import KernelError, ModuleDescriptor, Timeout, load_descriptor
from amplifier_core.testing import check_module

pytestmark = pytest.mark.newest  # the modules are the same on each Python

WORDS = "/mnt/orchestrators/words"
TEXT = 'Ein schöner "Tag"\r\n\tmit \\ und😀\u2028Ende \x00\x1b/ '  # spaces, tabs and line ends alone divide it
TOLD = ["Ein", "schöner", '"Tag"', "mit", "\\", "und😀\u2028Ende", "\x00\x1b/"]
EXAMPLES: dict = {"count": {"text": TEXT}, "tell": {"text": TEXT}, "report": {"tool": WORDS, "texts": [TEXT]}}
COUNTED = {"words": 7, "characters": len(TEXT), "longest": "und😀\u2028Ende"}


@pytest.fixture(params=LANGUAGES)
def language(request):
    return request.param


@pytest.fixture
def descriptor(language) -> ModuleDescriptor:
    try:
        return load_descriptor(prepare(language))
    except ToolchainMissing as error:
        missing_here(str(error))
        raise


async def allow(event):
    return {"decision": "allow", "scope": "session"}


@pytest.fixture
async def words(session, descriptor):
    """A session in which the module is mounted."""
    await session.register_hook("policy:request", allow)
    await session.mount("/mnt/orchestrators", descriptor, trusted=True)
    return session


async def test_it_conforms(descriptor):
    checks = await check_module(descriptor, EXAMPLES)
    assert {check.name: check.problem for check in checks if check.problem} == {}


def test_the_check_finds_it_sound(language, descriptor):
    calls = {**EXAMPLES, "wait": {"seconds": 1.5}}  # one of which is cancelled, and has a second then
    ops = [f"--op={op}={json.dumps(args)}" for op, args in calls.items()]
    ops += ['--op=fail={"details": {"colour": "cyan"}}=out_of_ink', '--op=count={"text": null}=bad_request']
    command = [sys.executable, "-m", "amplifier_tools", "check", str(prepare(language)), "--trusted", "--strict", *ops]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=100, check=False)
    assert "SOUND: " in done.stdout, done.stdout
    assert done.returncode == 0


async def test_it_is_the_same_everywhere(words, descriptor):
    described = json.loads((Path(__file__).parent / "describe.json").read_text("utf-8"))
    assert await words.describe(WORDS) == described


async def test_it_counts_words_in_utf_8(words):
    assert await words.invoke(WORDS, "count", {"text": TEXT}) == COUNTED
    assert await words.invoke(WORDS, "count", {"text": ""}) == {"words": 0, "characters": 0, "longest": ""}


async def test_it_takes_a_message_that_is_larger_than_a_pipe(words):
    result = await words.invoke(WORDS, "count", {"text": "wört " * 20_000})
    assert result == {"words": 20_000, "characters": 100_000, "longest": "wört"}


async def test_it_streams(words):
    stream = words.stream(WORDS, "tell", {"text": TEXT})
    assert [chunk["word"] async for chunk in stream] == TOLD
    assert await stream.result() == {"words": 7}


async def test_it_calls_another_module_turn_by_turn(words, events):
    """That module is the one that waits for the call: it holds nothing meanwhile, even if it takes one at a time."""
    assert await words.invoke(WORDS, "report", {"tool": WORDS, "texts": ["a b", TEXT, ""]}) == {"words": 9}
    emitted = [(event["component"], event["data"]) for event in events("words:counted")]
    assert emitted == [(WORDS, {"text": number}) for number in (1, 2, 3)]
    assert await words.invoke(WORDS, "report", {"tool": WORDS, "texts": []}) == {"words": 0}


async def test_it_tells_why_a_call_of_its_own_failed(words):
    with pytest.raises(KernelError, match="report_failed: text 1 was not counted") as raised:
        await words.invoke(WORDS, "report", {"tool": "/mnt/tools/none", "texts": ["a"]})
    assert raised.value.details["cause"]["code"] == "bad_request"


async def test_it_fails_with_details(words):
    details = {"colour": '\u00e9\n"cyan"', "left": [0, 2.5, -1, True, None, {}, []], "": {"a": {"b": "c,]}"}}}
    with pytest.raises(KernelError) as raised:
        await words.invoke(WORDS, "fail", {"details": details})
    error = raised.value
    assert (error.code, error.message) == ("out_of_ink", "buy some")
    assert {name: error.details[name] for name in details} == details


@pytest.mark.parametrize(
    ("op", "args", "message"),
    [
        ("count", {}, "args.text: expected a string"),
        ("count", {"text": 5}, "args.text: expected a string"),
        ("count", {"text": None}, "args.text: expected a string"),
        ("tell", {"text": ["a"]}, "args.text: expected a string"),
        ("report", {"texts": []}, "args.tool: expected a string"),
        ("report", {"tool": "", "texts": "a"}, "args.texts: expected a list of strings"),
        ("wait", {"seconds": "1"}, "args.seconds: expected a number"),
        ("wait", {"seconds": True}, "args.seconds: expected a number"),
        ("fail", {"details": []}, "args.details: expected an object"),
    ],
)
async def test_it_refuses_what_does_not_fit(words, op, args, message):
    with pytest.raises(KernelError) as raised:
        await words.invoke(WORDS, op, args)
    assert (raised.value.code, raised.value.message) == ("bad_request", message)


async def test_it_does_not_know_other_operations(words):
    for op in ("constructor", "invoke", "count "):
        with pytest.raises(KernelError, match="unsupported_op"):
            await words.invoke(WORDS, op, {"text": "a"})


async def test_it_waits(words):
    began = time.monotonic()
    assert await words.invoke(WORDS, "wait", {"seconds": 0.25}) == {"seconds": 0.25}
    assert time.monotonic() - began >= 0.25


async def test_it_honours_a_cancel(words, events):
    """A module that did not would be killed after a second, and started again for the next call."""
    with pytest.raises(Timeout):
        await words.invoke(WORDS, "wait", {"seconds": 60}, timeout=0.2)
    assert await words.invoke(WORDS, "count", {"text": TEXT}) == COUNTED
    assert len(events("module:start")) == 1
    assert not events("module:exit")


async def test_it_answers_at_once_or_says_that_it_does_not(words, language, descriptor):
    waiting = asyncio.ensure_future(words.invoke(WORDS, "wait", {"seconds": 60}))
    await asyncio.sleep(0)
    if LANGUAGES[language].at_once:
        assert await words.invoke(WORDS, "count", {"text": TEXT}) == COUNTED
        assert descriptor.limits.concurrency is None
    else:
        with pytest.raises(Timeout) as raised:
            await words.invoke(WORDS, "count", {"text": TEXT}, timeout=0.2)
        assert raised.value.details["phase"] == "turn"
        assert descriptor.limits.concurrency == 1
    waiting.cancel()
    await asyncio.wait([waiting])


@pytest.fixture
def process(descriptor):
    """The module without a kernel. One that does not answer is killed."""
    command = descriptor.transport["command"]
    with subprocess.Popen(command, cwd=descriptor.base, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        patience = threading.Timer(20, process.kill)
        patience.start()
        yield process
        patience.cancel()
        process.kill()


def wait_for(name):
    return {"id": name, "method": "invoke", "params": {"op": "wait", "args": {"seconds": 60}}}


def test_it_honours_a_cancel_that_comes_in_the_same_breath(process):
    lines = [wait_for("1"), {"method": "cancel", "params": {"id": "1"}}, {"id": "2", "method": "health"}]
    process.stdin.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for _ in range(2)]
    (cancelled,) = (answer for answer in answers if answer["id"] == "1")
    assert cancelled["error"]["code"] == "cancelled"


def test_it_ends_with_stdin_whatever_it_does(process):
    lines = [{"id": "1", "method": "health"}, wait_for("2")]
    process.stdin.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["id"] == "1"
    process.stdin.close()
    assert process.wait(timeout=20) == 0


def test_the_readme_has_every_language_and_its_lines():
    folder = Path(__file__).parent
    rows = re.findall(r"^\| \[.*?\]\((.+?)\).*? \| (\d+) \|", (folder / "README.md").read_text("utf-8"), re.MULTILINE)
    files = {name: folder / name / language.source for name, language in LANGUAGES.items()}
    counted = {f"{name}/{file.name}": len(file.read_text("utf-8").splitlines()) for name, file in files.items()}
    assert {name: int(lines) for name, lines in rows} == counted
