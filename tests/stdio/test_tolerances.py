"""What the kernel tolerates on a module's stdout (section 3), what it does not, and how a module is asked to end."""

import sys

import pytest

from amplifier_core import Internal, ModuleDescriptor

MODULE = """
import json, os, signal, sys
answers = {
    "health": {"status": "ok"},
    "describe": {"name": "m", "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}},
}
def put(text):
    os.write(1, text.encode())
for line in sys.stdin.buffer:
    request = json.loads(line)
    if request["method"] in answers:
        put(json.dumps({"id": request["id"], "ok": True, "result": answers[request["method"]]}) + "\\n")
    elif request["method"] == "invoke" and request["params"]["op"] == "raw":
        put(request["params"]["args"]["text"].replace("#", request["id"]))
    elif request["method"] == "invoke":
        put(json.dumps({"id": request["id"], "ok": True, "result": line.decode()}) + "\\n")
if sys.argv[1:]:
    note = open(sys.argv[1], "a", buffering=1)
    note.write("the end of stdin\\n")
    signal.signal(signal.SIGTERM, lambda *_: note.write("SIGTERM\\n"))
    while True:
        signal.pause()
"""
M = "/mnt/tools/m"
REPLY = '{"id":"#","ok":true,"result":1}\n'
TOLERATED = {
    "the end of a line in the way of Windows": ('{"id":"#","ok":true,"result":1}\r\n', 0),
    "spaces around the object": (' \t{"id": "#", "ok": true, "result": 1} \t\n', 0),
    "blank lines": ("\n \n\r\n" + REPLY, 0),
    "members in another order": ('{"result":1,"ok":true,"id":"#"}\n', 0),
    "members that nobody knows": ('{"jsonrpc":"2.0","id":"#","ok":true,"result":1,"more":null}\n', 0),
    "an id that is a number": ('{"id":1,"ok":true,"result":2}\n' + REPLY, 1),
    "an id that nobody asked with": ('{"id":"x#","ok":true,"result":2}\n' + REPLY, 1),
    "no id": ('{"ok":true,"result":2}\n{"id":null,"ok":false,"error":{"code":"a","message":"b"}}\n' + REPLY, 2),
    "a second reply": (REPLY + '{"id":"#","ok":true,"result":2}\n', 1),
    "a chunk after the reply": (REPLY + '{"id":"#","chunk":2}\n', 1),
    "text": ("hello\n" + REPLY, 1),
}
BROKEN = {
    "a byte order mark": ("\ufeff" + REPLY, "hint: write no byte order mark"),
    "an object over several lines": ('{\n  "id": "#",\n  "ok": true,\n  "result": 1\n}\n', "hint: one object a line"),
    "two replies on a line": (REPLY.rstrip() + REPLY, "JSON is malformed: trailing characters"),
}


@pytest.fixture
async def mounted(session, tmp_path):
    async def mount(*argv):
        file = tmp_path / "m.py"
        file.write_text(MODULE)
        transport = {"type": "stdio", "command": [sys.executable, str(file), *map(str, argv)]}
        fields = {"name": "m", "kind": "tool", "capabilities": [], "transport": transport}
        await session.mount("/mnt/tools", ModuleDescriptor.from_mapping(fields), trusted=True)
        return session

    return mount


@pytest.mark.parametrize("name", TOLERATED)
async def test_what_is_tolerated_on_stdout(mounted, events, name):
    text, noise = TOLERATED[name]
    session = await mounted()
    assert await session.invoke(M, "raw", {"text": text}) == 1
    assert await session.invoke(M, "raw", {"text": REPLY}) == 1
    await session.unmount(M)
    assert sum(event["data"]["count"] for event in events("module:noise")) == noise


@pytest.mark.parametrize("name", BROKEN)
async def test_what_breaks_the_contract_on_stdout(mounted, name):
    text, why = BROKEN[name]
    session = await mounted()
    with pytest.raises(Internal, match=f"{M}: the module broke its contract: ") as caught:
        await session.invoke(M, "raw", {"text": text})
    assert why in "\n".join([caught.value.message, *caught.value.__notes__])
    assert await session.invoke(M, "raw", {"text": REPLY}) == 1


async def test_a_request_is_one_line_whatever_is_in_its_text(mounted):
    session = await mounted()
    line = await session.invoke(M, "echo", {"text": "ü\u2028\u2029\x85\n"})
    assert '"ü\u2028\u2029\x85\\n"' in line
    assert line.count("\n") == 1


async def test_after_the_end_of_stdin_come_sigterm_and_then_the_end(mounted, events, tmp_path):
    notes = tmp_path / "notes"
    session = await mounted(notes)
    await session.unmount(M)
    assert notes.read_text() == "the end of stdin\nSIGTERM\n"
    assert events("module:exit")[-1]["data"]["signal"] == "SIGKILL"
