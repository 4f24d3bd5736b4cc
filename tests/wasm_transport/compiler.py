"""Programs in C as WebAssembly: compiled by zig, without a C library, which takes a tenth of a second.

A module lies in .cache/wasm, under the digest of what it was made of: so it is compiled once for all runs of the tests.
"""

import hashlib
import os
import secrets
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "wasm"
COMPILER = (sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-freestanding", "-nostdlib", "-fno-builtin")


def is_there() -> bool:
    """Tell whether the compiler is installed."""
    return find_spec("ziglang") is not None


def compile_c(name: str) -> Path:
    """Compile a program of this folder, if it has changed, and give the module's path."""
    parts = [(HERE / each).read_bytes() for each in ("wasi.h", f"{name}.c")]
    place = CACHE / f"{name}-{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}.wasm"
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(f".{secrets.token_hex(4)}")  # several processes may compile at once
        env = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(CACHE / "zig"), "ZIG_GLOBAL_CACHE_DIR": str(CACHE / "zig")}
        command = [*COMPILER, "-Os", "-Wl,--no-entry", "-o", str(part), f"{name}.c"]
        subprocess.run(command, cwd=HERE, env=env, check=True, timeout=200)
        part.replace(place)
    return place
