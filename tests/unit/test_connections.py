"""What connections are encrypted with: which certificates are read, when, and how often."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from ita_ag_oase.agent.connections import Encryption
from ita_ag_oase.errors import ConfigError
from ita_ag_oase.settings import Settings
from support import self_signed


def _settings(**others: Any) -> Settings:
    return Settings(
        exastro_url="https://exastro.test",
        exastro_organization_id="org",
        exastro_workspace_id="ws",
        event_collection_settings_names=("n1",),
        **others,
    )


def _trusted(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509"]


def test_certificates_are_read_once_where_exastro_and_sources_are_trusted_alike(tmp_path: Path) -> None:
    file = self_signed(tmp_path)
    for others in ({}, {"exastro_ca_file": file, "source_ca_file": file}):
        encryption = Encryption(_settings(**others))
        assert encryption.exastro() is encryption.exastro() is encryption.sources()


@pytest.mark.parametrize("others", [{"source_tls_verify": False}, {"exastro_tls_verify": False}], ids=str)
def test_who_is_not_verified_shares_nothing_with_who_is(others: dict[str, bool]) -> None:
    encryption = Encryption(_settings(**others))
    modes = (encryption.exastro().verify_mode, encryption.sources().verify_mode)
    assert set(modes) == {ssl.CERT_NONE, ssl.CERT_REQUIRED}


def test_the_authority_of_one_is_not_trusted_by_the_other(tmp_path: Path) -> None:
    encryption = Encryption(_settings(source_ca_file=self_signed(tmp_path)))
    assert _trusted(encryption.sources()) == _trusted(encryption.exastro()) + 1


@pytest.mark.parametrize("variable", ["EXASTRO_CA_FILE", "SOURCE_CA_FILE"])
def test_a_file_without_a_certificate_is_told_before_anything_is_encrypted(tmp_path: Path, variable: str) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(ConfigError, match=f"^{variable}: "):
        Encryption(_settings(**{variable.lower(): file}))
