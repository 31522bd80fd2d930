"""The Lease over TLS: what is asked for, what is written, and what each answer means in words."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from ita_ag_oase.agent.lease import Lease, LeaseApi, LeasePlace
from ita_ag_oase.demo.loopback import Reply, Request, as_html, as_json
from ita_ag_oase.errors import AgentError, LeaseChanged, LeaseRefused, LeaseUnavailable, Reason
from lease_api import NAME, NAMESPACE, LeaseServer, forbidden, silence, status
from support import free_port, self_signed
from wires import Relay

SECONDS = 5.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LeaseServer]:
    with LeaseServer(tmp_path) as server:
        yield server


@pytest.fixture
async def api(server: LeaseServer) -> AsyncIterator[LeaseApi]:
    api = LeaseApi(_place(server), seconds=SECONDS)
    yield api
    await api.close()


def _place(server: LeaseServer, *, port: int | None = None, name: str = NAME) -> LeasePlace:
    url = f"https://127.0.0.1:{port or server.port}"
    return LeasePlace(url, NAMESPACE, name, server.credentials("a"))


def _taken(lease: Lease, holder: str = "a_1") -> Lease:
    document = lease.taken(holder, duration_seconds=15, transitions=lease.transitions + 1, now=1_700_000_000.25)
    return Lease(document, holder, 15, lease.transitions + 1)


async def test_a_lease_is_taken_renewed_and_given_back(api: LeaseApi, server: LeaseServer) -> None:
    free = await api.read()
    assert (free.holder, free.duration_seconds, free.transitions) == ("", None, 0)
    taken = await api.write(_taken(free).document)
    renewed = await api.write(taken.renewed(duration_seconds=20, now=1_700_000_002.0))
    await api.write(renewed.released(now=1_700_000_004.0))
    since = {"acquireTime": "2023-11-14T22:13:20.250000Z", "leaseTransitions": 1}
    assert [write.spec for write in server.shelf.writes] == [
        {**since, "holderIdentity": "a_1", "leaseDurationSeconds": 15, "renewTime": "2023-11-14T22:13:20.250000Z"},
        {**since, "holderIdentity": "a_1", "leaseDurationSeconds": 20, "renewTime": "2023-11-14T22:13:22.000000Z"},
        {**since, "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": "2023-11-14T22:13:24.000000Z"},
    ]
    assert len({lease.version for lease in (free, taken, renewed)}) == 3


async def test_what_else_stands_in_a_lease_stays(api: LeaseApi, server: LeaseServer) -> None:
    document = server.shelf.read()
    server.shelf.put_back({**document, "spec": {"strategy": "OldestEmulationVersion", "preferredHolder": "b"}})
    await api.write(_taken(await api.read()).document)
    after = server.shelf.read()
    assert after["spec"].items() >= {"strategy": "OldestEmulationVersion", "preferredHolder": "b"}.items()
    assert after["metadata"]["labels"] == {"app": "oase"}


async def test_a_lease_that_changed_is_not_written(api: LeaseApi, server: LeaseServer) -> None:
    lease = await api.read()
    server.shelf.label("touched", "1")
    with pytest.raises(LeaseChanged):
        await api.write(_taken(lease).document)
    assert server.shelf.writes == []


async def test_a_token_that_was_renewed_is_used_at_once(api: LeaseApi, server: LeaseServer) -> None:
    await api.read()
    server.renew_token("a")
    await api.read()
    assert [name for name, _ in server.requests] == ["a", "a"]


async def test_connections_are_used_again_and_broken_ones_made_anew(server: LeaseServer) -> None:
    with Relay(server.port) as relay:
        api = LeaseApi(_place(server, port=relay.port), seconds=SECONDS)
        for _ in range(3):
            await api.read()
        assert relay.connections == 1
        relay.cut_all()
        # A request that meets the broken one may fail; the next does not.
        with contextlib.suppress(LeaseUnavailable):
            await api.read()
        await api.read()
        assert relay.connections == 2
        await api.close()


@pytest.mark.parametrize(
    ("reply", "kind", "reason", "words"),
    [
        (
            forbidden("a"),
            LeaseRefused,
            Reason.UNAUTHORIZED,
            (
                'the Kubernetes API answered 403 leases.coordination.k8s.io "oase-agent" is forbidden: User '
                '"system:serviceaccount:monitoring:a" cannot update resource "leases": get is refused: give the '
                "service account a Role with the verbs get and update on the Lease monitoring/oase-agent"
            ),
        ),
        (
            status(401, "Unauthorized"),
            LeaseRefused,
            Reason.UNAUTHORIZED,
            (
                "the Kubernetes API answered 401 Unauthorized: get is refused: give the service account a Role with "
                "the verbs get and update on the Lease monitoring/oase-agent"
            ),
        ),
        (
            status(404, 'leases.coordination.k8s.io "oase-agent" not found'),
            LeaseRefused,
            Reason.HTTP_STATUS,
            (
                'the Kubernetes API answered 404 leases.coordination.k8s.io "oase-agent" not found: make the Lease '
                "monitoring/oase-agent, as the chart does: without a spec; LEASE_NAME and LEASE_NAMESPACE name it"
            ),
        ),
        (
            status(500, "etcdserver: request timed out"),
            LeaseUnavailable,
            Reason.HTTP_STATUS,
            "the Kubernetes API answered 500 etcdserver: request timed out",
        ),
        (status(429, "slow down"), LeaseUnavailable, Reason.HTTP_STATUS, "the Kubernetes API answered 429 slow down"),
        (
            status(400, "bad request"),
            LeaseRefused,
            Reason.HTTP_STATUS,
            (
                "the Kubernetes API answered 400 bad request: see that KUBERNETES_SERVICE_HOST and "
                "KUBERNETES_SERVICE_PORT name the API server"
            ),
        ),
        (as_html("Welcome", 200), LeaseUnavailable, Reason.NOT_JSON, None),
        (as_json([]), LeaseUnavailable, Reason.NOT_JSON, None),
        (as_json({"metadata": {"resourceVersion": 5}}), LeaseUnavailable, Reason.NOT_JSON, None),
        (as_json({"metadata": {"resourceVersion": "5"}, "spec": "x"}), LeaseUnavailable, Reason.NOT_JSON, None),
        (Reply(body=b"[" * 1_600_000), LeaseUnavailable, Reason.NOT_JSON, None),
    ],
    ids=["403", "401", "404", "500", "429", "400", "a page", "a list", "no version", "no spec", "too large"],
)
async def test_an_answer_that_is_no_lease_is_told_in_words(
    api: LeaseApi, server: LeaseServer, reply: Reply, kind: type[AgentError], reason: Reason, words: str | None
) -> None:
    server.trouble = lambda _, __: reply
    with pytest.raises(kind) as caught:
        await api.read()
    told = words or (
        f"what answers at https://127.0.0.1:{server.port} with status 200 is no API server of Kubernetes: see that "
        "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT name it"
    )
    assert (type(caught.value), caught.value.reason, str(caught.value)) == (kind, reason, told)


def _byte_by_byte() -> Iterator[bytes]:
    for _ in range(50):
        time.sleep(0.2)
        yield b" "


@pytest.mark.parametrize(
    "slow",
    [silence, lambda: Reply(pieces=_byte_by_byte())],
    ids=["silent", "byte by byte"],
)
async def test_a_request_takes_no_longer_than_its_time_in_all(server: LeaseServer, slow: Callable[[], Reply]) -> None:
    server.trouble = lambda _, __: slow()
    api = LeaseApi(_place(server), seconds=0.5)
    began = time.monotonic()
    with pytest.raises(LeaseUnavailable) as caught:
        await api.read()
    await api.close()
    assert caught.value.reason is Reason.TIMEOUT
    # Less than half of what the slow one would take.
    assert time.monotonic() - began < 5


async def test_a_write_that_was_not_answered_may_have_counted(server: LeaseServer) -> None:
    api = LeaseApi(_place(server), seconds=2.0)
    lease = await api.read()
    server.after = lambda _, request: silence() if request.method == "PUT" else None
    with pytest.raises(LeaseUnavailable) as caught:
        await api.write(_taken(lease).document)
    assert (type(caught.value), (await api.read()).holder) == (LeaseUnavailable, "a_1")
    await api.close()


async def test_a_server_that_is_not_there_is_told(server: LeaseServer) -> None:
    port = free_port()
    api = LeaseApi(_place(server, port=port), seconds=SECONDS)
    with pytest.raises(LeaseUnavailable) as caught:
        await api.read()
    await api.close()
    assert (caught.value.reason, str(caught.value)) == (
        Reason.UNREACHABLE,
        (
            f"the Kubernetes API at https://127.0.0.1:{port}: no connection (Connection refused): check the host, the "
            "port and the network"
        ),
    )


async def test_another_authority_is_not_trusted_and_the_right_one_is_once_its_file_is_there(
    server: LeaseServer, tmp_path: Path
) -> None:
    file = server.credentials("a") / "ca.crt"
    right = file.read_bytes()
    file.write_bytes(self_signed(tmp_path, name="other.pem").read_bytes())
    api = LeaseApi(_place(server), seconds=SECONDS)
    with pytest.raises(LeaseUnavailable) as caught:
        await api.read()
    assert caught.value.reason is Reason.TLS
    file.write_bytes(right)
    await api.read()
    await api.close()


@pytest.mark.parametrize("name", ["token", "ca.crt"])
async def test_credentials_that_are_not_mounted_are_told(server: LeaseServer, name: str) -> None:
    file = server.credentials("a") / name
    file.unlink()
    api = LeaseApi(_place(server), seconds=SECONDS)
    with pytest.raises(LeaseRefused) as caught:
        await api.read()
    await api.close()
    assert str(caught.value) == (
        f"{file} cannot be read (No such file or directory): let the pod mount the token of its service account, or "
        "name its folder in LEASE_CREDENTIALS"
    )


async def test_requests_name_the_agent_and_its_lease(api: LeaseApi, server: LeaseServer) -> None:
    seen: list[Request] = []
    server.trouble = lambda _, request: seen.append(request)
    await api.write(_taken(await api.read()).document)
    assert [(request.method, request.path) for request in seen] == [
        ("GET", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{NAME}"),
        ("PUT", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{NAME}"),
    ]
    assert {request.headers["user-agent"].partition("/")[0] for request in seen} == {"ita-ag-oase"}


async def test_readers_side_by_side_do_not_disturb_each_other(api: LeaseApi) -> None:
    leases = await asyncio.gather(*(api.read() for _ in range(10)))
    assert len({lease.version for lease in leases}) == 1
