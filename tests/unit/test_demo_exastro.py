"""The demo's Exastro answers as protocol sections 1.1 to 1.5 say."""

import base64
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ita_ag_oase import clock
from ita_ag_oase.demo.exastro import (
    ORGANIZATION,
    PASSWORD,
    REFRESH_TOKEN,
    USERNAME,
    WORKSPACE,
    DemoExastro,
    SavedEvent,
    setting_row,
)
from ita_ag_oase.demo.loopback import Request
from ita_ag_oase.exastro import wire
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.exastro.wire import Verdict
from ita_ag_oase.model import ConnectionMethod, Group, RequestMethod
from plain_exastro import PlainExastro

NOW = 1_704_034_800
API = f"/api/{ORGANIZATION}/workspaces/{WORKSPACE}/oase_agent"
TOKENS = f"/auth/realms/{ORGANIZATION}/protocol/openid-connect/token"
FORM = {"client_id": f"_{ORGANIZATION}-api", "grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN}
ROWS = [
    setting_row("n1", "http://source/n1"),
    setting_row("n2", "http://source/n2"),
    setting_row("discarded", "http://source/n3", DISUSE_FLAG="1"),
]
IDS = {row["EVENT_COLLECTION_SETTINGS_NAME"]: row["EVENT_COLLECTION_SETTINGS_ID"] for row in ROWS}
NAMES = {setting_id: name for name, setting_id in IDS.items()}


@dataclass
class Counterpart:
    """Exastro with a client that is allowed in."""

    exastro: DemoExastro
    client: httpx.Client

    def post(self, *groups: Any) -> httpx.Response:
        return self.client.post(f"{API}/events", json={"events": list(groups)})

    def told(self, *groups: Any) -> tuple[int, str, list[str] | None]:
        """Return an answer's status and result, and the codes of its messages."""
        response = self.post(*groups)
        answer = response.json()
        messages = answer.get("data")
        codes = None if messages is None else [message[:9] for message in messages]
        return response.status_code, answer["result"], codes

    @property
    def saved(self) -> list[tuple[str, str, int, Any]]:
        """What was saved, in order."""
        return [
            (event.setting_name, event.agent_name, event.fetched_time - NOW, event.event["id"])
            for event in self.exastro.saved
        ]


def _group(name: str | None = "n1", after: int = 0, *ids: Any, **members: Any) -> dict[str, Any]:
    """Return a group that was fetched so many seconds after now."""
    identity = {} if name is None else {"event_collection_settings_name": name}
    return {
        "fetched_time": NOW + after,
        **identity,
        "agent": {"name": "a1", "version": "2.7.1"},
        "event": [{"id": number, "_exastro_oase_event_id": str(number)} for number in ids],
        **members,
    }


class Direct(httpx.BaseTransport):
    """Hands requests to an Exastro without a socket between them."""

    def __init__(self, exastro: DemoExastro) -> None:
        self._exastro = exastro

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path, _, query = request.url.raw_path.decode().partition("?")
        reply = self._exastro._handle(Request(request.method, path, query, dict(request.headers), request.read()))
        if reply.is_cut:
            raise httpx.RemoteProtocolError("cut")
        return httpx.Response(reply.status, headers={"Content-Type": reply.content_type}, content=reply.body)


def _client_of(exastro: DemoExastro, **options: Any) -> httpx.Client:
    return httpx.Client(base_url="http://exastro.test", transport=Direct(exastro), **options)


@pytest.fixture
def counterpart() -> Iterator[Counterpart]:
    exastro = DemoExastro(ROWS, now=lambda: NOW)
    with _client_of(exastro, auth=(USERNAME, PASSWORD)) as client:
        yield Counterpart(exastro, client)


# 1.1 Authentication


def test_refresh_token_is_exchanged_for_an_access_token_that_opens_the_api() -> None:
    exastro = DemoExastro(ROWS)
    with _client_of(exastro) as client:
        answer = client.post(TOKENS, data=FORM)
        grant = answer.json()
        token = grant.pop("access_token")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        assert grant == {
            "expires_in": 300,
            "refresh_expires_in": 0,
            "refresh_token": REFRESH_TOKEN,
            "token_type": "Bearer",
        }
        bearer = {"Authorization": f"Bearer {token}"}
        assert client.post(f"{API}/events", json={"events": []}, headers=bearer).status_code == 200


@pytest.mark.parametrize(
    "form",
    [
        {**FORM, "refresh_token": "wrong"},
        {**FORM, "refresh_token": ""},
        {**FORM, "client_id": "_other-org-api"},
        {**FORM, "grant_type": "password"},
        {},
    ],
    ids=["token", "no token", "client", "grant", "nothing"],
)
def test_bad_refresh_token_is_an_invalid_grant(form: dict[str, str]) -> None:
    exastro = DemoExastro(ROWS)
    with _client_of(exastro) as client:
        answer = client.post(TOKENS, data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert exastro.tokens_issued == 0


def test_rotated_refresh_token_replaces_the_one_before() -> None:
    exastro = DemoExastro(ROWS, rotates_tokens=True)
    with _client_of(exastro) as client:
        following = client.post(TOKENS, data=FORM).json()["refresh_token"]
        assert client.post(TOKENS, data=FORM).status_code == 400
        assert client.post(TOKENS, data={**FORM, "refresh_token": following}).status_code == 200
        assert client.post(TOKENS, data={**FORM, "refresh_token": following}).status_code == 400


@pytest.mark.parametrize("how", ["expired", "revoked"])
def test_access_token_ends(how: str) -> None:
    exastro = DemoExastro(ROWS, token_seconds=0 if how == "expired" else 300)
    with _client_of(exastro) as client:
        token = client.post(TOKENS, data=FORM).json()["access_token"]
        if how == "revoked":
            exastro.revoke_access_tokens()
        answer = client.post(f"{API}/events", json={"events": []}, headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["result"]) == (401, "401-00001")


@pytest.mark.parametrize("path", ["events", "event_collection/settings"])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer never-issued",
        f"Bearer {REFRESH_TOKEN}",
        f"Basic {base64.b64encode(f'{USERNAME}:wrong'.encode()).decode()}",
        f"Basic {base64.b64encode(f'wrong:{PASSWORD}'.encode()).decode()}",
        f"Digest {base64.b64encode(f'{USERNAME}:{PASSWORD}'.encode()).decode()}",
    ],
    ids=["none", "unknown token", "refresh token", "password", "user", "digest"],
)
def test_nobody_gets_in_without_credentials(authorization: str | None, path: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    exastro = DemoExastro(ROWS)
    with _client_of(exastro) as client:
        answer = client.post(f"{API}/{path}", json={"events": [_group("n1", 0, 1)]}, headers=headers)
    assert (answer.status_code, answer.json()["result"], exastro.saved) == (401, "401-00001", [])


# 1.2 Answers


def test_success_has_all_members_of_an_answer(counterpart: Counterpart) -> None:
    answer = counterpart.post(_group("n1", 0, 1))
    members = answer.json()
    assert isinstance(members.pop("ts"), str)
    assert (answer.status_code, members) == (200, {"result": "000-00000", "message": "SUCCESS", "data": []})


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"no json", 400), (b"", 400), (b'{"events": [{"event": ["text"]}]}', 400), (b'{"events": [{"event": []}', 400)],
    ids=["text", "nothing", "no objects", "broken"],
)
def test_refusal_has_a_code_that_begins_with_its_status_and_no_data(
    counterpart: Counterpart, body: bytes, status: int
) -> None:
    answer = counterpart.client.post(f"{API}/events", content=body)
    members = answer.json()
    assert (answer.status_code, members["result"][:4]) == (status, f"{status}-")
    assert sorted(members) == ["message", "result", "ts"]


# 1.3 and 1.4 Settings


def _ask_for(counterpart: Counterpart, *names: str) -> list[dict[str, Any]]:
    answer = counterpart.client.post(
        f"{API}/event_collection/settings", json={"event_collection_settings_names": list(names)}
    )
    rows: list[dict[str, Any]] = answer.json()["data"]
    return rows


def test_settings_are_those_named_that_exist_and_are_not_discarded(counterpart: Counterpart) -> None:
    rows = _ask_for(counterpart, "n2", "unknown", "discarded", "n1")
    assert sorted(row["EVENT_COLLECTION_SETTINGS_NAME"] for row in rows) == ["n1", "n2"]


def test_no_setting_is_an_empty_list(counterpart: Counterpart) -> None:
    assert (_ask_for(counterpart), _ask_for(counterpart, "unknown")) == ([], [])


def test_row_has_every_column_that_the_protocol_names(counterpart: Counterpart) -> None:
    (row,) = _ask_for(counterpart, "n1")
    assert set(row) == {
        *("EVENT_COLLECTION_SETTINGS_ID", "EVENT_COLLECTION_SETTINGS_NAME", "CONNECTION_METHOD_ID"),
        *("REQUEST_METHOD_ID", "URL", "PORT", "REQUEST_HEADER", "PARAMETER", "PROXY", "AUTH_TOKEN", "PASSWORD"),
        *("SECRET_ACCESS_KEY", "USERNAME", "ACCESS_KEY_ID", "MAILBOXNAME", "RESPONSE_KEY", "EVENT_ID_KEY"),
        *("RESPONSE_LIST_FLAG", "TTL", "NOTE", "DISUSE_FLAG", "LAST_UPDATE_TIMESTAMP", "LAST_UPDATE_USER"),
    }


def test_row_of_the_demo_is_a_setting_of_the_agents(counterpart: Counterpart) -> None:
    (row,) = _ask_for(counterpart, "n1")
    setting = wire.setting_of(row, SecretColumns(ORGANIZATION, WORKSPACE))
    methods = (setting.connection_method, setting.request_method)
    assert (setting.id, setting.name, setting.url) == (IDS["n1"], "n1", "http://source/n1")
    assert (*methods, setting.secrets) == (ConnectionMethod.NONE, RequestMethod.GET, ())


@pytest.mark.parametrize("secret", ["s3cr3t", "秘密", "", None], ids=["ascii", "japanese", "empty", "null"])
def test_secrets_travel_encrypted_by_the_rules_of_the_protocol(counterpart: Counterpart, secret: str | None) -> None:
    columns = ("AUTH_TOKEN", "PASSWORD", "SECRET_ACCESS_KEY")
    counterpart.exastro.rows = [{**ROWS[0], **dict.fromkeys(columns, secret)}]
    (row,) = _ask_for(counterpart, "n1")
    phrase = f"{ORGANIZATION} {WORKSPACE}".encode()
    key = hashlib.pbkdf2_hmac("sha256", phrase, bytes.fromhex("4a781001512ee6cad341e806abe69065"), 50_000, dklen=16)
    for column in columns:
        data = base64.b64decode(row[column], validate=True)
        decryptor = Cipher(algorithms.AES(key), modes.CBC(data[:16])).decryptor()
        padded = decryptor.update(data[16:]) + decryptor.finalize()
        assert padded[: -padded[-1]].decode() == (secret or "")


# 1.5 Events


def test_events_of_new_groups_are_saved_in_order_of_time(counterpart: Counterpart) -> None:
    assert counterpart.told(_group("n1", 5, 3), _group("n2", 2, 2), _group("n1", 1, 0, 1)) == (200, "000-00000", [])
    assert counterpart.saved == [
        ("n1", "a1", 1, 0),
        ("n1", "a1", 1, 1),
        ("n2", "a1", 2, 2),
        ("n1", "a1", 5, 3),
    ]


NEXT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "the same": (_group("n1", 10, 2), ["499-01818"]),
    "older": (_group("n1", 9, 2), ["499-01818"]),
    "newer": (_group("n1", 11, 2), []),
    "another setting": (_group("n2", 1, 2), []),
    "another agent": (_group("n1", 1, 2, agent={"name": "a2", "version": "2.7.1"}), []),
    "another version of the agent": (_group("n1", 10, 2, agent={"name": "a1", "version": "2.8.0"}), ["499-01818"]),
    "by id": (_group(None, 10, 2, event_collection_settings_id=IDS["n1"]), ["499-01818"]),
}


@pytest.mark.parametrize(("group", "codes"), NEXT.values(), ids=NEXT)
def test_group_is_saved_where_its_time_is_greater_than_the_progress_of_its_setting_and_agent(
    counterpart: Counterpart, group: dict[str, Any], codes: list[str]
) -> None:
    counterpart.post(_group("n1", 10, 1))
    assert counterpart.told(group) == (200, "000-00000", codes)
    assert len(counterpart.saved) == 2 - len(codes)


def test_groups_of_one_request_are_all_compared_with_the_progress_from_before_it(counterpart: Counterpart) -> None:
    assert counterpart.told(_group("n1", 10, 1), _group("n1", 10, 2), _group("n1", 4, 3)) == (200, "000-00000", [])
    assert [number for *_, number in counterpart.saved] == [3, 1, 2]
    # The progress is the greatest of them.
    assert counterpart.told(_group("n1", 9, 4), _group("n1", 10, 5)) == (200, "000-00000", ["499-01818"] * 2)


def test_refused_groups_leave_no_progress(counterpart: Counterpart) -> None:
    counterpart.post(_group("n1", 10, 1))
    counterpart.post(_group("n1", 10, 2), _group("n1", 9, 2))
    counterpart.exastro.rows[0] = {**ROWS[0], "DISUSE_FLAG": "1"}
    counterpart.post(_group("n1", 50, 3))
    counterpart.exastro.rows[0] = ROWS[0]
    assert counterpart.told(_group("n1", 11, 4)) == (200, "000-00000", [])


UNSAVED: dict[str, tuple[list[dict[str, Any]], tuple[int, str, list[str] | None]]] = {
    "unknown alone": ([_group("unknown", 1, 1)], (499, "499-01802", None)),
    "no name and no id": ([_group(None, 1, 1)], (499, "499-01802", None)),
    "unknown id": ([_group(None, 1, 1, event_collection_settings_id="x")], (499, "499-01802", None)),
    "discarded alone": ([_group("discarded", 1, 1)], (200, "000-00000", ["499-01827"])),
    "unknown beside one that is saved": (
        [_group("unknown", 1, 1), _group("n2", 1, 2)],
        (200, "000-00000", ["499-01801"]),
    ),
    "unknown beside one that is not newer": ([_group("unknown", 1, 1), _group("n1", 0, 2)], (499, "499-01802", None)),
    "unknown beside a discarded one": (
        [_group("unknown", 1, 1), _group("discarded", 1, 2)],
        (499, "499-01802", None),
    ),
    "each kind": (
        [_group("n2", 9, 9), _group("discarded", 3, 1), _group("unknown", 2, 1), _group("n1", 0, 1)],
        (200, "000-00000", ["499-01818", "499-01801", "499-01827"]),
    ),
    "nothing at all": ([], (200, "000-00000", [])),
}


@pytest.mark.parametrize(("groups", "told"), UNSAVED.values(), ids=UNSAVED)
def test_groups_that_are_not_saved_are_told_by_their_codes(
    counterpart: Counterpart, groups: list[dict[str, Any]], told: tuple[int, str, list[str] | None]
) -> None:
    counterpart.post(_group("n1", 0, 0))
    assert counterpart.told(*groups) == told


@pytest.mark.parametrize(
    "groups",
    [
        [_group("n1", 1, event=['{"id": 1}'])],
        [_group("n1", 1, 1), _group("n2", 1, event=[{"id": 1}, None])],
        [_group("n1", 1, event={"id": 1})],
        [_group("n1", 1, event=None)],
        ["text"],
    ],
    ids=["texts, as release 2.3 wanted them", "null in a later group", "object", "null", "group a text"],
)
def test_event_that_is_no_object_spoils_the_whole_request(counterpart: Counterpart, groups: list[Any]) -> None:
    answer = counterpart.post(*groups)
    assert (answer.status_code, answer.json()["result"][:4], counterpart.saved) == (400, "400-", [])


@pytest.mark.parametrize(("hours", "codes"), [(71.9, ["499-01818"]), (72.1, [])], ids=["younger", "older"])
def test_progress_older_than_72_hours_is_forgotten(hours: float, codes: list[str]) -> None:
    fetched = -int(hours * 3_600)
    exastro = DemoExastro(ROWS, now=lambda: NOW)
    with _client_of(exastro, auth=(USERNAME, PASSWORD)) as client:
        counterpart = Counterpart(exastro, client)
        counterpart.post(_group("n1", fetched, 1))
        assert counterpart.told(_group("n1", fetched, 1)) == (200, "000-00000", codes)
    assert exastro.repeated == 1 - len(codes)


def test_messages_name_their_group_so_that_the_agent_understands_them(counterpart: Counterpart) -> None:
    counterpart.post(_group("n1", 30, 1))
    groups = [
        _group(None, 10, 2, event_collection_settings_id=IDS["n1"]),
        _group(None, 11, 2, event_collection_settings_id="unknown-id"),
        _group(None, 12, 2, event_collection_settings_id=IDS["discarded"]),
        _group("n2", 13, 2),
    ]
    stale, unknown, discarded = counterpart.post(*groups).json()["data"]

    def named(message: str) -> list[bool]:
        ids = (IDS["n1"], "unknown-id", IDS["discarded"])
        return [wire.has_id(message, Group(1, setting_id, "-", "a1", 1, 1, (), False)) for setting_id in ids]

    assert [wire.verdict_of(message) for message in (stale, unknown, discarded)] == [
        Verdict.NOT_NEWER,
        Verdict.REFUSED,
        Verdict.REFUSED,
    ]
    assert [named(stale), named(unknown), named(discarded)] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    assert wire.greatest_time(stale) == NOW + 30


def _random_group(chance: random.Random, number: int) -> dict[str, Any]:
    name = chance.choices(["n1", "n2", "discarded", "unknown"], [6, 6, 1, 1])[0]
    agent = {"name": chance.choice(["a1", "a2"]), "version": "2.7.1"}
    group = _group(name, number // 4 + chance.randint(-3, 3), *range(chance.randint(1, 3)), agent=agent)
    if chance.random() < 0.5:
        del group["event_collection_settings_name"]
        group["event_collection_settings_id"] = IDS.get(name, "unknown-id")
    return group


@pytest.mark.parametrize("seed", range(4))
def test_random_requests_are_answered_by_the_rules(counterpart: Counterpart, seed: int) -> None:
    chance, plain = random.Random(seed), PlainExastro(NAMES, {IDS["discarded"]})
    answers: Counter[str] = Counter()
    for number in range(250):
        groups = [_random_group(chance, number) for _ in range(chance.randint(0, 4))]
        told = counterpart.told(*groups)
        assert told == plain.told(groups, NOW), groups
        answers.update([told[1], *(told[2] or [])])
    assert counterpart.saved == [
        (NAMES[saved.setting_id], saved.agent_name, saved.fetched_time - NOW, saved.event["id"])
        for saved in plain.saved
    ]
    assert set(answers) == {"000-00000", "499-01802", "499-01801", "499-01818", "499-01827"}


# What the demo adds: books and faults


def test_events_saved_twice_are_counted(counterpart: Counterpart) -> None:
    counterpart.post(_group("n1", 1, 1, 2))
    counterpart.post(_group("n1", 2, 2, 3), _group("n2", 1, 1))
    counts = counterpart.exastro.counts
    assert counterpart.exastro.repeated == 1
    assert counts == {("n1", "1"): 1, ("n1", "2"): 2, ("n1", "3"): 1, ("n2", "1"): 1}
    assert [event.fetched_time - NOW for event in counterpart.exastro.events_of("n1")] == [1, 1, 2, 2]


def test_saved_events_are_shown_as_they_come() -> None:
    shown: list[Sequence[SavedEvent]] = []
    exastro = DemoExastro(ROWS, on_saved=shown.append)
    with _client_of(exastro, auth=(USERNAME, PASSWORD)) as client:
        client.post(f"{API}/events", json={"events": [_group("n1", 1, 7)]})
    event = {"id": 7, "_exastro_oase_event_id": "7"}
    assert shown == [[SavedEvent("n1", "a1", NOW + 1, event)]]


FAULTS: dict[str, tuple[int | None, str, list[int]]] = {
    "503": (503, "<html>", []),
    "cut": (None, "", []),
    "lost": (None, "", [1, 2]),
    "half": (None, "", [1]),
    "html": (200, "<html>", []),
    "498": (498, "498-00004", []),
    "499-01803": (499, "499-01803", []),
    "413": (413, "<html>", []),
    "401": (401, "401-00001", []),
    "400": (400, "400-", []),
}


@pytest.mark.parametrize(
    ("fault", "status", "words", "saved"), [(name, *rest) for name, rest in FAULTS.items()], ids=FAULTS
)
def test_fault_happens_once_and_saves_what_it_says(
    counterpart: Counterpart, fault: str, status: int | None, words: str, saved: list[int]
) -> None:
    counterpart.exastro.faults.append(fault)
    groups = (_group("n2", 5, 2), _group("n1", 4, 1))
    if status is None:
        with pytest.raises(httpx.RemoteProtocolError):
            counterpart.post(*groups)
    else:
        answer = counterpart.post(*groups)
        assert (answer.status_code, words in answer.text) == (status, True)
    assert [number for *_, number in counterpart.saved] == saved
    # Offered once more, each is there once.
    assert counterpart.post(*groups).status_code == 200
    assert ([number for *_, number in counterpart.saved], counterpart.exastro.repeated) == ([1, 2], 0)


def test_request_beyond_the_bound_is_a_413_that_nobody_has_seen(counterpart: Counterpart) -> None:
    counterpart.exastro.max_request_bytes = 300
    answer = counterpart.post(_group("n1", 1, *range(20)))
    assert (answer.status_code, answer.headers["Content-Type"], counterpart.saved) == (413, "text/html", [])
    assert counterpart.told(_group("n1", 1, 1)) == (200, "000-00000", [])


def test_event_that_is_refused_for_its_content_spoils_its_request(counterpart: Counterpart) -> None:
    is_bad: Callable[[Any], bool] = lambda event: event["id"] == 3  # noqa: E731 - a value, not a function of the test
    counterpart.exastro.refuses = is_bad
    assert counterpart.told(_group("n1", 1, 1, 2, 3), _group("n2", 1, 4))[:2] == (400, "400-00002")
    assert counterpart.told(_group("n1", 1, 1, 2)) == (200, "000-00000", [])


def test_an_answer_tells_the_time() -> None:
    before = int(clock.now())
    with DemoExastro() as exastro:
        answer = httpx.get(exastro.url, trust_env=False)
    assert before <= parsedate_to_datetime(answer.headers["Date"]).timestamp() <= clock.now()


def test_unknown_path_is_not_exastros(counterpart: Counterpart) -> None:
    answer = counterpart.client.post("/api/other-org/workspaces/demo-ws/oase_agent/events", json={"events": []})
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/html")


def test_environment_lets_an_agent_in() -> None:
    with DemoExastro(ROWS) as exastro:
        assert exastro.environment(["n1", "n2"]) == {
            "EXASTRO_URL": exastro.url,
            "EXASTRO_ORGANIZATION_ID": ORGANIZATION,
            "EXASTRO_WORKSPACE_ID": WORKSPACE,
            "EXASTRO_REFRESH_TOKEN": REFRESH_TOKEN,
            "EVENT_COLLECTION_SETTINGS_NAMES": "n1,n2",
        }


def test_exastro_comes_back_on_its_port_and_knows_what_it_knew() -> None:
    urls, answers = [], []
    exastro = DemoExastro(ROWS, now=lambda: NOW)
    for _ in range(2):
        with exastro, httpx.Client(base_url=exastro.url, auth=(USERNAME, PASSWORD), trust_env=False) as client:
            urls.append(exastro.url)
            answers.append(Counterpart(exastro, client).told(_group("n1", 1, 1)))
    assert urls[0] == urls[1]
    assert answers == [(200, "000-00000", []), (200, "000-00000", ["499-01818"])]
