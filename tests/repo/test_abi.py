import runpy
from pathlib import Path


def test_the_contract_is_what_was_written_down():
    abi = runpy.run_path(str(Path(__file__).parent / "abi.py"))
    assert abi["render"]() == abi["ABI"].read_text("utf-8"), (
        "run `python tests/repo/abi.py` and look at what it changes"
    )
