"""The one door to every task: `python3 noxfile.py -s NAME`, on a bare machine too; `-l` lists the names.

Whatever a task makes or downloads stays in this folder, under `.nox` and `.cache`.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
NOX = ROOT / ".nox" / "nox"  # the environment that this file runs in
CACHE = ROOT / ".cache"
DISTRIBUTIONS = sorted(path.parent.name for path in ROOT.glob("amplifier_*/pyproject.toml"))
LIGHT = [name for name in DISTRIBUTIONS if name != "amplifier_transport_mcp"]  # its SDK is most of a download
PYTHONS = ["3.11", "3.12", "3.13"]


def stay_here() -> None:
    """Point everything that writes to a home or a temporary folder to this one, for this process and its children."""
    (CACHE / "tmp").mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "HYPOTHESIS_STORAGE_DIRECTORY": str(CACHE / "hypothesis"),
        "PIP_CACHE_DIR": str(CACHE / "pip"),
        "RUSTUP_HOME": str(CACHE / "rustup"),  # pip, for one, runs rustc, and rustup settles where it runs
        "TMPDIR": str(CACHE / "tmp"),
        "UV_CACHE_DIR": str(CACHE / "uv"),
        "UV_SYSTEM_CERTS": "1",  # trust whom the machine trusts, as pip does
        "XDG_CACHE_HOME": str(CACHE),
        "XDG_STATE_HOME": str(CACHE / "state"),
        "npm_config_cache": str(CACHE / "npm"),
    }


def find_pythons() -> None:
    """Put pyenv's interpreters before its shims, which exit with 127 for each version that is not active."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    folders = [str(path) for version in PYTHONS for path in sorted(pyenv.glob(f"versions/{version}.*/bin"))]
    os.environ["PATH"] = os.pathsep.join([*folders, os.environ["PATH"]])


def bootstrap() -> int:
    """Run this file again in NOX, which the first use makes, and return the exit status."""
    scripts = Path(sysconfig.get_path("scripts", "venv", {"base": str(NOX)}))
    python = str(scripts / "python")
    if not shutil.which("nox", path=scripts):  # pip writes it last
        venv.create(NOX, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.check_call([*pip, "install", "nox[uv]>=2026.10"])
    return subprocess.call([python, __file__, *sys.argv[1:]])


stay_here()
find_pythons()
if Path(sys.prefix).resolve() != NOX:
    sys.exit(bootstrap())

import nox  # noqa: E402  only there is it sure to be, and new enough

NEWEST = PYTHONS[-1] if shutil.which(f"python{PYTHONS[-1]}") else None

nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.reuse_venv = "yes"
nox.options.allow_parallel = True
nox.options.sessions = ["lint", "typing", "tests", "packages"]


def install(session: nox.Session, *groups: str, names: Sequence[str] = DISTRIBUTIONS) -> None:
    """Install distributions, editable, and dependency groups of pyproject.toml."""
    editable = [f"--editable={name}" for name in names]
    session.install(*editable, *(f"--group={name}" for name in groups))


@nox.session
def quickstart(session: nox.Session) -> None:
    """Run examples/quickstart.py."""
    install(session, names=LIGHT)
    session.run("python", "examples/quickstart.py", *session.posargs)


@nox.session
def agent(session: nox.Session) -> None:
    """Run examples/agent: an agent made of modules alone, in several languages."""
    install(session, names=LIGHT)
    session.run("python", "examples/agent/main.py", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests; all of them together (no arguments) must cover every branch of every distribution."""
    install(session, "test")
    data = CACHE / "coverage" / session.name
    shutil.rmtree(data, ignore_errors=True)
    session.env["COVERAGE_FILE"] = str(data / "data")
    session.run("coverage", "run", "-m", "pytest", "-m", "not packages", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    for name in DISTRIBUTIONS if not session.posargs else []:
        session.run("coverage", "report", f"--include={name}/*")


@nox.session
def mcp(session: nox.Session) -> None:
    """Run examples/mcp: a server of the Model Context Protocol as a tool, under a policy."""
    install(session)
    session.install("mcp-server-time>=2026.10")
    session.run("python", "examples/mcp/main.py", *session.posargs)


@nox.session(name="mcp-conformance", python=NEWEST)
def mcp_conformance(session: nox.Session) -> None:
    """Run what the official suite requires of clients of MCP, but for authorization, through our transport."""
    install(session, "node")
    session.run("python", "tests/mcp_transport/conformance/run.py", str(CACHE / "mcp-conformance"), *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and the layers."""
    install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-logo", f"--cache-dir={CACHE / 'import-linter'}")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types."""
    install(session, "typing")
    session.run("mypy")


@nox.session
def packages(session: nox.Session) -> None:
    """Build the distributions, check what was built, and use it in fresh environments."""
    install(session, "packages")
    session.run("pytest", "-m", "packages", *session.posargs)


@nox.session(python=NEWEST, allow_parallel=False)
def bench(session: nox.Session) -> None:
    """Print what the kernel costs, in ratios to the limits; without arguments also draw docs/bench.svg."""
    install(session, "bench")
    drawn = [] if session.posargs else ["--svg=docs/bench.svg"]
    session.run("python", "tests/benchmarks/run.py", f"--json={CACHE / 'bench.json'}", *drawn, *session.posargs)


@nox.session(name="bench-compare", python=NEWEST, allow_parallel=False)
def bench_compare(session: nox.Session) -> None:
    """Point out each ratio that is worse than the committed baseline by more than a fifth; no gate of CI."""
    install(session, "bench")
    session.run("python", "tests/benchmarks/run.py", "--compare=tests/benchmarks/baseline.json", *session.posargs)


@nox.session(name="bench-growth", python=NEWEST, allow_parallel=False)
def bench_growth(session: nox.Session) -> None:
    """Print how cost grows with numbers and sizes; without arguments also draw docs/growth.svg."""
    install(session, "bench")
    drawn = [] if session.posargs else ["--svg=docs/growth.svg"]
    session.run("python", "tests/benchmarks/growth.py", f"--json={CACHE / 'growth.json'}", *drawn, *session.posargs)


@nox.session(allow_parallel=False)
def faults(session: nox.Session) -> None:
    """Print what becomes of each fault of a module, and how soon; words pick cases by name."""
    install(session, "test")
    session.run("python", "-m", "tests.faults", *session.posargs)


@nox.session(python=PYTHONS[-1] if shutil.which(f"python{PYTHONS[-1]}") else None)
def fuzz(session: nox.Session) -> None:
    """Look for bytes that break a framing, a message or a descriptor: -- [SECONDS each (60)] [TARGET …]."""
    session.install("--only-binary=atheris", "atheris>=3")  # wheels are for Linux on x86-64
    install(session, "test")
    seconds, *names = session.posargs or ["60"]
    for name in names or ["framing", "message", "descriptor", "reply", "ndjson", "stdio", "http"]:
        folder = CACHE / "fuzz"
        session.run("python", "-m", "tests.fuzz.run", str(folder), name, f"-max_total_time={seconds}")


@nox.session
def soak(session: nox.Session) -> None:
    """Everything at once and at random, after which nothing may be left: -- [SECONDS (600)] [SEED]."""
    install(session, "test")
    session.run("python", "-W", "error", "-m", "tests.soak.run", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Change the gate, the framing and the bus bit by bit: what no test notices is explained: -- [MUTANTS …]."""
    install(session, "mutation")
    session.run("python", "tests/mutation/run.py", str(CACHE / "mutation"), *session.posargs)


if __name__ == "__main__":
    nox.main()
