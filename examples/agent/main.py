"""An agent made of modules alone. This program mounts them, shows what they do, and asks a person for permission.

    python examples/agent/main.py [--yes] [GOAL]

A script does the thinking. If OPENAI_BASE_URL and OPENAI_MODEL are set (and OPENAI_API_KEY, if the endpoint needs one),
a model behind that OpenAI-compatible endpoint does it.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from amplifier_core import Event, Kernel, KernelError, ModuleDescriptor, Plan, Session, load_descriptor

HERE = Path(__file__).resolve().parent
GOAL = "Find out in which languages the modules in this folder are written, and leave a note of it."
LOOP = "/mnt/orchestrators/loop"
MODULES = {
    "orchestrator.json": "/mnt/orchestrators",
    "context.json": "/mnt/context",
    "files.json": "/mnt/tools",
    "grep.json": "/mnt/tools",
    "note.json": "/mnt/tools",
}
PROGRAMS = ("node", "perl", "python3", "sh")
FOR_A_PERSON = {("/mnt/tools/note", "write")}
PATIENCE = 300.0  # seconds that a person has for an answer; the deadline in note.json is longer
WIDTH = 72  # characters of JSON on a line
MISSING, CANCELLED = 2, 130  # exit codes


class Screen:
    """The terminal: it shows the model's text as it comes, and events, as an observer, on lines of their own."""

    def __init__(self) -> None:
        self.said = ""  # the model's text since the last other line
        plain = "NO_COLOR" in os.environ or not sys.stdout.isatty()
        self._dim = "{}" if plain else "\x1b[2m{}\x1b[0m"

    def say(self, text: str) -> None:
        """Show a piece of the model's text."""
        if not self.said:
            print()
        self.said += text
        print(text, end="", flush=True)

    def line(self, text: str, end: str = "\n") -> None:
        """Show a line of its own."""
        if self.said and not self.said.endswith("\n"):
            print()
        self.said = ""
        print(self._dim.format(text), end=end, flush=True)

    async def __call__(self, event: Event) -> None:
        """Show an event."""
        path, data, status = event.module or "", event.data, event.error["code"] if event.error else "ok"
        match event.event:
            case "policy:decision" if data["action"] == "invoke":
                self.line(f"  policy   {name(path)} {data['op']}: {data['decision']}, {data['reason']}")
            case "module:invoke" if path.startswith("/mnt/tools/"):
                outcome = short(data["result"]) if "result" in data else status
                self.line(f"  tool     {name(path)} {data['op']} {short(data.get('args'))} -> {outcome}")
            case "artifact:write":
                self.line(f"  artifact {data['path']}, {data['bytes']} bytes")
            case "context:post_compact":
                self.line(f"  context  {data['before']} messages became {data['after']}")


def name(path: str) -> str:
    """Return the last part of a module's path."""
    return path.rpartition("/")[2]


def short(value: object) -> str:
    """Return the beginning of a value's JSON."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}…"


class Person:
    """A policy hook in the embedder: it asks the person at the terminal, or takes the answer from the command line."""

    def __init__(self, screen: Screen, *, yes: bool) -> None:
        self._screen = screen
        self._preset = "y (--yes)" if yes else None if sys.stdin.isatty() else "n (nobody is there; --yes says yes)"
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, event: Event) -> dict[str, str]:
        """Decide on one policy:request."""
        data = event.data
        if data["action"] != "invoke" or (data["path"], data["op"]) not in FOR_A_PERSON:
            return {"decision": "abstain", "scope": "session"}  # each call of a tool still asks: see policy.py
        async with self._one_at_a_time:
            self._screen.line(f"  person   {name(data['path'])} {data['op']} {short(data['args'])}? [y/N] ", end="")
            answer = self._preset or await typed()
            if self._preset:
                print(answer)
        if answer.strip().lower().startswith("y"):
            return {"decision": "allow", "reason": "a person said yes"}
        return {"decision": "deny", "reason": "no person said yes"}


async def typed() -> str:
    """Return the next line from the terminal. It reads in no thread, because a thread could not be cancelled."""
    loop = asyncio.get_running_loop()
    there_is_one = asyncio.Event()
    loop.add_reader(0, there_is_one.set)
    try:
        await there_is_one.wait()
    finally:
        loop.remove_reader(0)
    return os.read(0, 1024).decode(errors="replace")


@asynccontextmanager
async def provider() -> AsyncIterator[ModuleDescriptor]:
    """Yield the descriptor of the provider. The provider of a model runs as a service in the meantime."""
    if "OPENAI_BASE_URL" not in os.environ:
        yield load_descriptor(HERE / "provider_script.json")
        return
    descriptor = load_descriptor(HERE / "provider_openai.json")
    granted = [word.removeprefix("env:") for word in descriptor.capabilities if word.startswith("env:")]
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        HERE / "provider_openai.py",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={name: os.environ[name] for name in ("PATH", *granted) if name in os.environ},
        start_new_session=True,  # Ctrl-C goes to this program alone, which then ends the service
    )
    assert service.stdin
    assert service.stdout
    try:
        url = (await service.stdout.readline()).decode().split()[-1]
        yield attrs.evolve(descriptor, transport={"type": "http", "url": url})
    finally:
        service.stdin.close()
        await service.wait()


async def has_no_isolation(kernel: Kernel) -> bool:
    """Print what isolates stdio modules on this host. If nothing does, print why and return True: trust them."""
    host = await kernel.describe_host()
    if host["isolation"]:
        print(f"stdio modules run isolated, by {host['isolation']['name']}, with what policy granted.\n")
        return False
    reasons = "; ".join(f"{name}: {reason}" for name, reason in host["unusable"].items()) or "none is installed"
    print(f"No isolation works here ({reasons}): stdio modules run as ordinary processes, by `trusted=True`.\n")
    return True


async def mount(session: Session, path: str, descriptor: ModuleDescriptor, *, trusted: bool) -> None:
    """Mount one module and show it."""
    mounted = await session.mount(path, descriptor, trusted=trusted)
    transport = descriptor.transport
    print(f"  {mounted['path']:26}{transport['type']:6}{transport.get('url') or ' '.join(transport['command'])}")


async def run(goal: str, *, yes: bool) -> int:
    """Run the agent and return the exit code."""
    screen = Screen()
    kernel = Kernel(policy_timeout=PATIENCE)
    try:
        async with provider() as thinking, kernel:
            trusted = await has_no_isolation(kernel)
            (HERE / "notes").mkdir(exist_ok=True)  # only a path that exists can be granted
            session = await kernel.session.create(Plan(goal=goal, inputs={}))
            await mount(session, "/mnt/hooks", load_descriptor(HERE / "policy.json"), trusted=trusted)
            await session.register_hook("policy:request", "/mnt/hooks/policy", priority=10)
            await session.register_hook("policy:request", Person(screen, yes=yes), priority=20)
            await mount(session, "/mnt/providers", thinking, trusted=trusted)
            for file, path in MODULES.items():
                await mount(session, path, load_descriptor(HERE / file), trusted=trusted)
            await session.register_hook("*", screen)

            print(f"\n{goal}")
            follows_script = thinking.name == "script"
            args = {"goal": goal, **({"compact_above": 1500} if follows_script else {})}  # early, to show a compaction
            stream = session.stream(LOOP, "run", args)
            async for chunk in stream:
                screen.say(chunk["text"])
            answer = (await stream.result())["answer"]
            if not screen.said.endswith(answer):  # chunks are a preview, and a provider may send none
                screen.line(answer)
    except KernelError as error:
        screen.line(f"\n{error.code}: {error.message}")
        return 1
    except asyncio.CancelledError:
        screen.line("\ncancelled")
        raise
    finally:
        screen.line(f"\nThe log: {kernel.log_path}")
    return 0


def main() -> int:
    """Read the command line, run, and return the exit code."""
    parser = argparse.ArgumentParser(description="An agent made of modules alone.")
    parser.add_argument("goal", metavar="GOAL", nargs="?", default=GOAL)
    parser.add_argument("--yes", action="store_true", help="say yes to what a person would be asked")
    options = parser.parse_args()
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        print(f"This agent's modules need {' and '.join(missing)}, which is not on PATH here.", file=sys.stderr)
        return MISSING
    try:
        return asyncio.run(run(options.goal, yes=options.yes))
    except KeyboardInterrupt:  # the first Ctrl-C cancels, and the kernel tells the modules
        return CANCELLED


if __name__ == "__main__":
    sys.exit(main())
