"""``amplifier-kernel trace html`` as a shell runs it: the file that it writes, without a browser."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import zlib

import click
import pytest

from amplifier_tools._trace.html import blocks, page

pytestmark = pytest.mark.newest

COMMAND = [sys.executable, "-m", "amplifier_tools", "trace", "html"]
T0 = 1_800_000_000.0


def event(seq, name="x:y", kernel="aaaaaaaa", **more):
    envelope = {"id": f"evt_{seq:024}{kernel}", "ts": T0 + seq, "event": name, "component": "kernel", "seq": seq}
    return json.dumps({**envelope, **more}).encode() + b"\n"


class Page:
    """A page as a program reads it."""

    def __init__(self, text):
        self.text = text.decode()
        self.facts = json.loads(self._data("facts"))
        self.rows = [json.loads(line) for line in self._inflated("rows")]
        self.lines = self._inflated("lines")

    def _data(self, name):
        (found,) = re.findall(rf'<script type="[^"]*" id="{name}">([^<]*)</script>', self.text)
        return found

    def _inflated(self, name):
        return zlib.decompress(base64.b64decode(self._data(name)), wbits=-15).splitlines()


@pytest.fixture
def html(traced):
    def run(*words):
        done = subprocess.run([*COMMAND, *map(str, words)], capture_output=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr.decode()

    return run


def test_the_policy_of_the_page_allows_its_own_scripts_and_styles_by_their_hashes_and_nothing_else(html, log, tmp_path):
    log.write_bytes(event(1))
    assert html(log, "-o", tmp_path / "run.html") == (0, b"", "")
    text = (tmp_path / "run.html").read_bytes().decode()
    head = re.match(
        r'<!doctype html>\n<html lang="en">\n<head>\n<meta http-equiv="([\w-]+)" content="([^"]+)">\n', text
    )
    assert head
    assert head[1] == "Content-Security-Policy"

    def hashes(tag):
        found = [text.encode() for text in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)]
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each).digest()).decode()}'" for each in found)

    assert [each.strip() for each in head[2].replace("&#x27;", "'").split(";")] == [
        "default-src 'none'",
        f"script-src {hashes('script')}",
        f"style-src {hashes('style')}",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
    assert (hashes("script").count("sha256"), hashes("style").count("sha256")) == (2, 2)
    assert not re.search(r' (src|href|style|on\w+)="', text)
    assert "Leon Sorokin" in text  # whose licence wants to be named


def test_rows_tell_who_an_event_is_about_and_lines_are_those_of_the_log(html, log):
    hooks = [
        {"hook": "/mnt/hooks/policy", "decision": "abstain", "duration_ms": 1.5},
        {"hook": "main.Person", "decision": "allow", "duration_ms": 2000},
    ]
    call = {"span_id": "a", "parent_span_id": "b", "session_id": "ses_1"}
    lines = [
        event(1, "kernel:start", data={"pid": 1}),
        event(2, "policy:decision", duration_ms=2002.0, **call, data={"decision": "allow", "hooks": hooks}),
        event(3, "policy:decision", data={"decision": "allow", "hooks": hooks[:1]}),
        event(4, "module:pre_invoke", module="/mnt/tools/a", **call, data={"op": "go", "args": {}}),
        event(5, "module:invoke", module="/mnt/tools/a", duration_ms=500, **call, data={"op": "go"}, status="error"),
        event(6, "module:invoke", module="/mnt/tools/ask_human", data={"op": "go"}),
        event(7, "session:span", span_id="b", data={"name": "step"}, duration_ms=1),
        event(8, "mine:own"),
        event(9, "artifact:write", component="/mnt/tools/note"),
    ]
    log.write_bytes(b"".join(lines))
    status, out, errors = html(log)
    assert (status, errors) == (0, "")
    made = Page(out)
    assert made.lines == [line.rstrip() for line in lines]
    assert [row[:3] for row in made.rows] == [
        ["kernel:start", "kernel", "ok"],
        ["policy:decision", "person", "ok"],
        ["policy:decision", "policy", "ok"],
        ["module:pre_invoke", "module", "in flight"],
        ["module:invoke", "module", "error"],
        ["module:invoke", "person", "ok"],
        ["session:span", "embedder", "ok"],
        ["mine:own", "embedder", "ok"],
        ["artifact:write", "module", "ok"],
    ]
    asked = [["/mnt/hooks/policy", "policy", "abstain", 1.5], ["main.Person", "person", "allow", 2000.0]]
    assert made.rows[-1][5] == "/mnt/tools/note"
    assert made.rows[1][3:] == ["aaaaaaaa", "ses_1", "", "a", "b", -1002.0, 2002.0, "policy: allow", asked]
    assert made.rows[4][3:-1] == ["aaaaaaaa", "ses_1", "/mnt/tools/a", "a", "b", 3500.0, 500.0, "/mnt/tools/a go"]
    assert made.facts == {"log": "events.jsonl", "origin": T0 + 1, "notices": [], "people": ["*person*", "*human*"]}
    kinds = [row[1] for row in Page(html(log, "--person", "/mnt/hooks/POLICY", "--person", "*/a")[1]).rows]
    assert kinds == ["kernel", "policy", "policy", "person", "person", "module", "embedder", "embedder", "module"]


def test_what_was_replayed_is_drawn_from_the_beginning_of_the_run(html, log):
    told = {"replayed": 1, "pid": 43}
    log.write_bytes(event(1, "kernel:start") + event(2, "kernel:resume", duration_ms=1000.0, data=told))
    made = Page(html(log)[1])
    assert made.rows[1][:3] == ["kernel:resume", "kernel", "ok"]
    assert made.rows[1][8:11] == [0.0, 1000.0, "replayed: 1 events"]


def test_of_a_long_log_the_last_events_are_there_and_the_others_are_counted(html, log):
    log.write_bytes(b"".join(event(n, f"n:{n}") for n in range(1, 2301)) + b"torn\n")
    _, out, errors = html(log, "--last", 1000)
    made = Page(out)
    assert [row[0] for row in made.rows] == [f"n:{n}" for n in range(1301, 2301)]
    assert len(made.lines) == 1000
    left_out = (
        "the page has the last 1,000 events; 1,300 earlier ones were left out: "
        "--last moves this bound, and --session, --module and --status choose what counts"
    )
    torn = "lines that are no events, skipped: 1"
    assert made.facts["notices"] == [left_out, torn]
    assert sorted(errors.splitlines()) == sorted([left_out, torn])
    made = Page(html(log, "--last", 3)[1])
    assert [row[0] for row in made.rows] == ["n:2298", "n:2299", "n:2300"]
    assert len(Page(html(log, "--last", 2300)[1]).rows) == 2300


def test_a_filter_chooses_events_and_times_stay_those_of_the_log(html, log):
    log.write_bytes(event(1) + event(3, "n:3", module="/mnt/tools/a") + event(4, "n:4", status="error"))
    made = Page(html(log, "--module", "a")[1])
    assert [(row[0], row[8]) for row in made.rows] == [("n:3", 2000.0)]
    assert [row[0] for row in Page(html(log, "--status", "error")[1]).rows] == ["n:4"]


def test_what_is_long_is_left_out_of_a_line(html, log):
    data = {"op": "go", "args": {"x": "x" * 70_000}}
    many = {f"m{n}": n for n in range(9000)}
    log.write_bytes(event(1, "module:invoke", data=data) + event(2, **many) + event(3, data={"x": "x" * 60_000}))
    made = Page(html(log)[1])
    first, second, third = map(json.loads, made.lines)
    assert (first["event"], first["data"]) == ("module:invoke", {"$omitted": len(json.dumps(data))})
    assert second == {"$omitted": len(event(2, **many)) - 1}
    assert len(third["data"]["x"]) == 60_000


def test_the_bytes_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(blocks, "_BYTES_MAX", 10 << 20)
    kept = blocks.Blocks(100_000)
    for n in range(300):
        kept.add(b"row %d" % n, b"x" * 100_000)
    kept.complete()
    assert kept.events + kept.left_out == 300
    assert 80 < kept.events < 110
    rows = zlib.decompress(b"".join(kept.rows()), wbits=-15).splitlines()
    assert rows == [b"row %d" % n for n in range(kept.left_out, 300)]


def test_an_empty_log_is_an_empty_page(html, log):
    log.touch()
    made = Page(html(log)[1])
    assert (made.rows, made.lines, made.facts["origin"]) == ([], [], 0.0)


def test_the_name_of_the_log_is_text(html, tmp_path):
    log = tmp_path / "<img src=x onerror=alert(1)>\u202e&.jsonl"
    log.write_bytes(event(1))
    text = html(log)[1].decode()
    assert "<title>&lt;img src=x onerror=alert(1)&gt;\\u202e&amp;.jsonl</title>" in text
    assert '"log":"\\u003cimg src=x onerror=alert(1)\\u003e\\\\u202e\\u0026.jsonl"' in text
    assert "<img" not in text


def test_bad_usage_is_told_in_a_line(html, tmp_path, log):
    status, out, errors = html(tmp_path / "nowhere.jsonl")
    assert (status, out) == (2, b"")
    assert "nowhere.jsonl: cannot be read: No such file or directory" in errors
    assert html(log, "--last", "0")[0] == 2


def test_without_the_library_the_advice_is_one_line(monkeypatch):
    monkeypatch.setattr(page, "_CARRIER", "amplifier-none")
    with pytest.raises(click.UsageError, match=r"drawn by uPlot, .* pip install 'amplifier-tools\[html\]'"):
        page.Library()


@pytest.mark.parametrize("tag", ["</script", "<!--", "<SCRIPT", "</style"])
def test_a_script_that_would_end_early_is_refused(tag):
    with pytest.raises(ValueError, match="has a tag of HTML in it"):
        page._inline(f"x = '{tag}>'")
    assert page._inline("a < b\r\n") == "a < b\n"
