"""A headless Chromium, Debian's own, that goes nowhere but to this machine, and what it has to complain of."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

PROGRAM = Path("/usr/bin/chromium")
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser with a new profile, and end it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=_ARGUMENTS)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Look:
    """How a person looks at a page: in which colours, and through a window of which width."""

    scheme: Any = "light"
    width: int = 1_280


@dataclass(frozen=True)
class Complaints:
    """What a browser and axe have against a page.

    `console` is what it said and what failed to load, `elsewhere` what it asked other places than the page's own for,
    `violations` the rules of accessibility that are broken, and where.
    """

    console: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    scrolls_sideways: bool = False


class Visit:
    """A page in a window of its own, with what happens to it noted from the start."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._console: list[str] = []
        self._requests: list[str] = []
        page.on("console", lambda message: self._console.append(message.text))
        page.on("pageerror", lambda error: self._console.append(str(error)))
        page.on("requestfailed", lambda request: self._console.append(f"not loaded: {request.url}"))
        page.on("request", lambda request: self._requests.append(request.url))

    def complaints(self) -> Complaints:
        """Return what there is to complain of so far."""
        here = urlsplit(self.page.url).netloc
        return Complaints(
            console=[*self._console],
            elsewhere=[url for url in self._requests if urlsplit(url).netloc not in (here, "")],
            violations=_violations(self.page),
            scrolls_sideways=self.scrolls_sideways(),
        )

    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than its window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


@contextmanager
def visiting(browser: Browser, url: str, look: Look = Look()) -> Iterator[Visit]:
    """Open a page in a window of its own, and close it."""
    context = browser.new_context(color_scheme=look.scheme, viewport={"width": look.width, "height": 800})
    visit = Visit(context.new_page())
    visit.page.goto(url)
    yield visit
    context.close()


def _violations(page: Page) -> list[str]:
    """Return what breaks axe's rules, those about contrast also where it is not sure."""
    answer = Axe().run(page, options={"resultTypes": ["violations", "incomplete"]}).response
    unsure = [rule for rule in answer["incomplete"] if rule["id"] == "color-contrast"]
    return [f"{rule['id']}: {node['html']}" for rule in (*answer["violations"], *unsure) for node in rule["nodes"]]
