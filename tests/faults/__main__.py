"""Play the faults one after the other and print what came of them: `python3 noxfile.py -s faults [WORD …]`.

The words pick the cases whose names have them. Nothing else should be running: here each bound is held as it stands.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import begin_grpc
from tests.faults import of_grpc, of_http, of_inproc, of_mcp_http, of_mcp_stdio, of_nats, of_stdio, of_wasm
from tests.faults.stage import run

from amplifier_core import KernelError

if TYPE_CHECKING:
    from tests.faults.case import Case

CASES = {
    "STDIO": of_stdio.CASES,
    "HTTP": of_http.CASES,
    "gRPC": of_grpc.CASES,
    "in the process": of_inproc.CASES,
    "WebAssembly": of_wasm.CASES,
    "MCP over stdio": of_mcp_stdio.CASES,
    "MCP over HTTP": of_mcp_http.CASES,
    "NATS": of_nats.CASES,
}
ROW = "{:<56} {:<15} {:>9}  {:<15} {:>9}  {}"


def main() -> None:
    """Print the table, and fail if a row does."""
    words = sys.argv[1:]
    begin_grpc()
    failed = count = 0
    for transport, cases in CASES.items():
        print(ROW.format(f"{transport} fault", "code", "bound ms", "seen", "ms", "ok"))
        for case in cases:
            if not words or any(word in f"{transport} {case.name}" for word in words):
                count += 1
                failed += not _row(case)
        print()
    print(f"{count} cases, {failed} of them not as they should be")
    sys.exit(1 if failed or not count else 0)


def _row(case: Case) -> bool:
    """Play one case, print its row, and tell whether all of it is as it should be."""
    code, took, fault = "", "", ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            seen = run(case, Path(folder))
        code, took = seen.code, _milliseconds(seen.seconds)
        if seen.code != case.code:
            fault = seen.message or "no error"
        elif seen.seconds > case.bound:
            fault = "too late"
    except (AssertionError, KernelError) as error:
        fault = str(error)
    print(
        ROW.format(_named(case), case.code, _milliseconds(case.bound), code, took, f"NO: {fault}" if fault else "yes")
    )
    return not fault


def _named(case: Case) -> str:
    """Name a case, with its deadline: there the bound begins."""
    return case.name if case.deadline is None else f"{case.name} (after {case.deadline:g} s)"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


if __name__ == "__main__":
    main()
