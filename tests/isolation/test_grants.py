"""What each capability gives access to, and nothing more: in real sandboxes, tried from inside."""

import os
import sys

import pytest
from tests.isolation.conftest import DESCRIPTOR, SMALL, confine, launch, service, start

from amplifier_core import Forbidden, Unreachable, load_descriptor
from amplifier_core.hookspecs import Launch
from amplifier_isolation_bwrap import _isolation
from amplifier_isolation_bwrap._paths import SharedFolders

pytestmark = pytest.mark.usefixtures("linux")


@pytest.fixture
def folders(tmp_path):
    for name in ("a", "a/below", "ab", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path


def sh(text):
    return ("sh", "-c", text)


def test_nothing_is_there_but_the_system_and_a_name(confined):
    seen = confined(*sh("ls -A / /tmp /dev/shm /etc; id -un; id -gn; hostname")).stdout.split()
    assert not {"home", "root", "var", "sys", "shadow", "machine-id", "resolv.conf"} & set(seen)
    assert seen[-3:] == ["module"] * 3


def test_the_environment_is_what_was_constructed_and_the_folder(confined, monkeypatch):
    monkeypatch.setenv("AMPLIFIER_TEST_TOKEN", "secret")
    env = {"PATH": "/usr/bin:/bin", "GREETING": "hello = world\nand more", "EMPTY": ""}
    told = confined("env", "-0", env=env).stdout.split("\0")
    assert set(told) - {""} == {"PATH=/usr/bin:/bin", "GREETING=hello = world\nand more", "EMPTY=", "PWD=/"}


def test_descriptors_are_the_three_that_a_module_speaks_through(confined, tmp_path):
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003 - its only argument
        assert confined(*sh("ls /proc/self/fd"), granted=[f"fs:read:{tmp_path}"]).stdout.split() == ["0", "1", "2", "3"]


def test_no_other_process_is_there_and_bwrap_itself_is_hidden(confined):
    seen = confined(*sh("cd /proc; echo [0-9]*; ls -A 1; echo end")).stdout.splitlines()
    assert seen[0].split()[0] == "1"
    assert len(seen[0].split()) <= 3
    assert seen[1:] == ["end"]


def test_reading_opens_that_folder_and_not_its_neighbours(confined, folders):
    granted = [f"fs:read:{folders}/a"]
    tries = "cat a/file a/below/file; cat ab/file b/file; ls; echo x >a/new; rm a/file; mv a c; : >>a/file"
    done = confined(*sh(tries), granted=granted, cwd=folders, check=False)
    assert done.stdout == "aa/belowa\n"
    assert not (folders / "a" / "new").exists()
    assert (folders / "a" / "file").read_text() == "a"


def test_writing_opens_that_folder_and_not_its_neighbours(confined, folders):
    granted = [f"fs:write:{folders}/a"]
    confined(
        *sh("echo x >a/new; mkdir a/deep; rm a/file; echo x >b/file; rmdir b"),
        granted=granted,
        cwd=folders,
        check=False,
    )
    assert (folders / "a" / "new").read_text() == "x\n"
    assert (folders / "a" / "deep").is_dir()
    assert not (folders / "a" / "file").exists()
    assert (folders / "b" / "file").read_text() == "b"


def test_a_granted_file_does_not_open_its_folder(confined, folders):
    granted = [f"fs:read:{folders}/a/file", f"fs:write:{folders}/b/file"]
    done = confined(*sh("cat a/file; ls a; echo y >>b/file; ls b"), granted=granted, cwd=folders)
    assert done.stdout == "afile\nfile\n"
    assert (folders / "b" / "file").read_text() == "by\n"


def test_a_folder_within_another_keeps_the_wider_right_of_both(confined, folders):
    granted = [f"fs:read:{folders}/a", f"fs:write:{folders}/a/below"]
    confined(*sh("echo x >a/new; echo x >a/below/new"), granted=granted, cwd=folders, check=False)
    assert not (folders / "a" / "new").exists()
    assert (folders / "a" / "below" / "new").exists()
    narrower = [f"fs:write:{folders}/a", f"fs:read:{folders}/a/below"]
    confined(*sh("echo y >a/below/new"), granted=narrower, cwd=folders)
    assert (folders / "a" / "below" / "new").read_text() == "y\n"


def test_the_same_path_to_read_and_to_write_is_to_write(confined, folders):
    granted = [f"fs:write:{folders}/a", f"fs:read:{folders}/a"]
    confined(*sh("echo x >a/new"), granted=granted, cwd=folders)
    assert (folders / "a" / "new").exists()


def test_links_in_an_opened_folder_lead_nowhere_else(confined, folders):
    (folders / "a" / "out").symlink_to(folders / "b" / "file")
    (folders / "a" / "up").symlink_to("../b")
    done = confined(
        *sh("cat a/out; cat a/up/file; cat a/../b/file"), granted=[f"fs:read:{folders}/a"], cwd=folders, check=False
    )
    assert done.stdout == ""


def test_a_link_as_a_grant_opens_what_it_leads_to_when_the_descriptor_is_read(confined, folders):
    (folders / "link").symlink_to("b")
    done = confined(*sh("cat b/file"), granted=[f"fs:read:{folders}/link"], cwd=folders)
    assert done.stdout == "b"


def test_a_folder_that_became_a_link_since_is_refused(isolation, folders):
    granted = [f"fs:read:{folders}/a"]
    (folders / "a").rename(folders / "moved")
    (folders / "a").symlink_to("b")
    with pytest.raises(Unreachable, match=f"{folders}/a was replaced: a link or a file is on the way to it now"):
        confine(isolation, launch("true"), DESCRIPTOR, granted)


def test_a_folder_swapped_between_the_look_and_the_mount_is_not_mounted(isolation, folders):
    """bwrap opens paths itself; given a file descriptor, it checks that it mounted the same folder."""
    if "--bind-fd" not in isolation._bwrap.options:
        pytest.skip("this bwrap mounts by path alone")
    granted = [f"fs:read:{folders}/a"]
    confined = confine(isolation, launch("cat", f"{folders}/a/file"), DESCRIPTOR, granted)
    (folders / "a").rename(folders / "moved")
    (folders / "b").rename(folders / "a")
    done = start(confined)
    assert done.stdout in ("", "a")  # never what took its place


def test_a_missing_path_cannot_be_granted(isolation, folders):
    for action in ("read", "write"):
        granted = [f"fs:{action}:{folders}/none"]
        with pytest.raises(
            Unreachable, match=f"{folders}/none: No such file or directory; only a path that exists can be granted"
        ):
            confine(isolation, launch("true"), DESCRIPTOR, granted)


def test_a_refusal_leaves_no_open_files(isolation, folders):
    before = len(os.listdir("/proc/self/fd"))
    granted = [f"fs:read:{folders}/a", f"fs:read:{folders}/none"]
    with pytest.raises(Unreachable):
        confine(isolation, launch("true"), DESCRIPTOR, granted)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("path", ["/proc", "/proc/1/root", "/sys/class", "/dev/shm", "/dev"])
def test_the_hosts_processes_and_devices_are_never_opened(isolation, path):
    granted = [f"fs:read:{path}"]
    assert isolation.unenforced(granted) == tuple(granted)
    with pytest.raises(Forbidden, match="no isolated module sees the host's"):
        confine(isolation, launch("true"), DESCRIPTOR, granted)


def test_a_grant_of_the_root_opens_all_but_processes_and_devices(confined, folders):
    tries = f"cat {folders}/a/file; ls /proc | grep -c '^[0-9]'; ls -A /sys; ls /dev/shm; echo x >{folders}/a/new"
    done = confined(*sh(tries), granted=["fs:read:/"], check=False)
    assert done.stdout.startswith("a")
    assert int(done.stdout[1:].split()[0]) <= 5
    assert done.stdout[1:].split()[1:] == []
    assert not (folders / "a" / "new").exists()


def test_writing_everything_writes_no_file_of_the_sandbox_to_the_host(confined, folders):
    before = os.stat("/etc/passwd")
    confined(*sh(f"echo x >{folders}/a/new"), granted=["fs:write:/"], cwd=folders)
    assert (folders / "a" / "new").exists()
    after = os.stat("/etc/passwd")
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_scratch_is_empty_writable_limited_and_gone_afterwards(confined):
    tries = (
        'echo "$TMPDIR"; ls -A /tmp; ls -A /dev/shm; head -c 5000000 /dev/zero >/tmp/big; stat -c %s /tmp/big;'
        " rm /tmp/big; echo y >/dev/shm/y; cat /tmp/y"
    )
    done = confined(*sh(tries), granted=["fs:write:$tmp"], check=False)
    folder, size, shared = done.stdout.split()
    assert folder == "/tmp"
    assert 0 < int(size) <= SMALL["scratch_bytes"]
    assert shared == "y"  # it is the same memory
    assert confined(*sh("ls -A /tmp"), granted=["fs:write:$tmp"]).stdout == ""


def test_undeclared_it_sees_the_system_and_its_own_code_and_writes_nowhere(confined, folders):
    """What section 6 says that a confined module always sees, and that it finds its scratch folder in TMPDIR."""
    (folders / "m.json").write_text('{"name":"m","kind":"tool","capabilities":[],"transport":{"type":"stdio"}}')
    tries = 'echo "[$TMPDIR]" $(cat file) $(ls -d /usr/bin); for at in /tmp . /usr; do echo x >$at/new; done'
    own = load_descriptor(folders / "m.json")
    done = confined(*sh(tries), descriptor=own, cwd=folders / "a", check=False)
    assert done.stdout == "[] a /usr/bin\n"
    assert done.stderr.count("Read-only file system") == 3
    granted = confined(*sh('echo "$TMPDIR"; echo x >$TMPDIR/new && ls -A $TMPDIR'), granted=["fs:write:$tmp"])
    assert granted.stdout == "/tmp\nnew\n"


def test_two_parts_of_scratch_are_two_folders_of_one_size(confined):
    tries = "echo one >/tmp/a/x; echo two >/tmp/b/x; cat /tmp/a/x; head -c 3000000 /dev/zero >/tmp/a/big"
    tries += "; head -c 3000000 /dev/zero >/tmp/b/big; cat /tmp/a/big /tmp/b/big | wc -c"
    first, size = confined(*sh(tries), granted=["fs:write:$tmp/a", "fs:write:$tmp/b"], check=False).stdout.split()
    assert first == "one"
    assert int(size) <= SMALL["scratch_bytes"]


def test_without_scratch_there_is_no_place_to_write(confined):
    tries = "for place in / /tmp /dev /dev/shm /etc /proc /run /var/tmp; do echo x >$place/x && echo $place; done"
    assert confined(*sh(tries), check=False).stdout == ""


def test_a_grant_of_a_part_of_scratch_opens_that_part(confined):
    tries = "echo x >/tmp/x && echo all; echo x >/tmp/mine/x && echo part"
    assert confined(*sh(tries), granted=["fs:write:$tmp/mine"], check=False).stdout == "part\n"


def test_reading_scratch_is_reading_an_empty_folder(confined):
    assert confined(*sh("ls -A /tmp; echo x >/tmp/x"), granted=["fs:read:$tmp"], check=False).stdout == ""


def test_scratch_hides_the_hosts_folder_even_when_that_is_granted(confined, tmp_path):
    done = confined(*sh("ls -A /tmp"), granted=["fs:write:$tmp", "fs:read:/tmp"])
    assert done.stdout == ""


def test_a_folder_below_the_hosts_scratch_stays_where_it_is(confined, folders):
    done = confined("cat", f"{folders}/a/file", granted=["fs:write:$tmp", "fs:read:/", f"fs:read:{folders}/a"])
    assert done.stdout == "a"


def test_a_folder_of_the_system_can_be_granted_too(confined):
    assert "bin" in confined("ls", "/usr", granted=["fs:read:/usr"]).stdout.split()


CONNECT = (
    "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5); print(s.recv(9).decode())"
)


@pytest.mark.parametrize("word", ["net:connect:*", "net:listen:*"])
def test_the_network_is_the_hosts(confined, word):
    with service(("127.0.0.1", 0)) as (_, port):
        assert confined(sys.executable, "-c", CONNECT, port, granted=[word]).stdout == "hello\n"


def test_with_the_network_come_the_files_for_looking_up_names(confined):
    assert "resolv.conf" in confined("ls", "/etc", granted=["net:connect:*"]).stdout
    assert "resolv.conf" not in confined("ls", "/etc").stdout
    code = "import socket; print(socket.getaddrinfo('localhost', 80)[0][4][1])"
    assert confined(sys.executable, "-c", code, granted=["net:connect:*"]).stdout == "80\n"


def test_without_the_network_a_socket_is_refused_with_what_people_understand(confined):
    done = confined(sys.executable, "-c", "import socket; socket.socket()", check=False)
    assert "Permission denied" in done.stderr
    assert "ok" in confined(sys.executable, "-c", "import asyncio; print(asyncio.run(asyncio.sleep(0, 'ok')))").stdout


def test_what_is_no_host_cannot_be_enforced(isolation):
    wanted = [
        "net:connect:127.1:443",
        "net:connect:*",
        "net:listen:*",
        "fs:read:/srv",
        "env:HOME",
    ]
    assert isolation.unenforced([*wanted, "fs:write:$tmp"]) == tuple(wanted[:1])


def test_a_pseudo_file_system_is_closed_wherever_it_is_mounted(isolation, monkeypatch, tmp_path):
    (tmp_path / "doors").mkdir()
    (tmp_path / "doors" / "kernel").mkdir()
    door = str(tmp_path / "doors" / "kernel")
    monkeypatch.setattr(_isolation, "find_mount_points", lambda: {"/": "ext4", "/proc": "proc", door: "proc"})
    assert isolation.unenforced([f"fs:read:{door}"]) == (f"fs:read:{door}",)
    granted = [f"fs:read:{tmp_path}"]
    assert isolation.unenforced(granted) == ()
    (tmp_path / "doors" / "kernel" / "secret").write_text("secret")
    done = start(confine(isolation, launch("ls", "-A", door), DESCRIPTOR, granted))
    assert (done.returncode, done.stdout) == (0, "")


def test_of_proc_nothing_is_left_that_root_could_write_to(confined):
    """If the kernel runs as uid 0, so does a module for the files of /proc, though it has no Linux capability."""
    code = """
import os
for folder, folders, names in os.walk("/proc"):
    if folder == "/proc":
        folders[:] = {name for name in folders if not name.isdecimal()} - {"self", "thread-self", "pressure"}
    for name in names:
        path = os.path.join(folder, name)
        if os.access(path, os.W_OK) and not os.path.islink(path):
            print(path)
"""
    allowed = {"/proc/mtrr"}  # it asks for a capability
    assert set(confined(sys.executable, "-c", code).stdout.split()) <= allowed


def test_its_own_code_is_there_and_stays_as_it_is(confined, tmp_path):
    (tmp_path / "tool.py").write_text("print('own')")
    (tmp_path / "data.txt").write_text("data")
    (tmp_path / "m.json").write_text('{"name":"m","kind":"tool","capabilities":[],"transport":{"type":"stdio"}}')
    descriptor = load_descriptor(tmp_path / "m.json")
    done = confined(
        *sh("cat data.txt; ls; echo x >>tool.py; rm data.txt"), cwd=tmp_path, descriptor=descriptor, check=False
    )
    assert done.stdout == "datadata.txt\nm.json\ntool.py\n"
    assert (tmp_path / "tool.py").read_text() == "print('own')"


def test_an_object_brings_the_files_that_its_command_names_and_no_folder(confined, tmp_path):
    (tmp_path / "tool.py").write_text("import os; print(os.listdir('.'))")
    (tmp_path / "private").write_text("private")
    assert confined(sys.executable, "tool.py", cwd=tmp_path).stdout == "['tool.py']\n"


def test_a_descriptor_at_home_brings_what_it_names_at_home_and_not_the_home(confined, isolation, tmp_path, monkeypatch):
    home, outside = tmp_path / "home", tmp_path / "outside"
    for folder in (home, outside):
        folder.mkdir()
        (folder / "tool.py").write_text("import os, sys; print(os.listdir(os.path.dirname(sys.argv[0])))")
    (home / "private").write_text("private")
    (home / "m.json").write_text('{"name":"m","kind":"tool","capabilities":[],"transport":{"type":"stdio"}}')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(isolation._planner, "_shared", SharedFolders())
    descriptor = load_descriptor(home / "m.json")
    told = confined(sys.executable, str(home / "tool.py"), cwd=home, descriptor=descriptor).stdout
    assert told == "['tool.py']\n"
    assert (
        confined(sys.executable, str(outside / "tool.py"), cwd=home, descriptor=descriptor, check=False).returncode != 0
    )


def test_the_launch_says_what_is_opened(isolation, folders):
    granted = [f"fs:read:{folders}/a", f"fs:write:{folders}/b", "net:connect:*"]
    confined = confine(isolation, launch("sh"), DESCRIPTOR, granted)
    confined.close()
    told = {"isolation": "bwrap", "read": [f"{folders}/a"], "write": [f"{folders}/b"], "network": "host", "tmp": 0}
    assert confined.shown == told
    assert confined.env == {}
    assert "sh" in confined.command[-1]
    assert not any(str(folders) in word for word in confined.command)  # other users can read these words


def test_a_nul_ends_no_option(isolation):
    wanted = Launch(command=("true",), cwd="/", env={"NAME": "value\0--bind\0/\0/"})
    with pytest.raises(Forbidden, match="a NUL in the environment"):
        confine(isolation, wanted, DESCRIPTOR, [])


def test_file_descriptors_of_the_launch_are_inherited(isolation):
    reading, writing = os.pipe()
    os.write(writing, b"passed on")
    os.close(writing)
    wanted = Launch(
        command=("sh", "-c", f"cat /proc/self/fd/{reading}"), cwd="/", env={"PATH": "/usr/bin:/bin"}, fds=(reading,)
    )
    assert start(confine(isolation, wanted, DESCRIPTOR, [])).stdout == "passed on"


def test_what_a_command_names_of_the_hosts_processes_is_not_brought(confined):
    status = f"/proc/{os.getpid()}/status"
    assert confined("cat", status, check=False).stdout == ""
    assert "Seccomp:\t2" in confined("cat", "/proc/self/status").stdout


def test_a_program_by_a_name_in_proc_is_that_program(confined):
    assert confined("/proc/self/exe", "-c", "print('ok')").stdout == "ok\n"


def test_a_program_that_does_not_exist_is_refused(isolation):
    with pytest.raises(Unreachable, match="command no-such-program: not found on PATH"):
        confine(isolation, launch("no-such-program"), DESCRIPTOR, [])


def test_socketpair_is_allowed(confined):
    assert confined(sys.executable, "-c", "import socket; socket.socketpair(); print('ok')").stdout == "ok\n"


NEITHER_HALF = """
import socket, sys
for kind in (socket.SOCK_STREAM, socket.SOCK_STREAM | socket.SOCK_NONBLOCK):
    for half in socket.socketpair(socket.AF_UNIX, kind):
        for address in sys.argv[1:]:
            address = address.replace("@", chr(0))
            for act in (half.connect, lambda to: half.sendto(b"x", to), lambda to: half.sendmsg([b"x"], [], 0, to)):
                try:
                    print("reached", act(address))
                except OSError as error:
                    print(error.strerror)
"""


def test_neither_half_of_a_pair_of_sockets_reaches_another(confined, ground):
    addresses = [ground.env["SOCKET"], ground.env["MAILBOX"], "@" + ground.env["ABSTRACT"]]
    granted = ["net:connect:*", f"fs:write:{ground.sockets}"]
    told = confined(sys.executable, "-c", NEITHER_HALF, *addresses, granted=granted).stdout.splitlines()
    assert set(told) == {"Transport endpoint is already connected", "Protocol wrong type for socket"}
    assert len(told) == 2 * 2 * 3 * 3
