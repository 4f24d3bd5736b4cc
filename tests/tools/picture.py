"""Draws docs/trace.png: the page of a run of examples/agent, in which a person is asked and one call is refused.

    python tests/tools/picture.py FOLDER PICTURE

The log and the page stay in FOLDER. The person takes two seconds for the answer. It also prints how long the browser
takes to open a page of 100,000 events.
"""

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]


def run_agent() -> Path:
    """Run the agent, answer its question, and give its log."""
    ours, theirs = pty.openpty()
    command = [sys.executable, str(ROOT / "examples/agent/main.py")]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, cwd=ROOT, env=os.environ) as agent:
        assert agent.stdout
        said = b""
        while piece := os.read(agent.stdout.fileno(), 65536):
            said += piece
            if said.endswith(b"[y/N] "):
                time.sleep(2)
                os.write(ours, b"y\n")
    os.close(ours)
    os.close(theirs)
    if agent.returncode:
        sys.exit(said.decode())
    return Path(said.decode().rpartition("The log: ")[2].strip())


def draw(page_file: Path, picture: Path) -> None:
    """Open the page, look at the call that was refused, and take the picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 640})
        page.goto(page_file.as_uri())
        page.wait_for_selector("html[data-ready]")
        page.focus("#timeline")
        page.fill("#search", "deny")
        page.press("#search", "Enter")
        page.fill("#search", "")
        page.press("#timeline", "ArrowUp")
        page.press("#timeline", "Enter")
        page.wait_for_selector("#details pre")
        page.screenshot(path=picture)
        browser.close()


def write_calls(log: Path, count: int) -> None:
    """Write the log of calls in which each tenth calls the nine before it."""
    with log.open("w") as lines:
        for n in range(count):
            event = {"id": f"evt_{n}", "ts": 1.8e9 + n / 10, "event": "module:invoke", "component": "kernel", "seq": n}
            place = {"span_id": f"s{n}", "parent_span_id": None if n % 10 == 9 else f"s{n - n % 10 + 9}"}
            data = {"op": "write", "args": {"n": n}, "result": "x" * 300}
            lines.write(json.dumps({**event, **place, "duration_ms": 800, "status": "ok", "data": data}) + "\n")


def time_the_opening(page_file: Path) -> float:
    """Open the page three times, and return the seconds of the fastest."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        walls = []
        for _ in range(3):
            page = browser.new_page()
            page.goto(page_file.as_uri())
            page.wait_for_selector("html[data-ready]")
            walls.append(float(page.get_attribute("html", "data-ready") or "nan") / 1000)
            page.close()
        browser.close()
    return min(walls)


def make_page(log: Path) -> Path:
    page = log.with_suffix(".html")
    subprocess.run([sys.executable, "-m", "amplifier_tools", "trace", "html", log, "-o", page], check=True)
    return page


def main(folder: Path, picture: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(run_agent(), folder / "agent.jsonl")
    draw(make_page(folder / "agent.jsonl"), picture)
    write_calls(folder / "calls.jsonl", 100_000)
    seconds = time_the_opening(make_page(folder / "calls.jsonl"))
    sys.stdout.write(f"100,000 events open in {seconds:.1f} s\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
