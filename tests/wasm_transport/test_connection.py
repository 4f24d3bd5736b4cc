"""A WASI program behind the transport: the check of transports, with and without a kernel."""

import json

from click.testing import CliRunner

from amplifier_core.testing import check_transport
from amplifier_tools._cli import main


async def test_the_transport_passes_the_check(compile_c, describe):
    module = describe(
        compile_c("probe"), transport={"env": {"TOKEN": "s3cret-1"}, "args": ["s3cret-2"]}, message_bytes=2 << 20
    )
    found = await check_transport(module, secrets=("s3cret-1", "s3cret-2"), seconds=60)
    assert [check for check in found if check.problem] == []
    assert len(found) > 15


def test_the_check_of_modules_passes(compile_c, tmp_path):
    transport = {"type": "wasm", "module": str(compile_c("probe"))}
    told = {"name": "probe", "kind": "tool", "capabilities": [], "transport": transport}
    (tmp_path / "probe.json").write_text(json.dumps(told))
    words = ["check", str(tmp_path / "probe.json"), "--op", 'echo={"n": 1}']
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert "SOUND" in done.stdout, done.stdout + done.stderr
    assert "confined by its transport" in done.stdout
