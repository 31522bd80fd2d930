"""What is asked before anything is sent to Exastro."""

from pathlib import Path

import pytest
from pytest_httpx import HTTPXMock

from exactly_once import Bench
from ita_ag_oase.agent.connections import open_exastro
from ita_ag_oase.environment import load
from ita_ag_oase.errors import TermEnded


async def test_nothing_is_sent_by_an_agent_whose_term_has_ended_not_even_for_a_token(
    tmp_path: Path, httpx_mock: HTTPXMock
) -> None:
    settings = load(
        exastro_url="http://exastro",
        exastro_organization_id="org1",
        exastro_workspace_id="ws1",
        event_collection_settings_names="n1",
        exastro_refresh_token="token-of-the-test",
    )

    async def note_date(_: float) -> None:
        raise AssertionError("there was an answer")

    async with (
        Bench(tmp_path) as bench,
        open_exastro(
            settings, bench.store, on_secret=lambda _: None, on_date=note_date, is_at_work=lambda: False
        ) as client,
    ):
        for call in (client.authenticate(), client.fetch_settings(["n1"]), client.post_events((b"{}",))):
            with pytest.raises(TermEnded, match="it sends nothing to Exastro any more"):
                await call
    assert httpx_mock.get_requests() == []
