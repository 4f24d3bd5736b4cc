"""What an isolated module lacks is said where its failure is told: what was not granted, and what cannot start."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from tests.conftest import missing_here

from amplifier_core import Kernel, KernelError, Plan, Unreachable, load_descriptor

M = "/mnt/tools/m"
MODULE = """
import json, os, socket, sys
D = {"name": "m", "kind": "tool", "version": "1.0.0", "capabilities": [], "inputs": {}, "outputs": {}}
for line in sys.stdin:
    request = json.loads(line)
    answers = {"health": {"status": "ok"}, "describe": D}
    if request["method"] == "invoke":
        CODE
    if "id" in request:
        print(json.dumps({"id": request["id"], "ok": True, "result": answers.get(request["method"])}), flush=True)
"""


@pytest.fixture
async def session(isolation, log):
    async def allow(event):
        return {"decision": "allow", "scope": "session"}

    async with Kernel(event_log=log, isolation="bwrap") as kernel:
        session = await kernel.session.create(Plan("be confined"))
        await session.register_hook("policy:request", allow)
        yield session


def describe(tmp_path, code, capabilities=()):
    script = tmp_path / "code" / "m.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(MODULE.replace("CODE", textwrap.indent(code, " " * 8).strip()))
    transport = {"type": "stdio", "command": [sys.executable, str(script)]}
    return {"name": "m", "kind": "tool", "capabilities": [*capabilities], "transport": transport}


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("open('/usr/out.txt', 'w')", "not granted fs:write:/usr/out.txt, and isolated"),
        ("sys.exit(os.system('echo x > /usr/out.txt') or 1)", "not granted fs:write:/usr/out.txt, and isolated"),
        ("open('/srv/list.txt')", "not granted fs:read:/srv/list.txt, and isolated"),
        ("open('/etc/no-such-file')", None),
        ("socket.getaddrinfo('example.org', 80)", "not granted net:connect:*, and isolated: there is no network"),
        (
            "socket.create_connection(('192.0.2.1', 80), 1)",
            "not granted net:connect:*, and isolated: there is no network",
        ),
        (
            "import none_such",
            "isolated: where none_such is installed has to be granted, as fs:read:FOLDER",
        ),
        (
            "os.environ['AMPLIFIER_TEST_KEY']",
            "not granted env:AMPLIFIER_TEST_KEY: a module sees no other variable of the host",
        ),
        ("raise ValueError('of its own')", None),
    ],
)
async def test_what_was_not_granted_is_a_hint(session, tmp_path, code, hint):
    await session.mount("/mnt/tools", describe(tmp_path, code))
    with pytest.raises(Unreachable) as caught:
        await session.invoke(M, "go", {})
    hints = [note for note in caught.value.__notes__ if note.startswith("hint: ")]
    assert hints == ([f"hint: {hint}"] if hint else [])


async def test_what_is_there_beside_a_host_is_a_hint(session, tmp_path):
    code = "socket.getaddrinfo('example.org', 80)"
    await session.mount("/mnt/tools", describe(tmp_path, code, ["net:connect:a.test:443"]))
    with pytest.raises(Unreachable) as caught:
        await session.invoke(M, "go", {})
    hints = [note for note in caught.value.__notes__ if note.startswith("hint: ")]
    assert hints == ["hint: not granted net:connect:*, and isolated: nothing is there but a.test:443"]


async def test_what_was_granted_is_no_hint(session, tmp_path):
    """The disk may be read-only for everybody."""
    code = f"sys.exit(\"OSError: [Errno 30] Read-only file system: '{tmp_path}/data/x'\")"
    (tmp_path / "data").mkdir()
    await session.mount("/mnt/tools", describe(tmp_path, code, [f"fs:write:{tmp_path}/data"]))
    with pytest.raises(Unreachable) as caught:
        await session.invoke(M, "go", {})
    assert not [note for note in caught.value.__notes__ if note.startswith("hint: ")]


async def test_a_message_of_the_module_itself_has_the_hint_too(session, tmp_path):
    code = """
error = {"code": "internal", "message": "OSError: [Errno 30] Read-only file system: '/usr/out.txt'"}
print(json.dumps({"id": request["id"], "ok": False, "error": error}), flush=True)
del request["id"]
"""
    await session.mount("/mnt/tools", describe(tmp_path, textwrap.dedent(code)))
    with pytest.raises(KernelError) as caught:
        await session.invoke(M, "go", {})
    assert caught.value.__notes__ == [
        f"{M} replied with this to invoke go",
        "hint: not granted fs:write:/usr/out.txt, and isolated",
    ]


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("#!/no/such/python9\n", "its interpreter /no/such/python9 is not there; its #! line names it"),
        ("#!/bin/sh\r\n", "its #! line, with the interpreter /bin/sh, ends with a carriage return"),
        ("echo guessed\n", "it has no #! line, and is no program"),
        ("\ufeff#!/bin/sh\n", "it begins with a byte order mark, before any #! line"),
    ],
    ids=["gone", "carriage return", "none", "mark"],
)
async def test_a_script_that_the_system_cannot_start_is_refused_and_no_shell_guesses(
    session, tmp_path, events, head, why
):
    script = tmp_path / "script"
    script.write_bytes(head.encode())
    script.chmod(0o755)
    told = describe(tmp_path, "")
    told["transport"]["command"] = [str(script)]
    with pytest.raises(Unreachable) as caught:
        await session.mount("/mnt/tools", told)
    assert caught.value.message.startswith(f"{M}: command {script}: {why}")
    assert events("module:start") == []


async def test_a_folder_that_is_not_there_is_not_made(session, tmp_path, events):
    told = describe(tmp_path, "")
    told["transport"]["cwd"] = f"{tmp_path}/none"
    with pytest.raises(KernelError) as caught:
        await session.mount("/mnt/tools", told)
    assert str(caught.value) == f"unreachable: {M}: folder {tmp_path}/none: No such file or directory"
    assert events("module:start") == []


LOOK = """
import json, os, subprocess, sys
from amplifier_isolation_bwrap._mounts import find_mount_points
for name in json.loads(sys.argv[2]):
    place = os.path.join(os.fsencode(sys.argv[1]), name.encode("latin-1"))
    os.mkdir(place)
    subprocess.run([b"mount", b"-t", b"tmpfs", b"none", place], check=True)
found = find_mount_points()
print(json.dumps({os.fsencode(path).decode("latin-1"): kind for path, kind in found.items()}))
"""


def test_mounts_are_found_whatever_their_names(tmp_path, linux):
    """In a namespace of its own: names with spaces of any kind, ends of lines, and bytes that are no UTF-8."""
    names = [
        "a b",
        "p\xc2\xa0q",
        "\xe5\x85\xa8\xe3\x80\x80\xe8\xa7\x92",
        "a\rb",
        "c\nd",
        "back\\slash",
        "caf\xe9 x",
        " - ",
    ]
    command = ["unshare", "-rm", sys.executable, "-c", LOOK, str(tmp_path), json.dumps(names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=dict(os.environ))
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr.splitlines()[-1]):
        missing_here(f"no namespace of mounts can be made: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: found.get(f"{tmp_path}/{name}") for name in names} == dict.fromkeys(names, "tmpfs")


async def test_a_script_beside_the_descriptor_s_folder(session, tmp_path):
    """As of a descriptor that was moved: the script is there, and an isolated module sees its own folder alone."""
    file = tmp_path / "elsewhere" / "m.json"
    file.parent.mkdir()
    file.write_text(json.dumps(describe(tmp_path, "pass")))
    with pytest.raises(Unreachable) as caught:
        await session.mount("/mnt/tools", load_descriptor(file))
    script = tmp_path / "code" / "m.py"
    assert f"hint: not granted fs:read:{script}, and isolated" in caught.value.__notes__
