"""What all tests share."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import settings

# What checks try is the same each time; a soak tries something else each time, for hours.
settings.register_profile("check", derandomize=True, print_blob=True, deadline=None, max_examples=100)
settings.register_profile("soak", derandomize=False, print_blob=True, deadline=None, max_examples=5_000)
settings.load_profile("check")


@pytest.fixture(scope="session", autouse=True)
def _loop_of_sync_tests() -> Iterator[None]:
    """Give looptime a loop to find before tests that have none; one that it makes itself is never closed."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
