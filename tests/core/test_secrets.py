"""What of a descriptor policy is shown: no value that may be a secret."""

import json

import pytest

from amplifier_core import Kernel, KernelError, Plan
from amplifier_core._syscalls.secrets import without_secrets

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("transport", "shown"),
    [
        ({"headers": {"authorization": SECRET}}, {"headers": {"authorization": "…"}}),
        ({"env": {"KEY": SECRET, "OTHER": "x"}}, {"env": {"KEY": "…", "OTHER": "…"}}),
        ({"proxy": f"http://user:{SECRET}@127.0.0.1:9"}, {"proxy": "http://…@127.0.0.1:9"}),
        ({"proxy": f"http://{SECRET}@h@127.0.0.1:9/p@q"}, {"proxy": "http://…@127.0.0.1:9/p@q"}),
        ({"url": f"https://h/path?key={SECRET}&x=1"}, {"url": "https://h/path?…"}),
        ({"urls": [f"https://u:{SECRET}@h/a", "x"]}, {"urls": ["https://…@h/a", "x"]}),
        ({"list": [{"name": SECRET}, [SECRET[:0]]]}, {"list": [{"name": "…"}, [""]]}),
        ({"command": ["x", f"--proxy=http://u:{SECRET}@h"]}, {"command": ["x", "--proxy=http://…@h"]}),
        (
            {"token": SECRET, "ApiKey": SECRET, "db_password": SECRET},
            dict.fromkeys(("token", "ApiKey", "db_password"), "…"),
        ),
        ({"url": "https://h:1/a#b", "n": 5, "what?": "is it?"}, {"url": "https://h:1/a#b", "n": 5, "what?": "is it?"}),
    ],
)
def test_a_value_that_may_be_a_secret_is_not_shown(transport, shown):
    assert without_secrets(transport) == shown
    assert SECRET not in json.dumps(shown)


def test_a_long_text_is_looked_through_at_once():
    text = "://" * 20_000
    assert without_secrets({"url": text}) == {"url": text}


@pytest.mark.parametrize(
    "transport",
    [
        {"type": "http", "url": "http://127.0.0.1:1/", "proxy": f"http://user:{SECRET}@127.0.0.1:9"},
        {"type": "http", "url": "http://127.0.0.1:1/", "headers": {"authorization": SECRET}},
        {"type": "http", "url": "http://127.0.0.1:1/", "headers": SECRET},
        {"type": "http", "url": f"http://user:{SECRET}@127.0.0.1:1/"},
        {"type": "http", "url": f"ftp://user:{SECRET}@127.0.0.1:1/?{SECRET}"},
        {"type": "http", "url": f"http://user:{SECRET}:x/{SECRET}@127.0.0.1:1/"},
        {"type": "http", "url": f"http://127.0.0.1:1/?key={SECRET}"},
        {"type": "mcp", "url": f"http://127.0.0.1:1/?key={SECRET}"},
        {"url": f"http://127.0.0.1:1/?key={SECRET}"},
    ],
)
async def test_neither_question_nor_error_nor_log_has_a_secret(tmp_path, transport):
    asked = []

    async def hook(event):
        asked.append(json.dumps(event.data))
        return {"decision": "allow"}

    async with Kernel(event_log=tmp_path / "log") as kernel:
        session = await kernel.session.create(Plan("x"))
        await session.register_hook("policy:request", hook)
        with pytest.raises(KernelError) as caught:
            await session.mount("/mnt/tools", {"name": "m", "kind": "tool", "capabilities": [], "transport": transport})
    told = [*asked, caught.value.message, json.dumps(caught.value.details), (tmp_path / "log").read_text()]
    assert [each for each in told if SECRET in each] == []
