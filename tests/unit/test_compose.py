"""The compose file, the sample of its environment, and the page about them."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ita_ag_oase import __version__
from ita_ag_oase.environment import Environment, load
from ita_ag_oase.settings import ACCEPTED_WITHOUT_EFFECT, VARIABLES, Variables
from manual import COMPOSE, ROOT, commands, files

_FILE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
_SERVICE = _FILE["services"]["ita-ag-oase"]
_SAMPLE = ROOT / ".env.sample"

# The variables of protocol section 2.1 that a user gives; HOSTNAME is the container runtime's, STORAGEPATH the image's.
_VARIABLES = {
    *("EXASTRO_URL", "EXASTRO_ORGANIZATION_ID", "EXASTRO_WORKSPACE_ID", "EVENT_COLLECTION_SETTINGS_NAMES"),
    *("EXASTRO_REFRESH_TOKEN", "EXASTRO_USERNAME", "EXASTRO_PASSWORD"),
    *("AGENT_NAME", "AGENT_ID", "EXECUTE_INTERVAL", "ITERATION", "LOG_LEVEL", "LANGUAGE", "DEFAULT_LANGUAGE", "TZ"),
}


def test_the_image_is_of_the_version_of_the_project() -> None:
    assert _SERVICE["image"] == f"${{IMAGE:-docker.io/exastro/exastro-it-automation-ag-oase:{__version__}}}"
    assert _SERVICE["build"] == {"context": ".", "args": {"VERSION": __version__}}


def test_the_container_has_no_rights_and_writes_where_it_may() -> None:
    assert (_SERVICE["read_only"], _SERVICE["cap_drop"], _SERVICE["security_opt"]) == (
        True,
        ["ALL"],
        ["no-new-privileges:true"],
    )
    assert _SERVICE["tmpfs"] == ["/tmp:mode=1777", "/home/app_user:mode=1777"]
    assert "user" not in _SERVICE


def test_the_store_is_on_a_named_volume() -> None:
    assert _SERVICE["volumes"] == ["storage:/storage"]
    assert _FILE["volumes"] == {"storage": None}
    assert _SERVICE["environment"]["STORAGEPATH"] == "/storage"


def test_the_status_page_is_for_this_machine_alone() -> None:
    port = _SERVICE["environment"]["STATUS_PORT"]
    assert _SERVICE["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert port == str(Variables.status_port)


def test_the_health_check_is_that_of_the_image() -> None:
    (check,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert _SERVICE["healthcheck"]["test"] == ["CMD", *yaml.safe_load(check)]


def test_a_request_in_flight_is_given_time_to_end() -> None:
    assert (_SERVICE["stop_grace_period"], _SERVICE["restart"]) == ("60s", "unless-stopped")


def test_the_sample_has_every_variable_that_a_user_gives() -> None:
    sample = set(re.findall(r"^#?([A-Z_]+)=", _SAMPLE.read_text(encoding="utf-8"), re.MULTILINE))
    assert sample == _VARIABLES
    assert sample & set(ACCEPTED_WITHOUT_EFFECT) == set()


def test_the_sample_loads_once_a_way_to_authenticate_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commands(COMPOSE, "cp") == ["cp .env.sample .env"]
    shutil.copy(_SAMPLE, tmp_path / ".env")
    with (tmp_path / ".env").open("a", encoding="utf-8") as file:
        file.write("EXASTRO_REFRESH_TOKEN=token\n")
    for name in [name for name in os.environ if name.lower() in VARIABLES or name == "ENVFILEPATH"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings = load()
    given = {name.lower() for name in _VARIABLES} - {"exastro_username", "exastro_password"}
    assert Environment(_env_file=".env").model_fields_set == given
    assert settings.adjustments == ()
    assert settings.agent_identity == settings.agent_name


def test_what_the_page_adds_fits_the_compose_file() -> None:
    (text,) = files(COMPOSE)["compose.override.yaml"]
    added: Any = yaml.safe_load(text)
    (name,) = added["services"]
    assert name in _FILE["services"]
    service = added["services"][name]
    assert sorted(service["secrets"]) == sorted(added["secrets"])
    assert {variable.lower() for variable in service["environment"]} - {*VARIABLES} == set()
    paths = {value for variable, value in service["environment"].items() if variable.endswith("_FILE")}
    assert paths == {f"/run/secrets/{secret}" for secret in added["secrets"]}


_DOCKER = [command.split() for command in commands(COMPOSE, "docker")]


def test_commands_of_the_page_name_the_service() -> None:
    assert {command[1] for command in _DOCKER} == {"compose"}
    named = [word for command in _DOCKER for word in command if word.startswith("ita-ag-oase")]
    # The second is the command in the container.
    assert set(named) == set(_FILE["services"])
    asked = [command for command in _DOCKER if command[2] in ("exec", "run")]
    assert [command for command in asked if "ita-ag-oase" not in command] == []
