"""The status page as HTML: what it says in each state and language, and what it never holds."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pytest

from ita_ag_oase.observability.language import translations
from ita_ag_oase.observability.page import STYLE, headers, render, style_hash
from ita_ag_oase.status import Status
from statuses import (
    BACKLOG,
    EXASTRO_DOWN,
    HEALTHY,
    HOSTILE_NAME,
    LAGGING,
    LONG_NAME,
    MIXED,
    NAME_WITHOUT_BREAKS,
    NOW,
    PARKED,
    REFUSED,
    SOURCE_FAILING,
    STARTING,
    STATES,
    UNREACHABLE,
    many,
    working,
)

TOKYO = ZoneInfo("Asia/Tokyo")
# A thousand sources differ from fifty in nothing but the time that it takes to look at them.
_SEVERAL = {name: status for name, status in STATES.items() if name != "thousand-sources"}
# HTML's elements without an end.
_VOID = ("link", "meta")


@dataclass
class Element:
    """An element with what is in it; `parts` are texts and elements in order."""

    name: str
    attributes: dict[str, str | None]
    parts: list["str | Element"] = field(default_factory=list)

    def all(self, name: str | None = None) -> Iterator["Element"]:
        """Return the elements inside, at any depth: all, or those of a name."""
        for part in self.parts:
            if isinstance(part, Element):
                if name in (None, part.name):
                    yield part
                yield from part.all(name)

    def by_id(self, identity: str) -> "Element":
        """Return the one element with this id."""
        (found,) = [element for element in self.all() if element.attributes.get("id") == identity]
        return found

    @property
    def text(self) -> str:
        """What can be read in it, with single blanks."""
        return " ".join("".join(self._texts()).split())

    def _texts(self) -> Iterator[str]:
        for part in self.parts:
            yield from [part] if isinstance(part, str) else part._texts()


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("document", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self._open[-1].parts.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].parts.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].parts.append(data)


def page(status: Status, language: str = "en", *, refreshes: bool = True) -> Element:
    """Return the page's elements, which must be nested well."""
    parser = _Parser()
    parser.feed(render(status, translations(language), TOKYO, refreshes=refreshes))
    parser.close()
    assert parser._open == [parser.root]
    return parser.root


def rows_of(found: Element) -> list[list[str]]:
    """Return the cells of the table of sources, row by row, below its headings."""
    rows = [row for body in found.by_id("sources").all("tbody") for row in body.all("tr")]
    return [[cell.text for cell in row.all() if cell.name in ("th", "td")] for row in rows]


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("status", _SEVERAL.values(), ids=_SEVERAL)
class TestEverywhere:
    def test_the_language_is_that_of_the_words(self, status: Status, language: str) -> None:
        (html,) = page(status, language).all("html")
        assert html.attributes["lang"] == language

    def test_headings_are_in_order(self, status: Status, language: str) -> None:
        levels = [element.name for element in page(status, language).all() if element.name in ("h1", "h2", "h3")]
        assert levels == ["h1", *["h2"] * 7]

    def test_nothing_is_fetched_or_run(self, status: Status, language: str) -> None:
        elements = list(page(status, language).all())
        assert {element.name for element in elements} & {"script", "iframe", "object", "embed", "img", "form"} == set()
        assert [name for element in elements for name in element.attributes if name.startswith(("on", "style"))] == []
        places = {element.attributes.get(name) or "" for element in elements for name in ("href", "src")}
        assert {place for place in places if not place.startswith(("#", "data:image/svg+xml,"))} == {
            "",
            "still",
            "status.json",
            "metrics",
        }

    def test_what_is_referred_to_is_there_once(self, status: Status, language: str) -> None:
        elements = list(page(status, language).all())
        ids = [element.attributes["id"] for element in elements if "id" in element.attributes]
        links = {(element.attributes.get("href") or "").partition("#")[2] for element in elements} - {""}
        labels = {element.attributes.get("aria-labelledby") for element in elements} - {None}
        assert len(ids) == len(set(ids))
        assert (links | labels) - set(ids) == set()


def test_a_healthy_agent_is_told_in_english() -> None:
    found = page(HEALTHY)
    assert [section.text for name in ("title", "header", "nav", "footer") for section in found.all(name)] == [
        "Working · oase-agent-tokyo-1",
        "Exastro OASE agent oase-agent-tokyo-1 2026-04-15 10:30:12 JST Refreshes itself every 30 s. Stop",
        "Sources 5 work Outbox empty Exastro reachable Store 4% used Ledger balances Agent running",
        "Times are in JST. For programs: /status.json /metrics",
    ]
    assert [found.by_id(name).text for name in ("outbox", "exastro", "store", "ledger", "agent")] == [
        "Outbox empty Waiting none Longest wait none Delivery takes none Parked none",
        (
            "Exastro reachable Address http://platform-auth:8000 Last answer 3 s ago 10:30:09 "
            "Settings fetched 31 min ago 09:58:32 Access token ends in 4 min 10:34:32 "
            "Agent's clock agrees with Exastro's"
        ),
        (
            "Store 4% used Used 39.3 MiB of 1.0 GiB Free on the volume 8.3 GiB "
            "File /storage/org001/ws01/sqlite/ag_oase_oase-agent-tokyo-1.sqlite3"
        ),
        "Ledger balances Collected 28,972 Delivered 28,972 Dropped by a person 0 Lost with a damaged store 0",
        (
            "Agent running Name oase-agent-tokyo-1 Workspace ws01 Version 2.7.1 "
            "Started 12 d ago 2026-04-03 00:54 Polls every 5 s"
        ),
    ]


def test_a_healthy_agent_is_told_in_japanese() -> None:
    found = page(HEALTHY, "ja")
    assert [section.text for name in ("title", "header", "nav", "footer") for section in found.all(name)] == [
        "正常 · oase-agent-tokyo-1",
        "Exastro OASE エージェント oase-agent-tokyo-1 2026-04-15 10:30:12 JST 30 秒ごとに自動更新 停止",
        "収集元 5 件が正常 アウトボックス 空 Exastro 接続可 ストア 使用率 4% 収支 一致 エージェント 稼働中",
        "時刻のタイムゾーン: JST プログラム用: /status.json /metrics",
    ]
    assert rows_of(found)[-1] == [
        "障害通知メール メール",
        "正常",
        "4 秒前 10:30:08",
        "3 時間前 07:20:12",
        "4 秒",
        *["459", "688", "0"],
        *["1,377", "0", "0"],
    ]


def test_what_fails_comes_first_with_its_remedy() -> None:
    assert rows_of(page(SOURCE_FAILING))[:3] == [
        [
            "Zabbix production",
            "failing",
            "23 min ago 10:07:02",
            "4 min ago 10:25:52",
            "23 min",
            *["6,068", "9,102", "0"],
            *["18,204", "0", "0"],
        ],
        [
            f"{REFUSED.detail} AGT-10029 24 failures in a row within 23 min latest 18 s ago 10:29:54",
        ],
        [
            "Alertmanager",
            "working",
            "4 s ago 10:30:08",
            "19 h ago 2026-04-14 14:46",
            "4 s",
            *["970", "1,455", "0"],
            *["2,911", "0", "0"],
        ],
    ]


def test_sources_that_lag_are_counted() -> None:
    assert page(LAGGING).by_id("sources").text.startswith("Sources 1 of 5 lags ")


def test_sources_are_ordered_by_state_then_name() -> None:
    assert [row[1] for row in rows_of(page(MIXED)) if len(row) > 1] == [
        "failing",
        "unusable",
        "pending",
        "working",
        "working",
    ]


def test_a_failure_that_is_over_is_told_as_the_last_one() -> None:
    rows = rows_of(page(MIXED))
    after_grafana = rows[[row[0] for row in rows].index("Grafana") + 1]
    assert after_grafana == [
        f"Last error: {REFUSED.detail} AGT-10029 24 failures in a row within 16 min latest 2 h ago 08:16:52",
    ]


@pytest.mark.parametrize(
    ("status", "place", "text"),
    [
        (
            PARKED,
            "outbox",
            (
                "Outbox 3 parked Waiting 14 events in 2 groups, 9.6 KiB Longest wait 2 s "
                "Delivery takes about 1 s, at the present rate Parked 3 events in 1 group "
                "ita-ag-oase outbox shows what is parked and why. It can send it again or drop it."
            ),
        ),
        (
            BACKLOG,
            "outbox",
            (
                "Outbox 128,455 waiting Waiting 128,455 events in 1,804 groups, 89.0 MiB Longest wait 46 min "
                "Delivery takes about 9 min, at the present rate Parked none"
            ),
        ),
        (
            EXASTRO_DOWN,
            "outbox",
            (
                "Outbox 3,481 waiting Waiting 3,481 events in 212 groups, 2.3 MiB Longest wait 23 min "
                "Delivery takes not known yet Parked none"
            ),
        ),
        (
            EXASTRO_DOWN,
            "exastro",
            (
                "Exastro not reachable Address http://platform-auth:8000 Last answer 23 min ago 10:07:08 "
                "Settings fetched 31 min ago 09:58:32 Access token ends none Agent's clock agrees with Exastro's "
                f"{UNREACHABLE.detail} AGT-00004 24 failures in a row within 23 min latest 18 s ago 10:29:54"
            ),
        ),
        (
            MIXED,
            "store",
            (
                "Store not working Used 1,020 MiB of 1.0 GiB Free on the volume 8.3 GiB "
                "File /storage/org001/ws01/sqlite/ag_oase_oase-agent-tokyo-1.sqlite3 "
                "the volume of the store is full: make room on it "
                "AGT-10027 24 failures in a row within 23 min latest 18 s ago 10:29:54"
            ),
        ),
        (STARTING, "sources", "Sources none Here is a line for each source, once the settings are known."),
        (STARTING, "outbox", "Outbox not known"),
        (
            STARTING,
            "exastro",
            (
                "Exastro not asked yet Address http://platform-auth:8000 Last answer none Settings fetched none "
                "Access token ends none Agent's clock not compared yet"
            ),
        ),
        (STARTING, "store", "Store not open"),
        (STARTING, "ledger", "Ledger not known"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_part_tells_how_it_is_doing(status: Status, place: str, text: str) -> None:
    assert page(status).by_id(place).text == text


@pytest.mark.parametrize(
    ("difference", "told"),
    [(4.9, "agrees with Exastro's"), (5.0, "5 s ahead of Exastro's"), (-7_200.0, "2 h behind Exastro's")],
)
def test_clocks_are_compared(difference: float, told: str) -> None:
    status = replace(HEALTHY, exastro=replace(HEALTHY.exastro, clock_difference_seconds=difference))
    assert page(status).by_id("exastro").text.endswith(f"Agent's clock {told}")


def test_the_verdict_names_a_few_sources_and_counts_the_rest() -> None:
    assert page(many(100)).by_id("verdict").text == (
        "Failing Something fails and needs attention. 10 of 100 sources fail: "
        "Source 0010, Source 0020, Source 0030, Source 0040, Source 0050 and 5 more"
    )


@pytest.mark.parametrize("name", [HOSTILE_NAME, LONG_NAME, NAME_WITHOUT_BREAKS])
def test_a_name_stays_what_it_is(name: str) -> None:
    found = page(replace(HEALTHY, agent=name, workspace=name, sources=(working(name),)))
    isolated = [element.text for element in found.all("bdi")]
    assert isolated.count(name) == 4


def test_what_no_page_can_hold_is_replaced() -> None:
    found = page(replace(HEALTHY, agent="a\x00b\ud800c\x1b[2Jd"))
    (title,) = found.all("title")
    assert title.text == "Working · a\ufffdb\ufffdc\ufffd[2Jd"


def test_a_time_beyond_the_calendar_is_left_out() -> None:
    status = replace(HEALTHY, exastro=replace(HEALTHY.exastro, token_until=NOW + 1e15))
    assert "Access token ends none" in page(status).by_id("exastro").text


def test_times_are_those_of_the_zone_with_their_offset() -> None:
    (time, *_) = page(HEALTHY).all("time")
    assert time.attributes == {"datetime": "2026-04-15T10:30:12+09:00"}


def test_a_thousand_sources_fit_into_a_page() -> None:
    assert len(render(many(1_000), translations("ja"), TOKYO).encode()) < 1_000_000


def test_the_style_is_the_one_that_the_policy_allows() -> None:
    (style,) = page(HEALTHY).all("style")
    digest = base64.b64encode(hashlib.sha256("".join(style._texts()).encode()).digest()).decode()
    assert "".join(style._texts()) == STYLE
    assert style_hash() == f"sha256-{digest}"
    assert headers() == {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Refresh": "30",
    }


def test_a_page_that_stands_still_leads_back_to_the_other() -> None:
    (header,) = page(HEALTHY, refreshes=False).all("header")
    assert [(link.attributes["href"], link.text) for link in header.all("a")] == [("./", "Start")]
    assert headers().keys() - headers(refreshes=False).keys() == {"Refresh"}
