"""A module on a worker's host is confined there by bubblewrap as it would be here, and policy here hears how far."""

import json
import sys

import pytest
from tests.conftest import missing_here
from tests.nats_transport.servers import Worker, descriptor

from amplifier_isolation_bwrap import open_isolation

MODULE = """
import json, os, socket, sys
def look(files, port):
    seen = {"token": os.environ.get("AMPLIFIER_TEST_TOKEN")}
    for name in files:
        try:
            with open(name) as file:
                seen[name] = file.read()
        except OSError as error:
            seen[name] = error.strerror
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        return {**seen, "network": "open"}
    except OSError as error:
        return {**seen, "network": "closed"}
for line in sys.stdin:
    request = json.loads(line)
    method, params = request["method"], request.get("params") or {}
    if method == "cancel":
        continue
    if method == "health":
        result = {"status": "ok"}
    elif method == "describe":
        result = {"name": "m", "kind": "tool", "capabilities": json.loads(sys.argv[1]), "inputs": {}, "outputs": {}}
    else:
        result = look(**params["args"])
    print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)
"""


@pytest.fixture
def files(tmp_path):
    """Write two files of the worker's host, and the module; give the files, and what describes the module there."""
    for name in ("code", "declared", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    program = tmp_path / "code" / "look.py"
    program.write_text(MODULE)
    capabilities = [f"fs:read:{tmp_path}/declared"]

    def describe(*more):
        command = [sys.executable, str(program), json.dumps(capabilities)]
        transport = {"type": "stdio", "command": command}
        return {"name": "m", "kind": "tool", "capabilities": [*capabilities, *more], "transport": transport}

    return [f"{tmp_path}/{name}/file" for name in ("declared", "other")], describe


@pytest.fixture
def work_confined(tmp_path, nats, subject):
    """Start a worker that is not told to trust its module. The folder of its descriptor is opened for the module."""
    if why := open_isolation({}).trial():
        missing_here(why)
    workers = []

    def start(fields, *options):
        workers.append(Worker(tmp_path / "code", nats, fields, *options, subject=subject))
        return workers[-1]

    yield start
    for each in workers:
        each.terminate()
        each.end(10)


@pytest.fixture
async def mount(session, nats, subject):
    """Mount what the workers serve; give what policy was told that nothing enforces."""
    asked: list = []

    async def allow(event):
        asked.append(event.data.get("unenforced", []))
        return {"decision": "allow", "scope": "session"}

    async def there(capabilities):
        await session.register_hook("policy:request", allow)
        await session.mount("/mnt/tools", descriptor(nats, subject=subject, capabilities=capabilities))
        return asked[0]

    return there


async def test_bwrap_confines_it_on_the_worker_s_host(nats, work_confined, files, mount, session, events, monkeypatch):
    (declared, other), describe = files
    monkeypatch.setenv("AMPLIFIER_TEST_TOKEN", "secret")
    work_confined(describe()).wait("serving")
    assert await mount(describe()["capabilities"]) == []
    assert "unenforced" not in events("mount:add")[0]["data"]
    seen = await session.invoke("/mnt/tools/m", "look", {"files": [declared, other], "port": nats.port})
    assert seen == {declared: "declared", other: "No such file or directory", "network": "closed", "token": None}


async def test_without_an_isolation_there_policy_hears_that_nothing_enforces_it(
    nats, work_confined, files, mount, session, events
):
    (declared, other), describe = files
    work_confined(describe(), "--trusted").wait("serving")
    assert await mount(describe()["capabilities"]) == describe()["capabilities"]
    assert events("mount:add")[0]["data"]["unenforced"] == describe()["capabilities"]
    seen = await session.invoke("/mnt/tools/m", "look", {"files": [declared, other], "port": nats.port})
    assert (seen[other], seen["network"]) == ("other", "open")


async def test_where_more_is_granted_there_than_is_named_here_nothing_is_enforced(
    work_confined, files, mount, tmp_path
):
    _, describe = files
    work_confined(describe(f"fs:read:{tmp_path}/other")).wait("serving")
    assert await mount(describe()["capabilities"]) == describe()["capabilities"]


def test_what_bwrap_cannot_enforce_starts_no_worker(work_confined, files):
    _, describe = files
    worker = work_confined(describe("net:connect:127.1:80"))
    assert worker.end() == 1
    (line,) = worker.said
    assert "forbidden: " in line
    assert "cannot enforce net:connect:127.1:80" in line
