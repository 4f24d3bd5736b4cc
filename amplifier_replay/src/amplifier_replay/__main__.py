"""The program: ``python -m amplifier_replay LOG [--real PATH[=FILE] …] [--until N] [-o NEW]``."""

import argparse
import asyncio
import contextlib
import functools
import os
import sys
from pathlib import Path
from typing import IO, Any

from amplifier_core import BadRequest, KernelError
from amplifier_replay import Difference, OpenCall, compare, fork, replay
from amplifier_replay._log import open_new


def main() -> int:
    """Replay the log that the command line names, and give the exit code: 0 equal, 1 not, 2 unusable, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m amplifier_replay", description="Run a recorded run again.")
    parser.add_argument("log", metavar="LOG", type=Path)
    real = "run the module at this path for real, by this descriptor or by the recorded one; may be repeated"
    parser.add_argument("--real", metavar="PATH[=FILE]", action="append", default=[], help=real)
    until = "replay the events up to this number, then go on live, as a fork with the log NEW"
    parser.add_argument("--until", metavar="N", type=int, help=until)
    allow = "with --until: allow what this policy hook of the recorded program is asked; may be repeated"
    parser.add_argument("--allow", metavar="HOOK", action="append", default=[], help=allow)
    parser.add_argument("--trusted", action="store_true", help="run modules on this host without isolation")
    parser.add_argument("-o", "--output", metavar="NEW", type=Path, help="write the log of the replay here")
    options = parser.parse_args()
    try:
        check(options)
        print(run(options))
    except Difference as error:
        print(error.message, file=sys.stderr)
        return 1
    except KernelError as error:
        print(error.message, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def check(options: argparse.Namespace) -> None:
    """Raise ``BadRequest`` for options that do not go together."""
    if options.real and options.until is not None:
        raise BadRequest("--real: not with --until, which runs every module for real")
    if options.real and options.output:
        raise BadRequest("--output: a run with real modules writes no log")
    if options.real and not options.trusted:
        raise BadRequest("--real: expected --trusted too: a replay confines no module that runs for real")
    if options.until is not None and not options.output:
        raise BadRequest("--until: expected --output too, the log of the fork")
    if options.until is not None and options.until < 1:
        raise BadRequest(f"--until: expected the number of an event, got {options.until}")
    if options.allow and options.until is None:
        raise BadRequest("--allow: expected --until too: in a replay hooks answer what they answered")


def run(options: argparse.Namespace) -> str:
    """Replay the log, compare it with real modules, or fork it. Say in one line what came of it."""
    if options.until is not None:
        return asyncio.run(go_on(options))
    if options.real:
        real = {path: file or None for path, _, file in (each.partition("=") for each in options.real)}
        return f"{asyncio.run(compare(options.log, real, trusted=options.trusted))} events, all equal"
    output = options.output or Path(os.devnull)
    if output.exists() and options.log.exists() and output.samefile(options.log):
        raise BadRequest(f"{output}: expected another file than the log that is replayed")
    with contextlib.ExitStack() as stack:

        @functools.cache
        def opened() -> IO[bytes]:
            return stack.enter_context(open_new(output, "wb"))  # when a log has turned out to be whole

        try:
            return f"{asyncio.run(replay(options.log, lambda line: opened().write(line)))} events, all equal"
        except OSError as error:
            raise BadRequest(f"{output}: cannot be written: {error.strerror}") from None


async def go_on(options: argparse.Namespace) -> str:
    """Fork the run, and wait until the calls have ended that were open."""
    hooks = dict.fromkeys(options.allow, allow)
    async with fork(options.log, options.until, options.output, hooks=hooks, trusted=options.trusted) as forked:
        for call in forked.calls:
            print(f"{call.path} {call.op}: {await outcome(call)}")
    return f"{options.until} events replayed; the fork is {options.output}"


async def outcome(call: OpenCall) -> str:
    """Say how a call has ended."""
    try:
        await call.task
    except KernelError as error:
        return f"{error.code}: {error.message}"
    return "ok"


async def allow(_: Any) -> dict[str, str]:
    """Allow what is asked."""
    return {"decision": "allow", "reason": "--allow"}


if __name__ == "__main__":
    sys.exit(main())
