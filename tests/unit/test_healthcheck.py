"""Whether the agent of a container is alive, asked as a container engine asks."""

from collections.abc import Iterator

import pytest

from ita_ag_oase import healthcheck
from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request
from support import free_port


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATUS_ADDRESS", "STATUS_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Iterator[int]:
    """Return the port of a status page that answers /livez with a status."""

    def answer(asked: Request) -> Reply:
        return Reply(status=request.param if asked.path == "/livez" else 404)

    with LoopbackServer(answer) as server:
        yield int(server.url.rpartition(":")[2])


@pytest.mark.parametrize(("page", "code"), [(200, 0), (503, 1)], indirect=["page"])
@pytest.mark.parametrize("address", ["", "0.0.0.0", "127.0.0.1"])
def test_the_agent_is_alive_when_it_says_so(
    page: int, code: int, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATUS_PORT", str(page))
    monkeypatch.setenv("STATUS_ADDRESS", address)
    assert healthcheck.main() == code


def test_an_agent_without_a_status_page_is_taken_for_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATUS_PORT", "0")
    assert healthcheck.main() == 0


@pytest.mark.parametrize("port", [str(free_port()), "none"], ids=["nothing listens", "no number"])
def test_what_does_not_answer_is_not_alive(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STATUS_PORT", port)
    assert healthcheck.main() == 1
    assert capsys.readouterr().err.startswith(f"the agent's status page does not answer on port {port}: ")
