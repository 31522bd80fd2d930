"""A Kubernetes API on loopback, as far as helm needs one to install and upgrade: discovery, and objects by their paths.

It keeps what it is sent, and notes what was changed. A patch is merged as RFC 7396 has it, so a list is replaced whole,
where Kubernetes merges some lists by key. Helm's own records are Secrets that nothing else is told of.
"""

import base64
import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from ita_ag_oase.demo.loopback import Listener

Object = dict[str, Any]

# By group and version: the kinds, and what their paths call them.
_KINDS: dict[str, dict[str, str]] = {
    "v1": {
        "ConfigMap": "configmaps",
        "PersistentVolumeClaim": "persistentvolumeclaims",
        "Pod": "pods",
        "Secret": "secrets",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {"Deployment": "deployments"},
    "coordination.k8s.io/v1": {"Lease": "leases"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "rbac.authorization.k8s.io/v1": {"Role": "roles", "RoleBinding": "rolebindings"},
}


class Change(NamedTuple):
    """A request that changed something: method, kind and name, and what was sent."""

    method: str
    name: str
    sent: Any


class KubernetesApi:
    """Objects of one namespace, by kind and name (`Lease/a`), and the changes that were asked for, in order."""

    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[str, Object] = {}
        self.changes: list[Change] = []
        self._records: dict[str, Object] = {}

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        """Return status and body of the answer to a request."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if method == "GET" and (found := _discovery().get(path)):
            return 200, found
        kind, name = _object(path)
        sent = _sent(body)
        name = name or sent.get("metadata", {}).get("name", "")
        if name:
            objects = self._records if name.startswith("sh.helm.release.") else self.objects
            return self._one(objects, Change(method, f"{kind}/{name}", sent))
        return 200, {"kind": f"{kind}List", "apiVersion": "v1", "items": self._labelled(query["labelSelector"][0])}

    def _one(self, objects: dict[str, Object], asked: Change) -> tuple[int, Any]:
        if asked.method != "POST" and asked.name not in objects:
            return 404, _NOT_FOUND
        if asked.method == "GET":
            return 200, objects[asked.name]
        if objects is self.objects:
            self.changes.append(asked)
        if asked.method == "DELETE":
            return 200, objects.pop(asked.name)
        before = objects[asked.name] if asked.method == "PATCH" else {}
        objects[asked.name] = _merged(before, asked.sent)
        return 200, objects[asked.name]

    def _labelled(self, selector: str) -> list[Object]:
        wanted = dict(term.split("=") for term in selector.split(","))
        return [found for found in self._records.values() if wanted.items() <= found["metadata"]["labels"].items()]


_NOT_FOUND = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


def _sent(body: bytes) -> Object:
    """Return a request's body, which is JSON or, of helm's own records, a Secret in Kubernetes' Protobuf."""
    if not body.startswith(b"k8s\0"):
        return json.loads(body) if body else {}
    secret = _fields(_fields(body[4:])[2][0])
    metadata = _fields(secret[1][0])
    labels = dict(_entry(entry) for entry in metadata[11])
    data = {key.decode(): base64.b64encode(value).decode() for key, value in map(_entry, secret[2])}
    named = {"name": metadata[1][0].decode(), "labels": {key.decode(): value.decode() for key, value in labels.items()}}
    return {"kind": "Secret", "apiVersion": "v1", "metadata": named, "data": data}


def _entry(message: bytes) -> tuple[bytes, bytes]:
    fields = _fields(message)
    return fields[1][0], fields[2][0]


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """Return the texts and messages in a message of Protobuf by their numbers."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        length, at = _number(message, at)
        if tag % 8 == 2:
            found.setdefault(tag // 8, []).append(message[at : at + length])
            at += length
    return found


def _number(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins there, and where it ends."""
    value = 0
    for place, byte in enumerate(message[at:]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("the message ends within a number")


def _merged(before: Mapping[str, Any], patch: Mapping[str, Any]) -> Object:
    merged = copy.deepcopy(dict(before))
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif not key.startswith("$"):
            merged[key] = _merged(merged.get(key) or {}, value) if isinstance(value, dict) else value
    return merged


def _object(path: str) -> tuple[str, str]:
    """Return the kind that a path of the namespace is about, and the name, which is empty where it names none."""
    plural, _, name = path.partition("/namespaces/")[2].partition("/")[2].partition("/")
    (kind,) = (kind for kinds in _KINDS.values() for kind, found in kinds.items() if found == plural)
    return kind, name


def _discovery() -> dict[str, Any]:
    groups = [version for version in _KINDS if "/" in version]
    found: dict[str, Any] = {
        "/version": {"major": "1", "minor": "23", "gitVersion": "v1.23.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(version) for version in groups]},
    }
    for version, kinds in _KINDS.items():
        resources = [_resource(kind, plural) for kind, plural in kinds.items()]
        place = f"/apis/{version}" if "/" in version else f"/api/{version}"
        found[place] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    return found


def _group(version: str) -> Object:
    named = {"groupVersion": version, "version": version.partition("/")[2]}
    return {"name": version.partition("/")[0], "versions": [named], "preferredVersion": named}


def _resource(kind: str, plural: str) -> Object:
    verbs = ["create", "delete", "get", "list", "patch", "update"]
    return {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}


@contextmanager
def kubernetes_api() -> Iterator[KubernetesApi]:
    """Serve an empty namespace on loopback."""
    api = KubernetesApi()
    with Listener(lambda _: _handler(api)) as listener:
        api.url = f"http://127.0.0.1:{listener.port}"
        yield api


def _handler(api: KubernetesApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            status, answer = api.answer(self.command, self.path, self.rfile.read(length))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - the names that the base class looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Say nothing."""

    return Handler
