"""The encrypted columns of event collection settings (protocol section 1.4)."""

import base64
import binascii
import hashlib
import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from ita_ag_oase.errors import Reason, SettingInvalid
from ita_ag_oase.text import Text

_SALT = bytes.fromhex("4a781001512ee6cad341e806abe69065")
_ROUNDS = 50_000
_BLOCK_BYTES = 16


class SecretColumns:
    """Decrypts the secrets of one workspace, with a key derived once."""

    def __init__(self, organization_id: str, workspace_id: str) -> None:
        phrase = f"{organization_id} {workspace_id}".encode()
        self._key = hashlib.pbkdf2_hmac("sha256", phrase, _SALT, _ROUNDS, _BLOCK_BYTES)

    def decrypt(self, text: str | None, *, column: str) -> str:
        """Return the secret in a column; empty for null. Raises SettingInvalid for what is not encrypted so."""
        if not text:
            return ""
        try:
            data = base64.b64decode(text, validate=True)
            decryptor = Cipher(algorithms.AES128(self._key), modes.CBC(data[:_BLOCK_BYTES])).decryptor()
            padded = decryptor.update(data[_BLOCK_BYTES:]) + decryptor.finalize()
            unpadder = PKCS7(_BLOCK_BYTES * 8).unpadder()
            return (unpadder.update(padded) + unpadder.finalize()).decode()
        except (binascii.Error, ValueError) as err:
            raise SettingInvalid(
                Text(
                    "{column} cannot be decrypted: check that EXASTRO_ORGANIZATION_ID and EXASTRO_WORKSPACE_ID are "
                    "right, then enter the secret in Exastro anew",
                    column=column,
                ),
                reason=Reason.SETTING,
            ) from err

    def encrypt(self, secret: str) -> str:
        """Return a secret as Exastro would send it."""
        vector = os.urandom(_BLOCK_BYTES)
        padder = PKCS7(_BLOCK_BYTES * 8).padder()
        encryptor = Cipher(algorithms.AES128(self._key), modes.CBC(vector)).encryptor()
        padded = padder.update(secret.encode()) + padder.finalize()
        return base64.b64encode(vector + encryptor.update(padded) + encryptor.finalize()).decode()
