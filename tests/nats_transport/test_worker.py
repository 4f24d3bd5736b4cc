"""The worker: what it says of itself, what it takes from whoever speaks its protocol, and how it starts and ends."""

import asyncio
import json
import subprocess
import sys

import pytest
from nats.aio.client import Client
from tests.nats_transport.objects import Echo
from tests.nats_transport.servers import local
from tests.nats_transport.test_words import params, until

from amplifier_core import Unreachable
from amplifier_transport_nats._worker import serving, worker
from amplifier_transport_nats._worker.command import main


class Kernel:
    """Another kernel than ours: it sends what it likes, and keeps what it hears."""

    def __init__(self):
        self.client = Client()
        self.heard = []
        self.words = []
        self.control = ""

    async def start(self, server):
        await self.client.connect(server.address)
        self.inbox = self.client.new_inbox()
        await self.client.subscribe(f"{self.inbox}.*", cb=self._hear)

    async def _hear(self, msg):
        self.control = msg.reply or self.control
        word = (msg.headers or {}).get("Amplifier", "")
        self.words.append(word)
        if msg.data:
            self.heard.append((word, msg.data if word.startswith("part") else json.loads(msg.data)))

    async def ask(self, subject, data, word="", *, inbox="1", **headers):
        told = {"Amplifier": word} if word else {}
        await self.client.publish(subject, data, f"{self.inbox}.{inbox}" if inbox else "", told | headers or None)

    async def answer(self):
        await until(lambda: self.heard)
        return self.heard.pop(0)


@pytest.fixture
async def kernel(nats, later):
    other = Kernel()
    await other.start(nats)
    later.push_async_callback(other.client.close)
    return other


async def test_a_plain_request_has_one_message_as_answer(nats, serve, kernel, subject):
    await serve(nats, Echo())
    await kernel.ask(f"{subject}.invoke", params(n=1))
    assert await kernel.answer() == ("", {"ok": True, "result": {"n": 1}})
    await kernel.ask(f"{subject}.health", b"whatever")
    assert await kernel.answer() == ("", {"ok": True, "result": {"status": "ok"}})
    await kernel.ask(f"{subject}.describe", b"{}")
    _, told = await kernel.answer()
    assert told["result"]["name"] == "m"
    assert told["host"] == {"isolation": None, "granted": [], "unenforced": []}
    await kernel.ask(f"{subject}.invoke", params(n=2), inbox="")  # nobody wants to know
    await kernel.ask(f"{subject}.invoke", params(n=3))
    assert (await kernel.answer())[1]["result"] == {"n": 3}


BAD = {
    "no JSON": (b"{x", "", "the request: "),
    "no object": (b"[]", "", "expected a JSON object on one line"),
    "two lines": (b'{"op":"echo",\n"args":{}}', "", "expected a JSON object on one line"),
    "levels": (b'{"op":' + b"[" * 1000, "", "the request: "),
    "a part that is none": (b"{}{}", "part 0 2", "the request: expected the part"),
    "a part too large": (b"{", "part 0 999999999", "limits.message_bytes"),
    "a word that is none": (b"{}", "sing", "expected a word of the protocol"),
}


@pytest.mark.parametrize(("data", "word", "says"), BAD.values(), ids=BAD)
async def test_what_is_no_request_is_refused(nats, serve, kernel, subject, data, word, says):
    module = Echo()
    await serve(nats, module)
    await kernel.ask(f"{subject}.invoke", data, word)
    told, failure = await kernel.answer()
    assert (told, failure["code"]) == ("failed", "bad_request")
    assert says in failure["message"]
    assert not module.met


async def test_a_request_beyond_the_bound_is_refused(nats, serve, kernel, subject):
    await serve(nats, Echo(limits={"message_bytes": 1000}))
    await kernel.ask(f"{subject}.invoke", params(text="x" * 2000))
    assert "at most 1000 bytes" in (await kernel.answer())[1]["message"]


async def test_a_request_in_parts_is_put_together_while_more_is_asked_for(nats, serve, kernel, subject):
    await serve(nats, Echo())
    data = params(text="x" * 3_000_000)
    parts = [(at, data[at : at + 250_000]) for at in range(0, len(data), 250_000)]
    await kernel.ask(f"{subject}.invoke", parts[0][1], f"part 0 {len(data)}")
    await until(lambda: kernel.control)
    assert kernel.words[0] == "taken"
    for at, part in parts[1:]:
        await kernel.ask(kernel.control, part, f"part {at} {len(data)}")
    await until(lambda: sum(len(part) for _, part in kernel.heard) > 2_000_000 - 300_000)
    assert [word for word in kernel.words if word.startswith("read")]
    assert len(kernel.heard) < 9  # it waits until we say that we read
    await kernel.ask(kernel.control, b"", "read 1500000")
    await until(lambda: sum(len(part) for _, part in kernel.heard) > 2_990_000)
    await until(lambda: b"".join(part for _, part in kernel.heard).endswith(b'x"}}'))
    await kernel.ask(kernel.control, b"", "sing")  # it has ended, and nobody listens


async def test_a_part_that_does_not_come_next_ends_the_request(nats, serve, kernel, subject):
    await serve(nats, Echo())
    await kernel.ask(f"{subject}.invoke", b"{", "part 0 9")
    await until(lambda: kernel.control)
    await kernel.ask(kernel.control, b"}", "part 7 9")
    assert (await kernel.answer())[1]["code"] == "bad_request"


async def test_a_request_that_takes_long_is_alive_and_can_be_cancelled(nats, serve, kernel, subject):
    module = Echo()
    await serve(nats, module)
    await kernel.ask(f"{subject}.invoke", params("wait"))
    await until(lambda: kernel.words[:3] == ["taken", "alive", "alive"])
    await kernel.ask(kernel.control, b"", "cancel")
    await kernel.ask(kernel.control, b"", "cancel")
    told, failure = await kernel.answer()
    assert (told, failure["code"]) == ("failed", "cancelled")
    assert module.given_up.is_set()


async def test_what_means_nothing_to_it_is_ignored(nats, serve, kernel, subject):
    module = Echo()
    await serve(nats, module)
    data = params("wait", n=1)
    await kernel.ask(f"{subject}.invoke", data[:5], f"part 0 {len(data)}")
    await until(lambda: kernel.control)
    for part, word in ((data[5:], f"part 5 {len(data)}"), (b"x", "part 7 8"), (b"", "alive"), (b"x", "part 0 9")):
        await kernel.ask(kernel.control, part, word)
    await until(lambda: module.met)
    module.go_on.set()
    assert await kernel.answer() == ("", {"ok": True, "result": {"n": 1}})


async def test_a_fault_of_its_own_ends_the_request(nats, serve, kernel, subject, monkeypatch):
    await serve(nats, Echo())

    def fail(_):
        raise ValueError("no such thing")

    monkeypatch.setattr(serving, "encode_message", fail)
    await kernel.ask(f"{subject}.invoke", params())
    told, failure = await kernel.answer()
    assert (told, failure["code"]) == ("failed", "internal")
    assert "no such thing" in failure["message"]


async def test_a_request_whose_kernel_has_gone_is_cancelled(nats, serve, subject):
    module = Echo()
    await serve(nats, module)
    gone = Kernel()
    await gone.start(nats)
    await gone.ask(f"{subject}.invoke", params("wait"))
    await until(lambda: module.met)
    await gone.client.close()
    await asyncio.wait_for(module.given_up.wait(), 20)


async def test_a_request_whose_time_is_over_ends_by_itself(nats, serve, kernel, subject, monkeypatch):
    monkeypatch.setattr(serving, "_LATER", 0.1)
    await serve(nats, Echo())
    await kernel.ask(f"{subject}.invoke", json.dumps({"op": "wait", "args": {}, "deadline_ms": 100}).encode())
    assert (await kernel.answer())[1]["code"] == "timeout"


async def test_more_requests_than_it_takes_are_refused_at_once(nats, serve, connect, monkeypatch):
    monkeypatch.setattr(worker, "_REQUESTS_MAX", 1)
    module = Echo()
    await serve(nats, module)
    connection = await connect(nats)
    first = asyncio.ensure_future(connection.request("invoke", params("wait")))
    await until(lambda: module.met)
    with pytest.raises(Unreachable, match="its worker has 1 requests in flight"):
        await connection.request("invoke", params())
    module.go_on.set()
    assert (await first).ok


async def test_what_has_not_ended_when_it_stops_fails(nats, serve, connect):
    module = Echo()
    end = await serve(nats, module, seconds=0.1)
    connection = await connect(nats)
    call = asyncio.ensure_future(connection.request("invoke", params("wait")))
    await until(lambda: module.met)
    await end()
    with pytest.raises(Unreachable, match="its worker was stopped"):
        await call


async def test_it_speaks_the_service_protocol(nats, serve, kernel, subject):
    await serve(nats, Echo("my.tool"))
    await kernel.ask(f"{subject}.invoke", params("fail", code="own"))
    await kernel.answer()
    await kernel.ask(f"{subject}.invoke", b"[]")
    await kernel.answer()
    answers = {}
    for verb in ("PING", "INFO", "STATS"):
        await kernel.ask(f"$SRV.{verb}.my_tool", b"")
        answers[verb] = (await kernel.answer())[1]
    assert {each["type"] for each in answers.values()} == {
        f"io.nats.micro.v1.{word}_response" for word in ("ping", "info", "stats")
    }
    assert [each["subject"] for each in answers["INFO"]["endpoints"]] == [
        f"{subject}.{method}" for method in ("health", "describe", "invoke")
    ]
    stats = answers["STATS"]["endpoints"][2]
    assert (stats["num_requests"], stats["num_errors"]) == (2, 1)
    assert stats["last_error"].startswith("bad_request: ")
    await kernel.ask(f"$SRV.PING.my_tool.{answers['PING']['id']}", b"", inbox="2")
    assert (await kernel.answer())[1]["name"] == "my_tool"
    await kernel.ask("$SRV.PING", b"", inbox="")


async def test_it_waits_for_its_server(server, serve, connect, caplog):
    nats = server().start()
    end = await serve(nats, Echo())
    nats.kill()
    await until(lambda: "the connection to NATS was lost" in caplog.text)
    await until(lambda: "NATS at" in caplog.text)
    await end()


async def test_it_stops_without_a_connection_as_well(server, serve, caplog):
    nats = server().start()
    end = await serve(nats, Echo())
    end.worker._client._lost = lambda _: None  # it has not heard of the end
    await end.worker._client.close()
    await end()
    assert "could not drain: " in caplog.text


def run(*options, descriptor):
    return main([str(descriptor), "--subject", "s", "--servers", "127.0.0.1:1", *options])


@pytest.fixture
def described(tmp_path):
    def write(fields):
        file = tmp_path / "m.json"
        file.write_text(json.dumps(fields))
        return file

    return write


STARTS = {
    "a server that is not there": ({}, ["--trusted", "--no-tls"], "unreachable: NATS at 127.0.0.1:1: "),
    "a certificate without its key": ({}, ["--trusted", "--tls-cert", "x"], "expected --tls-cert and --tls-key"),
    "a module that runs elsewhere": (
        {"transport": {"type": "nats", "servers": "h:1", "subject": "s"}},
        [],
        "expected one that runs the module here",
    ),
    "a module that does not start": (
        {"transport": {"type": "stdio", "command": ["/no/such"]}},
        ["--trusted"],
        "unreachable: ",
    ),
    "no such isolation": ({}, ["--isolation", "nonesuch"], "no isolation confines a local module"),
}


@pytest.mark.parametrize(("fields", "options", "says"), STARTS.values(), ids=STARTS)
def test_it_says_in_one_line_why_it_does_not_start(described, capsys, fields, options, says):
    assert run(*options, "--log-level", "error", descriptor=described(local("echo.py") | fields)) == 1
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert says in told


def test_why_it_cannot_connect_is_logged_once(described, caplog):
    assert run("--trusted", "--no-tls", descriptor=described(local("echo.py"))) == 1
    assert len([each for each in caplog.messages if each.startswith("NATS: ")]) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--subject", "a b"], "expected words of letters"),
        (["--servers", "nats://u:hunter2@h:1"], "a password belongs in --credentials"),
        (["--concurrency", "0"], "expected a number from 1 to 4096"),
    ],
)
def test_options_that_are_none(described, capsys, options, says):
    with pytest.raises(SystemExit) as caught:
        run(*options, descriptor=described(local("echo.py")))
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.usefixtures("traced")
async def test_as_a_program_it_serves_until_it_is_told_to_stop(nats, work, connect, described):
    worker = work(nats, None, "--concurrency", "1")
    connection = await connect(nats)
    calls = [connection.request("invoke", params("sleep", seconds=0.2)) for _ in range(3)]
    assert all(reply.ok for reply in await asyncio.gather(*calls))
    assert (await connection.request("invoke", params("stderr", text="hello"))).ok
    worker.terminate()
    assert worker.end() == 0
    assert "stopped" in "".join(worker.said)
    shown = subprocess.run(
        [sys.executable, "-m", "amplifier_transport_nats", "--help"], capture_output=True, text=True, check=True
    )
    assert "--drain SECONDS" in shown.stdout
