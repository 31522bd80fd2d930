"""What an agent does not need it does not load: what was loaded is never given back."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.demo.sources import MailSource
from support import Deploy, ListSource, StatusPage, free_port, wait_for_all

# What takes much, or stands for what does.
_OPTIONAL = {
    "argparse",
    "cffi",
    "charset_normalizer",
    "cryptography",
    "imapclient",
    "ita_ag_oase.arguments",
    "ita_ag_oase.commands.check",
    "ita_ag_oase.environment",
    "ita_ag_oase.observability.metrics",
    "ita_ag_oase.observability.page",
    "ita_ag_oase.sources.imap",
    "ita_ag_oase.sources.mail",
    "ita_ag_oase.sources.sandbox",
    "jinja2",
    "prometheus_client",
    "pycparser",
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "python_socks",
}
_RUN = """
import json, sys
from pathlib import Path
from ita_ag_oase.cli import main
code = main(["run"])
Path(sys.argv[1]).write_text(json.dumps(list(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("columns", "ways", "path", "expected"),
    [
        pytest.param({}, {}, "/status.json", set(), id="an agent"),
        pytest.param(
            {"PARAMETER": '{"since": {{ EXASTRO_LAST_FETCHED_TIMESTAMP }}}'},
            {},
            "/livez",
            {"jinja2", "ita_ag_oase.sources.sandbox"},
            id="a template",
        ),
        pytest.param({}, {}, "/", {"jinja2", "ita_ag_oase.observability.page"}, id="the status page"),
        pytest.param({}, {}, "/metrics", {"prometheus_client", "ita_ag_oase.observability.metrics"}, id="the metrics"),
        pytest.param({}, {"rotates_tokens": True}, "/readyz", {"cryptography"}, id="tokens that are rotated"),
    ],
)
def test_an_agent_has_loaded_what_it_used_and_no_more(
    deploy: Deploy,
    tmp_path: Path,
    columns: Mapping[str, Any],
    ways: Mapping[str, Any],
    path: str,
    expected: set[str],
) -> None:
    loaded, port = tmp_path / "loaded.json", free_port()
    with ListSource("alarms", 3, **columns) as source, DemoExastro([source.row], **ways) as exastro:
        agent = deploy(exastro, source.name, STATUS_PORT=str(port)).start((sys.executable, "-c", _RUN, str(loaded)))
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        assert StatusPage(port).ask(path)[0] == 200
        assert agent.terminate() == 0
    assert _OPTIONAL & {*json.loads(loaded.read_text())} == expected


def test_an_agent_with_a_mailbox_guesses_no_character_set_that_is_named(deploy: Deploy, tmp_path: Path) -> None:
    loaded = tmp_path / "loaded.json"
    with MailSource(1) as source, DemoExastro([source.row]) as exastro:
        agent = deploy(exastro, source.name).start((sys.executable, "-c", _RUN, str(loaded)))
        agent.wait_until(lambda: exastro.saved, "a mail")
        assert agent.terminate() == 0
    assert _OPTIONAL & {*json.loads(loaded.read_text())} == {
        "imapclient",
        "ita_ag_oase.sources.imap",
        "ita_ag_oase.sources.mail",
        "python_socks",
    }
