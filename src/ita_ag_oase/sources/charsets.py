"""Text from bytes whose character set may be named wrongly, or not at all. Pure."""

import codecs
import encodings
import pkgutil
import re
from encodings.aliases import aliases

# Guessing takes milliseconds: a mail of a million undecodable words must not take hours.
MAX_GUESSES = 20
_SAMPLE_BYTES = 8_192
# They are looked up one by one, which takes a second for a megabyte of nothing else.
MAX_VENDOR_BYTES = 4_194_304

# What Python's codecs do besides character sets, or what could take quadratic time.
_NO_CHARSETS = frozenset(
    """
    aliases base64_codec bz2_codec charmap hex_codec idna mbcs oem punycode quopri_codec raw_unicode_escape rot_13
    undefined unicode_escape uu_codec zlib_codec
    """.split()  # noqa: SIM905 - as a list it would be 16 lines
)
_CODECS = frozenset(module.name for module in pkgutil.iter_modules(encodings.__path__)) - _NO_CHARSETS
_LABEL = re.compile(r"[\w.:()+-]{1,40}", re.ASCII)
# Names that mailers write and Python does not know.
_FOREIGN_NAMES = {
    "cp50220": "iso2022_jp_ext",
    "cp50221": "iso2022_jp_ext",
    "cp50222": "iso2022_jp_ext",
    "cp51932": "euc_jp",
    "eucjp_ms": "euc_jp",
    "eucjp_win": "euc_jp",
    "iso_2022_jp_ms": "iso2022_jp_ext",
    "iso_8859_8_i": "iso8859_8",
    "unicode_1_1_utf_7": "utf_7",
    "x_euc_jp": "euc_jp",
    "x_gbk": "gb18030",
    "x_ms_cp932": "cp932",
    "x_sjis": "shift_jis",
}
# What a name stands for in practice, the narrow meaning first: senders add the characters of their system's vendor.
_MEANINGS = {
    "big5": ("big5", "cp950", "big5hkscs"),
    "euc_kr": ("cp949",),
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "iso2022_jp": ("iso2022_jp_ext",),
    "latin_1": ("cp1252", "latin_1"),
    "shift_jis": ("shift_jis", "cp932"),
}
# Their bytes are ASCII, or could be valid UTF-8 by design.
_SEVEN_BIT = frozenset(name for name in _CODECS if name.startswith(("hz", "iso2022", "utf_16", "utf_32", "utf_7")))
_DOUBLE_BYTE = frozenset(
    ("big5", "big5hkscs", "cp932", "cp949", "cp950", "euc_jp", "euc_kr", "gb18030", "gb2312", "gbk", "shift_jis")
)
# Tools write these names without knowing what they send.
_OFTEN_WRONG = frozenset(("cp1252", "cp932", "euc_jp", "latin_1", "shift_jis"))
_LIKELY = ("euc_jp", "cp932", "cp1252")
_POSSIBLE = ("gb18030", "big5", "cp949", "cp1251", "koi8_r", "cp1250", "cp1253", "cp1255", "cp1256", "cp874")
_JIS_PAIRS = frozenset(("euc_jp", "iso2022_jp_ext"))
_JIS_STRICT = "ita_ag_oase_jis_strict"
_JIS_REPLACE = "ita_ag_oase_jis_replace"
_JIS_ESCAPE = re.compile(rb"\x1b(\$|\(I)")
_HALF_WIDTH = re.compile(rb"[\x00-\x7f\xa1-\xdf]*+")
_FOREIGN_BYTE = re.compile(rb"[\x80-\xff]")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


class TextDecoder:
    """Decodes the texts of one mail; what takes long is bounded for all of them together.

    The order: a name that says the bytes are seven-bit or wide, since such bytes can look like UTF-8; UTF-8, which
    other text hardly ever is by chance; the name given; a guess. Names are often wrong where the text is UTF-8, and
    rarely where it is not. What nothing can read becomes U+FFFD.
    """

    def __init__(self) -> None:
        self._guesses_left = MAX_GUESSES
        self._vendor_bytes_left = MAX_VENDOR_BYTES

    def decode(self, raw: bytes, label: str | None) -> str:
        """Return the text, without lone surrogates; `label` is the name of its character set, if it has one."""
        text = self._decoded(raw, _codec_of(label))
        return text if text.isascii() else _SURROGATE.sub(_REPLACEMENT, text)

    def _decoded(self, raw: bytes, codec: str | None) -> str:
        for read in (self._by_itself, self._by_name, self._japanese):
            text = read(raw, codec)
            if text is not None:
                return text
        return self._replacing(raw, self._guessed(raw) or codec or "utf_8")

    def _by_itself(self, raw: bytes, codec: str | None) -> str | None:
        """Return the text where the bytes themselves tell how to read them."""
        text = self._strict(raw, codec) if codec is not None and codec in _SEVEN_BIT else None
        if text is None and _JIS_ESCAPE.search(raw):
            text = self._strict(raw, "iso2022_jp_ext")
        if text is None and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = self._strict(raw, "utf_16")
        if text is not None:
            return text
        text = self._strict(raw, "utf_8_sig")
        return None if text is None or self._may_be_pairs(text, raw, codec) else text

    def _may_be_pairs(self, text: str, raw: bytes, codec: str | None) -> bool:
        """Whether UTF-8 of two bytes each is more likely a few characters of the East Asian set that was named."""
        if codec is None or codec not in _DOUBLE_BYTE or text.isascii() or max(text) > "\u07ff":
            return False
        return self._strict(raw, codec) is not None

    def _by_name(self, raw: bytes, codec: str | None) -> str | None:
        """Return the text that the name gives, unless the bytes speak against it."""
        if codec is None or codec == "ascii":
            return None
        readings = (self._strict(raw, meaning) for meaning in _meanings(codec))
        reading = next((text for text in readings if text is not None), None)
        if codec in _OFTEN_WRONG and not (reading and _KANA.search(reading)):
            reading = self._japanese(raw, codec) or reading
        if reading is not None:
            return reading
        damaged = self._replacing(raw, codec)
        return damaged if _is_merely_damaged(damaged) else None

    def _japanese(self, raw: bytes, _: str | None) -> str | None:
        """Return the text where it is Japanese beyond doubt: valid, and with kana in it."""
        for codec in ("euc_jp", "cp932"):
            text = self._strict(raw, codec)
            if text is not None and _KANA.search(text):
                return text
        return None

    def _guessed(self, raw: bytes) -> str | None:
        if not self._guesses_left:
            return None
        self._guesses_left -= 1
        return _guess(raw)

    def _strict(self, raw: bytes, codec: str) -> str | None:
        try:
            return raw.decode(codec, _JIS_STRICT if self._takes_vendor_characters(raw, codec) else "strict")
        except UnicodeError:
            return None

    def _replacing(self, raw: bytes, codec: str) -> str:
        codec = _meanings(codec)[-1]
        try:
            return raw.decode(codec, _JIS_REPLACE if self._takes_vendor_characters(raw, codec) else "replace")
        except UnicodeError:
            # UTF-16 and UTF-32 refuse what their byte order mark forbids, whatever they are told.
            return raw.decode("utf_8", "replace")

    def _takes_vendor_characters(self, raw: bytes, codec: str) -> bool:
        if codec not in _JIS_PAIRS or len(raw) > self._vendor_bytes_left:
            return False
        self._vendor_bytes_left -= len(raw)
        return True


def _codec_of(label: str | None) -> str | None:
    """Return the codec that a name stands for; None for an unknown one.

    Python's own look-up would try to import a module for every name, and keep each that it does not find.
    """
    name = (label or "").strip().strip("\"'")
    if not _LABEL.fullmatch(name):
        return None
    name = encodings.normalize_encoding(name).lower().replace(".", "_")
    codec = _FOREIGN_NAMES.get(name) or aliases.get(name, name)
    return codec if codec in _CODECS else None


def _meanings(codec: str) -> tuple[str, ...]:
    return _MEANINGS.get(codec, (codec,))


def _is_merely_damaged(text: str) -> bool:
    """Whether less than half of what is not ASCII is unreadable, as where a text was cut."""
    foreign = len(text) - len(text.encode("ascii", "ignore"))
    return text.count(_REPLACEMENT) * 2 < foreign


def _guess(raw: bytes) -> str | None:
    """Return the codec that fits best, tried on the first lines that are not ASCII."""
    # Most mails say what they are written in, and it takes 3 MiB.
    from charset_normalizer import from_bytes

    sample = _sample(raw)
    for candidates in (_LIKELY, _POSSIBLE):
        best = from_bytes(sample, cp_isolation=list(candidates)).best()
        if best is not None:
            return best.encoding
    # What no statistics know.
    return "cp932" if _HALF_WIDTH.fullmatch(sample) else None


def _sample(raw: bytes) -> bytes:
    foreign = _FOREIGN_BYTE.search(raw)
    start = raw.rfind(b"\n", 0, foreign.start()) + 1 if foreign else 0
    sample = raw[start : start + _SAMPLE_BYTES]
    whole_lines = sample[: sample.rfind(b"\n") + 1]
    return whole_lines if len(sample) == _SAMPLE_BYTES and whole_lines else sample


def _vendor_character(pair: bytes) -> str | None:
    """Return the character of a pair that JIS X 0208 leaves free and Microsoft and NEC use (cp932), if it is one."""
    if len(pair) < 2 or not all(0x21 <= byte <= 0x7E for byte in pair):
        return None
    row, cell = pair
    lead = (row + 1 >> 1) + (0x70 if row < 0x5F else 0xB0)
    trail = cell + 0x7E if row % 2 == 0 else cell + (0x1F if cell < 0x60 else 0x20)
    try:
        return bytes((lead, trail)).decode("cp932")
    except UnicodeDecodeError:
        return None


def _unreadable(err: UnicodeError) -> tuple[UnicodeDecodeError, str | None]:
    """Return what a codec stopped at, and the vendor's character there, if it is one."""
    if not isinstance(err, UnicodeDecodeError):
        raise err
    return err, _vendor_character(bytes(byte & 0x7F for byte in err.object[err.start : err.start + 2]))


def _jis_strict(stop: UnicodeError) -> tuple[str, int]:
    """Let euc_jp and iso2022_jp_ext know the circled numbers and rare kanji that Japanese mail is full of."""
    err, character = _unreadable(stop)
    if character is None:
        raise err
    return character, err.start + 2


def _jis_replace(stop: UnicodeError) -> tuple[str, int]:
    err, character = _unreadable(stop)
    return (_REPLACEMENT, err.end) if character is None else (character, err.start + 2)


codecs.register_error(_JIS_STRICT, _jis_strict)
codecs.register_error(_JIS_REPLACE, _jis_replace)
