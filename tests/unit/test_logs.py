"""Log lines: what they look like, and that no secret is in them in any form."""

import base64
import html
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import httpx
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from ita_ag_oase import clock
from ita_ag_oase.agent.schedule import Troubles
from ita_ag_oase.errors import Reason, SourceUnreadable
from ita_ag_oase.observability.language import translations
from ita_ag_oase.observability.logs import MASK, Redactor, configure
from ita_ag_oase.text import ENGLISH, Text, Translations, shorten, verbatim

_log = structlog.get_logger()

REASON = Reason.NOT_JSON

# A machine with other work is no reason to fail.
UNTIMED = settings(deadline=None, max_examples=50)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, root.handlers[:], structlog.get_config())
    quiet = [logging.getLogger(name) for name in ("httpx", "httpcore", "hpack")]
    levels = [logger.level for logger in quiet]
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    structlog.configure(**before[2])
    for logger, level in zip(quiet, levels, strict=True):
        logger.setLevel(level)


def _configured(
    *secrets: str,
    level: str = "INFO",
    zone: tzinfo | None = UTC,
    is_readable: bool = False,
    translations: Translations = ENGLISH,
) -> io.StringIO:
    """Set logging up with these secrets and return what it writes to."""
    redactor = Redactor()
    for secret in secrets:
        redactor.add(secret)
    out = io.StringIO()
    configure(level=level, zone=zone, redactor=redactor, translations=translations, stream=out, is_readable=is_readable)
    return out


def _lines(out: io.StringIO) -> list[dict[str, Any]]:
    """Return the lines as JSON, without their times."""
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    for line in lines:
        del line["time"]
    return lines


def test_a_line_is_json_with_its_facts() -> None:
    out = _configured()
    _log.info("batch_accepted", code="AGT-10018", events=3, setting="監視", seconds=0.5, parked=None, ok=True)
    assert _lines(out) == [
        {
            "code": "AGT-10018",
            "events": 3,
            "setting": "監視",
            "seconds": 0.5,
            "parked": None,
            "ok": True,
            "event": "batch_accepted",
            "level": "info",
        }
    ]
    assert "監視" in out.getvalue()


def test_what_json_does_not_know_is_written_as_text() -> None:
    out = _configured()
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    _log.info("x", moment=moment, pair=("a", 1), names={"n"}, by_key={1: b"b", ("c", 2): None}, nothing=float("nan"))
    assert _lines(out) == [
        {
            "moment": "2024-01-01 00:00:00+00:00",
            "pair": ["a", 1],
            "names": ["n"],
            "by_key": {"1": "b'b'", "('c', 2)": None},
            "nothing": "nan",
            "event": "x",
            "level": "info",
        }
    ]


@pytest.mark.parametrize(
    ("name", "offset"), [("Asia/Tokyo", "+09:00"), ("America/New_York", "-05:00"), ("UTC", "+00:00")]
)
def test_times_are_of_the_zone_that_is_asked_for(name: str, offset: str) -> None:
    out = _configured(zone=ZoneInfo(name))
    earliest = int(clock.now() * 1000)
    _log.info("x")
    line = json.loads(out.getvalue())
    moment = datetime.fromisoformat(line["time"])
    assert next(iter(line)) == "time"
    assert earliest <= round(moment.timestamp() * 1000) <= clock.now() * 1000
    # Summer time of a zone that has one.
    assert line["time"][-6:] in (offset, "-04:00" if offset == "-05:00" else offset)
    assert len(line["time"]) == len("2024-01-01T00:00:00.000+09:00")


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("DEBUG", ["debug", "info", "warning", "error"]),
        ("INFO", ["info", "warning", "error"]),
        ("WARNING", ["warning", "error"]),
        ("ERROR", ["error"]),
        ("CRITICAL", []),
    ],
)
def test_lines_below_the_level_are_left_out(level: str, told: list[str]) -> None:
    out = _configured(level=level)
    for name in ("debug", "info", "warning", "error"):
        getattr(_log, name)("x")
        logging.getLogger("library").log(getattr(logging, name.upper()), "y")
    assert [line["level"] for line in _lines(out)] == [name for name in told for _ in range(2)]


def test_lines_for_people_have_no_braces_and_no_secret() -> None:
    out = _configured("hidden", is_readable=True)
    with suppress(ValueError):
        try:
            raise ValueError("of hidden")
        except ValueError:
            _log.exception("failed", detail="a hidden b")
            raise
    first, *trace = out.getvalue().splitlines()
    assert first.split()[1:] == ["[error", "]", "event=failed", "detail='a", MASK, "b'"]
    assert trace[-1] == f"ValueError: of {MASK}"


def test_what_libraries_log_comes_the_same_way() -> None:
    out = _configured("hidden")
    logger = logging.getLogger("some.library")
    logger.warning("a %s b", "hidden")
    try:
        raise ValueError("of hidden")
    except ValueError:
        logger.exception("it failed")
    plain, failed = _lines(out)
    assert plain == {
        "level": "warning",
        "event": "library_message",
        "message": f"a {MASK} b",
        "logger": "some.library",
        "text": f"a {MASK} b",
    }
    assert failed["message"] == "it failed"
    assert failed["exception"].splitlines()[-1] == f"ValueError: of {MASK}"


@pytest.mark.parametrize(
    ("number", "level"), [(5, None), (10, None), (25, "info"), (35, "warning"), (45, "error"), (60, "critical")]
)
def test_a_library_s_own_level_ends_nothing(number: int, level: str | None) -> None:
    out = _configured()
    logging.getLogger("library").log(number, "x")
    assert [line["level"] for line in _lines(out)] == ([] if level is None else [level])


@pytest.mark.parametrize("arguments", [("text",), (1, 2), ({"other": 1},)])
def test_a_library_s_wrong_format_ends_nothing(arguments: tuple[object, ...]) -> None:
    out = _configured()
    logging.getLogger("library").error("number %(n)d", *arguments)
    assert [line["text"] for line in _lines(out)] == ["number %(n)d"]


def test_what_libraries_log_at_length_is_cut() -> None:
    out = _configured()
    logging.getLogger("library").error("x" * 99_999)
    assert [line["text"] for line in _lines(out)] == ["x" * 999 + "…"]


async def test_httpx_prints_no_url() -> None:
    out = _configured(level="DEBUG")
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    async with httpx.AsyncClient(transport=transport) as client:
        await client.get("http://host/path?key=value")
    logging.getLogger("httpx").info("HTTP Request: GET %s", "http://host/path?key=value")
    logging.getLogger("httpcore.http11").debug("send_request_headers %s", "http://host/path?key=value")
    assert _lines(out) == []


def test_lines_are_utf8_whatever_the_locale_says() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    configure(level="INFO", zone=UTC, redactor=Redactor(), stream=out)
    _log.info("x", setting="監視", half="\ud800")
    out.flush()
    line = json.loads(raw.getvalue().decode("utf-8"))
    assert (line["setting"], line["half"]) == ("監視", "\ud800")


def test_a_terminal_that_cannot_show_a_character_is_shown_its_code() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    configure(level="INFO", zone=UTC, redactor=Redactor(), stream=out, is_readable=True)
    _log.info("x", setting="監")
    out.flush()
    assert b"setting=\\u76e3" in raw.getvalue()


class TestWords:
    """What a line says in words: its message and what to do, in the language."""

    @pytest.mark.parametrize(
        ("language", "message", "action"),
        [
            (
                "en",
                "n1: a mail of 9 bytes is collected with its first 3 bytes",
                "raise RESPONSE_MAX_BYTES where the whole mail is needed",
            ),
            (
                "ja",
                "n1: 9 バイトのメールのうち、先頭の 3 バイトを収集しました。",
                "メール全体が必要な場合は RESPONSE_MAX_BYTES を大きくしてください。",
            ),
        ],
    )
    def test_words_stand_behind_the_event_in_the_language(self, language: str, message: str, action: str) -> None:
        out = _configured(translations=translations(language))
        _log.warning("mail_shortened", setting="n1", size_bytes=9, kept_bytes=3)
        assert list(_lines(out)[0].items()) == [
            ("level", "warning"),
            ("event", "mail_shortened"),
            ("message", message),
            ("action", action),
            ("setting", "n1"),
            ("size_bytes", 9),
            ("kept_bytes", 3),
        ]

    def test_texts_and_errors_among_the_facts_are_told_in_the_language(self) -> None:
        out = _configured(translations=translations("ja"))
        why = Text("its compression is broken")
        err = SourceUnreadable(Text("{place}: the answer cannot be read: {error}", place="h", error=why), reason=REASON)
        _log.error("collection_failed", setting="n1", detail=err, problems=(why, "x"))
        (line,) = _lines(out)
        assert line["detail"] == "h: 応答を読み取れません。圧縮データが壊れています。"
        assert line["message"] == f"n1: ポーリングに失敗しました。{line['detail']}"
        assert line["problems"] == ["圧縮データが壊れています。", "x"]

    def test_a_line_without_one_of_its_facts_is_told_all_the_same(self) -> None:
        out = _configured()
        _log.warning("tls_not_verified")
        assert _lines(out) == [
            {
                "level": "warning",
                "event": "tls_not_verified",
                "message": "certificates are not checked, as {variable} says",
                "action": "anyone on the way can read along",
            }
        ]

    def test_a_long_text_is_cut(self) -> None:
        out = _configured()
        _log.error("x", detail=verbatim("y" * 1_000))
        assert _lines(out)[0]["detail"] == "y" * 511 + "…"

    def test_no_secret_is_in_the_words(self) -> None:
        out = _configured("hidden", "needed")
        _log.warning("mail_shortened", setting="hidden", size_bytes=9, kept_bytes=3)
        (line,) = _lines(out)
        assert line["message"] == f"{MASK}: a mail of 9 bytes is collected with its first 3 bytes"
        assert line["action"] == f"raise RESPONSE_MAX_BYTES where the whole mail is {MASK}"

    def test_lines_for_people_begin_with_the_message(self) -> None:
        out = _configured(is_readable=True, translations=translations("ja"))
        _log.info("agent_stopped")
        _log.error("collection_failed", code="AGT-10029", setting="n1", detail=Text("its compression is broken"))
        stopped, failed = (line.split(maxsplit=1)[1] for line in out.getvalue().splitlines())
        assert stopped.split() == ["[info", "]", "エージェントが停止しました。", "event=agent_stopped"]
        assert failed == (
            "[error    ] n1: ポーリングに失敗しました。圧縮データが壊れています。 event=collection_failed "
            "code=AGT-10029 setting=n1"
        )


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "wants_colours", "has_colours"),
    [(_Terminal(), True, True), (_Terminal(), False, False), (io.StringIO(), True, False)],
    ids=["terminal", "terminal without colours", "file"],
)
def test_colours_are_for_terminals(out: io.StringIO, wants_colours: bool, has_colours: bool) -> None:
    configure(level="INFO", zone=UTC, redactor=Redactor(), stream=out, is_readable=True, wants_colours=wants_colours)
    _log.info("agent_stopped")
    assert ("\x1b[" in out.getvalue(), "the agent has stopped" in out.getvalue()) == (has_colours, True)


SECRET = "s3cr/t+\"quoted\" & 'é' 監\\n\nx"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        pytest.param(f"a {SECRET} b", f"a {MASK} b", id="as it is"),
        pytest.param(json.dumps({"k": SECRET}), f'{{"k": "{MASK}"}}', id="in JSON"),
        pytest.param(
            json.dumps({"k": SECRET}, ensure_ascii=False), f'{{"k": "{MASK}"}}', id="in JSON, not ASCII alone"
        ),
        pytest.param(json.dumps(json.dumps({"k": SECRET})), f'"{{\\"k\\": \\"{MASK}\\"}}"', id="in JSON in JSON"),
        pytest.param(
            json.dumps({"k": SECRET}).replace("/", "\\/"), f'{{"k": "{MASK}"}}', id="in JSON, slashes escaped"
        ),
        pytest.param(repr({"k": SECRET}), f"{{'k': '{MASK}'}}", id="in Python's repr"),
        pytest.param(repr(f"'\"{SECRET}"), f"'\\'\"{MASK}'", id="in Python's repr among quotes"),
        pytest.param(repr(f"x{SECRET}".encode()), f"b'x{MASK}'", id="in Python's repr of bytes"),
        pytest.param(
            repr(json.dumps(SECRET, ensure_ascii=False).encode()), f"b'\"{MASK}\"'", id="in a quoted word's bytes"
        ),
        pytest.param(f"<p>{html.escape(SECRET)}</p>", f"<p>{MASK}</p>", id="in HTML"),
        pytest.param(html.escape(json.dumps(SECRET)), f"&quot;{MASK}&quot;", id="in JSON in HTML"),
        pytest.param(SECRET.encode().decode("latin-1"), MASK, id="in the wrong character set"),
        pytest.param(SECRET.encode("ascii", "ignore").decode(), MASK, id="without what is no ASCII"),
        pytest.param(base64.b64encode(SECRET.encode()).decode(), MASK, id="base64"),
        pytest.param(base64.b64encode(SECRET.encode()).decode().rstrip("="), MASK, id="base64 without padding"),
        pytest.param(base64.urlsafe_b64encode(SECRET.encode()).decode(), MASK, id="base64 for URLs"),
        pytest.param(f"http://h/{quote(SECRET, safe='')}/x", f"http://h/{MASK}/x", id="in a path"),
        pytest.param(f"http://h/{quote(SECRET)}/x", f"http://h/{MASK}/x", id="in a path, slashes kept"),
        pytest.param(urlencode({"k": SECRET, "l": 1}), f"k={MASK}&l=1", id="in a form"),
        pytest.param(quote(urlencode({"k": SECRET})), f"k%3D{MASK}", id="in a form within a query"),
        pytest.param(
            re.sub("%..", lambda code: code[0].lower(), quote(SECRET, safe="")), MASK, id="in a path, small letters"
        ),
        pytest.param(str(httpx.URL("http://h", params={"k": SECRET})), f"http://h?k={MASK}", id="in httpx's query"),
    ],
)
def test_a_secret_is_taken_out_in_every_form(text: str, redacted: str) -> None:
    redactor = Redactor()
    redactor.add(SECRET)
    assert redactor.redact(text) == redacted


def test_a_secret_is_taken_out_of_a_url_that_httpx_made_of_it() -> None:
    redactor = Redactor()
    redactor.add("p/ss w\\rd^`{|}<é>%zz%20%e")
    url = httpx.URL("http://h/p/ss w\\rd^`{|}<é>%zz%20%e/x?k=p/ss w\\rd^`{|}<é>%zz%20%e&l")
    assert redactor.redact(str(url)) == f"http://h/{MASK}/x?k={MASK}&l"


_LONG = "k7/Pq\"w2'Zx+m9=Rt5ä" * 30


@pytest.mark.parametrize("left", [4, 8, 100, 560])
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(str, id="as it is"),
        pytest.param(repr, id="repr"),
        pytest.param(json.dumps, id="JSON"),
        pytest.param(quote, id="percent-encoded"),
        pytest.param(lambda text: base64.b64encode(text.encode()).decode(), id="base64"),
    ],
)
def test_the_beginning_of_a_secret_is_taken_out_where_a_text_was_shortened(
    write: Callable[[str], str], left: int
) -> None:
    redactor = Redactor()
    redactor.add(_LONG)
    whole = write(_LONG)
    before = whole[: whole.index("k7") if "k7" in whole else 0]
    shortened = shorten(f"said: {whole}", 7 + len(before) + left)
    assert redactor.redact(f"({shortened}): check it") == f"(said: {before}{MASK}…): check it"


def test_another_secret_within_the_beginning_of_one_leaves_no_rest() -> None:
    redactor = Redactor()
    for secret in ("before-hidden-behind", "hidden"):
        redactor.add(secret)
    assert redactor.redact("(before-hidden-be…) hidden…") == f"({MASK}…) {MASK}…"


def test_what_is_shortened_elsewhere_than_in_a_secret_stays() -> None:
    redactor = Redactor()
    redactor.add("k7-secret")
    assert redactor.redact("a k7… k7-s… of k7-sand… end k7-") == f"a k7… {MASK}… of k7-sand… end k7-"


def test_a_secret_across_the_end_of_a_long_text_is_taken_out() -> None:
    out = _configured(_LONG)
    _log.error("x", detail=verbatim("y" * 500 + _LONG))
    logging.getLogger("library").error("%s%s", "y" * 990, _LONG)
    own, library = _lines(out)
    assert (own["detail"], library["text"]) == ("y" * 500 + f"{MASK}…", "y" * 990 + f"{MASK}…")


def test_an_unexpected_error_shows_no_secret() -> None:
    out = _configured(_LONG)
    try:
        raise RuntimeError("y" * 200 + _LONG)
    except RuntimeError as err:
        Troubles(failed="x", recovered="y").note_failure(err, "AGT-10001")
    (line,) = _lines(out)
    assert (line["detail"], line["exception"].splitlines()[-1]) == (
        f"RuntimeError('{'y' * 200}{MASK}…",
        f"RuntimeError: {'y' * 200}{MASK}",
    )


def test_a_secret_is_taken_out_without_the_white_space_around_it_too() -> None:
    redactor = Redactor()
    redactor.add(" k7-secret\n")
    assert redactor.redact("a k7-secret b k7-secret\n") == f"a {MASK} b{MASK}"


@UNTIMED
@given(before=st.text(max_size=8), secret=st.text(min_size=8, max_size=30), behind=st.text(max_size=8))
def test_a_secret_is_taken_out_of_base64_around_it(before: str, secret: str, behind: str) -> None:
    redactor = Redactor()
    redactor.add(secret)
    coded = base64.b64encode(f"{before}{secret}{behind}".encode()).decode()
    redacted = redactor.redact(f"Authorization: Basic {coded}")
    assert MASK in redacted
    # What is left of it gives away no more than the characters at the secret's ends.
    left = redacted.removeprefix("Authorization: Basic ").split(MASK)
    assert sum(map(len, left)) <= len(base64.b64encode(f"{before}{behind}".encode())) + 8


@UNTIMED
@given(secret=st.text(min_size=1), text=st.text(), behind=st.text())
def test_every_line_parses_and_shows_no_secret(secret: str, text: str, behind: str) -> None:
    out = _configured(secret)
    _log.info("x", detail=f"{text}{secret}{behind}", listed=[secret], by_key={secret: secret}, number=1)
    (line,) = out.getvalue().split("\n")[:-1]
    facts = json.loads(line)
    assert facts["listed"] == [MASK]
    if len(secret) >= 4:
        assert secret not in facts["detail"].replace(MASK, "")
        assert facts["by_key"] == {MASK: MASK}


@pytest.mark.parametrize(
    "secret",
    ["1", "true", "n", ",", '"', ":", "{", "\\", "info", "event", "5000", "null", "0.5", "x", "é", " "],
)
def test_a_secret_that_json_is_made_of_breaks_no_line(secret: str) -> None:
    out = _configured(secret)
    _log.info("x", events=5000, seconds=0.5, ok=True, none=None, detail='a\n "b": {1, 2}\\', one=1)
    (line,) = _lines(out)
    assert sorted(line) == ["detail", "event", "events", "level", "none", "ok", "one", "seconds"]


@pytest.mark.parametrize(
    ("secret", "text", "redacted"),
    [
        pytest.param("ab", "ab cab abc a-ab-b 'ab'", f"{MASK} cab abc a-{MASK}-b '{MASK}'", id="short: alone only"),
        pytest.param("abc", "abc abcd", f"{MASK} abcd", id="three characters"),
        pytest.param("abcd", "abcd xabcdx", f"{MASK} x{MASK}x", id="four characters: everywhere"),
        pytest.param("é", "é éa", f"{MASK} éa", id="one letter"),
    ],
)
def test_short_secrets_are_taken_out_where_they_stand_alone(secret: str, text: str, redacted: str) -> None:
    redactor = Redactor()
    redactor.add(secret)
    assert redactor.redact(text) == redacted


def test_a_secret_within_another_leaves_no_rest() -> None:
    redactor = Redactor()
    redactor.add("hidden")
    redactor.add("hidden-longer")
    assert redactor.redact("hidden hidden-longer") == f"{MASK} {MASK}"


@pytest.mark.parametrize("secret", ["", None])
def test_an_empty_secret_is_none(secret: str | None) -> None:
    redactor = Redactor()
    redactor.add(secret)
    assert redactor.redact("a text") == "a text"


def test_a_secret_that_is_learned_later_is_taken_out_too() -> None:
    redactor = Redactor()
    out = io.StringIO()
    configure(level="INFO", zone=UTC, redactor=redactor, stream=out, is_readable=False)
    _log.info("x", detail="first second")
    redactor.add("first")
    redactor.add("second")
    _log.info("x", detail="first second")
    assert [line["detail"] for line in _lines(out)] == ["first second", f"{MASK} {MASK}"]


def _web_token(number: int) -> str:
    parts = ({"alg": "RS256"}, {"sub": "監視", "n": number}, {"signature": "?" * 200})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(_web_token(1), id="whole"),
        pytest.param(_web_token(1)[:100], id="cut"),
        pytest.param(_web_token(1)[:20], id="cut in its head"),
        pytest.param(_web_token(1)[:8], id="cut in its first characters"),
        pytest.param(base64.b64encode(_web_token(1).encode()).decode(), id="base64"),
    ],
)
def test_access_tokens_are_known_by_their_looks(form: str) -> None:
    assert Redactor().redact(f"Bearer {form}, and more") == f"Bearer {MASK}, and more"


@pytest.mark.parametrize("before", ["Bearer ", "Bearer: ", "token "])
def test_access_tokens_are_known_within_base64(before: str) -> None:
    coded = base64.b64encode(f"{before}{_web_token(1)}".encode()).decode()
    left = Redactor().redact(coded).removesuffix(MASK)
    # A character holds a part of the last one before the token.
    assert coded.startswith(left)
    assert len(left) <= len(base64.b64encode(before.encode()))


def test_memory_does_not_grow_with_every_access_token() -> None:
    redactor = Redactor()
    redactor.add("password")
    before = len(vars(redactor)["_long_forms"])
    for number in range(100):
        redactor.add(_web_token(number))
    assert len(vars(redactor)["_long_forms"]) == before
    assert redactor.redact(f"password {_web_token(7)}") == f"{MASK} {MASK}"
