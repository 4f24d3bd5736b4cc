"""Fill the scratch folder."""

import contextlib
import os
import tempfile
from pathlib import Path

from module import serve


def attack():
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as files:
        for number in range(6):
            file = files.enter_context(Path(folder, str(number)).open("wb", buffering=0))
            if file.write(bytes(1 << 20)) < 1 << 20:
                raise OSError("no room")
        return len(os.listdir(folder))


serve(attack)
