"""examples/nats, run as it stands."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import missing_here
from tests.nats_transport.servers import program

ROOT = Path(__file__).parents[2]


def test_a_module_on_three_workers():
    if program() is None:
        missing_here("nats-server is not installed")
    done = subprocess.run(
        [sys.executable, "examples/nats/main.py"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert len(first.split(":")[1].split(",")) == 3
    assert last == "answers while one is replaced: 300"
