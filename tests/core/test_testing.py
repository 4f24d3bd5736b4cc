"""The public module for tests, as a program."""

import subprocess
import sys


def test_run_as_a_program_it_says_what_to_call_instead(traced):
    command = [sys.executable, "-m", "amplifier_core.testing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "amplifier_core.testing is no command: call its functions, such as check_module, in a test\n"
