"""No secret is ever shown, at DEBUG and in the worst of circumstances: who fails quotes what it was sent."""

import base64
from collections.abc import Mapping

import pytest

from ita_ag_oase.demo.exastro import PASSWORD, REFRESH_TOKEN, USERNAME, DemoExastro
from ita_ag_oase.demo.loopback import Reply, Request, as_html, as_json
from support import Deploy, ListSource, ScriptedSource, wait_for_all, wait_for_polls

_TOKEN = 'source-token-"1"/+ä'
_SOURCE_PASSWORD = "source-password-2?&"
_KEY = base64.b64encode(b"a shared key of a source").decode()
_BY_PASSWORD = {"EXASTRO_REFRESH_TOKEN": "", "EXASTRO_USERNAME": USERNAME, "EXASTRO_PASSWORD": PASSWORD}
_IN_THE_URL = "?key={{ EXASTRO_EVENT_COLLECTION_SETTING.AUTH_TOKEN|urlencode }}"


def _quoting(request: Request) -> Reply:
    """Return what a source says that quotes everything it was asked with."""
    return as_html(f"{request.headers} {request.path} {request.query}", 200)


def _quoting_500(request: Request) -> Reply:
    quoted = f"{request.headers.get('authorization')} {request.headers}"
    return as_json({"result": "500-00001", "message": quoted[:250], "ts": ""}, 500)


@pytest.mark.parametrize("authentication", [{}, _BY_PASSWORD], ids=["refresh token", "password"])
def test_no_secret_appears_in_the_output(deploy: Deploy, authentication: Mapping[str, str]) -> None:
    with (
        ListSource("good", 3, CONNECTION_METHOD_ID="2", USERNAME="user", PASSWORD=_SOURCE_PASSWORD) as good,
        ScriptedSource("quoting", _quoting, CONNECTION_METHOD_ID="1", AUTH_TOKEN=_TOKEN) as quoting,
        ScriptedSource(
            "refusing",
            lambda _: Reply(status=401),
            CONNECTION_METHOD_ID="3",
            ACCESS_KEY_ID="me",
            SECRET_ACCESS_KEY=_KEY,
        ) as refusing,
        ScriptedSource("cutting", lambda _: Reply(is_cut=True), CONNECTION_METHOD_ID="1", AUTH_TOKEN=_TOKEN) as cutting,
        DemoExastro(token_seconds=2.5, rotates_tokens=True) as exastro,
    ):
        in_the_url = {**quoting.row, "URL": f"{quoting.url}/{_IN_THE_URL}"}
        failing_template = {**cutting.row, "PARAMETER": '{"a": "{{ EXASTRO_EVENT_COLLECTION_SETTING.AUTH_TOKEN }}'}
        exastro.rows += [good.row, in_the_url, refusing.row, failing_template]
        answers = [_quoting_500, _quoting_500]
        exastro.before_saving = lambda request: answers.pop(0)(request) if answers else None
        agent = deploy(exastro, "good", "quoting", "refusing", "cutting", **authentication).start()
        wait_for_all(agent, exastro, good)
        wait_for_polls(agent, good, 2)
        wait_for_polls(agent, refusing, 2)
        agent.wait_for_line("delivery_recovered")
        secrets = {REFRESH_TOKEN, PASSWORD, _TOKEN, _SOURCE_PASSWORD, _KEY, *exastro.secrets_issued}
        assert agent.terminate() == 0
        basic = {_basic(USERNAME, PASSWORD), _basic("user", _SOURCE_PASSWORD)}
        output = agent.stdout + agent.stderr
        assert [secret for secret in secrets | basic if secret in output] == []
        assert "********" in output


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()
