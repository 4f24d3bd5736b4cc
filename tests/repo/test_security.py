"""The promises of SECURITY.md: each has a row in its table of tests, and what the table names exists."""

import re

import pytest

ROW = re.compile(r"^\| ([^|]+) \|([^|]*)\| ([^|]+) \|$", re.MULTILINE)
BOLD = re.compile(r"^\* \*\*(.+?)\*\*(?!\*)", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page(root):
    return (root / "SECURITY.md").read_text("utf-8")


@pytest.fixture(scope="module")
def rows(page):
    _, _, table = page.partition("## Which test shows which promise")
    return [row for row in ROW.findall(table) if row[0] not in ("promise", "not promised", "---")]


def test_each_promise_has_a_row(page, rows):
    promised = set(re.findall(r"^(\d)\. \*\*", page, re.MULTILINE))
    assert len(promised) >= 7
    assert promised | {"every module"} <= {promise for promise, _, _ in rows}


def test_each_thing_that_is_not_promised_has_a_row(page, rows):
    _, _, section = page.partition("## What is not promised")
    section, _, _ = section.partition("\n## ")
    titles = {plain(title) for title in BOLD.findall(section)}
    assert len(titles) >= 10
    assert titles == {plain(first) for first, _, _ in rows} - {"every module"} - set(map(str, range(10)))


def plain(title):
    return re.sub(r"[`*.]", "", " ".join(title.split()))


def test_each_row_names_tests_that_exist(root, rows):
    named = [name for _, _, tests in rows for name in re.findall(r"`(.+?)`", tests)]
    assert len(named) > len(rows)
    assert [name for name in named if not exists(root, name)] == []


def exists(root, name):
    if name.startswith("attacks/"):
        return any((root / "tests" / "isolation").glob(f"{name}.*"))
    file, _, test = name.partition("::")
    return any(
        re.search(rf"^ *(async )?def {test}\(", path.read_text("utf-8"), re.MULTILINE)
        for path in root.glob(f"tests/**/{file}")
    )


def test_each_attack_is_in_a_row(root, rows):
    shown = " ".join(tests for _, _, tests in rows)
    attacks = {path.stem for path in (root / "tests" / "isolation" / "attacks").glob("*.*")} - {"module"}
    assert {name for name in attacks if f"`attacks/{name}`" not in shown} == set()
