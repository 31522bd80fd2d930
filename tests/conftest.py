"""What all tests share."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import settings
from pytest_httpx import HTTPXMock

from ita_ag_oase.direct import DirectTransport

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


@pytest.fixture
def httpx_mock(httpx_mock: HTTPXMock, monkeypatch: pytest.MonkeyPatch) -> HTTPXMock:
    """Return pytest-httpx's network, which stands in for that below our own transport as for that below httpx's."""

    async def handle(_: DirectTransport, request: httpx.Request) -> httpx.Response:
        return await httpx.AsyncHTTPTransport(verify=False).handle_async_request(request)

    monkeypatch.setattr(DirectTransport, "handle_async_request", handle)
    return httpx_mock
