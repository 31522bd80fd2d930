"""A request of whose sender the term ends on the way, over a real connection."""

import asyncio

import httpx
import pytest

from ita_ag_oase.errors import Reason, TermEnded
from ita_ag_oase.exastro.client import ExastroClient
from ita_ag_oase.text import Text


@pytest.mark.parametrize("sent", [0, 1, 2])
async def test_the_receiver_never_sees_the_end_of_it(sent: int) -> None:
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())
        writer.close()

    left = [None] * sent

    def ask() -> None:
        if not left:
            raise TermEnded(Text("ended"), reason=Reason.TERM_ENDED)
        left.pop()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server, httpx.AsyncClient(trust_env=False) as http:
        port = server.sockets[0].getsockname()[1]
        client = ExastroClient(http, httpx.BasicAuth("user", "password"), base_url=f"http://127.0.0.1:{port}")
        with pytest.raises(TermEnded):
            await client.post_events((b"one,", b"two,", b"three"), before_sending=ask)
        head, _, body = (await asyncio.wait_for(received, 5)).partition(b"\r\n\r\n")
    assert b"Content-Length: 13" in head
    assert body == b"one,two,"[: 4 * sent]
