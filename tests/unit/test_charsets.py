"""Character sets: all that Python knows, and an end to guessing."""

import pytest

from ita_ag_oase.sources.charsets import MAX_GUESSES, MAX_VENDOR_BYTES, TextDecoder

ALPHABETS = {
    "абвгдежз": "cp1251 cp855 cp866 iso8859_5 koi8_r koi8_t koi8_u mac_cyrillic ptcp154 kz1048",
    "監視サーバ": "cp932 euc_jis_2004 euc_jisx0213 euc_jp iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_jp_2004 "
    "iso2022_jp_3 iso2022_jp_ext shift_jis shift_jis_2004 shift_jisx0213 utf_16 utf_16_be utf_16_le utf_32 utf_32_be "
    "utf_32_le utf_7 utf_8 utf_8_sig",
    "服务器发生故障": "gb18030 gb2312 gbk hz",
    "伺服器發生故障": "big5 big5hkscs cp950",
    "서버에 장애": "cp949 euc_kr iso2022_kr johab",
    "αβγδεζ": "cp1253 cp737 cp869 cp875 iso8859_7 mac_greek",
    "אבגדה": "cp1255 cp424 cp856 cp862 iso8859_8",
    "ابجد": "cp1256 cp720 iso8859_6 mac_arabic",
    "กขฃคฅ": "cp874 iso8859_11 tis_620",
    "äöüß": "cp037 cp1026 cp1140 cp1250 cp1252 cp1254 cp1257 cp1258 cp273 cp437 cp500 cp775 cp850 cp852 cp857 cp858 "
    "cp861 cp865 hp_roman8 iso8859_1 iso8859_10 iso8859_13 iso8859_14 iso8859_15 iso8859_16 iso8859_2 iso8859_4 "
    "iso8859_9 latin_1 mac_iceland mac_latin2 mac_roman mac_turkish palmos",
}


NAMED = [(codec, text) for text, names in ALPHABETS.items() for codec in names.split()]


@pytest.mark.parametrize(("codec", "text"), NAMED, ids=[codec for codec, _ in NAMED])
def test_a_named_set_is_read(codec: str, text: str) -> None:
    raw = f"{text} web-01".encode(codec)
    assert TextDecoder().decode(raw, codec.upper().replace("_", "-")) == f"{text} web-01"


@pytest.mark.parametrize(
    "name", [" utf-8 ", "'utf-8'", '"UTF8"', "nonsense", "", "a" * 1_000, "../x", "\udc80", "x\0", "zlib"]
)
def test_a_name_is_taken_as_meant_or_passed_over(name: str) -> None:
    assert TextDecoder().decode("監視".encode(), name) == "監視"


def test_guessing_ends() -> None:
    decoder, raw = TextDecoder(), "Größe".encode("cp1252")
    texts = [decoder.decode(raw, None) for _ in range(MAX_GUESSES + 1)]
    assert texts == ["Größe"] * MAX_GUESSES + ["Gr\ufffd\ufffde"]


@pytest.mark.parametrize("size", [1, 8_191, 8_192, 100_000])
def test_a_guess_looks_at_what_is_not_ascii(size: int) -> None:
    text = "x" * size + "\n" + "L'été est arrivé à Genève\n" * 1_000
    assert TextDecoder().decode(text.encode("cp1252"), None) == text


def test_looking_for_vendor_characters_ends() -> None:
    decoder, raw = TextDecoder(), "監視対象".encode("euc-jp") + b"\xad\xa1 "
    large = b"\n" * (MAX_VENDOR_BYTES - len(raw) - 2) + b"\xb4\xc6"
    texts = [decoder.decode(text, "euc-jp") for text in (large, raw, raw)]
    assert texts[1:] == ["監視対象① ", "監視対象\ufffd\ufffd "]
