"""The encrypted columns of event collection settings (protocol section 1.4).

AES is that of pycryptodomex, which is a library for each algorithm; all of OpenSSL would come with cryptography.
"""

import base64
import binascii
import hashlib
import os
import sys
from typing import TYPE_CHECKING

from ita_ag_oase.errors import Reason, SettingInvalid
from ita_ag_oase.text import Text

# Where it finds cffi, which cryptography brings along, pycryptodomex calls C by that instead of by ctypes. It takes
# far longer to load, and 1 MiB more (docs/performance.md).
_HAS_CFFI = "cffi" in sys.modules
try:
    if not _HAS_CFFI:
        sys.modules["cffi"] = None  # type: ignore[assignment]  # the import system's own sign for what is not there
    from Cryptodome.Cipher import AES
    from Cryptodome.Util.Padding import pad, unpad
finally:
    if not _HAS_CFFI:
        del sys.modules["cffi"]

if TYPE_CHECKING:
    from Cryptodome.Cipher._mode_cbc import CbcMode

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
            padded = self._cipher(data[:_BLOCK_BYTES]).decrypt(data[_BLOCK_BYTES:])
            return unpad(padded, _BLOCK_BYTES, "pkcs7").decode()
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
        padded = pad(secret.encode(), _BLOCK_BYTES, "pkcs7")
        return base64.b64encode(vector + self._cipher(vector).encrypt(padded)).decode()

    def _cipher(self, vector: bytes) -> "CbcMode":
        return AES.new(self._key, AES.MODE_CBC, iv=vector)
