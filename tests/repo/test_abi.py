import importlib.util
from pathlib import Path

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("abi", HERE / "abi.py")
abi = importlib.util.module_from_spec(spec)
spec.loader.exec_module(abi)


def test_the_contract_is_what_was_written_down():
    assert abi.render() == abi.ABI.read_text("utf-8"), "run `python tests/repo/abi.py` and look at what it changes"
