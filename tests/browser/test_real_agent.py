"""The status page of the real agent in a real browser."""

from playwright.sync_api import Browser

from chromium import Complaints, visiting
from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.demo.loopback import Reply
from support import Deploy, ListSource, ScriptedSource, StatusPage, free_port


def test_a_source_that_fails_and_parked_events_are_on_the_page(browser: Browser, deploy: Deploy) -> None:
    broken = ScriptedSource("broken", lambda _: Reply(status=503))
    port = free_port()
    with ListSource("alarms", 3) as source, broken, DemoExastro([source.row, broken.row]) as exastro:
        exastro.refuses = lambda event: event["id"] == 3
        agent = deploy(exastro, source.name, broken.name, STATUS_PORT=str(port)).start()
        agent.wait_for_line("batch_parked")
        agent.wait_for_line("collection_failed")
        agent.wait_until(lambda: StatusPage(port).status["outbox"]["parked_events"], "the page to know of it")
        with visiting(browser, f"http://127.0.0.1:{port}/") as visit:
            complaints = visit.complaints()
            verdict = visit.page.locator("#verdict").inner_text()
            rows = visit.page.locator("#sources tbody tr:first-child").all_inner_texts()
    assert complaints == Complaints()
    assert [line for line in verdict.splitlines() if line] == [
        "Failing",
        "Something fails and needs attention.",
        "1 of 2 sources fails: broken",
        f"{broken.url} answered 503 Service Unavailable: it cannot serve now",
        "1 event is parked and does not reach Exastro.",
        "ita-ag-oase outbox shows them with the reasons. Once the cause is mended, it has them sent again.",
    ]
    assert [row.split()[:2] for row in rows] == [["broken", "failing"], ["alarms", "working"]]
