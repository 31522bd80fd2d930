"""The part of the Kubernetes API that an election needs, made for tests: one Lease, in memory or over TLS on loopback.

A write counts where it names the version that is there (optimistic concurrency), and notes who wrote what and when.
"""

import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request, as_json
from support import self_signed
from wires import TlsRelay

NAMESPACE, NAME = "monitoring", "oase-agent"
_PATH = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{NAME}"
_SILENT_SECONDS = 3_600.0
# metav1.MicroTime: RFC 3339 with six digits of the second.
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class Write(NamedTuple):
    """A write that counted: by whom, when, and the spec that it made."""

    by: str
    at: float
    spec: Mapping[str, Any]

    @property
    def holder(self) -> str:
        """Who holds the Lease from then on; empty for nobody."""
        return str(self.spec.get("holderIdentity", ""))


class Missing(Exception):
    """There is no such Lease."""


class Changed(Exception):
    """The Lease is another one than the writer has seen."""


class Invalid(Exception):
    """Kubernetes would refuse what was written."""


class Shelf:
    """Where the one Lease lies; at first as the chart makes it, with nothing in it. `now` is its clock."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.writes: list[Write] = []
        self._now = now
        self._version = 100
        self._lock = threading.Lock()
        self._document: dict[str, Any] | None = None
        self.make()

    @property
    def spec(self) -> dict[str, Any]:
        """What the Lease says."""
        return dict(self.read()["spec"])

    @property
    def holder(self) -> str:
        """Who holds it; empty for nobody."""
        return str(self.spec.get("holderIdentity", ""))

    @property
    def has_lease(self) -> bool:
        """Whether there is one."""
        return self._document is not None

    def make(self) -> None:
        """Make the Lease, or make it anew: the chart's has an empty spec."""
        metadata = {"name": NAME, "namespace": NAMESPACE, "uid": str(uuid.uuid4()), "labels": {"app": "oase"}}
        self.put_back({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}})

    def forget(self) -> None:
        """Delete the Lease."""
        with self._lock:
            self._document = None

    def put_back(self, document: Mapping[str, Any]) -> None:
        """Let the Lease be what it was once, as when a backup is restored."""
        with self._lock:
            self._document = self._versioned(document)

    def label(self, name: str, value: str) -> None:
        """Change what is not about the election, as a person may."""
        with self._lock:
            document = copy.deepcopy(self._there())
            document["metadata"]["labels"][name] = value
            self._document = self._versioned(document)

    def read(self) -> dict[str, Any]:
        """Return the Lease. Raises Missing."""
        with self._lock:
            return copy.deepcopy(self._there())

    def write(self, document: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Replace the Lease and return it. Raises Missing, Changed or Invalid."""
        with self._lock:
            present = self._there()["metadata"]
            given = document["metadata"]
            if (given["uid"], given["resourceVersion"]) != (present["uid"], present["resourceVersion"]):
                raise Changed
            _check(document)
            self._document = self._versioned(document)
            self.writes.append(Write(by, self._now(), copy.deepcopy(document["spec"])))
            return copy.deepcopy(self._document)

    def _there(self) -> dict[str, Any]:
        if self._document is None:
            raise Missing
        return self._document

    def _versioned(self, document: Mapping[str, Any]) -> dict[str, Any]:
        self._version += 1
        versioned = copy.deepcopy(dict(document))
        versioned["metadata"]["resourceVersion"] = str(self._version)
        return versioned


def _check(document: Mapping[str, Any]) -> None:
    """Raise Invalid for what the API's validation refuses (pkg/apis/coordination/validation of Kubernetes)."""
    spec = document["spec"]
    if document["kind"] != "Lease" or document["metadata"]["name"] != NAME:
        raise Invalid("another object")
    duration = spec.get("leaseDurationSeconds")
    if duration is not None and (not isinstance(duration, int) or duration <= 0):
        raise Invalid("leaseDurationSeconds must be greater than 0")
    if not isinstance(spec.get("leaseTransitions", 0), int) or spec.get("leaseTransitions", 0) < 0:
        raise Invalid("leaseTransitions must not be negative")
    for name in ("acquireTime", "renewTime"):
        if name in spec and not _MICRO_TIME.fullmatch(spec[name]):
            raise Invalid(f"{name} is no MicroTime")


class LeaseServer:
    """An API server on loopback with a certificate of its own, while it is entered.

    Each participant has a folder with its token, by which it is told from others. `trouble` sees every request with the
    name of who asks, may wait, and may return what is answered instead; `after` may do so once the request has counted.
    """

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf()
        self.requests: list[tuple[str, str]] = []
        self.trouble: Callable[[str, Request], Reply | None] = lambda _, __: None
        self.after: Callable[[str, Request], Reply | None] = lambda _, __: None
        self._folder = folder
        self._certificate = self_signed(folder, name="api-server.pem")
        self._names: dict[str, str] = {}
        self._server = LoopbackServer(self._handle)

    def __enter__(self) -> Self:
        self._server.__enter__()
        self._relay = TlsRelay(int(self._server.url.rpartition(":")[2]), self._certificate)
        self._relay.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()
        self._relay.__exit__()

    @property
    def port(self) -> int:
        """Where it listens; known once it was entered."""
        return self._relay.port

    def credentials(self, name: str) -> Path:
        """Return the folder of a participant's service account: made when it is asked for first."""
        folder = self._folder / f"credentials-{name}"
        if not folder.exists():
            folder.mkdir()
            (folder / "ca.crt").write_bytes(self._certificate.read_bytes().partition(b"-----BEGIN PRIVATE")[0])
            (folder / "namespace").write_text(NAMESPACE)
            self.renew_token(name)
        return folder

    def renew_token(self, name: str) -> None:
        """Give a participant another token; the one before is good no longer."""
        self._names = {token: each for token, each in self._names.items() if each != name}
        token = f"token-{uuid.uuid4()}"
        self._names[token] = name
        (self._folder / f"credentials-{name}" / "token").write_text(f"{token}\n")

    def environment(self, name: str, *, port: int | None = None) -> dict[str, str]:
        """Return the variables by which an agent takes part; `port` is that of what stands before this server."""
        return {
            "LEADER_ELECTION": "lease",
            "LEASE_NAME": NAME,
            "LEASE_CREDENTIALS": str(self.credentials(name)),
            "POD_NAME": name,
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(port or self.port),
        }

    def _handle(self, request: Request) -> Reply:
        name = self._names.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if name is None:
            return status(401, "Unauthorized")
        self.requests.append((name, request.method))
        return self.trouble(name, request) or self._answer(name, request)

    def _answer(self, name: str, request: Request) -> Reply:
        if request.path != _PATH:
            return status(404, "the server could not find the requested resource")
        try:
            if request.method == "GET":
                document = self.shelf.read()
            else:
                document = self.shelf.write(json.loads(request.body), name)
        except Missing:
            return status(404, f'leases.coordination.k8s.io "{NAME}" not found')
        except Changed:
            return status(409, "the object has been modified; please apply your changes to the latest version")
        except Invalid as err:
            return status(422, str(err))
        return self.after(name, request) or as_json(document)


def status(code: int, message: str) -> Reply:
    """Return an error as Kubernetes tells it (metav1.Status)."""
    return as_json({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}, code)


def forbidden(name: str) -> Reply:
    """Return what a service account without the right is told."""
    who = f"system:serviceaccount:{NAMESPACE}:{name}"
    words = f'leases.coordination.k8s.io "{NAME}" is forbidden: User "{who}" cannot update resource "leases"'
    return status(403, words)


def silence() -> Reply:
    """Return what never comes."""
    return Reply(hang_seconds=_SILENT_SECONDS)
