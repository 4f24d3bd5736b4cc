"""Make files without any content in the scratch folder: each takes memory that belongs to no process."""

import os
import tempfile

from module import serve


def attack():
    with tempfile.TemporaryDirectory() as folder:
        for number in range(5000):
            os.mkdir(f"{folder}/{number}")
        return len(os.listdir(folder))


serve(attack)
