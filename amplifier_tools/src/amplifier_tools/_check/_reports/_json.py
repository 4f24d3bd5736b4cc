"""The report as JSON: every rule with its status, and every finding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amplifier_tools._text import json_page

if TYPE_CHECKING:
    from amplifier_core import ModuleDescriptor
    from amplifier_tools._check._report import Finding, Report

__all__ = ["as_json"]


def as_json(report: Report, descriptor: ModuleDescriptor, *, flawed: bool) -> str:
    """Give the report as a page of JSON. Members are only ever added."""
    rules = [
        {
            "id": rule.id,
            "section": rule.section,
            "level": rule.level,
            "text": rule.text,
            "status": report.status(rule.id),
        }
        for rule in report.requirements.values()
    ]
    module = {"name": descriptor.name, "kind": descriptor.kind, "transport": descriptor.transport["type"]}
    page: dict[str, Any] = {
        "protocol": report.protocol,
        "module": module,
        "runs_as": report.runs_as,
        "verdict": "flawed" if flawed else "sound",
        "stopped": report.stopped or None,
        "runs": dict(report.runs),
        "findings": [_finding(each) for each in report.findings()],
        "requirements": rules,
    }
    return json_page(page) + "\n"


def _finding(finding: Finding) -> dict[str, Any]:
    rule = finding.requirement
    return {
        "id": rule.id,
        "section": rule.section,
        "level": rule.level,
        "text": rule.text,
        "problem": finding.problem,
        "op": finding.op or None,
        "during": finding.during,
        "line": finding.line or None,
        "stderr": finding.stderr or None,
        "times": finding.times,
    }
