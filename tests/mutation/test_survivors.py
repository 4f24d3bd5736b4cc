"""Checks that SURVIVORS.md quotes today's code. The session `mutation` checks that its mutants survive."""

import inspect
import pkgutil

import pytest
from tests.mutation.run import SURVIVORS, explained

MUTANTS = sorted(explained(SURVIVORS.read_text()))


def test_there_are_some():
    assert len(MUTANTS) == SURVIVORS.read_text().count("```diff")


@pytest.mark.parametrize(("function", "diff"), MUTANTS)
def test_what_is_changed_is_there(function, diff):
    source = inspect.getsource(pkgutil.resolve_name(function))
    for line in diff.splitlines():
        assert (line[0] == "+") or line[1:].strip() in source, line
