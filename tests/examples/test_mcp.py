"""examples/mcp and the ten lines of the transport's README, run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


def run(file, folder):
    command = [sys.executable, str(file)]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_the_example_mounts_a_server_and_calls_it(tmp_path):
    said = run(ROOT / "examples" / "mcp" / "main.py", tmp_path)
    assert "mcp-time speaks 2026-07-28" in said
    assert re.search(r"get_current_time +Get current time in a specific timezone", said)
    assert re.search(r"✓ \{.*'timezone': 'Etc/UTC'", said)
    assert "✗ tool_error: Error executing tool get_current_time: Invalid timezone" in said
    assert "✗ bad_request: args: 'timezone' is a required property" in said
    assert re.search(r"✗ forbidden: .*this one stays shut", said)


def test_the_ten_lines_of_the_readme_do_what_they_say(tmp_path):
    text = (ROOT / "amplifier_transport_mcp" / "README.md").read_text("utf-8")
    (program,) = re.findall(r"^```python main.py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len([line for line in program.splitlines() if line]) == 10
    (tmp_path / "main.py").write_text(program, "utf-8")
    assert "'timezone': 'Etc/UTC'" in run(tmp_path / "main.py", tmp_path)
