"""examples/agent, run as it stands: a process of its own, in a copy of its folder, on its script and on an endpoint."""

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import venv
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import msgspec
import pytest

import amplifier_module
from amplifier_core import KernelError, load_descriptor
from amplifier_core.testing import check_module

pytestmark = pytest.mark.newest  # CI runs the example itself on python3, whichever that is

AGENT = Path(__file__).resolve().parents[2] / "examples" / "agent"
LOOP, COMPACTOR, PROVIDER = "/mnt/orchestrators/loop", "/mnt/context/compactor", "/mnt/providers/openai"
DISCONNECTED = object()  # among the events of an answer: here the client leaves


class Run:
    """One run of main.py: what it has shown so far, how it ended, and its log."""

    def __init__(self, folder, *argv, stdin=subprocess.DEVNULL, **environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "XDG_"))}
        environment = {**kept, "XDG_STATE_HOME": str(folder / "state"), "NO_COLOR": "1", **environment}
        command = [sys.executable, str(folder / "main.py"), *argv]
        self.folder = folder
        self.text = ""
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.process.stdout
        self.screen = self.process.stdout.fileno()

    def until(self, text):
        """Read on until a text was shown."""
        while text not in self.text:
            piece = os.read(self.screen, 4096)
            assert piece, f"{text!r} was never shown:\n{self.text}"
            self.text += piece.decode()
        return self

    def end(self, timeout=30):
        """Wait for the end and give the exit code. Nothing of it may be left running."""
        rest, _ = self.process.communicate(timeout=timeout)
        self.text += rest.decode()
        left = [link for link in Path("/proc").glob("[0-9]*/cwd") if runs_in(link, self.folder)]
        assert not left, "processes are left"
        return self.process.returncode

    @property
    def events(self):
        (log,) = (self.folder / "state" / "amplifier" / "events").iterdir()
        assert f"The log: {log}\n" in self.text
        return [json.loads(line) for line in log.read_bytes().splitlines()]

    def event(self, name, **fields):
        found = [each for each in self.events if each["event"] == name and each.items() >= fields.items()]
        assert found, f"no {name} with {fields}"
        return found[-1]


def runs_in(link, folder):
    try:
        return os.readlink(link).startswith(str(folder))  # noqa: PTH115 - it may be gone
    except OSError:
        return False


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """A Python with the kit, installed as users have it: a confined module does not see an editable one."""
    home = tmp_path_factory.mktemp("installation")
    venv.create(home, symlinks=True)
    scheme = {"base": str(home), "platbase": str(home)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    for package in (amplifier_module, msgspec):
        shutil.copytree(package.__path__[0], packages / package.__name__)
    return sysconfig.get_path("scripts", "venv", scheme)


@pytest.fixture(autouse=True)
def python3_has_the_kit(installation, monkeypatch):
    monkeypatch.setenv("PATH", os.pathsep.join([installation, os.environ["PATH"]]))


@pytest.fixture
def folder(tmp_path, need):
    for program in ("node", "perl", "sh"):
        need(program)
    return shutil.copytree(AGENT, tmp_path / "agent", ignore=shutil.ignore_patterns("notes", "__pycache__"))


@pytest.fixture
def start(folder):
    """Start main.py in the copy; a test that fails leaves nothing running."""
    runs = []

    def start(*argv, **more):
        runs.append(Run(folder, *argv, **more))
        return runs[-1]

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits that it is ignored
    yield start
    signal.signal(signal.SIGINT, before)
    for run in runs:
        run.process.kill()
        run.process.communicate()


# on the script


def test_the_script_shows_all_that_the_example_is_about(start, folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "plan.md").write_text("kept")
    run = start("--yes")
    assert run.end() == 0
    assert "I follow a script, I am no model" in run.text
    assert "the note is there" in run.text
    assert (folder / "notes" / "script.md").read_text() == "A script was here, and looked around.\n"
    assert (folder / "notes" / "plan.md").read_text() == "kept"
    listed = run.event("module:invoke", module="/mnt/tools/files", status="ok")["data"]["result"]["names"]
    assert listed == sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.glob("[!.]*"))
    found = run.event("module:invoke", module="/mnt/tools/grep")["data"]["result"]["matches"]
    assert {match["file"] for match in found} >= {"orchestrator.mjs", "files.sh", "grep.pl", "note.py"}


def test_one_request_is_one_tree_of_spans(start):
    run = start("--yes")
    assert run.end() == 0
    root = run.event("module:invoke", module=LOOP)
    tree = [event for event in run.events if event.get("request_id") == root["request_id"]]
    spans = {event["span_id"]: event.get("parent_span_id") for event in tree}
    assert [span for span, parent in spans.items() if parent is None] == [root["span_id"]]
    assert {parent for parent in spans.values() if parent} <= spans.keys()
    asked = [event for event in tree if event.get("module") == "/mnt/providers/script"]
    assert len(asked) == 4
    assert {event["parent_span_id"] for event in asked} == {root["span_id"]}


def test_policy_denies_one_tool_and_a_person_allows_another(start):
    run = start("--yes")
    assert run.end() == 0
    denied = run.event("module:invoke", module="/mnt/tools/files", status="error")
    assert (denied["data"]["op"], denied["error"]["code"]) == ("remove", "forbidden")
    hooks = run.event("policy:decision", module="/mnt/tools/note")["data"]["hooks"]
    assert [(hook["hook"], hook["decision"]) for hook in hooks] == [
        ("/mnt/hooks/policy", "abstain"),
        ("Person", "allow"),
    ]
    assert run.event("artifact:write", component="/mnt/tools/note")["data"]["path"] == "notes/script.md"


def test_the_two_tools_of_one_turn_are_called_at_once(start):
    run = start("--yes")
    assert run.end() == 0
    calls = [e for e in run.events if e["event"] == "module:invoke" and e.get("module", "").startswith("/mnt/tools/")]
    (first, second), spans = calls[:2], [(e["ts"] - e["duration_ms"] / 1000, e["ts"]) for e in calls[:2]]
    assert {first["module"], second["module"]} == {"/mnt/tools/files", "/mnt/tools/grep"}
    assert max(begin for begin, _ in spans) < min(end for _, end in spans)


def test_a_compaction_is_announced_and_reported(start):
    run = start("--yes")
    assert run.end() == 0
    names = [event["event"] for event in run.events if event["event"].startswith("context:")]
    before, after = names.index("context:pre_compact"), names.index("context:post_compact")
    assert "context:set" in names[before:after]
    event = run.event("context:post_compact", component=COMPACTOR)
    assert event["data"] == {"fragment": "transcript", "before": 7, "after": 5}


def test_without_a_person_nobody_says_yes(start, folder):
    run = start()
    assert run.end() == 0
    assert "nobody is there" in run.text
    assert "the note was not written (error: forbidden" in run.text
    assert list((folder / "notes").glob("*")) == []


@pytest.mark.parametrize(("answer", "outcome"), [(b"y\n", "the note is there"), (b"\n", "the note was not written")])
def test_a_person_at_the_terminal_decides(start, answer, outcome):
    ours, theirs = pty.openpty()
    try:
        run = start(stdin=theirs).until("[y/N] ")
        os.write(ours, answer)
        assert run.end() == 0
        assert outcome in run.text
    finally:
        os.close(ours)
        os.close(theirs)


def test_ctrl_c_cancels_while_a_person_is_asked(start):
    ours, theirs = pty.openpty()
    try:
        run = start(stdin=theirs).until("[y/N] ")
        run.process.send_signal(signal.SIGINT)
        assert run.end(timeout=3) == 130
        assert run.event("module:invoke", module="/mnt/tools/note")["error"]["code"] == "cancelled"
    finally:
        os.close(ours)
        os.close(theirs)


def test_ctrl_c_in_mid_stream_cancels_cleanly(start):
    run = start("--yes").until("I follow")
    run.process.send_signal(signal.SIGINT)
    assert run.end(timeout=3) == 130
    assert "\ncancelled\n" in run.text
    assert "Traceback" not in run.text
    for module in (LOOP, "/mnt/providers/script"):
        assert run.event("module:invoke", module=module)["error"]["code"] == "cancelled"
    exits = [event["data"] for event in run.events if event["event"] == "module:exit"]
    assert [each["exit_code"] for each in exits] == [0] * 7


def test_a_program_that_is_missing_is_named(start, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("perl", "python3", "sh"):
        (programs / name).symlink_to(shutil.which(name))
    run = start(PATH=str(programs))
    assert run.end() == 2
    assert run.text == "This agent's modules need node, which is not on PATH here.\n"


# on an endpoint


def say(text, finish="stop"):
    """Make the events of an answer, a word each."""
    words = re.findall(r"\S+\s*", text)
    yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    for word in words:
        yield {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    yield {"choices": [], "usage": {"total_tokens": len(words)}}


def call(*wanted):
    """Make the events of some tool calls: (name, arguments as text), in pieces."""
    for index, (name, arguments) in enumerate(wanted):
        head = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        yield {"choices": [{"index": 0, "delta": {"tool_calls": [head]}, "finish_reason": None}]}
        for begin in range(0, len(arguments), 5):
            part = {"index": index, "function": {"arguments": arguments[begin : begin + 5]}}
            yield {"choices": [{"index": 0, "delta": {"tool_calls": [part]}, "finish_reason": None}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}


class Endpoint(ThreadingHTTPServer):
    """A server that speaks the interface of chat completions: each request gets the next of the answers."""

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), EndpointHandler)
        self.answers = iter(answers)
        self.requests = []
        self.asked, self.hung_up = threading.Event(), threading.Event()
        url = f"http://127.0.0.1:{self.server_port}/v1/"
        self.environment = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "s3cret", "OPENAI_MODEL": "some-model"}


class EndpointHandler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers, body))
        self.server.asked.set()
        answer = next(self.server.answers)
        if isinstance(answer, tuple):
            status, content_type, text = answer
            self.send(status, content_type)
            self.wfile.write(text.encode())
            return
        self.send(200, "text/event-stream; charset=utf-8")
        for event in answer:
            if event is DISCONNECTED:
                assert self.connection.recv(1) == b""
                self.server.hung_up.set()
                return
            self.wfile.write(b": a comment\n\ndata: %b\n\n" % json.dumps(event).encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def send(self, status, content_type):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()  # HTTP/1.0: the end of the connection is the end of the body

    def log_message(self, *_):
        pass


@contextmanager
def serving(*answers):
    with Endpoint(*answers) as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield endpoint
        finally:
            endpoint.shutdown()
            thread.join()


def test_a_model_works_towards_the_goal(start, folder):
    tools = call(("files_list", '{"path": "."}'), ("grep_search", '{"pattern": "Perl", "name": "*.pl"}'))
    note = call(("note_write", '{"name": "languages.md", "text": "Perl, for one.\\n"}'))
    with serving(tools, note, say("Perl is among them.")) as endpoint:
        run = start("--yes", "Which languages?", **endpoint.environment)
        assert run.end() == 0
    assert run.text.count("Perl is among them.") == 1
    assert (folder / "notes" / "languages.md").read_text() == "Perl, for one.\n"
    (path, headers, first), (*_, second), (*_, third) = endpoint.requests
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", "Bearer s3cret")
    assert (first["model"], first["stream"]) == ("some-model", True)
    assert first["messages"][-1] == {"role": "user", "content": "Which languages?"}
    functions = {tool["function"]["name"]: tool["function"]["parameters"] for tool in first["tools"]}
    assert functions.keys() == {"files_list", "files_remove", "grep_search", "note_write"}
    assert functions["files_list"]["required"] == ["path"]
    asked, listed, found = second["messages"][-3:]
    assert asked["tool_calls"][0]["function"] == {"name": "files_list", "arguments": '{"path": "."}'}
    assert (listed["tool_call_id"], found["tool_call_id"]) == ("call_0", "call_1")
    assert "grep.pl" in json.loads(listed["content"])["names"]
    assert json.loads(found["content"])["matches"][0]["file"] == "grep.pl"
    assert json.loads(third["messages"][-1]["content"]) == {"path": "notes/languages.md", "bytes": 15}
    assert "s3cret" not in json.dumps(run.events)


def test_tokens_are_on_the_screen_before_the_answer_is_complete(start):
    shown = threading.Event()

    def patient():
        events = say("First of all, the rest.")
        yield next(events)
        yield next(events)
        assert shown.wait(10)
        yield from events

    with serving(patient()) as endpoint:
        run = start(**endpoint.environment).until("First ")
        assert "of all" not in run.text
        shown.set()
        assert run.end() == 0
    assert "First of all, the rest.\n" in run.text


def test_an_endpoint_that_does_not_stream_is_answer_enough(start):
    message = {"choices": [{"message": {"role": "assistant", "content": "All at once."}}]}
    with serving((200, "application/json", json.dumps(message))) as endpoint:
        run = start(**endpoint.environment)
        assert run.end() == 0
    assert run.text.count("All at once.") == 1


def test_what_a_model_gets_wrong_is_told_to_it(start):
    wrong = call(
        ("no_tool", "{}"),
        ("grep_search", '{"pattern": '),
        ("grep_search", "[1]"),
        ("grep_search", '{"pattern": "("}'),
        ("files_list", '{"path": "/etc"}'),
        ("files_remove", '{"name": "plan.md"}'),
        ("files_list", '{"path": "."}'),
    )
    nothing_to_call = call(("no_tool", ""), ("neither_this", "{}"))
    with serving(wrong, nothing_to_call, say("Sorry.")) as endpoint:
        run = start(**endpoint.environment)
        assert run.end() == 0
    (_, _, second), (_, _, third) = endpoint.requests[1:]
    told = [message["content"] for message in second["messages"] if message["role"] == "tool"]
    assert told[0] == "error: bad_request: there is no tool no_tool"
    assert told[1].startswith("error: bad_request: the arguments are not JSON: ")
    assert told[2] == "error: bad_request: args.args: expected an object, got list"
    assert told[3].startswith("error: bad_request: args.pattern: Unmatched (")
    assert told[4] == "error: bad_request: args.path: expected the relative path of a folder below this one"
    assert told[5].startswith("error: forbidden: invoke /mnt/tools/files remove: /mnt/hooks/policy: ")
    assert "main.py" in told[6]
    assert [m["content"] for m in third["messages"][-2:]] == [
        "error: bad_request: there is no tool no_tool",
        "error: bad_request: there is no tool neither_this",
    ]


REFUSAL = json.dumps({"error": {"message": "so it is", "type": "some_error"}})


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        ((401, "application/json", REFUSAL), "forbidden", "answered HTTP 401: so it is"),
        ((404, "text/html", "<h1>No</h1>"), "unsupported_op", "answered HTTP 404: <h1>No</h1>"),
        ((429, "application/json", REFUSAL), "unavailable", "answered HTTP 429: so it is"),
        ((500, "text/plain", ""), "internal", "answered HTTP 500: nothing"),
        ((200, "text/html", "<h1>Welcome</h1>"), "unavailable", "before its answer was complete"),
        ((200, "application/json", "{}"), "internal", "broke the interface of chat completions: KeyError"),
        ((200, "text/event-stream", "data: {oops\n\n"), "internal", "broke the interface of chat completions"),
        ((200, "text/event-stream", f"data: {REFUSAL}\n\n"), "internal", "broke off: so it is"),
        (list(say("Half of"))[:2], "unavailable", "before its answer was complete"),
    ],
)
def test_what_the_endpoint_does_wrong_has_its_code(start, answer, code, told):
    with serving(answer) as endpoint:
        run = start(**endpoint.environment)
        assert run.end() == 1
    assert f"\n{code}: " in run.text
    assert told in run.text
    error = run.event("module:invoke", module=LOOP)["error"]
    assert (error["code"], error["message"]) == (code, run.event("module:invoke", module=PROVIDER)["error"]["message"])
    if isinstance(answer, tuple) and answer[0] != 200:
        assert error["details"]["http_status"] == answer[0]


def test_an_endpoint_that_is_not_there(start):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    run = start(OPENAI_BASE_URL=url, OPENAI_MODEL="some-model")
    assert run.end() == 1
    assert f"\nunavailable: {url}/chat/completions: ConnectionRefusedError" in run.text


def test_without_a_model_it_says_what_is_missing(start):
    run = start(OPENAI_BASE_URL="http://127.0.0.1:9")
    assert run.end() == 1
    assert "\nbad_request: OPENAI_BASE_URL and OPENAI_MODEL: expected " in run.text


@pytest.mark.parametrize("silent", [True, False])
def test_ctrl_c_hangs_up_on_the_endpoint(start, silent):
    with serving([*([] if silent else list(say("One two three"))[:3]), DISCONNECTED]) as endpoint:
        run = start(**endpoint.environment)
        if silent:
            assert endpoint.asked.wait(10)
        else:
            run.until("One two")
        run.process.send_signal(signal.SIGINT)
        assert run.end(timeout=3) == 130
        assert endpoint.hung_up.wait(3)
    assert run.event("module:invoke", module=PROVIDER)["error"]["code"] == "cancelled"


# module by module


@contextmanager
def service(folder, environment):
    """Run provider_openai.py alone."""
    command = [sys.executable, str(folder / "provider_openai.py")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env={**os.environ, **environment}, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin and process.stdout
        port = int(process.stdout.readline().rpartition(":")[2])
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            yield connection
        finally:
            connection.close()
            process.stdin.close()
            assert process.wait(timeout=3) == 0


def post(connection, path, params):
    connection.request("POST", path, json.dumps(params))
    response = connection.getresponse()
    return response, [json.loads(line) for line in response.read().splitlines()]


def test_the_provider_speaks_section_4_over_one_kept_connection(folder):
    with serving(say("Hello there."), say("And again.")) as endpoint, service(folder, endpoint.environment) as provider:
        assert post(provider, "/health", {})[1] == [{"status": "ok"}]
        assert post(provider, "/describe", {})[1][0]["kind"] == "provider"
        sock = provider.sock
        for text in ("Hello there.", "And again."):
            response, lines = post(provider, "/invoke", {"op": "complete", "args": {"messages": []}})
            assert response.headers["Content-Type"] == "application/x-ndjson"
            assert "".join(line["chunk"]["text"] for line in lines[:-1]) == text
            assert lines[-1] == {"ok": True, "result": {"message": {"role": "assistant", "content": text}}}
        assert provider.sock is sock
        for params, code in (({"op": "nothing"}, "unsupported_op"), ({"op": "complete", "args": {}}, "bad_request")):
            assert post(provider, "/invoke", params)[1][0]["error"]["code"] == code


def test_the_provider_keeps_to_the_deadline(folder):
    with serving([DISCONNECTED]) as endpoint, service(folder, endpoint.environment) as provider:
        params = {"op": "complete", "args": {"messages": []}, "deadline_ms": 200}
        assert post(provider, "/invoke", params)[1][-1]["error"]["code"] == "timeout"


ASKED = {"action": "invoke", "path": "/mnt/tools/files", "op": "list", "capabilities": []}
EVENT = {"id": "evt_1", "ts": 1.0, "event": "policy:request", "component": "kernel", "data": ASKED}
EXAMPLES: dict[str, dict[str, dict]] = {
    "context": {},
    "files": {"list": {"path": "."}},
    "grep": {"search": {"pattern": "Perl"}},
    "note": {"write": {"name": "a.md", "text": "ü"}},
    "orchestrator": {},
    "policy": {"on_event": {"event": EVENT}},
    "provider_script": {"complete": {"messages": [{"role": "user", "content": "Anything."}]}},
}


@pytest.mark.parametrize("name", EXAMPLES)
async def test_each_module_conforms(folder, name):
    checks = await check_module(load_descriptor(folder / f"{name}.json"), EXAMPLES[name])
    assert not [check for check in checks if check.problem]


async def test_the_provider_over_http_conforms(folder):
    answers = [say("One of many.") for _ in range(100)]
    with serving(*answers) as endpoint, service(folder, endpoint.environment) as connection:
        descriptor = load_descriptor(folder / "provider_openai.json")
        transport = {"type": "http", "url": f"http://127.0.0.1:{connection.port}"}
        checks = await check_module(
            attrs.evolve(descriptor, transport=transport), {"complete": {"messages": [], "tools": []}}
        )
    assert not [check for check in checks if check.problem]


async def allow(event):
    return {"decision": "allow", "scope": "session"}


@pytest.fixture
async def mount(session, folder):
    """Mount modules of the example by their descriptor files."""
    await session.register_hook("policy:request", allow)

    async def mount(**files):
        for mount_path, names in files.items():
            for name in names.split():
                await session.mount(f"/mnt/{mount_path}", load_descriptor(folder / f"{name}.json"), trusted=True)
        return session

    return mount


async def test_the_loop_stops_at_its_limit(mount):
    session = await mount(orchestrators="orchestrator", providers="provider_script", tools="files grep")
    with pytest.raises(KernelError, match="step_limit: there is no answer after 2 steps"):
        await session.invoke(LOOP, "run", {"goal": "anything", "max_steps": 2})


async def test_the_loop_goes_on_with_what_was_said_before(mount):
    session = await mount(orchestrators="orchestrator", providers="provider_script")
    for _ in range(2):
        result = await session.invoke(LOOP, "run", {"goal": "anything"})
        assert result["steps"] == 4
    transcript = (await session.context.get())["fragments"]["transcript"]
    assert [message["role"] for message in transcript].count("user") == 2


async def test_of_two_runs_in_a_session_the_newer_one_goes_on(mount, kernel):
    session = await mount(orchestrators="orchestrator", providers="provider_script")
    child = await kernel.session.fork(session.session_id)
    runs = (
        each.invoke(LOOP, "run", {"goal": goal})
        for each, goal in ((session, "old"), (child, "other"), (session, "new"))
    )
    old, elsewhere, new = await asyncio.gather(*runs, return_exceptions=True)
    assert str(old) == "cancelled: a newer run of this session goes on"
    assert not isinstance(elsewhere, BaseException)
    assert not isinstance(new, BaseException)
    transcript = (await session.context.get())["fragments"]["transcript"]
    assert [message["content"] for message in transcript if message["role"] == "user"] == ["new"]


async def test_the_loop_says_what_it_misses(mount):
    session = await mount(orchestrators="orchestrator")
    with pytest.raises(KernelError, match="bad_request: no provider is mounted"):
        await session.invoke(LOOP, "run", {"goal": "anything"})
    with pytest.raises(KernelError, match=r"bad_request: args\.goal"):
        await session.invoke(LOOP, "run", {})
    with pytest.raises(KernelError, match="unsupported_op"):
        await session.invoke(LOOP, "walk", {})


async def test_the_shell_tool_reads_what_is_text_and_refuses_the_rest(mount, folder):
    session = await mount(tools="files")
    odd = folder / "odd"
    odd.mkdir()
    for name in ('quo"te', "back\\slash", "two words", "ümlaut", "tab\there", "-n", ".hidden"):
        (odd / name).touch()
    (odd / "empty").mkdir()
    listed = await session.invoke("/mnt/tools/files", "list", {"path": "odd"})
    assert sorted(listed["names"]) == ["-n", "back\\slash", "empty/", 'quo"te', "tab?here", "two words", "ümlaut"]
    assert await session.invoke("/mnt/tools/files", "list", {"path": "odd/empty"}) == {"names": []}
    for path in ("/etc", "..", "odd/../..", "", "nowhere", "a\\b", 'a"b', 5, None):
        with pytest.raises(KernelError, match="bad_request"):
            await session.invoke("/mnt/tools/files", "list", {"path": path})
    with pytest.raises(KernelError, match="unsupported_op"):
        await session.invoke("/mnt/tools/files", "listing", {"path": "."})


async def test_the_shell_tool_removes_notes_alone(mount, folder):
    session = await mount(tools="files")
    (folder / "notes").mkdir()
    (folder / "notes" / "-f").touch()
    assert await session.invoke("/mnt/tools/files", "remove", {"name": "-f"}) == {}
    disguised = {
        "x": {"id": "", "method": "invoke", "params": {"op": "remove", "args": {"name": "main.py"}}},
        "path": ".",
    }
    assert "names" in await session.invoke("/mnt/tools/files", "list", disguised)
    for name in ("-f", "", "..", "../main.py", "/etc/passwd"):
        with pytest.raises(KernelError, match="bad_request"):
            await session.invoke("/mnt/tools/files", "remove", {"name": name})
    assert (folder / "main.py").exists()


async def test_the_perl_tool_searches(mount, folder):
    session = await mount(tools="grep")
    (folder / "odd.txt").write_text("eins ü\nzwei\n" + "drei\n" * 50)
    found = await session.invoke("/mnt/tools/grep", "search", {"pattern": "ü$", "name": "o?d.txt"})
    assert found == {"matches": [{"file": "odd.txt", "line": 1, "text": "eins ü"}], "complete": True}
    found = await session.invoke("/mnt/tools/grep", "search", {"pattern": "^drei$"})
    assert (len(found["matches"]), found["complete"]) == (40, False)
    for args in ({}, {"pattern": []}, {"pattern": "a", "name": {}}, {"pattern": "(?{ exit })"}):
        with pytest.raises(KernelError, match="bad_request"):
            await session.invoke("/mnt/tools/grep", "search", args)


async def test_a_pattern_without_end_is_stopped_and_the_tool_starts_again(mount, folder, events):
    session = await mount(tools="grep")
    (folder / "trap.txt").write_text("a" * 200)
    runaway = {"pattern": "((a{0,5}){0,5}){0,5}[^a]", "name": "trap.txt"}
    with pytest.raises(KernelError, match="timeout"):
        await session.invoke("/mnt/tools/grep", "search", runaway, timeout=0.5)
    while not events("module:exit"):  # it does not hear cancel
        await asyncio.sleep(0.01)
    found = await session.invoke("/mnt/tools/grep", "search", {"pattern": "^a+$", "name": "trap.txt"})
    assert found["complete"] is True


async def test_the_python_tool_writes_below_its_folder_alone(mount, folder):
    session = await mount(tools="note")
    for args in ({"name": "../x.md", "text": ""}, {"name": "x.md\n", "text": ""}, {"name": "x.md"}, {"text": ""}):
        with pytest.raises(KernelError, match="bad_request"):
            await session.invoke("/mnt/tools/note", "write", args)
    assert list((folder / "notes").glob("*")) == []


def exchange(n, length=300):
    call = {"id": f"call_{n}", "type": "function", "function": {"name": "look", "arguments": f'{{"n": {n}}}'}}
    yield {"role": "assistant", "content": None, "tool_calls": [call]}
    yield {"role": "tool", "tool_call_id": f"call_{n}", "content": "x" * length}


async def test_a_compaction_keeps_the_beginning_and_the_last_exchange(mount, session, events):
    await mount(context="context")
    head = [{"role": "system", "content": "You are."}, {"role": "user", "content": "Do."}]
    one, two, three, four = (list(exchange(n)) for n in range(1, 5))
    await session.context.set_fragment("transcript", [*head, *one, *two, *three])
    result = await session.invoke(COMPACTOR, "compact", {"fragment": "transcript"})
    assert result == {"fragment": "transcript", "before": 8, "after": 5}
    compacted = (await session.context.get())["fragments"]["transcript"]
    assert compacted[:2] + compacted[3:] == head + three
    assert [line.partition(" -> ")[0] for line in compacted[2]["content"].splitlines()] == [
        "Earlier steps, in short:",
        'look({"n": 1})',
        'look({"n": 2})',
    ]
    await session.context.set_fragment("transcript", [*compacted, *four])
    await session.invoke(COMPACTOR, "compact", {"fragment": "transcript"})
    again = (await session.context.get())["fragments"]["transcript"]
    assert (again[:2], again[3:], len(again[2]["content"].splitlines())) == (head, four, 4)
    assert len(events("context:pre_compact")) == len(events("context:post_compact")) == 2


async def test_what_cannot_be_compacted_stays_and_is_not_announced(mount, session, events):
    await mount(context="context")
    await session.context.set_fragment("transcript", [{"role": "user", "content": "Do."}, *exchange(1)])
    result = await session.invoke(COMPACTOR, "compact", {"fragment": "transcript"})
    assert result == {"fragment": "transcript", "before": 3, "after": 3}
    with pytest.raises(KernelError, match="bad_request: .*transcript"):
        await session.invoke(COMPACTOR, "compact", {"fragment": "none"})
    assert not events("context:pre_compact")


def test_the_modules_can_be_read_in_one_sitting_and_use_no_library_but_the_kit():
    for file in [*AGENT.glob("*.py"), *AGENT.glob("*.mjs"), *AGENT.glob("*.pl"), *AGENT.glob("*.sh")]:
        text = file.read_text("utf-8")
        assert len(text.splitlines()) <= 225, file
        if file.name == "main.py":
            continue
        imported = re.findall(r"^(?:import|from|use) ([\w:]+)", text, re.MULTILINE)
        known = sys.stdlib_module_names | {
            "amplifier_module",
            "msgspec",
            "strict",
            "warnings",
            "Encode",
            "File::Find",
            "JSON::PP",
        }
        assert {name.partition(".")[0] for name in imported} <= known, file
