"""The README of the transport does what it says."""

import ast
import inspect
import re
from pathlib import Path

from amplifier_transport_inproc import descriptor_of

README = (Path(__file__).parents[2] / "amplifier_transport_inproc" / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


async def test_each_example_mounts_a_module_that_counts(session):
    assert len(EXAMPLES) == 2
    for text in EXAMPLES:
        code = compile(text, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = eval(code, {"session": session, "descriptor_of": descriptor_of})
        assert inspect.isawaitable(running)
        await running
        assert await session.invoke("/mnt/tools/wordcount", "count", {"text": "a b"}) == {"words": 2}
        await session.unmount("/mnt/tools/wordcount")
