import json
import subprocess
import sys
from pathlib import Path


def test_the_benchmarks_run_and_every_row_has_its_figures(tmp_path: Path) -> None:
    program, file = Path(__file__).with_name("run.py"), tmp_path / "bench.json"
    subprocess.run([sys.executable, str(program), "--quick", "--json", str(file)], check=True, timeout=120)
    rows = json.loads(file.read_text())["rows"]
    assert len(rows) >= 27
    for row in rows:
        measured = [row["ours"], *row["peers"].values()]
        if row["unit"] == "µs":  # memory has no limit
            measured += [row["limit"], row["ratio"]]
        assert not row["note"], row
        assert all(figure > 0 for figure in measured), row
