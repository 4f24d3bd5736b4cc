import contextlib
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from amplifier_core import BadRequest, Internal, Kernel, Plan
from amplifier_core._events import jsonl
from amplifier_core._events.jsonl import JsonlSink, open_sink

if sys.platform == "win32":
    from amplifier_core._events.windows_file import locked
else:
    from amplifier_core._events.posix_file import locked

pytestmark = pytest.mark.windows

resource: Any = pytest.importorskip("resource") if os.name == "posix" else None


@pytest.fixture
def sink(log):
    sink = JsonlSink(log)
    yield sink
    sink.close()


@contextmanager
def disk_of(size):
    """Let no file grow beyond so many bytes. A write across that end is cut off, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_is_in_the_file_when_write_returns(sink, log):
    for n in range(100):
        sink.write(b'{"n":%d}\n' % n)
        assert log.read_bytes().splitlines()[-1] == b'{"n":%d}' % n
    assert len(log.read_bytes().splitlines()) == 100


def test_killing_the_process_loses_no_line(log):
    program = (
        "import os, signal, sys; from amplifier_core._events.jsonl import JsonlSink; sink = JsonlSink(sys.argv[1])\n"
        "for n in range(1000): sink.write(b'%d\\n' % n)\n"
        f"os.kill(os.getpid(), {int(getattr(signal, 'SIGKILL', signal.SIGTERM))})"
    )
    child = subprocess.run([sys.executable, "-c", program, log], timeout=30, check=False)
    assert child.returncode != 0
    assert log.read_bytes() == b"".join(b"%d\n" % n for n in range(1000))


def test_the_folder_is_made_and_only_the_owner_can_read_the_file(tmp_path):
    sink = JsonlSink(tmp_path / "a" / "b" / "events.jsonl")
    sink.close()
    assert sink.path == tmp_path / "a" / "b" / "events.jsonl"
    assert stat.S_IMODE(sink.path.stat().st_mode) & 0o077 == 0


def test_a_relative_path_is_below_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sink = JsonlSink("events.jsonl")
    monkeypatch.chdir("/")
    sink.write(b"1\n")
    sink.close()
    assert sink.path == tmp_path / "events.jsonl"
    assert sink.path.read_bytes() == b"1\n"


def test_an_existing_file_is_appended_to(log):
    for line in (b"1\n", b"2\n"):
        sink = JsonlSink(log)
        sink.write(line)
        sink.close()
    assert log.read_bytes() == b"1\n2\n"


def test_two_sinks_of_one_file_do_not_overwrite_each_other(log, sink):
    other = JsonlSink(log)
    for n in range(10):
        (sink, other)[n % 2].write(b"%d\n" % n)
    other.close()
    assert log.read_bytes().split() == [b"%d" % n for n in range(10)]


def test_close_may_be_called_again_and_nothing_is_written_afterwards(sink, log):
    sink.write(b"1\n")
    sink.close()
    sink.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        sink.write(b"2\n")
    assert log.read_bytes() == b"1\n"


def test_closing_again_closes_no_file_of_other_code(log):
    """A log may have the descriptor of a closed stdin. After the log's close another file has it."""
    stdin = os.dup(0)
    os.close(0)
    try:
        sink = JsonlSink(log)
        sink.close()
        assert os.open(os.devnull, os.O_RDONLY) == 0
        sink.close()
        assert [os.fstat(fd) for fd in (0, 1, 2)]
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)


def test_a_file_is_not_handed_to_children(sink):
    assert not os.get_inheritable(sink._fd)


def test_a_path_that_cannot_be_opened_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "events.jsonl", Path("/proc/events.jsonl"), tmp_path / ("x" * 300)):
        with pytest.raises(BadRequest, match=r"^bad_request: event log .*: [^\n]+$"):
            JsonlSink(path)


@pytest.mark.parametrize("path", ["a\0b", "\ud800"], ids=ascii)
def test_a_text_that_is_no_path_is_refused(path, tmp_path):
    with pytest.raises(BadRequest):
        JsonlSink(tmp_path / path)


def test_the_plugin_opens_the_file_that_its_options_name(log):
    for path in (log, str(log)):
        sink = open_sink({"path": path})
        sink.write(b"1\n")
        sink.close()
    assert log.read_bytes() == b"1\n1\n"


@pytest.mark.parametrize("options", [{}, {"path": None}, {"path": 5}, {"path": ["x"]}, {"path": b"x"}])
def test_options_without_a_path_are_refused(options):
    with pytest.raises(BadRequest, match=r"^bad_request: sinks: jsonl: path: expected a path, got "):
        open_sink(options)


def test_a_full_disk_is_an_error_of_that_write_alone():
    full = Path("/dev/full")
    if not full.exists():
        reason = "there is no /dev/full here"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    sink = JsonlSink(full)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left on device"):
            sink.write(b"1\n")
    sink.close()


@pytest.mark.skipif(resource is None, reason="file sizes are limited on POSIX alone")
class TestADiskThatFillsUp:
    def test_a_line_that_was_cut_off_is_ended_before_the_next_one(self, sink, log):
        sink.write(b'{"n":1}\n')
        with disk_of(12), pytest.raises(OSError, match="too large"):
            sink.write(b'{"n":2}\n')
        assert log.read_bytes() == b'{"n":1}\n{"n\n'
        sink.write(b'{"n":3}\n')
        sink.write(b'{"n":4}\n')
        assert log.read_bytes() == b'{"n":1}\n{"n\n{"n":3}\n{"n":4}\n'

    def test_a_line_that_was_cut_off_spoils_no_line_of_another_kernel(self, sink, log):
        other = JsonlSink(log)
        with disk_of(4), pytest.raises(OSError, match="too large"):
            sink.write(b'{"n":1}\n')
        other.write(b'{"n":2}\n')
        sink.write(b'{"n":3}\n')
        other.close()
        assert log.read_bytes() == b'{"n\n{"n":2}\n{"n":3}\n'

    @pytest.mark.parametrize("how", [Path.unlink, lambda log: log.rename(log.with_suffix(".old"))])
    def test_of_a_file_that_is_somewhere_else_the_next_line_ends_the_fragment(self, sink, log, how):
        kept = os.open(log, os.O_RDONLY)
        how(log)
        log.write_bytes(b"another one's")
        with disk_of(4), pytest.raises(OSError, match="too large"):
            sink.write(b'{"n":1}\n')
        sink.write(b'{"n":2}\n')
        assert os.read(kept, 100) == b'{"n"\n{"n":2}\n'
        os.close(kept)
        assert log.read_bytes() == b"another one's"

    def test_of_a_file_that_is_gone_the_next_line_ends_the_fragment(self, sink, log):
        kept = os.open(log, os.O_RDONLY)
        log.unlink()
        with disk_of(4), pytest.raises(OSError, match="too large"):
            sink.write(b'{"n":1}\n')
        sink.write(b'{"n":2}\n')
        assert os.read(kept, 100) == b'{"n"\n{"n":2}\n'
        os.close(kept)

    async def test_two_kernels_on_one_log_lose_nothing_on_a_full_disk_that_is_not_counted(self, log):
        kernels = [Kernel(event_log=log, event_log_bytes=3000) for _ in range(2)]
        for kernel in kernels:
            await kernel.__aenter__()
        sessions = [await kernel.session.create(Plan("x")) for kernel in kernels]

        def emit(count):
            for n in range(count):
                for session in sessions:
                    session.emit("a:b", {"text": "x" * (n % 50), "kernel": sessions.index(session)})

        emit(20)
        with disk_of(2000):  # the file of now is larger: nothing can be added
            emit(20)
        emit(20)
        for _ in range(5):
            with disk_of(log.stat().st_size + 100):
                emit(3)
            emit(3)
        lost = []
        for kernel in kernels:
            with pytest.raises(Internal, match="lost") as caught:
                await kernel.__aexit__(None, None, None)
            lost.append(caught.value.details["lost"])
        found: dict[str, set[int]] = {}
        for line in itertools.chain.from_iterable(lines_of(log)):
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                found.setdefault(event["id"][-8:], set()).add(event["seq"])
        assert len(found) == 2
        missing = [max(seqs) - len(seqs) for seqs in found.values()]
        for not_found, counted in zip(sorted(missing), sorted(lost), strict=True):
            assert not_found <= counted + 1  # sink:error is for other sinks
            assert counted - not_found < 6  # a line that lacks its end alone is counted, too

    def test_a_line_of_which_nothing_was_written_leaves_no_trace(self, sink, log):
        sink.write(b"1\n")
        with disk_of(2), pytest.raises(OSError, match="too large"):
            sink.write(b"2\n")
        sink.write(b"3\n")
        assert log.read_bytes() == b"1\n3\n"

    def test_lines_that_are_cut_off_one_after_the_other_end_once_there_is_room(self, sink, log):
        with disk_of(3), pytest.raises(OSError, match="too large"):
            sink.write(b'{"n":1}\n')
        with disk_of(3), pytest.raises(OSError, match="too large"):
            sink.write(b'{"n":2}\n')
        with disk_of(6), pytest.raises(OSError, match="too large"):
            sink.write(b'{"n":3}\n')
        sink.write(b'{"n":4}\n')
        lines = log.read_bytes().split(b"\n")
        assert lines[-2:] == [b'{"n":4}', b""]
        assert [line for line in lines if line and line.endswith(b"}")] == [b'{"n":4}']

    def test_every_line_is_whole_or_torn_at_any_size_of_the_disk(self, tmp_path):
        lines = [json.dumps({"n": n}).encode() + b"\n" for n in range(3)]
        for size in range(len(b"".join(lines))):
            sink = JsonlSink(tmp_path / f"{size}.jsonl")
            written = []
            for n, line in enumerate(lines):
                if n < 2:
                    with disk_of(size):
                        try:
                            sink.write(line)
                        except OSError:
                            continue
                else:
                    sink.write(line)
                written.append(line.strip())
            sink.close()
            whole = [line for line in sink.path.read_bytes().splitlines() if line.endswith(b"}")]
            # a line that lacks only its line feed is whole, once the next write adds it
            assert set(written) <= set(whole) <= {line.strip() for line in lines}
            assert whole == sorted(whole)


def test_a_torn_line_of_an_earlier_process_is_ended_too(log):
    log.write_bytes(b'{"n":1}\n{"n":')
    sink = JsonlSink(log)
    sink.write(b'{"n":3}\n')
    sink.close()
    assert log.read_bytes() == b'{"n":1}\n{"n":\n{"n":3}\n'


def test_a_log_whose_torn_line_is_ended_may_be_full(log):
    log.write_bytes(b'{"n":')
    sink = JsonlSink(log, 8)
    sink.write(b"1\n")
    sink.write(b"2\n")
    sink.close()
    assert lines_of(log) == [[b'{"n":', b"1"], [b"2"]]


def test_a_line_that_the_system_takes_in_pieces_is_whole(sink, log, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    sink.write(b'{"n":1}\n')
    sink.write(b"2\n")
    assert log.read_bytes() == b'{"n":1}\n2\n'


def test_a_torn_line_that_cannot_be_ended_is_ended_later(log):
    log.write_bytes(b'{"n":')
    sink = JsonlSink(log)
    with disk_of(5), pytest.raises(OSError, match="File too large"):
        sink.write(b"1\n")
    sink.write(b"2\n")
    sink.close()
    assert log.read_bytes() == b'{"n":\n2\n'


def test_what_is_no_file_is_not_looked_at(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    sink = JsonlSink(tmp_path / "pipe")
    sink._torn = True
    sink.write(b"1\n")
    sink.close()
    assert os.read(read, 10) == b"\n1\n"
    os.close(read)


def test_two_kernels_that_find_a_torn_line_end_it_once(log):
    log.write_bytes(b'{"n":')
    sinks = [JsonlSink(log), JsonlSink(log)]
    for n, sink in enumerate(sinks):
        sink.write(b"%d\n" % n)
        sink.close()
    assert log.read_bytes() == b'{"n":\n0\n1\n'


def test_a_line_that_another_kernel_is_writing_is_not_torn(log):
    """What seemed torn when the file was opened, and has its end by now."""
    log.write_bytes(b'{"n":')
    sink = JsonlSink(log)
    with log.open("ab") as file:
        file.write(b"1}\n")
    sink.write(b'{"n":2}\n')
    sink.close()
    assert log.read_bytes() == b'{"n":1}\n{"n":2}\n'


def test_a_file_that_was_emptied_has_no_torn_line(log):
    log.write_bytes(b'{"n":')
    sink = JsonlSink(log)
    os.truncate(log, 0)
    sink.write(b"1\n")
    sink.close()
    assert log.read_bytes() == b"1\n"


def test_a_file_that_always_grows_is_not_torn(log, monkeypatch):
    monkeypatch.setattr(jsonl, "_LOOKS", 1)
    log.write_bytes(b'{"n":')
    sink = JsonlSink(log)
    sink.write(b"1\n")
    sink.close()
    assert log.read_bytes() == b'{"n":1\n'


def test_a_lock_that_is_not_given_back_is_not_waited_for_long(log):
    log.write_bytes(b'{"n":')
    sink, other = JsonlSink(log), JsonlSink(log)
    with locked(other._fd):
        sink.write(b"1\n")
    sink.close()
    other.close()
    assert log.read_bytes() == b'{"n":\n1\n'


WRITER = """
import asyncio, sys
from amplifier_core import Kernel, Plan
async def write():
    async with Kernel(event_log=sys.argv[1]) as kernel:
        session = await kernel.session.create(Plan("x"))
        for n in range(3000):
            session.emit("my:event", {"n": n, "text": "x" * 3000})
asyncio.run(write())
"""


async def test_kernels_share_a_log_and_are_told_apart(log):
    """The end of each id is its kernel's. Each kernel's events have a `seq` of their own without a gap."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(log)]) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        for _ in range(20):
            async with Kernel(event_log=log) as kernel, await kernel.session.create(Plan("y")) as session:
                session.emit("my:event", {})
    assert [writer.wait() for writer in writers] == [0, 0]
    events = [json.loads(line) for line in log.read_bytes().splitlines()]
    seqs: dict = {}
    for event in events:
        seqs.setdefault(event["id"][-8:], []).append(event["seq"])
    assert sorted(map(len, seqs.values()))[-2:] == [3004, 3004]
    assert all(found == list(range(1, len(found) + 1)) for found in seqs.values())


def lines_of(log):
    """Read a log and its rotated files, oldest first."""
    kept = sorted(log.parent.glob(f"{log.name}.*"), key=lambda path: int(path.suffix[1:]))
    return [path.read_bytes().splitlines() for path in [*kept, log]]


def test_a_log_rotates_and_loses_no_line(log):
    for _ in range(2):  # the second process continues the log of the first
        sink = JsonlSink(log, 100)
        for n in range(25):
            sink.write(b'{"n":%05d}\n' % n)
        sink.close()
    files = lines_of(log)
    assert [len(lines) for lines in files] == [9, 9, 9, 9, 9, 5]
    assert [line for lines in files for line in lines] == [b'{"n":%05d}' % n for n in range(25)] * 2
    modes = [stat.S_IMODE(path.stat().st_mode) for path in log.parent.glob("*.jsonl*")]
    assert not any(mode & 0o077 for mode in modes) or sys.platform == "win32"


def test_a_file_is_full_with_its_last_byte_and_each_one_is_counted_anew(log):
    (log.parent / f"{log.name}.2").write_bytes(b"")  # a number that is taken
    sink = JsonlSink(log, 10)
    for size in (5, 5, 4, 4, 4, 9, 1):
        sink.write(b"x" * (size - 1) + b"\n")
    sink.close()
    sizes = {path.name.removeprefix(log.name): path.stat().st_size for path in log.parent.iterdir()}
    assert sizes == {".1": 10, ".2": 0, ".3": 12, ".4": 10, "": 0}


def test_a_log_that_cannot_rotate_tries_again_when_it_has_grown_as_much_more(log, monkeypatch):
    sizes = []

    def refuse(path, target):
        sizes.append(path.stat().st_size)
        raise PermissionError

    monkeypatch.setattr(Path, "rename", refuse)
    sink = JsonlSink(log, 10)
    for _ in range(9):
        sink.write(b"1234\n")
    sink.close()
    assert sizes == [10, 20, 30, 40]


@pytest.mark.parametrize("step", ["rename", "open"])
def test_a_log_that_cannot_rotate_continues_in_its_file(log, monkeypatch, step):
    sink = JsonlSink(log, 100)
    real = os.open

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(*((Path, "rename") if step == "rename" else (os, "open")), refuse)
    for n in range(15):
        sink.write(b'{"n":%05d}\n' % n)
    monkeypatch.undo()
    assert os.open is real
    for n in range(15, 30):
        sink.write(b'{"n":%05d}\n' % n)
    sink.close()
    files = lines_of(log)
    assert [line for lines in files for line in lines] == [b'{"n":%05d}' % n for n in range(30)]
    assert [len(lines) for lines in files] == [17, 9, 4]


@pytest.mark.parametrize("wrong", [0, -1, "5", True, 1.5])
def test_a_wrong_size_to_rotate_at_is_refused(log, wrong):
    with pytest.raises(BadRequest, match="rotate_bytes: expected a positive integer"):
        open_sink({"path": log, "rotate_bytes": wrong})
    with pytest.raises(BadRequest, match="event_log_bytes: expected a positive integer"):
        Kernel(event_log=log, event_log_bytes=wrong)


async def test_a_kernel_rotates_its_log(log):
    async with Kernel(event_log=log, event_log_bytes=1000) as kernel:
        session = await kernel.session.create(Plan("x"))
        for n in range(50):
            session.emit("a:b", {"n": n})
    events = [json.loads(line) for lines in lines_of(log) for line in lines]
    assert [event["seq"] for event in events] == list(range(1, 55))
    assert len(lines_of(log)) > 5


def test_a_pipe_without_a_reader_is_refused_and_a_full_one_loses_lines_but_no_time(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(BadRequest, match="event log .*pipe"):
        JsonlSink(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sink = JsonlSink(pipe, 1)
    with pytest.raises(BlockingIOError):
        for _ in range(100):
            sink.write(b"x" * 4095 + b"\n")
    assert list(tmp_path.iterdir()) == [pipe]
    sink.close()
    os.close(reader)


def test_two_kernels_that_share_a_log_keep_every_line_once(log):
    sinks = [JsonlSink(log, 100), JsonlSink(log, 100)]
    for n in range(60):
        sinks[n % 2].write(b'{"n":%05d}\n' % n)
    sinks[0].close()
    for n in range(60, 90):
        sinks[1].write(b'{"n":%05d}\n' % n)
    sinks[1].close()
    assert len(lines_of(log)) > 5
    assert sorted(line for lines in lines_of(log) for line in lines) == [b'{"n":%05d}' % n for n in range(90)]


def test_a_log_that_another_kernel_is_rotating_is_not_rotated(log):
    first, second = JsonlSink(log, 100), JsonlSink(log, 100)
    with locked(first._fd):
        for n in range(15):
            second.write(b'{"n":%05d}\n' % n)
    assert len(lines_of(log)) == 1
    for n in range(15, 30):
        second.write(b'{"n":%05d}\n' % n)
    assert len(lines_of(log)) > 1
    assert sorted(line for lines in lines_of(log) for line in lines) == [b'{"n":%05d}' % n for n in range(30)]
    first.close()
    second.close()


HOLDER = """
import sys
from amplifier_core._events import jsonl
with jsonl.locked(jsonl.open_to_append(sys.argv[1])):
    print(flush=True)
    input()
"""


def test_a_log_whose_lock_a_stranger_holds_is_rotated_later(log):
    sink = JsonlSink(log, 100)
    stranger = subprocess.Popen([sys.executable, "-c", HOLDER, log], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert stranger.stdout
    stranger.stdout.readline()
    for n in range(50):
        sink.write(b'{"n":%05d}\n' % n)
    assert len(lines_of(log)) == 1
    stranger.communicate(b"\n", timeout=20)
    for n in range(50, 70):
        sink.write(b'{"n":%05d}\n' % n)
    sink.close()
    assert len(lines_of(log)) > 1
    assert [line for lines in lines_of(log) for line in lines] == [b'{"n":%05d}' % n for n in range(70)]


def test_a_log_that_somebody_took_away_is_made_again(log):
    sink = JsonlSink(log, 100)
    sink.write(b"1\n")
    log.rename(log.with_name("taken"))
    sink.write(b"x" * 100 + b"\n")
    sink.write(b"3\n")
    sink.close()
    assert log.read_bytes() == b"3\n"


def test_a_file_that_another_kernel_has_made_meanwhile_is_not_overwritten(log, monkeypatch):
    sink = JsonlSink(log, 10)
    real = os.open

    def refuse(*_):
        log.write_bytes(b"another one's\n")
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    sink.write(b"123456789\n")
    monkeypatch.setattr(os, "open", real)
    sink.write(b"2\n")
    sink.close()
    assert log.read_bytes() == b"another one's\n"
    assert log.with_name(f"{log.name}.1").read_bytes() == b"123456789\n2\n"


async def test_a_pipe_whose_reader_stops_for_a_while_loses_what_is_counted(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    kernel = Kernel(event_log=pipe)
    await kernel.__aenter__()
    session = await kernel.session.create(Plan("x"))
    taken = bytearray()

    def take():
        with contextlib.suppress(BlockingIOError):
            while data := os.read(reader, 65536):
                taken.extend(data)

    for _ in range(3):
        for n in range(40):
            session.emit("a:b", {"text": "x" * 6000, "n": n})
        take()
    with pytest.raises(Internal, match="lost") as caught:
        await kernel.__aexit__(None, None, None)
    take()
    os.close(reader)
    seqs = []
    for line in taken.splitlines():
        with contextlib.suppress(ValueError):
            seqs.append(json.loads(line)["seq"])
    assert seqs == sorted(seqs)
    assert seqs[0] == 1
    assert 122 <= len(seqs) + caught.value.details["lost"] <= 124  # the start, the end, and perhaps sink:error
