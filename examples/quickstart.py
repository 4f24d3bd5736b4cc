"""A first look at the kernel: two tools in two processes, a policy hook in a third, and a trace of what they do.

The STDIO tool and the policy hook are in Python. The HTTP tool is in Node if Node is installed, else in Python. Each is
mounted from the descriptor file beside it, in examples/modules.
"""

import asyncio
import io
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from amplifier_core import Event, Forbidden, Kernel, KernelError, Plan, Session, load_descriptor

ROOT = Path(__file__).resolve().parent.parent
MODULES = ROOT / "examples" / "modules"
TOOLS = ("/mnt/tools/wordcount", "/mnt/tools/wordcount-http")


class Trace:
    """An observer: it prints each request at its end, as a tree of its steps."""

    def __init__(self) -> None:
        self.began = time.time()
        self.steps: dict[str, list[Event]] = {}

    async def __call__(self, event: Event) -> None:
        """Keep the steps of a request until its root span ends, and then print them."""
        steps = self.steps.setdefault(event.request_id or event.id, [])
        steps.append(event)
        is_root = event.parent_span_id is None and event.event in {"module:invoke", "mount:add"}
        if is_root or event.event.startswith("session:"):
            del self.steps[event.request_id or event.id]
            self.print_tree(event, [step for step in steps if step is not event and step.event in STEPS])

    def print_tree(self, root: Event, steps: list[Event]) -> None:
        """Print each step with its module, its duration and its span."""
        mark = "✗" if root.status == "error" else "✓"
        took = "" if root.duration_ms is None else f"{root.duration_ms:7.2f} ms  span {root.span_id}"
        print(f"{root.ts - self.began:6.3f} s {mark} {what(root):78}{took}".rstrip())
        for step in steps:
            branch = "└" if step is steps[-1] else "├"
            took = "" if step.duration_ms is None else f"{step.duration_ms:7.2f} ms  span {step.span_id}"
            print(f"           {branch} {what(step):76}{took}".rstrip())


STEPS = {"policy:decision", "module:start", "module:invoke"}


def what(event: Event) -> str:
    """Describe an event in a few words."""
    name = event.module or event.data.get("parent_id") or event.data.get("plan", {}).get("goal") or ""
    detail = ""
    if event.event == "module:invoke":
        path = event.data["args"].get("path")
        words = (event.data.get("result") or {}).get("words")
        file = f" {Path(path).relative_to(ROOT)}" if path else ""
        detail = event.data["op"] + file + (f" = {words} words" if words else "")
    elif event.event == "policy:decision":
        name, detail = event.data["decision"], event.data["reason"] or "it wants nothing"
    elif event.event == "module:start":
        name, detail = "process", str(event.data["pid"])
    return f"{event.event:15} {name} {detail}"


@asynccontextmanager
async def http_tool() -> AsyncIterator[str]:
    """Run the HTTP tool as a service and yield its URL. The service ends when its stdin closes."""
    node = shutil.which("node")
    command = [node, MODULES / "wordcount.mjs"] if node else [sys.executable, MODULES / "wordcount_http.py"]
    pipe = asyncio.subprocess.PIPE
    service = await asyncio.create_subprocess_exec(*map(str, command), stdin=pipe, stdout=pipe)
    assert service.stdin
    assert service.stdout
    try:
        yield (await service.stdout.readline()).decode().split()[-1]
    finally:
        service.stdin.close()
        await service.wait()


async def count(session: Session, file: Path) -> int:
    """Count a file's words with both tools, whose results must be equal."""
    counts = await asyncio.gather(*(session.invoke(tool, "count", {"path": str(file)}) for tool in TOOLS))
    if counts[0] != counts[1]:
        raise SystemExit(f"the tools disagree about {file}: {counts}")
    return int(counts[0]["words"])


async def has_no_isolation(kernel: Kernel) -> bool:
    """Print what isolates stdio modules on this host. If nothing does, print why and return True: trust them."""
    host = await kernel.describe_host()
    if host["isolation"]:
        print(f"stdio modules run isolated, by {host['isolation']['name']}, with what policy granted.\n")
        return False
    reasons = "; ".join(f"{name}: {reason}" for name, reason in host["unusable"].items()) or "none is installed"
    print(f"No isolation works here ({reasons}): stdio modules run as ordinary processes, by `trusted=True`.\n")
    return True


async def main() -> None:
    """Mount the modules, count words with both tools, and show a refusal and a fork."""
    async with Kernel() as kernel, http_tool() as url:
        trusted = await has_no_isolation(kernel)
        session = await kernel.session.create(Plan(goal="count the words of this repository", inputs={}))
        await session.register_hook("*", Trace())
        await session.mount("/mnt/hooks", load_descriptor(MODULES / "policy.json"), trusted=trusted)
        await session.register_hook("policy:request", "/mnt/hooks/policy", priority=10)
        await session.mount("/mnt/tools", load_descriptor(MODULES / "wordcount-stdio.json"), trusted=trusted)
        http = load_descriptor(MODULES / "wordcount-http.json")
        await session.mount("/mnt/tools", attrs.evolve(http, transport={"type": "http", "url": url}))

        files = sorted({*ROOT.glob("*.md"), *ROOT.glob("amplifier_core/*.md"), ROOT / "noxfile.py"})
        words = sum(await asyncio.gather(*(count(session, file) for file in files)))
        refusal: KernelError | None = None
        try:
            await session.invoke(TOOLS[0], "count", {"path": str(ROOT / ".git" / "config")})
        except Forbidden as error:
            refusal = error
        child = await kernel.session.fork(session.session_id)
        inherited = [mount["path"] for mount in await child.mounts()]
    print(f"\n{len(files)} files have {words} words; both tools agree on each.")
    print(f"Policy refused one call: {refusal}")
    print(f"A fork sees its parent's mounts: {', '.join(inherited)}")
    print(f"The log: {kernel.log_path}")


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # Windows writes to a pipe in an encoding that has no ✓
    asyncio.run(main())
