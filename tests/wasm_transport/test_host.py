"""The host program by itself: what it reads first, what it opens, and how it ends."""

import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wasmtime

from amplifier_transport_wasm import _cache, _report, _run_folder, open_transport
from amplifier_transport_wasm._host import _file, _memory, _program
from amplifier_transport_wasm._host._memory import BoundedMemory
from amplifier_transport_wasm._report import Report, create_file, take_report
from amplifier_transport_wasm._run_folder import RunFolder
from amplifier_transport_wasm._settings import read_settings, write_settings

HEALTH = b'{"id":"r1","method":"health","params":{}}\n'


def ask(op, args=b"{}"):
    return b'{"id":"r2","method":"invoke","params":{"op":"%b","args":%b}}\n' % (op, args)


@pytest.fixture
def run(tmp_path, traced):
    """Run the host program with a module, and give how it ended."""

    def start(module, *lines, folders=(), fields=None, **more):
        settings: Any = {
            "module": str(module),
            "args": ["module"],
            "env": {"A": "1"},
            "folders": folders,
            "memory_bytes": None,
            "charged": False,
            "report": None,
            "run": "",
            "engine": "1",
            "cache": "",
            "key": "",
        } | more
        command = [sys.executable, "-m", "amplifier_transport_wasm._host", str(module), *map(str, sys.path)]
        sent = write_settings(settings) + b"".join(lines)
        fds = [settings["report"]] if settings["report"] else []
        return subprocess.run(command, input=sent, capture_output=True, check=False, timeout=60, pass_fds=fds)

    return start


def test_it_runs_a_module_to_the_end_of_its_input(run, compile_c, tmp_path):
    scratch = tmp_path / "run"
    (scratch / "tmp").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    opened: Any = {"cache": str(tmp_path / "kept"), "key": "00" * 32, "run": str(scratch)}
    limits = {"memory_bytes": 16 << 20, "charged": True}
    lines = (HEALTH, ask(b"grow", b'{"n":3}'), ask(b"random", b'{"n":1000000}'), ask(b"sleep", b'{"n":100}'))
    for _ in range(2):
        file = create_file(scratch)
        report = Report(file.fileno())
        opened["report"] = file.fileno()
        done = run(compile_c("attack"), *lines, folders=[(str(scratch / "tmp"), "/tmp", True)], **opened, **limits)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b'{"id":"r1","ok":true,"result":{"status":"ok"}}\n{"id":"r2","ok":true')
        assert not scratch.exists()
        cpu_ms, memory_bytes = report.read()
        assert cpu_ms > 0
        assert 4 << 20 < memory_bytes < 16 << 20
        (scratch / "tmp").mkdir(parents=True)
        report.close()
        file.close()


@pytest.mark.parametrize(
    ("op", "args", "code", "says"),
    [
        (b"exit", b'{"n":9}', 9, b""),
        (b"trap", b"{}", 134, b"unreachable"),
        (b"clock", b'{"n":99}', 134, b"Invalid enum value"),
    ],
)
def test_it_ends_as_its_module_ends(run, compile_c, op, args, code, says):
    done = run(compile_c("attack"), ask(op, args))
    assert done.returncode == code
    assert says in done.stderr
    assert (not says) == (not done.stderr)


@pytest.mark.skipif(os.name != "posix", reason="on Windows it ends with its job")
def test_it_ends_with_a_kernel_that_was_killed_whatever_its_module_does(tmp_path, traced, compile_c):
    """What stands for the kernel is the parent of the host program, which holds the end of this test's pipe."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    settings: Any = {
        "module": str(compile_c("attack")),
        "args": ["module"],
        "env": {},
        "folders": [],
        "memory_bytes": None,
        "charged": False,
        "report": None,
        "run": str(tmp_path / "run"),
        "engine": "1",
        "cache": "",
        "key": "",
    }
    (tmp_path / "sent").write_bytes(write_settings(settings) + HEALTH + ask(b"loop"))
    kernel = """if True:
    import os, subprocess, sys
    into = subprocess.PIPE
    host = subprocess.Popen(sys.argv[2:], stdin=into, stdout=into)
    host.stdin.write(open(sys.argv[1], "rb").read())
    host.stdin.flush()
    host.stdout.readline()
    os._exit(0)
    """
    host = [sys.executable, "-m", "amplifier_transport_wasm._host", "module", *map(str, sys.path)]
    command = [sys.executable, "-c", kernel, str(tmp_path / "sent"), *host]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=True, timeout=60)
    assert done.stderr == b""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"text", b"begins with"),
        (b"\0asm\x0d\0\1\0", b"component"),
        (wasmtime.wat2wasm("(module)"), b"_start"),
        (wasmtime.wat2wasm('(module (import "a" "b" (func)))'), b"unknown import"),
    ],
)
def test_it_says_why_a_module_cannot_run(run, tmp_path, content, says):
    (tmp_path / "module").write_bytes(content)
    done = run(tmp_path / "module")
    assert done.returncode == 126
    assert done.stderr.startswith(f"{tmp_path / 'module'} cannot run: ".encode())
    assert says in done.stderr


def test_settings_are_read_to_their_last_byte():
    out, into = os.pipe()
    settings: Any = {"module": "ä", "args": []}
    os.write(into, write_settings(settings) + HEALTH)
    assert read_settings(out) == settings
    assert os.read(out, 100) == HEALTH
    os.write(into, b"00000100{}")
    os.close(into)
    with pytest.raises(EOFError):
        read_settings(out)
    os.close(out)


@pytest.mark.parametrize("posix", [True, False])
def test_a_report_is_shared(tmp_path, monkeypatch, posix):
    monkeypatch.setattr(_report, "_POSIX", posix)
    with create_file(tmp_path) as file:
        ours = Report(file.fileno())
        theirs = take_report(file.name if isinstance(file.name, str) else os.dup(file.fileno()))
    assert [each.name for each in tmp_path.iterdir()] == ([] if posix else ["report"])
    theirs.tell_cpu(1.5)
    theirs.tell_memory(2**40)
    assert ours.read() == (1.5, 2**40)
    theirs.close()
    ours.close()
    with pytest.raises(ValueError, match="closed"):
        ours.read()


def test_on_windows_a_report_has_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(_report, "_POSIX", False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(_run_folder, "_POSIX", False)
    run = RunFolder(reports=True, below=["/deep"])
    assert (run.scratch / "deep").is_dir()
    assert run.hand_over() == f"{run.path}/report"
    run.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_a_process_is_whole_or_not_there(tmp_path, monkeypatch):
    """What stands for another module puts a link in the place of the new folder, or of one below, at once."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    make, mkdir = tempfile.mkdtemp, os.mkdir

    def replace(**options):
        path = Path(make(**options))
        path.rmdir()
        path.symlink_to("../home")
        return str(path)

    def replace_below(name, mode, dir_fd):
        if name == "tmp":
            os.symlink("../../home", name, dir_fd=dir_fd)
        else:
            mkdir(name, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", replace)
        with pytest.raises(OSError, match="Not a directory|Too many levels"):
            RunFolder(reports=True, below=["/deep"])
        RunFolder(reports=False).remove()
    monkeypatch.setattr(os, "mkdir", lambda *words, **more: (replace_below if more else mkdir)(*words, **more))
    with pytest.raises(OSError, match="Not a directory|Too many levels"):
        RunFolder(reports=True, below=["/deep"])
    assert [each.name for each in (tmp_path / "home").iterdir()] == ["letter"]


# Opening, as it is done on each system.

SYSTEMS = {
    "linux": (True, os.O_PATH, 0),
    "another": (True, 0, 0),
    "macos": (True, 0, os.O_NOFOLLOW),
    "windows": (False, 0, 0),
}


REFUSED = r"leads elsewhere|Too many levels|Not a directory"


@pytest.fixture(params=SYSTEMS)
def system(request, monkeypatch):
    """Open as on another system. O_NOFOLLOW stands for that of macOS, which looks at the whole path."""
    posix, path_only, no_links = SYSTEMS[request.param]
    monkeypatch.setattr(_file, "_POSIX", posix)
    monkeypatch.setattr(_file, "_PATH_ONLY", path_only)
    monkeypatch.setattr(_file, "_NO_LINKS", no_links)
    return request.param


@pytest.fixture
def links(tmp_path):
    """Make a folder with a file, and links to both."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "module").write_bytes(b"\0asm\1\0\0\0")
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "module").symlink_to("folder/module")
    return tmp_path


def test_a_folder_is_opened_and_left(system, links):
    before = Path.cwd()
    with _file.open_folder(str(links / "folder")) as name:
        assert [each.name for each in Path(name).iterdir()] == ["module"]
    assert Path.cwd() == before
    with _file.open_folder("/") as name:
        assert Path(name, "tmp").is_dir()


def test_no_link_is_followed(system, links):
    assert _file.read_module(str(links / "folder" / "module")) == b"\0asm\1\0\0\0"
    ways = ["module"] if system == "macos" else ["module", "link/module"]
    for way in ways:
        with pytest.raises(OSError, match=REFUSED):
            _file.read_module(str(links / way))
    before = Path.cwd()
    with pytest.raises(OSError, match=REFUSED), _file.open_folder(str(links / "link")):
        pass
    os.chdir(before)


def test_a_module_has_a_size(links, monkeypatch):
    monkeypatch.setattr(_file, "_MODULE_MAX", 8)
    assert len(_file.read_module(str(links / "folder" / "module"))) == 8
    monkeypatch.setattr(_file, "_MODULE_MAX", 7)
    with pytest.raises(ValueError, match="expected at most 7 bytes, got 8"):
        _file.read_module(str(links / "folder" / "module"))


def test_others_rights_are_not_looked_at_on_windows(monkeypatch, tmp_path):
    monkeypatch.setattr(_cache, "_POSIX", False)
    tmp_path.chmod(0o777)
    _cache._check_private(tmp_path, 0o022)


# Memory that is bounded.


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def memory(monkeypatch):
    """A bounded memory in this process, and what it has told. The end of the process is an exception."""

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(_memory, "_LINGER", 0)
    told = []
    return BoundedMemory(4 * 65536, told.append), told


def test_an_engine_takes_its_memory_from_there(memory):
    bounded, told = memory
    config = wasmtime.Config()
    bounded.configure(config)
    engine = wasmtime.Engine(config)
    text = """(module (memory (export "m") 1 9) (data (i32.const 5) "data")
      (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
      (func (export "get") (param i32) (result i32) (i32.load8_u (local.get 0))))"""
    store = wasmtime.Store(engine)
    module = wasmtime.Module(engine, text)
    exports: Any = wasmtime.Instance(store, module, []).exports(store)
    assert exports["m"].read(store, 5, 9) == b"data"
    assert exports["grow"](store, 3) == 1
    assert exports["get"](store, 4 * 65536 - 1) == 0
    with pytest.raises(wasmtime.Trap, match="out of bounds"):
        exports["get"](store, 4 * 65536)
    assert told == [65536, 4 * 65536]
    with pytest.raises(wasmtime.WasmtimeError, match="another kind of memory"):
        wasmtime.Instance(store, module, [])


def test_what_wants_more_is_told_and_ended(memory, capfd):
    bounded, told = memory
    for grow in (lambda: bounded._create(None, None, 5 * 65536, 2**32, 0, 0, None), lambda: bounded._refuse(5 * 65536)):
        with pytest.raises(Ended, match="137"):
            grow()
    assert told == [5 * 65536] * 2
    assert "wanted 327680 bytes of memory; limits.memory_bytes is 262144" in capfd.readouterr().err


def test_a_process_without_its_kernel_leaves_nothing(memory, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(Ended, match="129"):
        _program._end_with(os.getpid(), str(tmp_path / "run"))  # which is not the parent
    assert not (tmp_path / "run").exists()


def test_growth_beyond_the_room_ends(memory):
    bounded, told = memory
    made = [SimpleNamespace()]
    assert bounded._create(None, None, 0, 2**32, 0, 0, made) == 0
    with pytest.raises(Ended, match="137"):
        bounded._grow(None, 5 * 65536)
    assert told == [0, 5 * 65536]


def test_memory_that_cannot_be_had_is_an_error_of_the_engine(memory, monkeypatch):
    def none(*_):
        raise MemoryError

    bounded, _ = memory
    monkeypatch.setattr(mmap, "mmap", none)
    assert bounded._create(None, None, 0, 2**32, 0, 0, None) != 0


def test_a_callback_that_fails_ends_the_process(memory):
    with pytest.raises(Ended, match="137"):
        _memory._sure(lambda: int("x"))()


def test_the_door_is_imported_when_it_is_asked_for():
    import amplifier_transport_wasm  # noqa: PLC0415

    assert amplifier_transport_wasm.open_transport is open_transport
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        amplifier_transport_wasm.other  # noqa: B018
