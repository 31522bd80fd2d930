"""The encrypted columns, against values computed here from protocol section 1.4."""

import base64
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ita_ag_oase.errors import Reason, SettingInvalid
from ita_ag_oase.exastro.secrets import SecretColumns

VECTOR = bytes(range(16))


def _key(organization_id: str, workspace_id: str) -> bytes:
    phrase = f"{organization_id} {workspace_id}".encode()
    return hashlib.pbkdf2_hmac("sha256", phrase, bytes.fromhex("4a781001512ee6cad341e806abe69065"), 50_000, dklen=16)


KEY = _key("org1", "ws1")
SECRETS = SecretColumns("org1", "ws1")


def _encrypted_bytes(padded: bytes, *, key: bytes = KEY) -> str:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(VECTOR)).encryptor()
    return base64.b64encode(VECTOR + encryptor.update(padded) + encryptor.finalize()).decode()


def _encrypted(secret: str, *, key: bytes = KEY) -> str:
    data = secret.encode()
    missing = 16 - len(data) % 16
    return _encrypted_bytes(data + bytes([missing]) * missing, key=key)


def _problem(text: str, secrets: SecretColumns = SECRETS) -> SettingInvalid:
    with pytest.raises(SettingInvalid) as caught:
        secrets.decrypt(text, column="AUTH_TOKEN")
    return caught.value


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "a",
        "fifteen letters",
        "sixteen letters.",
        "päss wörd",
        "秘密の言葉",
        "x" * 5_000,
        "line\nend\0",
        "\U0001f511",
    ],
    ids=["empty", "one", "15", "16", "umlauts", "japanese", "long", "control", "emoji"],
)
def test_secret_that_exastro_encrypted_is_read(secret: str) -> None:
    assert SECRETS.decrypt(_encrypted(secret), column="PASSWORD") == secret


def test_secret_of_a_fixed_text_is_read() -> None:
    # Computed with `openssl enc -aes-128-cbc` and the key that `openssl kdf … PBKDF2` derives.
    text = "AAECAwQFBgcICQoLDA0OD5zP1th8W9voYc0c2rALRnc="
    assert SECRETS.decrypt(text, column="PASSWORD") == "s3cr3t"


@pytest.mark.parametrize("text", [None, ""], ids=["null", "empty"])
def test_column_without_content_holds_no_secret(text: str | None) -> None:
    assert SECRETS.decrypt(text, column="PASSWORD") == ""


def test_secret_of_another_workspace_names_the_column_and_the_remedy() -> None:
    problem = _problem(_encrypted("s3cr3t", key=_key("org1", "ws2")))
    assert problem.reason is Reason.SETTING
    assert str(problem) == (
        "AUTH_TOKEN cannot be decrypted: check that EXASTRO_ORGANIZATION_ID and EXASTRO_WORKSPACE_ID are right, "
        "then enter the secret in Exastro anew"
    )


@pytest.mark.parametrize(
    "text",
    [
        "no base64!",
        "AAEC",
        base64.b64encode(VECTOR).decode(),
        base64.b64encode(VECTOR + b"half a block").decode(),
        _encrypted_bytes(b"no padding here."),
        _encrypted_bytes(b"zero padding...\0"),
        _encrypted_bytes(b"\xff\xfe is not UTF8\2\2"),
        "s3cr3t ünencrypted",
        "s3cr3t-in-clear",
    ],
    ids=["text", "short", "vector alone", "broken block", "no padding", "zero padding", "no utf-8", "clear", "ascii"],
)
def test_what_is_not_encrypted_so_is_refused_without_being_shown(text: str) -> None:
    message = str(_problem(text))
    assert message.startswith("AUTH_TOKEN cannot be decrypted: ")
    assert text not in message


def test_blank_between_the_ids_keeps_workspaces_apart() -> None:
    assert _problem(_encrypted("s3cr3t"), SecretColumns("org1w", "s1")).reason is Reason.SETTING


def test_key_is_derived_once(monkeypatch: pytest.MonkeyPatch) -> None:
    derived: list[tuple[Any, ...]] = []
    derive = hashlib.pbkdf2_hmac

    def counting(*arguments: Any) -> bytes:
        derived.append(arguments)
        return derive(*arguments)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counting)
    secrets = SecretColumns("org1", "ws1")
    for number in range(50):
        assert secrets.decrypt(secrets.encrypt(f"secret {number}"), column="PASSWORD") == f"secret {number}"
    assert len(derived) == 1


def test_encrypted_secret_differs_each_time_and_is_read_by_the_rules_of_the_protocol() -> None:
    texts = {SECRETS.encrypt("s3cr3t") for _ in range(10)}
    assert len(texts) == 10
    for text in texts:
        data = base64.b64decode(text)
        decryptor = Cipher(algorithms.AES(KEY), modes.CBC(data[:16])).decryptor()
        assert decryptor.update(data[16:]) + decryptor.finalize() == b"s3cr3t" + b"\x0a" * 10
