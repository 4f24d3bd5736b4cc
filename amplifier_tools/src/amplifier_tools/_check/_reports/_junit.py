"""The report as JUnit's XML, which servers of continuous integration read: every rule is a test case."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from ._words import words_of

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_tools._check._report import Report

__all__ = ["as_junit"]


def as_junit(report: Report, descriptor: ModuleDescriptor, *, strict: bool) -> str:
    """Give the report as XML. A rule that a module should keep fails only if the check is ``strict``."""
    suite = ET.Element("testsuite", name=f"amplifier-kernel check {descriptor.name}")
    counts = {"tests": 0, "failures": 0, "skipped": 0, "errors": 0}
    for rule in report.requirements.values():
        case = ET.SubElement(suite, "testcase", classname=descriptor.name, name=f"{rule.id} {rule.text}")
        counts["tests"] += 1
        found = [each for each in report.findings() if each.requirement is rule]
        if report.status(rule.id) == "skipped":
            counts["skipped"] += 1
            ET.SubElement(case, "skipped", message="not looked at")
        elif found and (strict or rule.level == "MUST"):
            counts["failures"] += 1
            failure = ET.SubElement(case, "failure", message=found[0].problem, type=rule.level)
            failure.text = "\n".join(line for each in found for line in words_of(each))
        elif found:
            ET.SubElement(case, "system-out").text = "\n".join(line for each in found for line in words_of(each))
    if report.stopped:
        case = ET.SubElement(suite, "testcase", classname=descriptor.name, name="the whole check")
        counts["tests"], counts["failures"] = counts["tests"] + 1, counts["failures"] + 1
        ET.SubElement(case, "failure", message=report.stopped, type="MUST")
    suite.attrib.update({name: str(count) for name, count in counts.items()})
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
