"""What newcomers get wrong, and what they are told: whole messages with their notes. docs/errors.md has these rows."""

import asyncio
import json
import logging
import os
import re
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from amplifier_core import Internal, Kernel, KernelError, Plan, load_descriptor

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
M = "/mnt/tools/m"
MODULE = """
import json, os, sys, time
D = {"name": "m", "kind": "tool", "version": "1.0.0", "capabilities": [], "inputs": {}, "outputs": {}}
def answer(request, result):
    print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["method"] == "health":
        answer(request, {"status": "ok"})
    elif request["method"] == "describe":
        answer(request, D)
    elif request["method"] == "invoke":
        op = request["params"]["op"]
        if op == "good":
            answer(request, {})
"""


@pytest.fixture
def tmp_path():
    """Give a folder with a short path: a line of stderr is cut after 200 characters."""
    with tempfile.TemporaryDirectory(dir="/tmp" if os.name == "posix" else None) as folder:
        yield Path(folder).resolve()


@pytest.fixture
def write(tmp_path):
    """Write a file into the folder that messages show as DIR."""

    def make(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return make


@pytest.fixture
def module(write):
    """Describe a module that does ``code`` when the op is ``bad``, or that is another program."""

    def describe(code="", *, program=None, command=None, **fields):
        body = MODULE + (f"        else:\n{textwrap.indent(textwrap.dedent(code), ' ' * 12)}\n" if code else "")
        script = write("m.py", program if program is not None else body)
        transport = {"type": "stdio", "command": command or [sys.executable, str(script)]}
        return {"name": "m", "kind": "tool", "capabilities": [], "transport": transport, **fields}

    return describe


@pytest.fixture
def said(tmp_path):
    """Give all that a traceback prints of an error, below the name of its class."""

    def read(error):
        text = "\n".join([str(error), *getattr(error, "__notes__", ())])
        return text.replace(str(tmp_path), "DIR").replace(sys.executable, "PYTHON")

    return read


@pytest.fixture
def told(session, said):
    """Give what is said of a mount that fails, or of an invocation."""

    async def mounting(descriptor, path="/mnt/tools", timeout=10, **options):
        with pytest.raises(KernelError) as caught:
            await session.mount(path, descriptor, trusted=True, timeout=timeout, **options)
        return said(caught.value)

    async def invoking(op="bad", timeout=10):
        with pytest.raises(KernelError) as caught:
            await session.invoke(M, op, {}, timeout=timeout)
        return said(caught.value)

    async def both(descriptor, op="bad", timeout=10):
        await session.mount("/mnt/tools", descriptor, trusted=True, timeout=10)
        return await invoking(op, timeout)

    return SimpleNamespace(mounting=mounting, invoking=invoking, both=both)


def lines(*expected):
    return "\n".join(expected)


# Descriptors.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"capabilities": None, "capabilites": []},
            (
                "bad_request: DIR/m.json: $.capabilities: expected a value, got nothing; "
                "is it meant by the unknown $.capabilites?"
            ),
        ),
        ({"name": None}, "bad_request: DIR/m.json: $.name: expected a value, got nothing"),
        (
            {"kind": "tol"},
            (
                "bad_request: DIR/m.json: $.kind: expected one of provider, tool, agent, hook, orchestrator, context, "
                "got 'tol'"
            ),
        ),
    ],
)
def test_a_descriptor_file_with_a_wrong_key(write, said, change, message):
    fields = {
        "name": "m",
        "kind": "tool",
        "capabilities": [],
        "transport": {"type": "stdio", "command": ["x"]},
    } | change
    file = write("m.json", json.dumps({key: value for key, value in fields.items() if value is not None}))
    with pytest.raises(KernelError) as caught:
        load_descriptor(file)
    assert said(caught.value) == message


async def test_a_wrong_key_of_transport(told):
    descriptor = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": "stdio", "comand": ["x"]}}
    assert await told.mounting(descriptor) == (
        "bad_request: descriptor: $.transport.comand: expected one of type, command, cwd, env, instance"
    )


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        ({"limit": {}}, "$.limit: unknown, and without effect; is limits meant?"),
        ({"limits": {"timeout": 5}}, "$.limits.timeout: unknown, and without effect; is timeout_ms meant?"),
        ({"limits": {"memory_byte": 5}}, "$.limits.memory_byte: unknown, and without effect; is memory_bytes meant?"),
        ({"x-mine": 1}, "$.x-mine: unknown, and without effect"),
    ],
)
async def test_an_unknown_key_that_is_ignored_is_a_warning(session, module, caplog, more, warning):
    await session.mount("/mnt/tools", module(**more), trusted=True)
    assert caplog.messages == [f"mounting {M}: descriptor: {warning}"]


async def test_a_file_s_name_in_place_of_a_descriptor(told):
    assert await told.mounting("wordcount.json") == (
        "bad_request: descriptor: $: expected an object, got str; load_descriptor(path) reads a file"
    )


async def test_a_kind_at_the_path_of_another_one_is_a_warning(session, module, caplog):
    await session.mount("/mnt/agents", module(), trusted=True)
    assert caplog.messages == ["mounting /mnt/agents/m: descriptor: $.kind: a tool is mounted at /mnt/agents"]


async def test_an_article_for_a_kind(session, module, caplog):
    with pytest.raises(Internal, match="describe: kind"):
        await session.mount("/mnt/tools", module(kind="agent"), trusted=True)
    assert "an agent is mounted at /mnt/tools" in caplog.messages[0]


async def test_a_path_that_is_not_the_whole_one(session, module, said):
    await session.mount("/mnt/tools", module(), trusted=True)
    for path, end in (*((path, f"; is {M} meant?") for path in ("/mnt/tools", "m", "/mnt/tols/m")), ("else", "")):
        with pytest.raises(KernelError) as caught:
            await session.invoke(path, "good", {})
        assert said(caught.value) == f"bad_request: path: nothing is mounted at '{path}'{end}"


@pytest.mark.parametrize(("kind", "end"), [("ssh", ""), ("stdoi", "; is stdio meant?"), ("htp", "; is http meant?")])
async def test_a_transport_that_is_not_installed(told, kind, end):
    """Nobody owns the package of an unknown name: no advice names one."""
    descriptor = {"name": "m", "kind": "tool", "capabilities": [], "transport": {"type": kind}}
    message = await told.mounting(descriptor)
    assert re.fullmatch(
        rf"bad_request: transport '{kind}' is not installed \(installed: [a-z, ]+\){re.escape(end)}", message
    )


async def test_an_isolation_that_is_not_installed_is_a_warning_when_the_kernel_opens(caplog):
    async with Kernel(event_log=False, isolation="bwarp"):
        pass
    [message] = caplog.messages
    assert re.fullmatch(r"isolation 'bwarp' is not installed \(installed: [a-z, ]+\)(; is bwrap meant\?)?", message)


async def test_a_plan_with_wrong_keys(kernel, said, caplog):
    with pytest.raises(KernelError) as caught:
        await kernel.session.create({"gaol": "x"})
    assert (
        said(caught.value) == "bad_request: plan.goal: expected text, got nothing; is it meant by the unknown 'gaol'?"
    )
    await kernel.session.create({"goal": "x", "input": {}})
    assert caplog.messages == ["plan.input: unknown, and without effect; is inputs meant?"]


@pytest.mark.parametrize("name", ["A=B", "", "=x"])
async def test_a_variable_that_no_process_can_have(told, module, name):
    descriptor = module()
    descriptor["transport"]["env"] = {name: "v"}
    assert await told.mounting(descriptor) == (
        "bad_request: descriptor: $.transport.env: expected names of variables, which have no = and are not empty, "
        f"got {name!r}"
    )


# Programs that do not start.


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("#!/no/such/python9\n", "its interpreter /no/such/python9 is not there; its #! line names it"),
        (
            "#!/usr/bin/python3\r\n",
            (
                "its #! line, with the interpreter /usr/bin/python3, ends with a carriage return: "
                "save the file with line feeds alone"
            ),
        ),
        ("import sys\n", "it has no #! line, and is no program"),
        (
            "\ufeff#!/usr/bin/python3\n",
            "it begins with a byte order mark, before any #! line: save the file without",
        ),
        ("#!\n", "its #! line names no interpreter"),
    ],
    ids=["gone", "carriage return", "none", "mark", "empty"],
)
async def test_a_script_that_the_system_cannot_start(told, module, write, text, why):
    script = write("script", text)
    with script.open("w", newline="") as file:
        file.write(text)
    script.chmod(0o755)
    assert await told.mounting(module(command=[str(script)])) == f"unreachable: {M}: command DIR/script: {why}"


async def test_programs_and_folders_that_are_not_there(told, module, write):
    assert await told.mounting(module(command=["pyhton3"])) == (
        f"unreachable: {M}: command pyhton3: No such file or directory"
    )
    assert await told.mounting(module(command=["/~/m"])) == (
        f"unreachable: {M}: command /~/m: No such file or directory; ~ stands for no home here: write the path out"
    )
    descriptor = module()
    descriptor["transport"]["cwd"] = "/no/such/folder"
    assert await told.mounting(descriptor) == lines(
        f"unreachable: {M}: folder /no/such/folder: No such file or directory", "command: PYTHON DIR/m.py"
    )
    plain = write("plain", "#!/bin/sh\n")
    assert await told.mounting(module(command=[str(plain)])) == (
        f"unreachable: {M}: command DIR/plain: Permission denied: the file is not executable; make it so, or put its "
        "interpreter before it"
    )


async def test_a_script_that_is_not_there(told, module, tmp_path):
    message = await told.mounting(module(command=[sys.executable, str(tmp_path / "none.py")]))
    assert message == lines(
        f"unreachable: {M}: the module went away: exit code 2",
        "command: PYTHON DIR/none.py",
        "its stderr:",
        "  PYTHON: can't open file 'DIR/none.py': [Errno 2] No such file or directory",
    )


async def test_a_crash_at_import(told, module):
    assert await told.mounting(module(program="raise ImportError('too old')")) == lines(
        f"unreachable: {M}: the module went away: exit code 1",
        "command: PYTHON DIR/m.py",
        "its stderr:",
        "  Traceback (most recent call last):",
        '    File "DIR/m.py", line 1, in <module>',
        "      raise ImportError('too old')",
        "  ImportError: too old",
    )


async def test_a_program_that_ends_before_it_is_asked(told, module):
    assert await told.mounting(module(program="def count(text): ...")) == lines(
        f"unreachable: {M}: the module went away: exit code 0",
        "command: PYTHON DIR/m.py",
        "hint: it ended by itself: a module answers one line after the other until the end of stdin",
    )


async def test_a_python_that_is_not_this_one(told, module, write, monkeypatch):
    other = write("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{other.parent}:{os.environ['PATH']}")
    descriptor = module(program="import none_such")
    descriptor["transport"]["command"][0] = "python3"
    assert (await told.mounting(descriptor)).splitlines()[-2:] == [
        "  ModuleNotFoundError: No module named 'none_such'",
        (
            "hint: python3 was DIR/python3, and this program's Python is PYTHON: "
            "name in the command the one that has none_such"
        ),
    ]


# Output that is no protocol.


SAYS_NOTHING = (
    "it wrote nothing: a module whose output is not flushed, or which reads stdin to its end, looks like this"
)
SAYS_NO_MORE = "it wrote nothing since the request was sent: it is still at work, or its reply is not flushed"


async def test_print_for_debugging_that_echoes_the_request(told, module):
    message = await told.both(module("print('got', line.strip(), flush=True)"), timeout=0.5)
    assert re.sub("(?<=got {).*", "…", message) == lines(
        f"timeout: {M}: no answer within 0.5 s",
        "command: PYTHON DIR/m.py",
        "its stdout had a line that is no reply; the first: got {…",
        "hint: stdout is the protocol's: print to stderr",
    )


async def test_print_for_debugging_before_a_silence(told, module):
    assert await told.both(module("print('hello'); print('again', flush=True)"), timeout=0.5) == lines(
        f"timeout: {M}: no answer within 0.5 s",
        "command: PYTHON DIR/m.py",
        "its stdout had 2 lines that are no reply; the first: hello",
        "hint: stdout is the protocol's: print to stderr",
    )


@pytest.mark.parametrize(
    ("code", "notes"),
    [
        ("pass", [SAYS_NO_MORE]),
        (
            """print('{"id":"r3"', end='', flush=True)""",
            [
                'its stdout has a line that has not ended: {"id":"r3"',
                "hint: end each message with a line feed, and flush it",
            ],
        ),
        (
            """print('{"ok":true,"result":{}}', flush=True)""",
            [
                'its stdout had a line that is no reply; the first: {"ok":true,"result":{}}',
                "hint: each reply has the id of its request, as it came: a text",
            ],
        ),
        (
            """print({"id": request["id"], "ok": True}, flush=True)""",
            [
                "its stdout had a line that is no reply; the first: {'id': 'r3', 'ok': True}",
                "hint: write JSON, with double quotes: in Python json.dumps(message), not str(message)",
            ],
        ),
        (
            """os.write(1, '{"ok":true}'.encode('utf-16-le') + b'\\n')""",
            [
                (
                    'its stdout had a line that is no reply; the first: {\\x00"\\x00o\\x00k\\x00"\\x00:\\x00'
                    "t\\x00r\\x00u\\x00e\\x00}\\x00"
                ),
                "hint: write stdout in UTF-8: this looks like UTF-16",
            ],
        ),
    ],
    ids=["silent", "no line feed", "no id", "repr", "utf-16"],
)
async def test_a_reply_that_does_not_come(told, module, code, notes):
    assert await told.both(module(code), timeout=0.5) == lines(
        f"timeout: {M}: no answer within 0.5 s", "command: PYTHON DIR/m.py", *notes
    )


async def test_a_reply_with_the_name_of_a_file_that_is_no_text(told, module):
    code = r"""print(json.dumps({"id": request["id"], "ok": True, "result": ["😀", "caf\udce9"]}), flush=True)"""
    assert await told.both(module(code)) == lines(
        f"internal: {M}: the module broke its contract: JSON is malformed: invalid utf-16 surrogate pair (byte 62)",
        "command: PYTHON DIR/m.py",
        r'the line: {"id": "r3", "ok": true, "result": ["\ud83d\ude00", "caf\udce9"]}',
        (
            "hint: a lone surrogate is no text: in Python os.fsencode(name).decode(errors='replace') "
            "for any name of a file"
        ),
    )


async def test_a_reply_on_many_lines(told, module):
    code = """print(json.dumps({"id": request["id"], "ok": True, "result": {}}, indent=2), flush=True)"""
    assert await told.both(module(code)) == lines(
        f"internal: {M}: the module broke its contract: Expected `object`, got `str`",
        "command: PYTHON DIR/m.py",
        'the line:   "id": "r3",',
        "its stdout had a line that is no reply; the first: {",
        "hint: one object a line: write each message without line breaks",
    )


@pytest.mark.parametrize(
    ("reply", "has"),
    [
        ({"ok": True, "reslt": {}}, "ok true"),
        ({"ok": False}, "ok false"),
        ({"result": {}}, "result"),
        ({"okay": True}, "neither ok nor pending"),
    ],
)
async def test_a_reply_of_another_shape(told, module, reply, has):
    code = f'print(json.dumps({{"id": request["id"], **{reply}}}), flush=True)'
    assert await told.both(module(code)) == lines(
        f"internal: {M} broke its contract: the reply is none of the three shapes of section 2: it has {has}"
    )


async def test_a_module_that_never_said_anything(told, module):
    assert await told.mounting(module(program="import sys; sys.stdin.read()"), timeout=1) == lines(
        f"timeout: mounting {M}: no answer within 1 s; it waited for its answer to health",
        "command: PYTHON DIR/m.py",
        SAYS_NOTHING,
    )


async def test_a_mount_that_times_out_says_what_the_module_said(told, module):
    program = "import sys, time; print('loading', flush=True); sys.stderr.write('no license\\n'); time.sleep(60)"
    assert await told.mounting(module(program=program), timeout=1) == lines(
        f"timeout: mounting {M}: no answer within 1 s; it waited for its answer to health",
        "command: PYTHON DIR/m.py",
        "its stdout had a line that is no reply; the first: loading",
        "its stderr:",
        "  no license",
        "hint: stdout is the protocol's: print to stderr",
    )


# Crashes.


async def test_a_crash_in_an_invocation(told, module):
    assert await told.both(module("sys.exit('no such word: \\x1b[31mred')")) == lines(
        f"unreachable: {M}: the module went away: exit code 1",
        "command: PYTHON DIR/m.py",
        "its stderr, since the request was sent:",
        "  no such word: \\x1b[31mred",
    )


async def test_many_calls_at_once_to_a_module_that_dies_of_one(session, module, said):
    await session.mount("/mnt/tools", module("time.sleep(0.2); sys.exit('of this one')"), trusted=True)
    calls = [session.invoke(M, "bad", {}) for _ in range(5)]
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert said(error) == lines(
            f"unreachable: {M}: the module went away: exit code 1",
            "command: PYTHON DIR/m.py",
            "its stderr, since the request was sent:",
            "  of this one",
            "5 requests were in flight: any of them may be the cause",
        )


async def test_what_an_earlier_call_wrote_to_stderr_explains_no_later_one(session, told, module):
    code = """
    if op == "loud":
        print("of the first", file=sys.stderr, flush=True)
        answer(request, {})
    """
    await session.mount("/mnt/tools", module(code), trusted=True)
    for _ in range(3):
        await session.invoke(M, "loud", {})
    assert await told.invoking("silent", timeout=0.3) == lines(
        f"timeout: {M}: no answer within 0.3 s", "command: PYTHON DIR/m.py", SAYS_NO_MORE
    )


async def test_a_death_without_a_word_shows_what_was_written_before_as_such(session, told, module):
    code = """
    if op == "loud":
        print("of the first", file=sys.stderr, flush=True)
        answer(request, {})
    else:
        sys.exit(3)
    """
    await session.mount("/mnt/tools", module(code), trusted=True)
    await session.invoke(M, "loud", {})
    assert await told.invoking("dies") == lines(
        f"unreachable: {M}: the module went away: exit code 3",
        "command: PYTHON DIR/m.py",
        "its stderr, before the request was sent:",
        "  of the first",
    )


async def test_an_error_that_the_module_replied_with_stays_as_it_is(told, module):
    code = """
    error = {"code": "bad_request", "message": "args.text: expected text"}
    print(json.dumps({"id": request["id"], "ok": False, "error": error}), flush=True)
    """
    assert await told.both(module(code)) == lines(
        "bad_request: args.text: expected text", f"{M} replied with this to invoke bad"
    )


async def test_a_variable_of_the_host_that_was_not_granted(told, module):
    message = await told.both(module('os.environ["AMPLIFIER_TEST_KEY"]'))
    assert message.splitlines()[-2:] == [
        "  KeyError: 'AMPLIFIER_TEST_KEY'",
        "hint: not granted env:AMPLIFIER_TEST_KEY: a module sees no other variable of the host",
    ]


# What a call waited for.


async def test_a_person_who_is_slower_than_the_deadline(session, told, module, events):
    await session.mount("/mnt/tools", module(), trusted=True)

    async def ask_a_person(event):
        await asyncio.sleep(60)

    ask_a_person.__qualname__ = "ask_a_person"
    await session.register_hook("policy:request", ask_a_person)
    assert await told.invoking("good", timeout=0.3) == (
        f"timeout: {M}: no answer within 0.3 s; it waited for policy hook ask_a_person"
    )
    decision = events("policy:decision")[-1]["data"]
    assert decision["decision"] == "deny"
    assert decision["reason"] == "policy hook ask_a_person had not answered when the wait for it ended"


async def test_a_hook_that_blocks_the_loop(session, told, module):
    await session.mount("/mnt/tools", module(), trusted=True)

    async def blocks(event):
        time.sleep(1)
        return {"decision": "allow"}

    blocks.__qualname__ = "blocks"
    await session.register_hook("policy:request", blocks)
    assert re.sub(r"(0\.9|1\.\d) s", "1 s", await told.invoking("good", timeout=0.1)) == (
        f"timeout: {M}: no answer within 0.1 s; it waited for policy hook blocks; "
        "the event loop was blocked for 1 s, by code that did not await"
    )


async def test_a_hook_that_invokes_through_its_own_session(session, told, module):
    await session.mount("/mnt/tools", module(), trusted=True)

    async def judge(event):
        await session.invoke(M, "good", {})
        return {"decision": "allow"}

    judge.__qualname__ = "judge"
    await session.register_hook("policy:request", judge)
    assert await told.invoking("good") == (
        f"forbidden: invoke {M} good: judge: the hook failed: policy hook judge invokes through a session whose calls "
        "it is asked about, 16 deep; let it answer for its own calls without another one"
    )


async def test_a_hook_may_start_calls_that_outlive_its_question(session, module):
    """Each of them asks the hook, which starts the next one. They are not inside each other."""
    await session.mount("/mnt/tools", module(), trusted=True)
    left, done = 40, asyncio.get_running_loop().create_future()
    tasks = []

    async def call():
        try:
            await session.invoke(M, "good", {})
        except KernelError as error:
            done.set_exception(error)

    async def go_on(event):
        nonlocal left
        left -= 1
        if left:
            tasks.append(asyncio.create_task(call()))
        else:
            done.set_result(None)
        return {"decision": "allow"}

    await session.register_hook("policy:request", go_on)
    await session.invoke(M, "good", {})
    await asyncio.wait_for(done, 10)
    await asyncio.gather(*tasks)


async def test_a_call_that_waits_for_its_turn(session, told, module):
    await session.mount("/mnt/tools", module("time.sleep(60)", limits={"concurrency": 1}), trusted=True)
    first = asyncio.create_task(told.invoking(timeout=0.6))
    await asyncio.sleep(0)
    assert await told.invoking("good", timeout=0.3) == (
        f"timeout: {M}: no answer within 0.3 s; it waited for its turn: limits.concurrency (1) requests were in flight"
    )
    await first


async def test_a_call_that_waits_for_the_grace_of_another_one_is_not_idle(session, told, module):
    """The idle limit counts from when a request was sent. This one never was."""
    await session.mount("/mnt/tools", module("time.sleep(60)", limits={"idle_ms": 200}), trusted=True)
    assert (await told.invoking(timeout=5)).startswith(f"timeout: {M}: no message within 0.2 s\n")
    assert await told.invoking("good", timeout=0.5) == (
        f"timeout: {M}: no answer within 0.5 s; it waited for the module, which had not answered a request that was "
        "cancelled before; this one was not sent"
    )


# Hooks, events and the log.


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (True, "expected an object with a decision, got bool"),
        ({"decision": "alow"}, "decision: expected allow, deny or abstain, got 'alow'"),
        ({"decison": "allow"}, "'decison' is unknown; is decision meant?"),
        ({"decision": "allow", "capability": []}, "'capability' is unknown; is capabilities meant?"),
    ],
)
async def test_a_hook_that_answers_nonsense(session, told, module, caplog, answer, why):
    async def odd(event):
        return answer

    odd.__qualname__ = "odd"
    await session.register_hook("policy:request", odd)
    assert await told.mounting(module()) == (
        f"forbidden: mount {M}: odd: the hook failed: policy hook odd gave no valid answer: {why}"
    )
    assert caplog.messages == [
        f"policy hook odd failed, which denies: policy hook odd gave no valid answer: {why}",
    ]


async def test_the_name_of_an_event_that_is_nearly_the_kernel_s(session, said):
    async def hook(event):
        pass

    with pytest.raises(KernelError) as caught:
        await session.register_hook("policy:requests", hook)
    assert said(caught.value) == (
        "bad_request: event: expected a name of the kernel's or a module's own, prefix:* or *, got 'policy:requests'; "
        "is policy:request meant?"
    )


async def test_a_broken_observer_is_a_warning_not_each_time(session, caplog):
    heard = asyncio.Event()

    async def broken(event):
        if event.data.get("n") == 11:
            heard.set()
        raise ValueError("no such table")

    broken.__qualname__ = "broken"
    await session.register_hook("my:*", broken)
    for n in range(12):
        session.emit("my:event", {"n": n})
    await heard.wait()
    assert caplog.messages == [
        "observer broken: raised ValueError: no such table",
        "observer broken: raised ValueError: no such table (time 10)",
    ]
    assert {(record.name, record.levelno) for record in caplog.records} == {("amplifier_core", logging.WARNING)}


async def test_an_event_that_is_dropped_is_a_warning(session, caplog):
    session.emit("no name", {})
    assert caplog.messages == ["an event was dropped: event: expected namespace:verb, got 'no name'"]


async def test_noise_is_a_warning_at_the_end_of_the_module(session, module, caplog):
    await session.mount("/mnt/tools", module(program="print('\\x1b[2Jhello')\n" + MODULE), trusted=True)
    await session.unmount(M)
    assert caplog.messages == [f"{M}: lines of stdout that were no protocol: 1; the first: '\\x1b[2Jhello'"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is /dev/full")
async def test_a_sole_sink_that_fails(said, caplog):
    with pytest.raises(Internal) as caught:
        async with Kernel(event_log="/dev/full") as kernel:
            await kernel.session.create(Plan("x"))
    assert said(caught.value) == (
        "internal: the kernel's sinks lost 4 events: sink JsonlSink: OSError: [Errno 28] No space left on device"
    )
    assert isinstance(caught.value.__cause__, OSError)
    assert caplog.messages == [
        "sink JsonlSink lost an event, and others may follow: OSError: [Errno 28] No space left on device"
    ]


async def test_a_wrong_option_of_the_log(said):
    with pytest.raises(KernelError) as caught:
        async with Kernel(event_log=False, sinks=[{"type": "jsonl", "path": "x", "rotate_byte": 5}]):
            pass
    assert said(caught.value) == "bad_request: sinks: jsonl: 'rotate_byte': expected one of path, rotate_bytes"


async def test_the_log_has_the_whole_tail_of_stderr(told, module, events):
    """8 KiB of it are kept, and no value of the log is larger: the end is what tells."""
    await told.both(module("""sys.stderr.write("\\x01" * 20000 + "the reason"); sys.exit(1)"""))
    [gone] = events("module:exit")
    failed = events("module:invoke")[-1]
    for text in (gone["data"]["stderr"], failed["error"]["details"]["stderr"]):
        assert text.endswith("\x01the reason")
        assert 8000 < len(json.dumps(text)) <= 8192
