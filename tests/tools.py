"""Monitoring tools on loopback that keep to their manuals: what a request must be, what is answered, what is refused.

They are strict where a real tool is: names that a method does not have, a token on the wrong way, or another content
type are refused in the tool's own way.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from ita_ag_oase.demo.loopback import Reply, Request, as_json
from support import ScriptedSource

TOKEN = "tool-token"

# The parameters that all of Zabbix's get methods have (manual, API, reference commentary).
_COMMON = {
    *("countOutput", "editable", "excludeSearch", "filter", "limit", "output", "preservekeys", "search"),
    *("searchByAny", "searchWildcardsEnabled", "sortfield", "sortorder", "startSearch"),
}
# Those of both methods in 6.0 and in 7.0 (manual, API, problem.get and event.get).
_OF_BOTH = _COMMON | {
    *("eventids", "groupids", "hostids", "objectids", "source", "object", "acknowledged", "suppressed", "severities"),
    *("evaltype", "tags", "eventid_from", "eventid_till", "time_from", "time_till", "selectTags"),
    "selectSuppressionData",
}
_METHODS = {
    "problem.get": _OF_BOTH | {"recent", "selectAcknowledges"},
    "event.get": _OF_BOTH | {"problem_time_from", "problem_time_till", "value", "selectHosts", "selectRelatedObject"},
}
_SORT_FIELDS = {"problem.get": {"eventid"}, "event.get": {"eventid", "objectid", "clock"}}
_CONTENT_TYPES = ("application/json-rpc", "application/json", "application/jsonrequest")


class Tool(ScriptedSource):
    """A tool that answers while it is entered, and notes what it was asked for and did not refuse."""

    def __init__(self) -> None:
        super().__init__("tool", self._reply)
        self.token = TOKEN
        self.asked: list[dict[str, Any]] = []

    def _reply(self, request: Request) -> Reply:
        raise NotImplementedError


class _Refused(Exception):
    """A JSON-RPC call is refused: code and message as JSON-RPC 2.0 has them, and what Zabbix adds."""

    def __init__(self, code: int, message: str, data: str) -> None:
        super().__init__(data)
        self.error = {"code": code, "message": message, "data": data}


class Zabbix(Tool):
    """The API of a Zabbix: 6.0 takes the token in the body, 7.0 in the header or the body, 7.2 in the header alone."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self.problems: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self._version = tuple(int(part) for part in version.split("."))

    def _reply(self, request: Request) -> Reply:
        if (request.method, request.path) != ("POST", "/zabbix/api_jsonrpc.php"):
            return Reply(status=404)
        if request.headers.get("content-type") not in _CONTENT_TYPES:
            return Reply(status=412)
        call = json.loads(request.body)
        if "id" not in call:
            # A notification in the words of JSON-RPC: it gets no answer.
            return Reply()
        try:
            return as_json({"jsonrpc": "2.0", "result": self._result(call, request.headers), "id": call["id"]})
        except _Refused as refusal:
            return as_json({"jsonrpc": "2.0", "error": refusal.error, "id": call["id"]})

    def _result(self, call: dict[str, Any], headers: Mapping[str, str]) -> list[dict[str, Any]]:
        self._check_members(call)
        self._check_token(call, headers)
        method, params = call["method"], call["params"]
        _check_params(method, params)
        self.asked.append(params)
        found = self.problems if method == "problem.get" else self.events
        return [self._as_asked(entry, params) for entry in found if _is_asked_for(entry, method, params)]

    def _check_members(self, call: Mapping[str, Any]) -> None:
        allowed = {"jsonrpc", "method", "params", "id"} | ({"auth"} if self._version < (7, 2) else set())
        for name in sorted(call.keys() - allowed):
            raise _Refused(-32600, "Invalid request.", f'Invalid parameter "/": unexpected parameter "{name}".')
        if call.get("jsonrpc") != "2.0":
            raise _Refused(-32600, "Invalid request.", "JSON-rpc version is not specified.")

    def _check_token(self, call: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        in_header = headers.get("authorization") == f"Bearer {self.token}" and self._version >= (6, 4)
        if not in_header and call.get("auth") != self.token:
            raise _Refused(-32602, "Invalid params.", "Not authorized.")

    def _as_asked(self, entry: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
        answer = {name: value for name, value in entry.items() if name not in ("tags", "hosts")}
        if self._version < (6, 4):
            answer.pop("cause_eventid")
        if params.get("selectTags") == "extend":
            answer["tags"] = entry["tags"]
        if "selectHosts" in params:
            answer["hosts"] = [{name: host[name] for name in params["selectHosts"]} for host in entry["hosts"]]
        return answer


def _check_params(method: str, params: Mapping[str, Any]) -> None:
    if method not in _METHODS:
        raise _Refused(-32602, "Invalid params.", f'Incorrect API "{method.partition(".")[0]}".')
    for name in sorted(params.keys() - _METHODS[method]):
        raise _Refused(-32602, "Invalid params.", f'Invalid parameter "/": unexpected parameter "{name}".')
    if not set(params.get("sortfield", ())) <= _SORT_FIELDS[method]:
        raise _Refused(-32602, "Invalid params.", 'Invalid parameter "/sortfield".')
    if not isinstance(params.get("recent", False), bool):
        raise _Refused(-32602, "Invalid params.", 'Invalid parameter "/recent": a boolean is expected.')


def _is_asked_for(entry: Mapping[str, Any], method: str, params: Mapping[str, Any]) -> bool:
    if method == "problem.get" and not params.get("recent", False):
        return bool(entry["r_eventid"] == "0")
    return int(entry["clock"]) >= int(params.get("time_from", 0))


class Alerts(Tool):
    """A list of alerts behind a GET: Alertmanager's, Grafana's or Prometheus's, with or without a token."""

    def __init__(self, path: str, *, filters: frozenset[str], has_token: bool) -> None:
        super().__init__()
        self.answer: Any = []
        self._path = path
        self._filters = filters
        self._has_token = has_token

    def _reply(self, request: Request) -> Reply:
        if (request.method, request.path) != ("GET", self._path):
            return Reply(status=404)
        if self._has_token and request.headers.get("authorization") != f"Bearer {self.token}":
            return as_json({"message": "Invalid API key"}, 401)
        query = dict(parse_qsl(request.query, strict_parsing=True)) if request.query else {}
        if not query.keys() <= self._filters or not set(query.values()) <= {"true", "false"}:
            return as_json({"code": 601, "message": "a parameter in query is unknown or of the wrong type"}, 400)
        self.asked.append(query)
        return as_json(self.answer)


class RestApi(Tool):
    """An API with a key in a header that gives alarms in pages, in the order of their ids."""

    page_size = 2

    def __init__(self) -> None:
        super().__init__()
        self.alarms: list[dict[str, Any]] = []

    def _reply(self, request: Request) -> Reply:
        if (request.method, request.path) != ("GET", "/v1/alarms"):
            return Reply(status=404)
        if request.headers.get("x-api-key") != self.token:
            return as_json({"error": "no such key"}, 401)
        query: dict[str, Any] = dict(parse_qsl(request.query, strict_parsing=True))
        if not query.keys() <= {"from", "after", "order", "limit"}:
            return as_json({"error": "no such parameter"}, 400)
        self.asked.append(query)
        is_new = _after(query)
        found = [alarm for alarm in sorted(self.alarms, key=lambda alarm: int(alarm["id"])) if is_new(alarm)]
        return as_json({"data": {"alarms": found[: min(int(query["limit"]), self.page_size)]}})


def _after(query: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool]:
    if "after" in query:
        return lambda alarm: int(alarm["id"]) > int(query["after"])
    return lambda alarm: int(alarm["at"]) >= int(query["from"])
