"""Isolation through the kernel: what policy sees and narrows, what is refused, and what the log says."""

import json
import sys

import pytest

from amplifier_core import Forbidden, Kernel, Oom, Plan, Unreachable

MODULE = """
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    if request["method"] == "health":
        result = {"status": "ok"}
    elif request["method"] == "describe":
        result = {"name": "files", "kind": "tool", "capabilities": json.loads(sys.argv[1]), "inputs": {}, "outputs": {}}
    else:
        result = {}
        for path in request["params"]["args"]["paths"]:
            try:
                result[path] = sorted(os.listdir(path))
            except OSError as error:
                result[path] = error.strerror
    print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)
"""
FILES = "/mnt/tools/files"
SHELL_MODULE = r"""
while read -r line; do
    id=${line#*\"id\":\"}; id=${id%%\"*}
    case $line in
        *health*) result='{"status": "ok"}' ;;
        *describe*) result='{"name": "files", "kind": "tool", "capabilities": WORDS, "inputs": {}, "outputs": {}}' ;;
        *) result='"nothing there"'; test -e "$1" && result='"there"' ;;
    esac
    printf '{"id": "%s", "ok": true, "result": %s}\n' "$id" "$result"
done
"""


@pytest.fixture
def folders(tmp_path):
    for name in ("data/public", "data/private", "code"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    (tmp_path / "code" / "files.py").write_text(MODULE)
    return tmp_path


def descriptor(folders, *capabilities):
    words = list(capabilities)
    command = [sys.executable, str(folders / "code" / "files.py"), json.dumps(words)]
    return {"name": "files", "kind": "tool", "capabilities": words, "transport": {"type": "stdio", "command": command}}


async def test_policy_sees_what_is_opened_and_the_log_tells(isolated, folders, events):
    asked = []

    async def look(event):
        asked.append(event.data)
        return {"decision": "abstain"}

    await isolated.register_hook("policy:request", look, priority=1)
    await isolated.mount("/mnt/tools", descriptor(folders, f"fs:read:{folders}/data"))
    opened = asked[0]["args"]["isolation"]
    assert opened["name"] == "bwrap"
    assert {f"{folders}/data", f"{folders}/code/files.py"} <= set(opened["read"])
    assert opened["write"] == []
    assert asked[0].get("unenforced", []) == []
    (started,) = events("module:start")
    assert started["data"]["isolation"] == "bwrap"
    assert started["data"]["network"] == "none"


async def test_a_module_gets_only_what_policy_left(isolation, log, folders):
    async def narrow(_):
        return {"decision": "allow", "capabilities": [f"fs:read:{folders}/data/public"], "scope": "session"}

    async with Kernel(event_log=log, isolation="bwrap") as kernel:
        session = await kernel.session.create(Plan(goal="narrow"))
        await session.register_hook("policy:request", narrow)
        await session.mount("/mnt/tools", descriptor(folders, f"fs:read:{folders}/data"))
        seen = await session.invoke(FILES, "list", {"paths": [f"{folders}/data", f"{folders}/data/private"]})
    assert seen == {f"{folders}/data": ["public"], f"{folders}/data/private": "No such file or directory"}


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.1:80", "its host is neither a name nor an address"),
        ("a..b:80", "its host is neither a name nor an address"),
        ("0.0.0.0:80", "no host has this address"),
        ("[::ffff:127.0.0.1]:80", "no host has this address"),
        ("[fe80::1]:80", "no host has this address"),
        ("[ff02::1]:80", "no host has this address"),
        ("localhost:80", "this machine is meant by its address: 127.0.0.1, or [::1]"),
    ],
)
async def test_what_is_no_host_is_refused_with_the_reason_and_the_way_out(isolated, folders, host, why):
    with pytest.raises(Forbidden) as caught:
        await isolated.mount("/mnt/tools", descriptor(folders, f"net:connect:{host}"))
    assert f"bwrap cannot enforce net:connect:{host} ({why})" in caught.value.message
    assert "trusted=True" in caught.value.message


async def test_a_folder_that_is_not_there_is_refused_before_anything_starts(isolated, folders, events):
    with pytest.raises(Unreachable, match="No such file or directory; only a path that exists can be granted"):
        await isolated.mount("/mnt/tools", descriptor(folders, f"fs:write:{folders}/none"))
    assert events("module:start") == []


async def test_a_program_that_is_not_there_is_refused_before_anything_starts(isolated, folders, events):
    told = descriptor(folders)
    told["transport"]["command"][0] = "no-such-program"
    with pytest.raises(Unreachable, match="command no-such-program: not found on PATH"):
        await isolated.mount("/mnt/tools", told)
    assert events("module:start") == []


GROW = "import sys, time; hold = b'x' * (256 << 20); print(len(hold), flush=True); time.sleep(600)"


async def test_memory_of_its_children_counts(isolated, folders):
    """The kernel sees a module's processes although they have a namespace of their own."""
    source = folders / "code" / "files.py"
    growing = (
        f"import subprocess; child = subprocess.Popen([sys.executable, '-c', {GROW!r}], stdout=-1);"
        " child.stdout.readline(); time.sleep(600)"
    )
    source.write_text(MODULE.replace("result = {}\n", f"import time; {growing}\n"))
    told = descriptor(folders) | {"limits": {"memory_bytes": 128 << 20}}
    await isolated.mount("/mnt/tools", told)
    with pytest.raises(Oom):
        await isolated.invoke(FILES, "list", {"paths": []}, timeout=20)


async def test_a_module_that_died_starts_again_as_confined_as_before(isolated, folders):
    told = descriptor(folders)
    source = folders / "code" / "files.py"
    dying = 'result = {}; "die" in request["params"]["args"] and os._exit(1)\n'
    source.write_text(MODULE.replace("result = {}\n", dying))
    await isolated.mount("/mnt/tools", told)
    with pytest.raises(Unreachable):
        await isolated.invoke(FILES, "list", {"die": True, "paths": []})
    seen = await isolated.invoke(FILES, "list", {"paths": [f"{folders}/data"]})
    assert seen == {f"{folders}/data": "No such file or directory"}


async def test_what_a_module_mounts_brings_no_file_along(isolated, module, folders):
    """Else a module with `sys:mount` could read any file by naming it in a command."""
    secret = folders / "data" / "private" / "file"
    words = ["sys:mount", f"fs:read:{folders}/code", f"fs:read:{folders}/data"]
    await isolated.mount("/mnt/agents", module("caller.py", kind="agent", capabilities=words))

    async def mount(*command, capabilities=()):
        told = {"name": "files", "kind": "tool", "capabilities": list(capabilities)}
        asked = {**told, "transport": {"type": "stdio", "command": list(command)}}
        call = {"name": "mount", "args": {"path": "/mnt/tools", "descriptor": asked}}
        return (await isolated.invoke("/mnt/agents/caller", "call", {"syscalls": [call]}))["results"][0]

    script = SHELL_MODULE.replace("WORDS", "[]")
    assert (await mount("/bin/sh", "-c", script, "sh", str(secret)))["ok"] is True
    assert await isolated.invoke(FILES, "look", {}) == "nothing there"
    await isolated.unmount(FILES)
    tool = folders / "code" / "tool"
    tool.write_text(f"#!{sys.executable}\n")
    tool.chmod(0o755)
    failed = await mount(str(tool))
    assert failed["error"]["code"] == "forbidden"
    assert (
        "what /mnt/agents/caller mounts can start the system's programs and what its own fs:read: grants"
        in failed["error"]["message"]
    )
    tool.write_text("#!/bin/sh" + SHELL_MODULE.replace("WORDS", json.dumps([f"fs:read:{folders}/code"])))
    assert (await mount(str(tool), str(secret), capabilities=[f"fs:read:{folders}/code"]))["ok"] is True
    assert await isolated.invoke(FILES, "look", {}) == "nothing there"
    await isolated.unmount(FILES)
    word = f"fs:read:{folders}/data"
    script = SHELL_MODULE.replace("WORDS", json.dumps([word]))
    assert (await mount("/bin/sh", "-c", script, "sh", str(secret), capabilities=[word]))["ok"] is True
    assert await isolated.invoke(FILES, "look", {}) == "there"
