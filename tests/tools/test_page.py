"""The page of ``amplifier-kernel trace html`` in a browser: what it shows, how it is used, and what it does not run."""

import json
import re
import shutil
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner
from playwright.sync_api import expect, sync_playwright
from tests.conftest import missing_here

from amplifier_tools._trace.html.command import html

pytestmark = pytest.mark.newest

T0 = 1_800_000_000.0
EDGE, AXIS, ROW = 12, 34, 20  # pixels of the chart

expect.set_options(timeout=20_000)


def event(seq, name="x:y", at=None, kernel="aaaaaaaa", **more):
    envelope = {"id": f"evt_{seq:024}{kernel}", "ts": T0 + (seq if at is None else at), "event": name}
    return json.dumps({**envelope, "component": "kernel", "seq": seq, **more}).encode() + b"\n"


def invoke(seq, span, parent=None, seconds=1.0, at=None, module="/mnt/tools/files", **more):
    ids = {"span_id": span, "parent_span_id": parent, "session_id": "ses_1", "status": "ok"}
    data = {"op": f"op_{span}", "args": {"name": f"args of {span}"}, "result": {"size": 2**64 + 1}}
    more = {**ids, "data": data, **more}
    return event(seq, "module:invoke", at, module=module, duration_ms=seconds * 1000, **more)


HOOKS = [
    {"hook": "/mnt/hooks/policy", "decision": "abstain", "reason": None, "duration_ms": 100},
    {"hook": "Person.__call__", "decision": "deny", "reason": "no person said yes", "duration_ms": 900},
]
ERROR = {"code": "forbidden", "message": "it is gone", "details": {"stderr": "Traceback:\n  line 7", "exit_code": 3}}
RUN = [
    event(1, "kernel:start", 0, data={"pid": 7}),
    event(
        2,
        "policy:decision",
        3,
        duration_ms=1000,
        module="/mnt/tools/shell",
        span_id="b",
        parent_span_id="a",
        session_id="ses_1",
        status="error",
        data={"decision": "deny", "reason": "no person said yes", "hooks": HOOKS},
    ),
    invoke(3, "b", "a", 4, 6, "/mnt/tools/shell", status="error", error=ERROR, data={"op": "op_b", "args": {}}),
    invoke(4, "c", "a", 1, 8),
    event(5, "session:span", 10, span_id="a", session_id="ses_1", duration_ms=9000, data={"name": "agent.step"}),
    event(6, "module:pre_invoke", 11, span_id="d", session_id="ses_2", module="/mnt/tools/slow", data={"op": "wait"}),
    event(7, "x:end", 20, session_id="ses_2"),
]


@pytest.fixture(scope="module")
def browser():
    """The Chromium of the system, without a window. None is downloaded."""
    program = shutil.which("chromium") or missing_here("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Server(ThreadingHTTPServer):
    """A server on the loopback that gives the page, and remembers what it was asked for."""

    daemon_threads = True

    def __init__(self, page):
        self.page = page
        self.asked = []
        super().__init__(("127.0.0.1", 0), partial(Handler, self))
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def __init__(self, owner, *args):
        self.owner = owner
        super().__init__(*args)

    def do_GET(self):
        self.owner.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        if self.path == "/run.html":
            self.wfile.write(self.owner.page.read_bytes())

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "run.html") as server:
        thread = threading.Thread(target=partial(server.serve_forever, 0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", event => violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture
def opened(browser, server, log):
    """Open the page of a log. At the end nothing may have gone wrong, run or been asked for."""
    pages, wrong, requests = [], [], []

    def open_page(lines, *words, **options):
        log.write_bytes(b"".join(lines))
        made = CliRunner().invoke(html, [str(log), "-o", str(server.page), *words], catch_exceptions=False)
        assert made.exit_code == 0
        context = browser.new_context(viewport={"width": 1224, "height": 700}, locale="en-US", **options)
        page = context.new_page()
        pages.append(page)
        page.add_init_script(WATCH)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.set_default_timeout(20_000)
        page.goto(f"{server.url}/run.html")
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for page in pages:
        assert page.evaluate("violations") == []
        assert page.evaluate("window.ran") is None
        page.context.close()
    assert wrong == []
    assert requests == [f"{server.url}/run.html"] * len(pages)
    assert server.asked == ["/run.html"] * len(pages)


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def said(page):
    return page.inner_text("#said")


def click(page, seconds, row, total=20.0):
    """Click where something is drawn: at a time, in a row."""
    box = page.locator("#timeline").bounding_box()
    width = page.evaluate("document.querySelector('#timeline').clientWidth") - 2 * EDGE
    page.mouse.click(box["x"] + EDGE + width * seconds / total, box["y"] + AXIS + ROW * row + ROW / 2)


def details(page):
    """Read the parts of the details, by their headings."""
    page.wait_for_selector("#details pre")
    parts = page.locator("#details section").all()
    return {part.locator("h3").inner_text(): part.locator("pre, table").text_content() for part in parts}


def test_a_click_shows_arguments_result_and_the_raw_event(opened):
    page = opened(RUN)
    assert page.title() == "events.jsonl"
    assert page.inner_text("#summary") == "9 shown, 2 failed; time 0 is 2027-01-15T08:00:00.000Z"
    click(page, 7.5, 4)
    parts = details(page)
    assert page.inner_text("#details h2") == "/mnt/tools/files op_c"
    assert json.loads(parts["Arguments"]) == {"name": "args of c"}
    assert json.loads(parts["Result"]) == {"size": 2**64 + 1}  # all digits
    assert parts["Raw event"] == RUN[3].decode().rstrip()
    facts = page.locator("#details dl").inner_text()
    assert re.search(r"begins at\s+7\.000000 s\s+takes\s+1\.00 s\s+module\s+/mnt/tools/files\s+session\s+ses_1", facts)


def test_a_click_on_what_failed_shows_the_error_and_stderr(opened):
    page = opened(RUN)
    click(page, 5, 4)
    parts = details(page)
    assert page.inner_text("#details h2") == "✗ /mnt/tools/shell op_b"
    assert parts["Error"] == "forbidden: it is gone"
    assert parts["stderr"] == "Traceback:\n  line 7"
    assert json.loads(parts["Details of the error"])["exit_code"] == 3
    page.get_by_role("button", name="What it is in").click()
    assert page.inner_text("#details h2") == "agent.step"
    page.get_by_role("button", name="Close").click()
    assert page.locator("#details").is_hidden()


def test_policy_and_the_person_it_asked_are_told_apart_and_so_is_a_call_in_flight(opened):
    page = opened(RUN)
    click(page, 2.5, 5)
    assert said(page).startswith("✗ policy: deny, error, person, begins at 2.000 s, 1.00 s;")
    assert "Person.__call__denyno person said yes900" in details(page)["Policy hooks"]
    click(page, 2.05, 6)
    assert said(page).startswith("/mnt/hooks/policy: abstain, ok, policy, begins at 2.000 s, 100 ms;")
    click(page, 2.5, 6)
    assert said(page).startswith("Person.__call__: deny, ok, person, begins at 2.100 s, 900 ms;")
    click(page, 19, 8)
    assert said(page).startswith("… /mnt/tools/slow wait, in flight, module, begins at 11.000 s, its end is not")


def test_it_is_used_with_the_keyboard_alone(opened):
    page = opened(RUN)
    focused = []
    for _ in range(9):
        press(page, "Tab")
        focused.append(page.evaluate("document.activeElement.id"))
    assert focused == ["search", "session", "module", "status", "kind", "closer", "wider", "whole", "timeline"]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    steps = {
        "Home": "kernel:start",
        "ArrowDown": "agent.step",
        "ArrowRight": "agent.step",
        "ArrowLeft": "agent.step",
        "End": "x:end",
    }
    for key, title in steps.items():
        press(page, key)
        assert said(page).startswith(title), key
    press(page, "Home", "ArrowDown", "ArrowDown")
    assert said(page).startswith("✗ /mnt/tools/shell op_b, error, module, begins at 2.000 s")
    press(page, "ArrowRight")
    assert said(page).startswith("/mnt/tools/files op_c")
    press(page, "ArrowUp")
    assert said(page).startswith("agent.step, ok, embedder, begins at 1.000 s, 9.00 s; 2 of 9")
    press(page, "ArrowDown", "Enter")
    assert page.inner_text("#details h2") == "✗ /mnt/tools/shell op_b"
    assert page.evaluate("document.activeElement.id") == "details"
    press(page, "Tab", "Tab", "Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Arguments"
    press(page, "Escape")
    assert page.locator("#details").is_hidden()
    assert page.evaluate("document.activeElement.id") == "timeline"
    press(page, "/")
    assert page.evaluate("document.activeElement.id") == "search"


def test_times_as_far_apart_as_a_log_can_say_are_shown_and_zoomed(opened):
    far = [event(1, at=-T0), event(2, at=0, span_id="a", duration_ms=1e14), event(3, at=1e11 - T0)]
    page = opened(far, color_scheme="dark")
    page.focus("#timeline")
    press(page, "End", *["+"] * 80)
    low, high = map(float, re.findall(r"-?[\d.]+", page.inner_text("#range")))
    assert 0 < high - low <= 20
    press(page, "Home", "0", "ArrowRight", "Enter")
    assert "Raw event" in details(page)


def test_a_search_finds_text_of_events_and_goes_from_one_to_the_next(opened):
    page = opened(RUN)
    press(page, "/")
    page.keyboard.type('NAME": "args of')
    expect(page.locator("#found")).to_have_text("1 found")
    press(page, "Enter")
    assert said(page).startswith("/mnt/tools/files op_c")
    press(page, "/", "Control+a")
    page.keyboard.type("person")
    expect(page.locator("#found")).to_have_text("3 found")
    press(page, "Enter", "n")
    assert said(page).startswith("/mnt/hooks/policy: abstain")
    press(page, "n", "n", "p", "p")
    assert said(page).startswith("/mnt/hooks/policy: abstain")
    press(page, "/", "Escape")
    assert (page.input_value("#search"), page.inner_text("#found")) == ("", "")
    press(page, "/")
    page.keyboard.type("[(*")
    expect(page.locator("#found")).to_have_text("0 found")
    press(page, "Enter", "n")


def test_filters_leave_what_fits(opened):
    page = opened(RUN)
    for name, value, count in [
        ("Session", "ses_1", 6),
        ("Module", "/mnt/tools/shell", 4),
        ("Status", "error", 2),
        ("Status", "in flight", 1),
        ("Kind", "person", 2),
        ("Kind", "embedder", 2),
    ]:
        page.get_by_role("combobox", name=name).select_option(value)
        assert page.inner_text("#summary").startswith(f"{count} shown"), value
        page.get_by_role("combobox", name=name).select_option("all")
    page.get_by_role("combobox", name="Kind").select_option("module")
    page.get_by_role("combobox", name="Status").select_option("error")
    page.focus("#timeline")
    press(page, "Home")
    assert said(page).endswith("1 of 1")
    press(page, "ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight")
    assert said(page).endswith("1 of 1")


def test_keys_buttons_and_the_mouse_zoom(opened):
    page = opened(RUN)
    whole = "0.00 s to 20.00 s"
    assert page.inner_text("#range") == whole
    page.focus("#timeline")
    press(page, "+")
    assert page.inner_text("#range") == "5.00 s to 15.00 s"
    press(page, "Home")
    assert page.inner_text("#range").startswith("0.00 s to 10.0")
    press(page, "-")
    assert page.inner_text("#range") == whole
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="All").click()
    assert page.inner_text("#range") == whole
    box = page.locator("#timeline").bounding_box()
    page.mouse.move(box["x"] + EDGE + 300, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + EDGE + 600, box["y"] + 300, steps=3)
    page.mouse.up()
    assert page.inner_text("#range") == "5.000 s to 10.000 s"
    assert page.locator("#details").is_hidden()
    page.mouse.dblclick(box["x"] + EDGE + 600, box["y"] + 300)
    assert page.inner_text("#range") == whole


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(opened, scheme):
    page = opened(RUN, color_scheme=scheme)

    def luminance(name):
        text = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')").strip()
        text = text[1:] if len(text) == 7 else "".join(2 * char for char in text[1:])
        parts = [int(text[n : n + 2], 16) / 255 for n in (0, 2, 4)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def contrast(one, other):
        low, high = sorted([luminance(one), luminance(other)])
        return (high + 0.05) / (low + 0.05)

    kinds = ["kernel", "embedder", "module", "policy", "person"]
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 24, 28)")
    assert all(contrast(text, back) >= 4.5 for text in ("front", "dim", "error") for back in ("back", "panel"))
    assert all(contrast("on", kind) >= 4.5 and contrast(kind, "back") >= 3 for kind in kinds)


def test_a_screen_reader_is_told_what_is_what(opened):
    page = opened(RUN)
    for role, name in [
        ("heading", "events.jsonl"),
        ("searchbox", "Search"),
        ("combobox", "Session"),
        ("group", "Zoom"),
        ("application", "Timeline of sessions and spans"),
    ]:
        assert page.get_by_role(role, name=name).count() == 1, name
    click(page, 5, 4)
    assert page.get_by_role("complementary", name="/mnt/tools/shell op_b").count() == 1
    assert page.get_by_role("status").filter(has_text="op_b, error").count() == 1


def test_a_log_that_was_cut_says_so(opened):
    page = opened([event(n) for n in range(1, 301)] + [b"torn\n"], "--last", "100")
    left_out, torn = page.locator("#notices").inner_text().splitlines()
    assert left_out.startswith("the page has the last 100 events; 200 earlier ones were left out: --last moves")
    assert torn == "lines that are no events, skipped: 1"
    assert page.inner_text("#summary").startswith("100 shown")


def test_an_empty_log_is_shown_as_empty(opened):
    page = opened([])
    page.focus("#timeline")
    press(page, "Home", "ArrowDown", "Enter", "n", "+", "0")
    assert page.inner_text("#summary").startswith("0 shown")


HALF = "\ud83d"  # of a character: JSON can say it, and UTF-8 cannot
HOSTILE = [
    "<script>window.ran = 1</script>",
    "</script><script>window.ran = 1</script>",
    "<!--<script>window.ran = 1</script>",
    "--></title></style></textarea></noscript><img src=/asked onerror='window.ran = 1'>",
    "'\"><svg onload=window.ran=1><iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    "<a href='javascript:window.ran=1'>x</a>",
    "javascript:window.ran=1",
    "<link rel=stylesheet href=/asked><meta http-equiv=refresh content='0;url=/asked'><base href=/asked>",
    "</style><style>@import '/asked'; * { background: url(/asked) }</style>",
    "url(/asked); background: url('/asked')",
    "{{facts}} {{scripts}} ${window.ran = 1} `${window.ran = 1}`",
    "__proto__",
    "constructor",
    "toString",
    "\u202e\u2066\u200f\u2028\u2029\x00\x1b[31m\x7f\ufeff",
    "x" * 1000,
    "\U0001f469\u200d\U0001f680 é",
    HALF,
]


def hostile(seq, text):
    """Write events that have a text in every field that takes it, also as the names of members."""
    deep = {text: {text: [text, {text: text}]}, "name": text, "op": text, "args": {text: text}, "result": text}
    words = dict.fromkeys(
        ["decision", "reason", "scope", "action", "kind", "version", "pid", "platform", "hooks"], text
    )
    hooks = [{"hook": text, "decision": text, "reason": text, "duration_ms": 1, text: text}]
    ids = {"session_id": text, "request_id": text, "span_id": text, "parent_span_id": text, "module": text}
    error = {"code": text, "message": text, "details": {"stderr": text, "earlier_stderr": text, text: text}}
    base = {"status": text, **ids, text: text, "duration_ms": 5.0}
    for name in (text, "module:invoke", "module:pre_invoke", "session:span", "policy:decision", "kernel:start"):
        for data in ({**deep, **words}, {**deep, "hooks": hooks}, text, [text], {text: text, "hooks": [text]}):
            yield event(seq, name, kernel=text[-8:], **{**base, "data": data, "error": error, "component": text})
            if text == HALF:  # no event with half a character in its envelope is read
                yield event(seq, name, data=data, error=error)
    yield event(seq, "module:invoke", **{**base, "error": text, "data": None})
    yield event(seq, "module:invoke", **{**base, "error": [text], "data": {"args": text, "op": {text: text}}})


WALK = """async count => {
  for (let n = 0; n < count; n++) {
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "n", bubbles: true }));
    await null; // the details are filled in then
  }
}"""


def test_nothing_of_a_hostile_log_runs_or_is_fetched_and_nothing_breaks(opened, server):
    lines = [line for seq, text in enumerate(HOSTILE, 1) for line in hostile(seq, text)]
    page = opened([*lines, event(99, data={"x": "y" * 100_000})])
    shown = int(page.inner_text("#summary").split()[0].replace(",", ""))
    assert shown > 600
    tags = page.evaluate("[...new Set([...document.querySelectorAll('*')].map(each => each.localName))].sort()")
    page.focus("#timeline")
    press(page, "Home", "Enter")
    page.wait_for_selector("#details pre")
    page.focus("#timeline")
    page.evaluate(WALK, shown)
    for name in ("Session", "Module"):
        values = page.get_by_role("combobox", name=name).locator("option").all()
        page.get_by_role("combobox", name=name).select_option(index=len(values) - 1)
        page.get_by_role("combobox", name=name).select_option(index=0)
    for text in HOSTILE:
        page.fill("#search", text)
    page.fill("#search", "")
    page.mouse.move(600, 300)
    press(page, "/", "Escape")
    later = page.evaluate("[...new Set([...document.querySelectorAll('*')].map(each => each.localName))].sort()")
    added = {"button", "dd", "div", "dl", "dt", "h2", "h3", "pre", "section", "table", "td", "th", "tr"}
    assert set(later) - set(tags) <= added
    attributes = "[...document.querySelectorAll('*')].flatMap(each => each.getAttributeNames())"
    assert not {"src", "href", "srcdoc", "onload", "onerror", "onclick"} & set(page.evaluate(attributes))
    assert page.evaluate("({}).polluted === undefined && Object.keys(Object.prototype).length === 0")


def test_what_turns_the_direction_of_text_or_is_not_seen_is_escaped(opened):
    text = "a\u202eb\u2028c\x1bd\u00ade"
    page = opened([event(1, "module:invoke", module=text, session_id=text, data={"op": text, "args": text})])
    page.focus("#timeline")
    press(page, "Home", "Enter")
    escaped = r"a\u{202e}b\u{2028}c\u{1b}d\u{ad}e"
    assert details(page)["Arguments"].startswith('"a\\u{202e}b\\u{2028}c\\u001bd\\u{ad}e"')
    assert escaped in page.locator("#details dl").inner_text()
    assert escaped in page.get_by_role("combobox", name="Module").inner_text()
    seen = page.evaluate("document.body.innerText")
    assert not set(seen) & set("\u202e\u2028\x1b\u00ad")


def test_a_hundred_thousand_events_can_be_walked(opened):
    def lines():
        for n in range(0, 100_000, 10):
            for m in range(9):
                yield invoke(n + m, f"s{n + m}", f"r{n}", 0.5, (n + m) / 10, result="x" * 300)
            yield invoke(n + 9, f"r{n}", None, 1, (n + 9) / 10)

    page = opened(lines())
    assert page.inner_text("#summary").startswith("100,000 shown")
    page.focus("#timeline")
    press(page, "End", "Enter")
    assert "Raw event" in details(page)
