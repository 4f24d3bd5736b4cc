"""Persist: plant a file that each start of its interpreter reads."""

import os
import sysconfig
from pathlib import Path

from module import serve


def attack():
    planted = Path(sysconfig.get_path("purelib"), "planted-by-a-test-and-removed.pth")
    planted.write_text("")
    os.unlink(planted)
    return str(planted)


serve(attack)
