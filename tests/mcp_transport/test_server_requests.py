"""What a server asks in the middle of a call: system calls where the descriptor offers it, and a clear no elsewhere."""

import asyncio
import json
import sys

import pytest
from tests.mcp_transport.servers import MODERN, event, events, json_of, result, told

from amplifier_core import Forbidden, Internal, KernelError, Timeout, Unreachable

M, PERSON = "/mnt/tools/m", "/mnt/tools/person"
OFFER = {"sampling": {"path": PERSON, "op": "think"}, "elicitation": {"path": PERSON, "op": "fill"}}
MAY = ["sys:invoke:/mnt/tools/*"]

PERSON_CODE = """
import json, sys, time
inputs = {op: {"type": "object"} for op in ("think", "fill")}
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    params = request.get("params", {})
    result = {"status": "ok"}
    if request["method"] == "describe":
        result = {"name": "person", "kind": "tool", "capabilities": [], "inputs": inputs, "outputs": {}}
    elif request["method"] == "invoke":
        args = params["args"]
        text = str(args.get("message") or args["messages"][0]["content"]["text"])
        if text == "wait":
            time.sleep(60)
        if params["op"] == "think":
            result = {"role": "assistant", "content": {"type": "text", "text": f"thought {text}"}, "model": "p"}
        else:
            result = {"action": "accept", "content": {"text": f"filled {text}"}}
        if text == "nonsense":
            result = {"nonsense": True}
    print(json.dumps({"id": request["id"], "ok": True, "result": result}), flush=True)
"""


@pytest.fixture
async def person(session, tmp_path):
    """Mount the module that answers."""
    (tmp_path / "person.py").write_text(PERSON_CODE, "utf-8")
    transport = {"type": "stdio", "command": [sys.executable, str(tmp_path / "person.py")]}
    descriptor = {"name": "person", "kind": "tool", "capabilities": [], "transport": transport}
    await session.mount("/mnt/tools", descriptor, trusted=True)


ASK = """
def ask(method, params):
    send({"id": f"ask-{request['id']}-{method}-{params.get('message', '')}", "method": method, "params": params})
def heard():
    return next(json.loads(line) for line in sys.stdin.buffer)
def sample(text):
    messages = [{"role": "user", "content": {"type": "text", "text": text}}]
    ask("sampling/createMessage", {"messages": messages, "maxTokens": 9})
def elicit(text):
    ask("elicitation/create", {"message": text, "requestedSchema": {"type": "object", "properties": {}}})
"""


async def test_what_a_server_asks_is_answered_by_a_mounted_module(session, mount, describe, script, person, events):
    code = """
if op == "good":
    sample("A"); a = heard()["result"]
    elicit("B"); b = heard()["result"]
    reply(request, told(a["content"]["text"] + ", " + b["content"]["text"]))
else:
    elicit("B"); elicit("C")
    texts = sorted([heard()["result"]["content"]["text"], heard()["result"]["content"]["text"]])
    reply(request, told(" and ".join(texts)))
"""
    await mount(describe(script(code, before=ASK), capabilities=MAY, transport=OFFER))
    assert await session.invoke(M, "good", {}) == told("thought A, filled B")
    assert await session.invoke(M, "bad", {}) == told("filled B and filled C")
    invoked = [event["data"]["op"] for event in events("module:invoke") if event["module"] == PERSON]
    assert sorted(invoked) == ["fill", "fill", "fill", "think"]


async def test_the_deadline_spans_what_is_asked(session, mount, describe, script, person):
    code = "if op == 'bad':\n    sample('wait')\nelse:\n    reply(request, told('fine'))"
    await mount(describe(script(code, before=ASK), capabilities=MAY, transport=OFFER))
    with pytest.raises(Timeout):
        await session.invoke(M, "bad", {}, timeout=0.5)
    assert await session.invoke(M, "good", {}) == told("fine")


async def test_a_call_that_is_given_up_while_it_waits_for_its_reply_is_cancelled(
    session, mount, describe, script, person
):
    code = """
if request["method"] == "notifications/cancelled":
    TOOLS.clear()
elif "id" in request and not standard(request) and request["params"]["name"] == "good":
    reply(request, told(str(len(TOOLS))))
"""
    await mount(describe(script(code, loop="messages"), capabilities=MAY, transport=OFFER))
    with pytest.raises(Timeout):
        await session.invoke(M, "slow", {}, timeout=0.3)
    assert await session.invoke(M, "good", {}) == told("0")


async def test_what_policy_refuses_is_the_end_of_the_call_and_told_to_the_server(
    session, mount, describe, script, person
):
    code = """
if op == "bad":
    sample("A"); refusal = heard()["error"]["message"]
elif op == "good":
    reply(request, told(refusal))
"""
    await mount(describe(script(code, before=ASK), capabilities=["sys:invoke:/mnt/providers/*"], transport=OFFER))
    with pytest.raises(Forbidden, match="was not granted sys:invoke:/mnt/tools/person"):
        await session.invoke(M, "bad", {})
    refusal = (await session.invoke(M, "good", {}))["content"][0]["text"]
    assert refusal.startswith("sampling/createMessage: forbidden: ")


async def test_an_answer_that_is_none_is_told_to_the_server(session, mount, describe, script, person):
    code = "sample('nonsense')\nreply(request, told(heard()['error']['message']))"
    await mount(describe(script(code, before=ASK), capabilities=MAY, transport=OFFER))
    said = (await session.invoke(M, "good", {}))["content"][0]["text"]
    assert said.startswith("sampling/createMessage: ")


async def test_an_answer_with_too_many_values_is_told_to_the_server(
    session, mount, describe, script, person, monkeypatch
):
    monkeypatch.setattr("amplifier_transport_mcp._session.PARAMS", 2)
    code = "sample('A')\nreply(request, told(heard()['error']['message']))"
    await mount(describe(script(code, before=ASK), capabilities=MAY, transport=OFFER))
    said = (await session.invoke(M, "good", {}))["content"][0]["text"]
    assert said == "sampling/createMessage: the answer has more than 2 values"


async def test_a_server_that_asks_while_several_calls_are_in_flight_cannot_be_answered(
    session, mount, describe, script, person
):
    code = """
if op == "slow":
    held = request
else:
    sample("A")
    reply(request, told(heard()["error"]["message"]))
    reply(held, told("at last"))
"""
    await mount(describe(script(code, before=ASK), capabilities=MAY, transport=OFFER))
    held = asyncio.create_task(session.invoke(M, "slow", {}))
    await asyncio.sleep(0.05)
    assert "several calls are in flight" in (await session.invoke(M, "good", {}))["content"][0]["text"]
    assert await held == told("at last")


async def test_over_http_the_stream_tells_which_of_several_calls_asks(session, serve, mount, describe, person):
    answers = {}

    async def call(request, message):
        text = message["params"]["arguments"]["text"]
        params = {"message": text, "requestedSchema": {"type": "object", "properties": {}}}
        ask = {"jsonrpc": "2.0", "id": f"ask-{text}", "method": "elicitation/create", "params": params}
        answers[ask["id"]] = asyncio.get_running_loop().create_future()
        await request.send(events(event(ask), end=False))
        filled = await answers[ask["id"]]
        data = event(result(message, told(filled["content"]["text"]))).encode()
        await request.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    async def answered(request, message):
        answers[message["id"]].set_result(message["result"])
        await request.send(json_of(b"", status=202))

    server = await serve(call, methods={"reply": answered})
    await mount(describe(server.url, capabilities=MAY, transport=OFFER))
    results = await asyncio.gather(*(session.invoke(M, "good", {"text": f"T{n}"}) for n in range(5)))
    assert results == [told(f"filled T{n}") for n in range(5)]


@pytest.mark.parametrize("ending", ["error", "isError", "fine"])
async def test_what_the_descriptor_does_not_offer_is_refused_and_named(session, mount, describe, script, ending):
    how = {
        "error": "fail(request, -1, 'no model')",
        "isError": "reply(request, told('no model', isError=True))",
        "fine": "reply(request, told('without'))",
    }[ending]
    await mount(describe(script(f"sample('A'); heard()\n{how}", before=ASK)))
    if ending == "fine":
        assert await session.invoke(M, "good", {}) == told("without")
        return
    with pytest.raises(
        Forbidden, match=r"asked for sampling/createMessage, which .* not offer \(transport.sampling\)"
    ) as caught:
        await session.invoke(M, "good", {})
    assert caught.value.details["asked"] == ["sampling/createMessage"]


async def test_what_a_server_asks_beside_all_calls_is_refused(session, mount, describe, script):
    before = ASK.replace("request['id']", "0") + "\nsample('A')\n"
    await mount(describe(script("reply(request, told('fine'))", before=before)))
    assert await session.invoke(M, "good", {}) == told("fine")


async def test_a_server_that_dies_while_it_waits_fails_the_call(session, mount, describe, script, person, tmp_path):
    pid = tmp_path / "pid"
    code = f"open({str(pid)!r}, 'w').write(str(os.getpid()))\nsample('A')\nos._exit(4)"
    await mount(describe(script(code, before=ASK), capabilities=MAY, transport=OFFER))
    with pytest.raises(Unreachable, match="exit code 4"):
        await session.invoke(M, "good", {})


async def test_a_call_that_nobody_comes_back_to_is_given_up(describe, script, open_one, tmp_path):
    """The kernel always comes back; another one may not."""
    heard = tmp_path / "heard"
    code = f"""
if request["method"] == "notifications/cancelled":
    open({str(heard)!r}, "w").close()
elif "id" in request and not standard(request):
    sample("A")
"""
    descriptor = describe(script(code, before=ASK, loop="messages"), transport=OFFER)
    for how in ("deadline", "close"):
        connection = open_one(descriptor)
        await connection.start((), None)
        request = {"op": "good", "args": {}, **({"deadline_ms": 200} if how == "deadline" else {})}
        reply = await connection.request("invoke", json.dumps(request).encode())
        assert [call.name for call in reply.pending.syscalls] == ["invoke"]
        if how == "deadline":
            while not heard.exists():
                await asyncio.sleep(0.005)
            resume = {"state": json.loads(bytes(reply.pending.state)), "results": [{"ok": True, "result": {}}]}
            with pytest.raises(Unreachable, match="while it waited for an answer"):
                await connection.request("invoke", json.dumps({**request, "resume": resume}).encode())
        await connection.close()


async def test_an_answer_that_the_server_has_given_up_is_nobodys(session, mount, describe, script, person):
    code = """
mine = {"jsonrpc": "2.0", "id": "a", "method": "elicitation/create"}
params = {"message": "A", "requestedSchema": {"type": "object", "properties": {}}}
gone = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "a"}}
if op == "good":
    out(json.dumps({**mine, "params": params}) + "\\n" + json.dumps(gone) + "\\n")
    elicit("B"); text = heard()["result"]["content"]["text"]
    reply(request, told(text))
"""
    await mount(describe(script(code, before=ASK), capabilities=MAY, transport=OFFER))
    assert await session.invoke(M, "good", {}) == told("filled B")


async def test_a_call_without_a_deadline_is_answered(describe, script, open_one):
    connection = open_one(describe(script("reply(request, told('fine'))"), transport=OFFER))
    await connection.start((), None)
    reply = await connection.request("invoke", b'{"op": "good", "args": {}}')
    await connection.close()
    assert reply.result == told("fine")


# Roots.

ROOTS = """
ask("roots/list", {})
answer = heard()
reply(request, told(json.dumps(answer.get("result") or answer["error"]["message"])))
"""


async def test_roots_are_told_as_far_as_they_are_granted(session, mount, describe, script, tmp_path):
    command = script(ROOTS, before=ASK)
    offer = {"roots": ["data", "data/sub dir"]}
    await mount(describe(command, capabilities=["fs:read:data"], transport=offer, base=tmp_path))
    said = json.loads((await session.invoke(M, "good", {}))["content"][0]["text"])
    assert said == {"roots": [{"uri": f"file://{tmp_path}/data"}, {"uri": f"file://{tmp_path}/data/sub%20dir"}]}
    with pytest.raises(Forbidden, match=f"transport.roots: {tmp_path}/data was not granted"):
        await mount(describe(command, name="n", capabilities=["fs:read:dat"], transport=offer, base=tmp_path))


# The revision of 2026: a result asks for input, and the call is sent again.

REQUIRED = """
def required(state=None, **inputs):
    asks = {key: {"method": method, "params": params} for key, (method, params) in inputs.items()}
    more = {"requestState": state} if state else {}
    reply(request, {"resultType": "input_required", "inputRequests": asks, **more})
def fine(text):
    reply(request, told(text, resultType="complete"))
def sampling(text):
    messages = [{"role": "user", "content": {"type": "text", "text": text}}]
    return "sampling/createMessage", {"messages": messages, "maxTokens": 9}
def form(text):
    schema = {"type": "object", "properties": {}}
    return "elicitation/create", {"message": text, "mode": "form", "requestedSchema": schema}
given, state = request["params"].get("inputResponses"), request["params"].get("requestState")
"""


def asking(code):
    """Put the helpers, which need the request, before the code."""
    return REQUIRED + code


async def test_input_that_is_required_is_got_and_the_call_sent_again(
    session, mount, describe, script, person, tmp_path
):
    code = """
if not given:
    required("s1", a=sampling("A"), b=form("B"), c=("roots/list", {}))
elif state == "s1":
    texts = given["a"]["content"]["text"], given["b"]["content"]["text"], str(len(given["c"]["roots"]))
    required(" ".join(texts), d=form("D"))
else:
    fine(state + " " + given["d"]["content"]["text"])
"""
    command = script(asking(code), before=MODERN)
    offer = {**OFFER, "roots": ["data"]}
    await mount(describe(command, capabilities=[*MAY, "fs:read:data"], transport=offer, base=tmp_path))
    assert await session.invoke(M, "good", {"x": 1}) == told("thought A filled B 1 filled D")


async def test_what_nobody_else_need_answer_is_sent_again_at_once(session, mount, describe, script, tmp_path):
    code = """
if not given and not state:
    required(c=("roots/list", {}))
elif given:
    reply(request, {"resultType": "input_required", "requestState": given["c"]["roots"][0]["uri"]})
else:
    fine(state)
"""
    offer = {"roots": ["."]}
    await mount(
        describe(script(asking(code), before=MODERN), capabilities=["fs:read:."], transport=offer, base=tmp_path)
    )
    assert await session.invoke(M, "good", {}) == told(f"file://{tmp_path}")


@pytest.mark.parametrize(
    ("ask", "named"),
    [
        ("sampling('A')", "sampling/createMessage"),
        ("form('A')", "elicitation/create"),
        ("('roots/list', {})", "roots/list"),
    ],
)
async def test_input_that_the_descriptor_does_not_offer_is_forbidden(session, mount, describe, script, ask, named):
    await mount(describe(script(asking(f"required(a={ask})"), before=MODERN)))
    with pytest.raises(Forbidden, match=f"asked for {named}, which the descriptor does not offer"):
        await session.invoke(M, "good", {})


async def test_input_that_policy_refuses_or_that_does_not_fit_ends_the_call(session, mount, describe, script, person):
    code = "required(a=sampling(args['text']))"
    command = script(asking(code), before=MODERN)
    await mount(describe(command, transport=OFFER))
    with pytest.raises(Forbidden, match="was not granted sys:invoke"):
        await session.invoke(M, "good", {"text": "A"})
    await mount(describe(command, name="other", transport=OFFER, capabilities=MAY))
    with pytest.raises(Internal, match="good: "):
        await session.invoke("/mnt/tools/other", "good", {"text": "nonsense"})


async def test_a_server_that_needs_what_its_client_does_not_offer_is_told_no(session, mount, describe, script):
    code = "fail(request, -32021, 'needs sampling', data={'requiredCapabilities': {'sampling': {}}})"
    await mount(describe(script(code, before=MODERN)))
    with pytest.raises(KernelError, match="forbidden: good: needs sampling"):
        await session.invoke(M, "good", {})
