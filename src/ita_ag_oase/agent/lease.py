"""A Lease of Kubernetes (coordination.k8s.io/v1), as far as an election needs it: it is read and written, nothing more.

The official client is not used: it has no time limit for a request, and takes more memory than the rest of the agent.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import msgspec

from ita_ag_oase import transport
from ita_ag_oase.errors import LeaseChanged, LeaseRefused, LeaseUnavailable, Reason, system_words
from ita_ag_oase.text import Text, shorten

# As etcd bounds what it keeps; a Lease has some hundred bytes.
_ANSWER_MAX_BYTES = 1_572_864
_QUOTED_CHARACTERS = 256
# Written into a Lease that is given back, as client-go does: one second is the least that Kubernetes allows.
_RELEASED_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Lease:
    """A Lease as it was read, or as the answer to a write told it.

    `holder` is empty where nobody holds it. `duration_seconds` is for how long the holder claimed it, None where that
    is not told. `transitions` counts the terms so far. `document` is all of it.
    """

    document: Mapping[str, Any]
    holder: str
    duration_seconds: float | None
    transitions: int

    @property
    def version(self) -> tuple[str, str]:
        """What is another one after each write, also where the Lease was deleted and made anew."""
        metadata = self.document["metadata"]
        return str(metadata.get("uid")), str(metadata["resourceVersion"])

    def taken(self, holder: str, *, duration_seconds: int, transitions: int, now: float) -> Mapping[str, Any]:
        """Return the document by which someone takes the Lease; `now` is in epoch seconds."""
        return self._with(
            holderIdentity=holder,
            leaseDurationSeconds=duration_seconds,
            leaseTransitions=transitions,
            acquireTime=_micro_time(now),
            renewTime=_micro_time(now),
        )

    def renewed(self, *, duration_seconds: int, now: float) -> Mapping[str, Any]:
        """Return the document by which its holder keeps it."""
        return self._with(leaseDurationSeconds=duration_seconds, renewTime=_micro_time(now))

    def released(self, *, now: float) -> Mapping[str, Any]:
        """Return the document by which its holder gives it back. The count of terms stays."""
        return self._with(holderIdentity="", leaseDurationSeconds=_RELEASED_SECONDS, renewTime=_micro_time(now))

    def _with(self, **facts: Any) -> Mapping[str, Any]:
        # What else stands in it is not ours.
        return {**self.document, "spec": {**(self.document.get("spec") or {}), **facts}}


def read_document(document: Any) -> Lease:
    """Return the Lease that a document tells of. Raises ValueError for what is none."""
    metadata, spec = _member(document, "metadata"), _member(document, "spec")
    if not isinstance(metadata.get("resourceVersion"), str):
        raise ValueError("no resourceVersion")  # noqa: TRY004 - it came over the network
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    return Lease(
        document=document,
        holder=str(spec.get("holderIdentity") or ""),
        duration_seconds=float(duration) if isinstance(duration, int) else None,
        transitions=max(transitions, 0) if isinstance(transitions, int) else 0,
    )


def _member(document: Any, name: str) -> Mapping[str, Any]:
    member = document.get(name) if isinstance(document, dict) else None
    if not isinstance(member or {}, dict):
        raise ValueError(f"{name} is no object")  # noqa: TRY004 - as above
    return member or {}


def _micro_time(now: float) -> str:
    """Return a MicroTime of Kubernetes: RFC 3339 with six digits of the second."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


@dataclass(frozen=True, slots=True)
class LeasePlace:
    """Which Lease it is, at which API server, and the folder of the service account: token and ca.crt."""

    url: str
    namespace: str
    name: str
    credentials: Path


class LeaseApi:
    """Reads and writes one Lease; no request takes longer than `seconds`.

    Raises LeaseUnavailable where the same request may succeed later, LeaseRefused where a person must act.
    """

    def __init__(self, place: LeasePlace, *, seconds: float) -> None:
        self._place = place
        self._seconds = seconds
        self._url = f"{place.url}/apis/coordination.k8s.io/v1/namespaces/{place.namespace}/leases/{place.name}"
        self._client: httpx.AsyncClient | None = None

    async def read(self) -> Lease:
        """Return the Lease."""
        return await self._ask("GET", None)

    async def write(self, document: Mapping[str, Any]) -> Lease:
        """Replace the Lease by a document made from one that was read, and return what it is now.

        Also raises LeaseChanged where it was written in between. After any other LeaseUnavailable it may or may not
        have been written, or be written yet.
        """
        return await self._ask("PUT", msgspec.json.encode(document))

    async def close(self) -> None:
        """End the connection, if there is one."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def _ask(self, method: str, content: bytes | None) -> Lease:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._exchange(method, content)
        except (httpx.TransportError, TimeoutError) as err:
            reason, words = transport.explain(err)
            if reason is Reason.TLS:
                # The cluster's authority may have been renewed: its file is read again.
                await self.close()
            text = Text("the Kubernetes API at {url}: {words}", url=self._place.url, words=words)
            raise LeaseUnavailable(text, reason=reason) from err

    async def _exchange(self, method: str, content: bytes | None) -> Lease:
        request = self._connected().build_request(method, self._url, content=content, headers=self._headers(content))
        response = await self._connected().send(request, stream=True)
        try:
            body = await transport.read_bounded(response, _ANSWER_MAX_BYTES)
        except (transport.AnswerTooLarge, transport.AnswerUnreadable) as err:
            raise self._unreadable(response.status_code) from err
        finally:
            await response.aclose()
        return self._judge(method, response.status_code, bytes(body))

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            # Neither a proxy nor another authority than the cluster's own has a part in it.
            self._client = httpx.AsyncClient(
                verify=self._tls(),
                trust_env=False,
                timeout=self._seconds,
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": transport.ACCEPTED_ENCODING,
                    "User-Agent": transport.USER_AGENT,
                },
            )
        return self._client

    def _tls(self) -> ssl.SSLContext:
        file = self._place.credentials / "ca.crt"
        try:
            context = ssl.create_default_context(cafile=file)
        except OSError as err:
            raise _not_mounted(file, err) from err
        # From Python 3.13 on, this refuses authorities whose certificates lack an extension, as many clusters' do.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def _headers(self, content: bytes | None) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self._token()}"}
        return headers if content is None else {**headers, "Content-Type": "application/json"}

    def _token(self) -> str:
        # Each time, since the kubelet renews it, and writes it to the same file.
        file = self._place.credentials / "token"
        try:
            return file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as err:
            raise _not_mounted(file, err) from err

    def _judge(self, method: str, status: int, body: bytes) -> Lease:
        place = f"{self._place.namespace}/{self._place.name}"
        if status in (HTTPStatus.OK, HTTPStatus.CREATED):
            try:
                return read_document(msgspec.json.decode(body))
            except (msgspec.DecodeError, ValueError, RecursionError) as err:
                raise self._unreadable(status) from err
        said = Text("the Kubernetes API answered {said}", said=f"{status} {_message(body)}".rstrip())
        if status == HTTPStatus.CONFLICT:
            raise LeaseChanged(said, reason=Reason.HTTP_STATUS)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            verb = "get" if method == "GET" else "update"
            advice = Text(
                "{verb} is refused: give the service account a Role with the verbs get and update on the Lease {place}",
                place=place,
                verb=verb,
            )
            raise _refused(said, advice, Reason.UNAUTHORIZED)
        if status == HTTPStatus.NOT_FOUND:
            advice = Text(
                "make the Lease {place}, as the chart does: without a spec; LEASE_NAME and LEASE_NAMESPACE name it",
                place=place,
            )
            raise _refused(said, advice, Reason.HTTP_STATUS)
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise LeaseUnavailable(said, reason=Reason.HTTP_STATUS)
        advice = Text("see that KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT name the API server")
        raise _refused(said, advice, Reason.HTTP_STATUS)

    def _unreadable(self, status: int) -> LeaseUnavailable:
        words = Text(
            "what answers at {url} with status {status} is no API server of Kubernetes: see that "
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT name it",
            url=self._place.url,
            status=status,
        )
        return LeaseUnavailable(words, reason=Reason.NOT_JSON)


def _refused(said: Text, advice: Text, reason: Reason) -> LeaseRefused:
    return LeaseRefused(Text("{said}: {advice}", said=said, advice=advice), reason=reason)


def _not_mounted(file: Path, err: OSError | ValueError) -> LeaseRefused:
    words = Text(
        "{file} cannot be read ({error}): let the pod mount the token of its service account, or name its folder in "
        "LEASE_CREDENTIALS",
        file=file,
        error=_words(err),
    )
    return LeaseRefused(words, reason=Reason.CONFIGURATION)


def _words(err: OSError | ValueError) -> str:
    # What is wrong with a certificate has numbers of its own.
    if isinstance(err, OSError) and not isinstance(err, ssl.SSLError):
        return system_words(err)
    return type(err).__name__


def _message(body: bytes) -> str:
    """Return the message of a Status of Kubernetes, if it is one."""
    try:
        status = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ""
    return shorten(str(status.get("message") or ""), _QUOTED_CHARACTERS) if isinstance(status, dict) else ""
