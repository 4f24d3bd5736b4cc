"""What the tests of this transport share: objects, mounted."""

import pytest
from tests.inproc.objects import Answers, Blocking, Plain

from amplifier_transport_inproc import descriptor_of


@pytest.fixture
def mount(session):
    """Mount an object as a trusted tool, and give its path."""

    async def mounted(module, **options):
        descriptor = descriptor_of(module, **options)
        await session.mount("/mnt/tools", descriptor, trusted=True)
        return f"/mnt/tools/{descriptor.name}"

    return mounted


@pytest.fixture
def plain():
    return Plain()


@pytest.fixture
def blocking():
    """Whatever a test leaves in a thread ends with it."""
    blocking = Blocking()
    yield blocking
    blocking.release.set()


@pytest.fixture
def answers():
    return Answers()
