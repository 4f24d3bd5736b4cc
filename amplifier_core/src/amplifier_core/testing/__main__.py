"""``python -m amplifier_core.testing`` says what to do instead: a check needs arguments that a test has."""

import sys

sys.exit("amplifier_core.testing is no command: call its functions, such as check_module, in a test")
