"""The pytest fixture ``replay_run``: a recorded run as a regression test.

Owns nothing but its form. pytest finds it by the entry point of this distribution.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ._replay import compare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def replay_run() -> Callable[..., int]:
    """Give a function that runs a recorded run again, with ``real`` modules or none; its arguments are ``compare``'s.

    It fails the test with the first difference. Use it in a test that is no ``async def``.
    """

    def run(path: Path | str, real: dict[str, object] | None = None, **fields: object) -> int:
        return asyncio.run(compare(path, real or {}, **fields))  # type: ignore[arg-type]

    return run
