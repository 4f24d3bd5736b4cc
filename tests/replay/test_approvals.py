"""Many approvals that are open when their kernel is killed: another program goes on with all of them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.replay.approvals import is_denied, is_early

from amplifier_replay import replay

OPEN = int(os.environ.get("AMPLIFIER_TEST_APPROVALS", "1000"))
COUNT = OPEN * 5 // 4  # every fifth is answered before the kill
ROOT = Path(__file__).parents[2]


def start(*arguments):
    command = [sys.executable, "-m", "tests.replay.approvals", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)


def kill_when_open(log, ledger):
    """Ask a person for all approvals, and kill the program when it says that those are open which are to be."""
    with start("ask", log, ledger, COUNT) as asking:
        try:
            said = asking.stdout.readline()
        finally:
            os.killpg(asking.pid, signal.SIGKILL)
    assert (said, asking.returncode) == ("open\n", -signal.SIGKILL)


def go_on(log):
    with start("answer", log) as answering:
        told = json.load(answering.stdout)
    assert answering.returncode == 0
    return told


def written(ledger):
    return sorted(map(int, ledger.read_text().split()))


async def test_a_thousand_open_approvals_survive_their_kernel_and_no_call_is_made_twice_or_lost(log, tmp_path):
    ledger = tmp_path / "ledger.txt"
    kill_when_open(log, ledger)
    early = [n for n in range(COUNT) if is_early(n)]
    assert written(ledger) == [n for n in early if not is_denied(n)]
    told = go_on(log)
    assert sorted(told["asked"]) == [n for n in range(COUNT) if not is_early(n)]
    assert len(told["asked"]) == OPEN
    assert written(ledger) == [n for n in range(COUNT) if not is_denied(n)]
    answered = {n: "forbidden" if is_denied(n) else "ok" for n in range(COUNT)}
    of_program = {n for n in early if n < COUNT // 2}  # those were over for the program that was killed
    assert sorted(told["done"]) == [[n, answered[n]] for n in range(COUNT) if n not in of_program]
    lines = []
    await replay(log, lines.append)
    assert b"".join(lines) == log.read_bytes()
