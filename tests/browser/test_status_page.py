"""The status page in a real browser: it shows everything to everyone, and asks for nothing."""

import itertools

import pytest
from playwright.sync_api import Browser

from chromium import Complaints, Look, visiting
from ita_ag_oase.demo.loopback import LoopbackServer
from status_pages import address

# Two looks with nothing in common show a state in both languages, in both colours, and in wide and narrow windows; over
# all states, every two of these come together.
_LOOKS = (
    (("en", Look("light", 1_280)), ("ja", Look("dark", 360))),
    (("en", Look("dark", 360)), ("ja", Look("light", 1_280))),
    (("en", Look("light", 360)), ("ja", Look("dark", 1_280))),
)
_STATES = ("healthy", "source-failing", "lagging", "exastro-down", "backlog", "parked", "starting", "mixed")


@pytest.mark.parametrize(
    ("state", "language", "look"),
    [
        pytest.param(state, language, look, id=f"{state}, {language}, {look.scheme}, {look.width}")
        for state, looks in zip(_STATES, itertools.cycle(_LOOKS), strict=False)
        for language, look in looks
    ],
)
def test_there_is_nothing_to_complain_of(
    browser: Browser, pages: LoopbackServer, state: str, language: str, look: Look
) -> None:
    with visiting(browser, address(pages, state, language), look) as visit:
        assert visit.complaints() == Complaints()


# Cards become a table between 1,200 and 1,201.
@pytest.mark.parametrize("width", [320, 768, 1_200, 1_201, 1_920])
def test_it_fits_into_every_window(browser: Browser, pages: LoopbackServer, width: int) -> None:
    with visiting(browser, address(pages, "mixed", "en"), Look(width=width)) as visit:
        assert not visit.scrolls_sideways()


def test_a_thousand_sources_fit_into_a_narrow_window(browser: Browser, pages: LoopbackServer) -> None:
    with visiting(browser, address(pages, "thousand-sources", "en"), Look(width=360)) as visit:
        assert not visit.scrolls_sideways()


def test_its_style_is_let_in_by_its_policy(browser: Browser, pages: LoopbackServer) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with visiting(browser, address(pages, "healthy", "en"), Look(scheme)) as visit:
            grounds[scheme] = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert grounds == {"light": "rgb(244, 246, 248)", "dark": "rgb(14, 19, 25)"}


def test_a_figure_has_its_name_beside_it_in_a_narrow_window(browser: Browser, pages: LoopbackServer) -> None:
    with visiting(browser, address(pages, "parked", "en"), Look(width=360)) as visit:
        cells = visit.page.locator("tbody").first.locator("td[data-name]")
        names = cells.evaluate_all("cells => cells.map(cell => getComputedStyle(cell, '::before').content)")
    assert names == [
        '"Last success"',
        '"Last event"',
        '"Lag"',
        *['"New"', '"Known"', '"Unusable"'],
        *['"Delivered"', '"Waiting"', '"Parked"'],
    ]


def test_the_keyboard_reaches_every_link_and_shows_where_it_is(browser: Browser, pages: LoopbackServer) -> None:
    reached = []
    with visiting(browser, address(pages, "parked", "en")) as visit:
        for _ in range(visit.page.locator("a").count()):
            visit.page.keyboard.press("Tab")
            focused = visit.page.locator(":focus")
            reached.append((focused.get_attribute("href"), focused.evaluate("it => getComputedStyle(it).outlineStyle")))
    places = ["outbox", "sources", "outbox", "exastro", "store", "ledger", "agent"]
    links = ["still", *[f"#{place}" for place in places], "status.json", "metrics"]
    assert reached == [(link, "solid") for link in links]


def test_it_can_be_made_to_stand_still_and_to_go_on(browser: Browser, pages: LoopbackServer) -> None:
    start = address(pages, "healthy", "en")
    with visiting(browser, start) as visit:
        refreshes = []
        for link in ("Stop", "Start"):
            with visit.page.expect_navigation() as navigation:
                visit.page.get_by_role("link", name=link, exact=True).click()
            answer = navigation.value
            assert answer is not None
            refreshes.append((answer.url, answer.header_value("refresh")))
    assert refreshes == [(f"{start}still", None), (start, "30")]


def test_on_paper_everything_is_there_in_black_on_white(browser: Browser, pages: LoopbackServer) -> None:
    with visiting(browser, address(pages, "mixed", "en"), Look("dark", width=720)) as visit:
        visit.page.emulate_media(media="print")
        colours = visit.page.evaluate(
            "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
        )
        hidden = visit.page.evaluate(
            "[...document.querySelectorAll('body > *, main > *, main p, .refresh, td')]"
            ".filter(it => !it.checkVisibility()).map(it => it.className || it.localName)"
        )
        assert (colours, sorted(set(hidden))) == (["rgb(0, 0, 0)", "rgb(255, 255, 255)"], ["legend", "nav", "refresh"])
        assert not visit.scrolls_sideways()
