"""Every row of the table of faults; `python3 noxfile.py -s faults` prints it with the times."""

from operator import attrgetter

import pytest
from tests.bounds.stage import import_transports
from tests.conftest import missing_here
from tests.faults import of_grpc, of_http, of_inproc, of_mcp_http, of_mcp_stdio, of_nats, of_stdio, of_wasm
from tests.faults.stage import run
from tests.wasm_transport import compiler


@pytest.fixture(autouse=True, scope="module")
def imported():
    """Import what the first mount would: on a busy machine that takes as long as some of the bounds."""
    import_transports()


@pytest.mark.parametrize("case", of_stdio.CASES, ids=attrgetter("name"))
def test_of_stdio(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", of_http.CASES, ids=attrgetter("name"))
def test_of_http(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.usefixtures("grpc_is_up")
@pytest.mark.parametrize("case", of_grpc.CASES, ids=attrgetter("name"))
def test_of_grpc(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", of_inproc.CASES, ids=attrgetter("name"))
def test_of_inproc(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", of_wasm.CASES, ids=attrgetter("name"))
def test_of_wasm(case, tmp_path):
    if not compiler.is_there():
        missing_here("ziglang, of the group test, is not installed")
    check(case, tmp_path)


@pytest.mark.parametrize("case", of_mcp_stdio.CASES, ids=attrgetter("name"))
def test_of_mcp_over_stdio(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", of_mcp_http.CASES, ids=attrgetter("name"))
def test_of_mcp_over_http(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", of_nats.CASES, ids=attrgetter("name"))
def test_of_nats(case, tmp_path):
    check(case, tmp_path)


def check(case, folder):
    seen = run(case, folder)
    assert seen.code == case.code, seen.message
    assert seen.seconds <= case.patience
