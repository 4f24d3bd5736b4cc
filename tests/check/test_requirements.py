"""The table of rules: stable ids, sections that are there, and the same rules as the check of the core."""

import re
import sys
from pathlib import Path

from amplifier_core import ModuleDescriptor
from amplifier_core.testing import check_module
from amplifier_tools._check._requirements import VERSIONS

ROOT = Path(__file__).parents[2]


def test_each_rule_names_a_section_of_the_protocol():
    text = (ROOT / "amplifier_core" / "PROTOCOL.md").read_text("utf-8")
    sections = {*re.findall(r"^## (\d+)\.", text, re.MULTILINE), "preamble"}
    assert {rule.section for rule in VERSIONS[1].values()} <= sections


def test_the_ids_of_an_area_are_numbered():
    numbers: dict[str, list[int]] = {}
    for name in VERSIONS[1]:
        area, number = name.split("-")
        numbers.setdefault(area, []).append(int(number))
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


async def test_the_check_of_the_core_has_the_same_rules():
    flawed = str(Path(__file__).with_name("flawed.py"))
    told = {"name": "flawed", "kind": "orchestrator", "capabilities": ["sys:mounts"]}
    transport = {"type": "stdio", "command": [sys.executable, flawed, "none"]}
    descriptor = ModuleDescriptor.from_mapping({**told, "transport": transport})
    for found in await check_module(descriptor, {"count": {"text": "a"}}):
        assert found.problem == ""
        assert VERSIONS[1][found.id].section == found.section
