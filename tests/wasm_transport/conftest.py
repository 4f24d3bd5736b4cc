"""What the tests of WebAssembly share: modules that are compiled here, from C or from the text format."""

import pytest
import wasmtime
from tests.conftest import missing_here
from tests.wasm_transport import compiler

from amplifier_core import ModuleDescriptor


@pytest.fixture(scope="session")
def compile_c():
    """Compile a program in C of this folder, and give its path."""
    if not compiler.is_there():
        missing_here("ziglang, of the group test, is not installed")
    return compiler.compile_c


@pytest.fixture
def compile_text(tmp_path):
    """Compile a module in the text format, and give its path."""

    def compile_now(text, name="text"):
        path = tmp_path / f"{name}.wasm"
        path.write_bytes(wasmtime.wat2wasm(text))
        return path

    return compile_now


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep compiled code, and its key, in folders of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def describe(tmp_path):
    """Describe a module: ``describe(path, *capabilities, limits…)``."""

    def make(path, *capabilities, name="probe", transport=(), **limits):
        told = {"type": "wasm", "module": str(path), **dict(transport)}
        return ModuleDescriptor.from_mapping(
            {"name": name, "kind": "tool", "transport": told, "capabilities": list(capabilities), "limits": limits},
            base=tmp_path,
        )

    return make


@pytest.fixture
async def allow_all(session):
    """Let policy allow whatever is wanted."""

    async def allow(event):
        return {"decision": "allow", "scope": "session"}

    await session.register_hook("policy:request", allow, priority=1)
