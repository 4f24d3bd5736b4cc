import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

pytestmark = pytest.mark.newest  # measurements are made on that one

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SVG = "{http://www.w3.org/2000/svg}"


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a benchmark for a moment."""
    command = [sys.executable, str(HERE / program), "--quick", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def words(file: Path) -> list[str]:
    """Give the text of a picture, which is well-formed and has no script."""
    picture = ET.parse(file).getroot()
    assert not picture.findall(f".//{SVG}script")
    return ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]


PATHS = re.findall(r'^    "(\w+)": ', (HERE / "run.py").read_text("utf-8"), re.MULTILINE)
PEERS = {"stdio": {"StreamReader", "mcp client"}, "http": {"httpx"}}


def test_there_are_many_paths() -> None:
    assert len(PATHS) >= 18 and set(PEERS) < set(PATHS)


@pytest.mark.parametrize("part", range(4))  # all at once take longer than a test may on a busy machine
def test_the_benchmarks_run_and_every_row_has_its_figures(tmp_path: Path, part: int) -> None:
    figures, picture, ratios = (tmp_path / name for name in ("bench.json", "bench.svg", "baseline.json"))
    paths = PATHS[part::4]
    done = run("run.py", *paths, "--json", figures, "--svg", picture, "--baseline", ratios)
    assert done.returncode == 0, done.stderr
    rows = json.loads(figures.read_text("utf-8"))["rows"]
    assert len(rows) >= len(paths)
    for row in rows:
        measured = [*row["peers"].values()]
        if "beyond" not in row["path"]:  # a difference, which a disturbance makes negative
            measured.append(row["ours"])
        if row["unit"] == "µs":  # memory has no limit
            measured += [row["limit"], row["ratio"]]
        assert not row["note"], row
        assert all(figure > 0 for figure in measured), row
    compared = [row["path"] for row in rows if row["ratio"] is not None]
    assert list(json.loads(ratios.read_text("utf-8"))["ratios"]) == compared  # no two paths have the same name
    drawn = words(picture)
    for row in rows:
        if row["goal"]["ratio"] is not None:
            assert row["path"] in drawn or row["path"].rpartition(", to ")[0] in drawn
    assert {peer for path in paths for peer in PEERS.get(path, ())} <= set(drawn)


@pytest.mark.parametrize(("before", "status"), [(1e9, 0), (1e-9, 1)])
def test_what_got_worse_is_pointed_out(tmp_path: Path, before: float, status: int) -> None:
    baseline = tmp_path / "baseline.json"
    ratios = {"one event on disk": before, "a path of another day": before}
    baseline.write_text(json.dumps({"ratios": ratios}), "utf-8")
    done = run("run.py", "events", "--compare", baseline)
    assert done.returncode == status, done.stderr
    assert ("  one event on disk: " in done.stdout) is bool(status)
    assert "another day" not in done.stdout


def test_growth_is_measured_and_drawn(tmp_path: Path) -> None:
    figures, picture = tmp_path / "growth.json", tmp_path / "growth.svg"
    done = run("growth.py", "--json", figures, "--svg", picture)
    assert done.returncode == 0, done.stderr
    plots = json.loads(figures.read_text("utf-8"))["plots"]
    assert len(plots) == 8
    for plot in plots:
        assert plot["title"] in words(picture)
        for series in plot["series"]:
            assert all(seconds > 0 for _, seconds in series["points"]), plot


@pytest.mark.parametrize("name", ["bench.svg", "growth.svg"])
def test_the_readme_says_where_its_pictures_were_measured(name: str) -> None:
    *_, where = words(ROOT / "docs" / name)
    assert where.partition(",")[0] in " ".join((ROOT / "README.md").read_text("utf-8").split())
