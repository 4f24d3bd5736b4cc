from pathlib import Path

import pytest
from tests.windows.skips import NAMES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_skipped_on_windows_is_there(name):
    file, _, test = name.partition("::")
    assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text() or not test
