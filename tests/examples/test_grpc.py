"""examples/grpc, run as it stands."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_serves_a_module_and_uses_it(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "grpc" / "main.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "{'words': 6}\n['that', 'is', 'the', 'question']\n"
