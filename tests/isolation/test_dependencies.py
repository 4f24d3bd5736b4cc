"""The dependencies of a command are found without a declaration: in sandboxes that have nothing else."""

import os
import shutil
import struct
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from tests.conftest import missing_here

from amplifier_core import Unreachable
from amplifier_isolation_bwrap._dependencies import find_dependencies
from amplifier_isolation_bwrap._elf import find_libraries
from amplifier_isolation_bwrap._paths import SharedFolders, resolve
from amplifier_isolation_bwrap._search import Search, WritablePlaces

pytestmark = pytest.mark.usefixtures("linux")


def script(path, text, mode=0o755):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def needs(*command, cwd="/", path="/usr/bin:/bin", env=()):
    environment = {"PATH": str(path), **dict(env)}
    return find_dependencies([str(word) for word in command], str(cwd), environment, SharedFolders(), look())


def look():
    return Search(WritablePlaces())


def test_a_program_of_the_system_needs_nothing_more():
    found = needs("sh")
    assert found.program == "/usr/bin/sh"
    assert not found.paths


def test_the_interpreter_of_these_tests_starts_and_finds_its_libraries(confined):
    code = "import ctypes, json, ssl, sys; print(sys.prefix)"
    assert confined(sys.executable, "-c", code).stdout.strip() == sys.prefix


@pytest.mark.parametrize("symlinks", [True, False])
def test_a_virtual_environment_brings_what_it_is_based_on(confined, tmp_path, symlinks):
    venv.create(tmp_path / "env", symlinks=symlinks, with_pip=False)
    packages = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    (packages / "installed.py").write_text("VALUE = 'found'")
    code = "import ctypes, installed, sys; print(installed.VALUE, sys.prefix)"
    told = confined(tmp_path / "env" / "bin" / "python", "-c", code).stdout
    assert told == f"found {tmp_path}/env\n"


def test_a_virtual_environment_that_lies_about_its_base_brings_nothing(tmp_path):
    script(tmp_path / "private" / "bin" / "other", "")
    (tmp_path / "private" / "lib").mkdir()
    script(tmp_path / "env" / "bin" / "python", "#!/bin/sh\n")
    (tmp_path / "env" / "lib").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").write_text(f"home = {tmp_path}/private/bin\n")
    assert not [path for path in needs(tmp_path / "env" / "bin" / "python").paths if "private" in path]


def test_a_virtual_environment_based_on_itself_ends_the_search(tmp_path):
    python = script(tmp_path / "env" / "bin" / "python3", "#!/bin/sh\n")
    (tmp_path / "env" / "lib").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").write_text(f"home = {tmp_path}/env/bin\n")
    assert str(python.parents[1]) in needs(python).paths


def test_an_interpreter_with_a_prefix_of_its_own_brings_its_libraries(confined, tmp_path):
    """nvm, asdf and others install bin/NAME, with lib/ beside bin/."""
    root = tmp_path / "versions" / "v1"
    (root / "lib").mkdir(parents=True)
    (root / "lib" / "text").write_text("from the library")
    (root / "share").mkdir()
    (root / "private").mkdir()
    script(root / "bin" / "tool", '#!/bin/sh\ncat "${0%/*}/../lib/text"; ls "${0%/*}/.."\n')
    told = confined("tool", env={"PATH": f"{root}/bin:/usr/bin:/bin"}).stdout
    assert told == "from the librarybin\nlib\n"


def test_a_program_in_a_folder_of_programs_alone_brings_itself(tmp_path):
    tool = script(tmp_path / "bin" / "tool", "#!/bin/sh\n")
    script(tmp_path / "bin" / "other", "#!/bin/sh\n")
    assert list(needs(tool).paths) == [str(tool)]


def test_a_program_that_cannot_be_read_is_taken_as_it_is(tmp_path):
    assert look().read(str(tmp_path / "gone"), 256) == b""


def test_links_on_the_way_are_there_too(confined, tmp_path):
    script(tmp_path / "real" / "bin" / "tool", '#!/bin/sh\necho "$0"\n')
    (tmp_path / "real" / "lib").mkdir()
    (tmp_path / "current").symlink_to("real")
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "alias").symlink_to("../current/bin/tool")
    alias = tmp_path / "names" / "alias"
    assert confined(alias).stdout == f"{alias}\n"
    assert confined("alias", env={"PATH": f"{tmp_path}/names:/usr/bin"}).stdout == f"{alias}\n"
    assert confined("../names/alias", cwd=tmp_path / "real").stdout == f"{alias}\n"


def test_an_installation_that_has_nothing_else_beside_comes_as_a_whole(tmp_path):
    tool = script(tmp_path / "env" / "bin" / "tool", "#!/bin/sh\n")
    for part in ("lib", "share", "include"):
        (tmp_path / "env" / part).mkdir()
    assert list(needs(tool).paths) == [f"{tmp_path}/env", str(tool)]


def test_a_jdk_of_the_system_brings_its_settings_from_where_it_looks_for_them(confined):
    if not list(Path("/usr/lib/jvm").glob("*/bin/java")):
        pytest.skip("no Java of the system is installed")
    assert "version" in confined("java", "-version").stderr


def test_a_jdk_brings_its_settings(tmp_path):
    script(tmp_path / "jdk" / "bin" / "java", "")
    for part in ("lib", "conf", "etc", "include"):
        (tmp_path / "jdk" / part).mkdir()
    assert f"{tmp_path}/jdk/conf" not in needs(tmp_path / "jdk" / "bin" / "java").paths
    (tmp_path / "jdk" / "lib" / "jvm.cfg").touch()
    found = needs(tmp_path / "jdk" / "bin" / "java").paths
    assert f"{tmp_path}/jdk/conf" in found
    assert f"{tmp_path}/jdk/etc" not in found


@pytest.mark.parametrize(
    "line", ["#!{0}/bin/lang", "#! {0}/bin/lang -x", "#!/usr/bin/env lang", "#!/usr/bin/env -S A=1 lang -x"]
)
def test_a_script_brings_its_interpreter(confined, tmp_path, line):
    script(tmp_path / "bin" / "lang", '#!/bin/sh\necho "interpreted"\n')
    (tmp_path / "lib").mkdir()
    tool = script(tmp_path / "elsewhere" / "tool", line.format(tmp_path) + "\n")
    told = confined(tool, env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}).stdout
    assert told == "interpreted\n"


@pytest.mark.parametrize("line", ["#!", "#!/usr/bin/env", "#!/none", "#!{0}/private"])
def test_a_line_that_names_no_interpreter_brings_nothing(tmp_path, line):
    script(tmp_path / "private", "a secret", mode=0o600)
    tool = script(tmp_path / "tool", line.format(tmp_path) + "\n")
    assert list(needs(tool).paths) == [str(tool)]


def test_a_loop_of_interpreters_ends_the_search(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    script(first, f"#!{second}\n")
    script(second, f"#!{first}\n")
    assert set(needs(first).paths) == {str(first), str(second)}


def test_a_program_at_home_brings_itself_and_not_the_home(tmp_path, monkeypatch):
    tool = script(tmp_path / "bin" / "tool", "#!/bin/sh\n")
    (tmp_path / "lib").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(needs(tool).paths) == [str(tool)]
    deeper = script(tmp_path / ".local" / "bin" / "tool", "#!/bin/sh\n")
    (tmp_path / ".local" / "lib").mkdir()
    (tmp_path / ".local" / "share").mkdir()
    assert list(needs(deeper).paths) == [f"{tmp_path}/.local/bin", f"{tmp_path}/.local/lib", str(deeper)]


def test_without_a_home_it_is_roots(monkeypatch, tmp_path):
    def nobody_says():
        raise RuntimeError

    monkeypatch.setattr(Path, "home", nobody_says)
    shared = SharedFolders()
    assert "/root" in shared
    assert "/" in shared
    assert "/tmp" in shared
    assert str(tmp_path) not in shared


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda folder: folder / "none", "not found or not executable"),
        (lambda folder: script(folder / "plain", "text", mode=0o644), "not found or not executable"),
        (lambda folder: folder, "not found or not executable"),
        (lambda _: "no-such-program", "not found on PATH"),
    ],
    ids=["missing", "not executable", "a folder", "a name"],
)
def test_a_command_that_cannot_run_is_refused(tmp_path, make, fault):
    command = make(tmp_path)
    with pytest.raises(Unreachable) as caught:
        needs(str(command))
    assert caught.value.message == f"command {command}: {fault}"


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Unreachable, match="levels of symbolic links"):
        resolve(f"{tmp_path}/a")
    with pytest.raises(Unreachable):
        needs(f"{tmp_path}/a")


def test_dot_dot_after_a_link_starts_at_the_target(tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "near").symlink_to("far/deep")
    trail = resolve(f"{tmp_path}/near/../x/./y/")
    assert trail.real == f"{tmp_path}/far/x/y"
    assert trail.links[f"{tmp_path}/near"] == "far/deep"
    assert resolve("/").real == "/"


# pyenv


@pytest.fixture
def pyenv(tmp_path):
    """Make a pyenv of several versions, with a shim that runs the selected one."""
    root = tmp_path / "pyenv"
    shim = f'#!/usr/bin/env bash\nexport PYENV_ROOT="{root}"\nexec "{root}/libexec/pyenv" exec "${{0##*/}}" "$@"\n'
    script(root / "shims" / "python3", shim)
    for version in ("3.11.7", "3.11.12", "3.13.0", "3.13-dev"):
        script(root / "versions" / version / "bin" / "python3", f"#!/bin/sh\necho {version}\n")
        (root / "versions" / version / "lib").mkdir()
    return root


@pytest.mark.parametrize(
    ("settled", "version"),
    [
        ({"version": "3.13.0\n"}, "3.13.0"),
        ({"version": "# none\n3.11\n"}, "3.11.12"),  # the newest of them
        ({"version": "3.12.1\n3.13.0\n"}, "3.13.0"),  # the first that has the program
        ({"version": "3.11.7", "work/.python-version": "3.13.0\n"}, "3.13.0"),
        ({"version": "3.11.7", ".python-version": "\n", "work/deep/.python-version": "3.13\n"}, "3.13-dev"),
    ],
)
def test_behind_a_shim_is_the_version_in_force(confined, tmp_path, pyenv, settled, version):
    (tmp_path / "work" / "deep").mkdir(parents=True)
    for name, text in settled.items():
        (pyenv / name if name == "version" else tmp_path / name).write_text(text)
    path = f"{pyenv}/shims:/usr/bin:/bin"
    cwd = tmp_path / "work" / ("deep" if "work/deep/.python-version" in settled else "")
    if version == "3.13-dev":
        version = "3.13.0"
    assert confined("python3", env={"PATH": path}, cwd=cwd).stdout == f"{version}\n"


def test_a_variable_of_the_module_names_the_version(pyenv):
    env = {"PYENV_VERSION": "3.11.7"}
    assert needs("python3", path=f"{pyenv}/shims", env=env).program == f"{pyenv}/versions/3.11.7/bin/python3"


def test_the_systems_version_is_the_next_on_path(pyenv, tmp_path):
    other = script(tmp_path / "system" / "python3", "#!/bin/sh\n")
    for settled in ("", "system"):
        (pyenv / "version").write_text(settled)
        assert needs("python3", path=f"{pyenv}/shims:{other.parent}").program == str(other)


@pytest.mark.parametrize(
    ("version", "shown"),
    [("3.9.1", "3.9.1"), *((word, r"\(no name of a version\)") for word in ("../../private", ".hidden", "x" * 100))],
)
def test_a_version_that_is_not_installed_is_refused(pyenv, version, shown):
    (pyenv / "version").write_text(version)
    expected = f"{pyenv}/shims/python3 is a shim of pyenv, and version {shown} has no such program"
    with pytest.raises(Unreachable, match=expected):
        needs("python3", path=f"{pyenv}/shims")


def test_a_program_that_is_no_shim_is_unchanged(tmp_path):
    tool = script(tmp_path / "shims" / "tool", "#!/bin/sh\n")
    assert needs("tool", path=tool.parent).program == str(tool)


# libraries


@pytest.fixture
def built(tmp_path):
    """Build a program whose library lies in another folder, and needs a second library there."""
    if shutil.which("gcc") is None:
        missing_here("gcc is not installed")
    folder = tmp_path / "app" / "libraries"
    folder.mkdir(parents=True)
    sources = {
        "inner": "int inner(void) { return 42; }",
        "outer": "int inner(void); int outer(void) { return inner(); }",
        "main": '#include <stdio.h>\nint outer(void); int main(void) { printf("%d\\n", outer()); }',
    }
    for name, text in sources.items():
        (tmp_path / f"{name}.c").write_text(text)

    def gcc(*words):
        subprocess.run(["gcc", *map(str, words)], check=True, cwd=tmp_path)

    def build(path):
        gcc("-shared", "-fPIC", "-o", folder / "libinner.so", "inner.c")
        gcc("-shared", "-fPIC", "-o", folder / "libouter.so", "outer.c", f"-L{folder}", "-linner", "-Wl,-rpath,$ORIGIN")
        program = tmp_path / "app" / "program"
        gcc("-o", program, "main.c", f"-L{folder}", "-louter", f"-Wl,-rpath-link,{folder}", *path)
        return program

    return build


@pytest.mark.parametrize("path", ["-Wl,-rpath,$ORIGIN/libraries", "-Wl,-rpath,${ORIGIN}/libraries:relative"])
def test_a_program_brings_the_libraries_beside_it(confined, built, path):
    assert confined(built([path])).stdout == "42\n"


def test_a_program_brings_the_libraries_that_its_environment_names(confined, built, tmp_path):
    env = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": f"{tmp_path}/app/libraries"}
    assert confined(built([]), env=env).stdout == "42\n"


def test_a_program_with_a_loader_of_its_own_brings_it(built, tmp_path):
    loader = tmp_path / "loader.so"
    shutil.copy(next(Path("/lib64").glob("ld-linux*")) if Path("/lib64").exists() else "/bin/sh", loader)
    program = built([f"-Wl,--dynamic-linker={loader}", "-Wl,-rpath,$ORIGIN/libraries"])
    assert str(loader) in needs(program).paths


def test_a_secret_is_no_library(tmp_path, built):
    """A module gets to read a file that its program names as a library, so the file has to be one."""
    program = built(["-Wl,-rpath,$ORIGIN/libraries"])
    (tmp_path / "app" / "libraries" / "libouter.so").write_text("a secret")
    assert not [path for path in needs(program).paths if "libouter" in path]


def test_a_table_that_lies_outside_the_program_is_not_looked_for(tmp_path):
    whole = bytearray(Path(sys.executable).resolve().read_bytes())
    (table,), (size, count) = struct.unpack_from("<Q", whole, 32), struct.unpack_from("<HH", whole, 54)
    segments = [struct.unpack_from("<IIQQQQ", whole, table + n * size) for n in range(count)]
    (start,) = (place for kind, _, place, *_ in segments if kind == 2)
    entry = next(at for at in range(start, len(whole), 16) if struct.unpack_from("<q", whole, at) == (5,))
    struct.pack_into("<Q", whole, entry + 8, 1 << 60)
    (tmp_path / "lost").write_bytes(whole)
    assert find_libraries(str(tmp_path / "lost"), {}, lambda _: False, look()) == []


@pytest.mark.parametrize("size", [0, 3, 6, 63, 64, 100, 400, 1000, 5000])
def test_a_damaged_program_has_no_libraries(tmp_path, size):
    whole = Path(sys.executable).resolve().read_bytes()
    (tmp_path / "torn").write_bytes(whole[:size])
    assert isinstance(find_libraries(str(tmp_path / "torn"), {}, lambda _: False, look()), list)
    damaged = bytearray(whole[:5000])
    damaged[64:2000] = os.urandom(1936)
    (tmp_path / "damaged").write_bytes(damaged)
    assert isinstance(find_libraries(str(tmp_path / "damaged"), {}, lambda _: False, look()), list)
    assert find_libraries(str(tmp_path / "none"), {}, lambda _: False, look()) == []
