"""The languages of the module `words`: what each needs, and its compilation, done once for all runs of the tests.

A program lies in .cache/polyglot/LANGUAGE, where the descriptor finds it, beside the digest of what it was made of.
`python tests/polyglot/toolchains.py [LANGUAGE …]` compiles without a test.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "polyglot"
SHARED = HERE / "describe.json"


class ToolchainMissing(Exception):
    """A command is not installed; the text says which one."""


@attrs.frozen
class Language:
    """The commands that a language needs, and how `source` becomes a program in the folder that replaces OUT."""

    commands: tuple[str, ...]
    source: str
    compiler: tuple[str, ...] = ()
    at_once: bool = True  # it answers several requests side by side; the others say limits.concurrency 1


GCC = ("gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-o", "OUT/words", "words.c", "-lm")
RUSTC = ("rustc", "--edition=2021", "-D", "warnings", "-C", "panic=abort", "-o", "OUT/words", "words.rs")
LANGUAGES = {
    "bash": Language(("bash", "jq"), "words.bash", at_once=False),
    "c": Language(("gcc",), "words.c", GCC, at_once=False),
    "go": Language(("go",), "words.go", ("go", "build", "-o", "OUT/words", "words.go")),
    "java": Language(
        ("javac", "java"), "Words.java", ("javac", "-Xlint:all,-serial", "-Werror", "-d", "OUT", "Words.java")
    ),
    "node": Language(("node",), "words.mjs"),
    "perl": Language(("perl",), "words.pl", at_once=False),
    "python": Language(("python3",), "words.py"),
    "rust": Language(("rustc",), "words.rs", RUSTC),
}


def prepare(name: str) -> Path:
    """Compile the module in that language where it has changed, and return its descriptor file."""
    language = LANGUAGES[name]
    for command in language.commands:
        if find(command) is None:
            raise ToolchainMissing(f"{command} is not installed")
    if language.compiler:
        with _locked(name):
            _compile(name, language)
    return HERE / name / "words.json"


@functools.cache
def find(command: str) -> str | None:
    """Give the path of a command. One of rustup's without a toolchain, which runs nothing, is passed over."""
    found = (shutil.which(command, path=folder) for folder in os.get_exec_path())
    return next((each for each in found if each and (command != "rustc" or _runs(each))), None)


def _runs(program: str) -> bool:
    return subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """Keep other processes from the same compilation: those that run the tests are several."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the end of the file's descriptor ends it
        yield


def _compile(name: str, language: Language) -> None:
    made_of, done = _digest(name, language), CACHE / f"{name}.sha256"
    if done.is_file() and done.read_text() == made_of:
        return
    done.unlink(missing_ok=True)
    shutil.rmtree(out := CACHE / name, ignore_errors=True)
    out.mkdir()
    command = [str(find(language.compiler[0])), *(word.replace("OUT", str(out)) for word in language.compiler[1:])]
    subprocess.run(command, cwd=HERE / name, env=_environment(), check=True)
    done.write_text(made_of)


def _digest(name: str, language: Language) -> str:
    """Name the contents of what a program is made of, and the compiler by its path and its date."""
    compiler = Path(find(language.compiler[0]) or "").resolve()
    parts = [(HERE / name / language.source).read_bytes(), SHARED.read_bytes()]
    parts += [repr((language.compiler, compiler, compiler.stat().st_mtime)).encode()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _environment() -> dict[str, str]:
    """Keep Go's cache here, and Go from looking for another version of itself."""
    return {**os.environ, "GOCACHE": str(CACHE / "go-build"), "GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0"}


if __name__ == "__main__":
    for each in sys.argv[1:] or LANGUAGES:
        began = time.monotonic()
        try:
            print(prepare(each), end=" ")
        except ToolchainMissing as missing:
            print(f"{each}: {missing}", end=" ")
        print(f"after {time.monotonic() - began:.1f} s")
