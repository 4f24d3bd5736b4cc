"""Runs a short soak; the session `soak` of the noxfile runs a long one."""

from pathlib import Path

import pytest
from tests.soak.run import soak


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="what is left is read from /proc")
async def test_after_a_short_soak_nothing_is_left_and_the_log_is_whole(tmp_path):
    assert await soak(4, 1, tmp_path / "events.jsonl", print) == []
