"""What `check` finds out about Exastro: the way there, the credentials, the rights, the settings, the clock."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ita_ag_oase import clock
from ita_ag_oase.agent.connections import exastro_destination, exastro_tls, open_exastro
from ita_ag_oase.commands.findings import Check, Finding, Report, State
from ita_ag_oase.commands.kept import Kept
from ita_ag_oase.commands.way import Fields, check_way
from ita_ag_oase.errors import AgentError, ExastroUnavailable, Reason
from ita_ag_oase.exastro.client import ExastroClient
from ita_ag_oase.settings import Settings
from ita_ag_oase.text import Text

# For one answer of Exastro; the agent itself waits longer.
ANSWER_SECONDS = 15.0
# A Date header has whole seconds, and some time passes until it is read.
_CLOCK_SECONDS = 5.0

TOKEN_LOST = Text(
    "Exastro gave another refresh token in exchange, and there is no store that could keep it: the configured one may "
    "be used up"
)
TOKEN_LOST_ACTION = Text(
    "where the agent is refused, issue a new token, set EXASTRO_REFRESH_TOKEN, and start the agent first"
)
_SUBJECT = "Exastro"


class ExastroCheck:
    """Looks at Exastro as the configuration has it; `difference` is how far this clock is ahead of Exastro's."""

    def __init__(self, settings: Settings, kept: Kept, report: Report, on_secret: Callable[[str], None]) -> None:
        self._settings = settings
        self._kept = kept
        self._report = report
        self._on_secret = on_secret
        self.difference: float | None = None

    async def fetch_rows(self, names: Sequence[str]) -> list[dict[str, Any]] | None:
        """Report on the way up to the settings, and return their rows; None where they cannot be had."""
        settings = self._settings
        fields = Fields("EXASTRO_URL", _proxy_variable(settings), "EXASTRO_CA_FILE", "EXASTRO_TLS_VERIFY")
        async for found in check_way(_SUBJECT, exastro_destination(settings), exastro_tls(settings), fields):
            self._report.add(found)
            if found.state is State.FAILED:
                self._skip(Check.AUTHENTICATION, Check.RIGHTS)
                return None
        on_secret = self._on_secret
        async with open_exastro(settings, self._kept, on_secret=on_secret, on_date=self._note_date) as client:
            rows = await self._authenticated(client, names)
        if self._kept.has_lost_a_fact:
            self._report.add(Finding(Check.AUTHENTICATION, _SUBJECT, State.WARNING, TOKEN_LOST, TOKEN_LOST_ACTION))
        return rows

    def report_clock(self) -> None:
        """Report how far the two clocks are apart."""
        difference = self.difference
        if difference is None:
            self._skip(Check.CLOCK)
            return
        if abs(difference) < _CLOCK_SECONDS:
            message = Text("this machine's clock and Exastro's agree")
            self._report.add(Finding(Check.CLOCK, _SUBJECT, State.OK, message))
            return
        seconds = round(abs(difference))
        message = (
            Text("this machine's clock is {seconds} s ahead of Exastro's", seconds=seconds)
            if difference > 0
            else Text("this machine's clock is {seconds} s behind Exastro's", seconds=seconds)
        )
        action = Text("set both by NTP: events may expire too early or too late")
        self._report.add(Finding(Check.CLOCK, _SUBJECT, State.WARNING, message, action))

    async def _authenticated(self, client: ExastroClient, names: Sequence[str]) -> list[dict[str, Any]] | None:
        uses_token = self._settings.refresh_token is not None
        try:
            if uses_token:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await client.authenticate()
                self._report.add(
                    Finding(Check.AUTHENTICATION, _SUBJECT, State.OK, Text("the refresh token is accepted"))
                )
        except (AgentError, TimeoutError) as err:
            self._report.add(Finding(Check.AUTHENTICATION, _SUBJECT, State.FAILED, _told(err), _token_action(err)))
            self._skip(Check.RIGHTS)
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                rows = await client.fetch_settings(names)
        except (AgentError, TimeoutError) as err:
            self._report.add(self._refused(err, uses_token=uses_token))
            return None
        if not uses_token:
            message = Text("user name and password are accepted")
            self._report.add(Finding(Check.AUTHENTICATION, _SUBJECT, State.OK, message))
        self._report.add(Finding(Check.RIGHTS, _SUBJECT, State.OK, Text("the settings can be fetched")))
        return rows

    def _refused(self, err: AgentError | TimeoutError, *, uses_token: bool) -> Finding:
        status = err.status if isinstance(err, ExastroUnavailable) else None
        if status == 401 and not uses_token:
            action = Text(
                "check EXASTRO_USERNAME and EXASTRO_PASSWORD, and that user's role in the workspace {workspace}",
                workspace=self._settings.exastro_workspace_id,
            )
            return Finding(Check.AUTHENTICATION, _SUBJECT, State.FAILED, _told(err), action)
        return Finding(Check.RIGHTS, _SUBJECT, State.FAILED, _told(err), self._rights_action(err, status))

    def _rights_action(self, err: AgentError | TimeoutError, status: int | None) -> Text | None:
        workspace = self._settings.exastro_workspace_id
        if status in (401, 403):
            return Text(
                "have the user given a role with the menus of the OASE agent in the workspace {workspace}, or check "
                "EXASTRO_WORKSPACE_ID",
                workspace=workspace,
            )
        if status == 404:
            return Text("check EXASTRO_ORGANIZATION_ID, EXASTRO_WORKSPACE_ID and the path in EXASTRO_URL")
        if isinstance(err, AgentError) and err.reason is Reason.MAINTENANCE:
            return Text("check again when that is over")
        return Text("check EXASTRO_URL, and how Exastro and what lies before it are doing")

    def _skip(self, *checks: Check) -> None:
        for check in checks:
            self._report.add(Finding(check, _SUBJECT, State.SKIPPED, _SKIPPED[check]))

    async def _note_date(self, date: float) -> None:
        self.difference = clock.now() - date


_SKIPPED = {
    Check.AUTHENTICATION: Text("authentication"),
    Check.RIGHTS: Text("the right to the settings"),
    Check.CLOCK: Text("the clock, since Exastro's is not known"),
}


def _proxy_variable(settings: Settings) -> str:
    return "HTTPS_PROXY" if settings.exastro_url.startswith("https:") else "HTTP_PROXY"


def _told(err: AgentError | TimeoutError) -> Text:
    return Text("{error}", error=err) if isinstance(err, AgentError) else Text("no answer in time")


def _token_action(err: AgentError | TimeoutError) -> Text | None:
    reason = err.reason if isinstance(err, AgentError) else Reason.TIMEOUT
    if reason is Reason.UNAUTHORIZED:
        return Text("check EXASTRO_REFRESH_TOKEN or the file in EXASTRO_REFRESH_TOKEN_FILE")
    if reason is Reason.NOT_EXASTRO:
        # The error itself says so.
        return None
    if reason in (Reason.STORE_DAMAGED, Reason.STORE_FAILED, Reason.STORE_FULL, Reason.STORE_LOCKED):
        return Text("mend the store first")
    return Text("check EXASTRO_URL, and how Exastro and what lies before it are doing")
