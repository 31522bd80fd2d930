"""Exastro's names and numbers: rows of settings into our model, batches into bodies, messages into meanings."""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from ita_ag_oase.errors import Reason, SettingInvalid
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.model import Batch, CollectionSetting, ConnectionMethod, Group, Piece, RequestMethod
from ita_ag_oase.text import Text

T = TypeVar("T", bound=StrEnum)

SUCCESS = "000-00000"
SECRET_COLUMNS = ("AUTH_TOKEN", "PASSWORD", "SECRET_ACCESS_KEY")

_CONNECTION_METHODS = {
    "1": ConnectionMethod.BEARER,
    "2": ConnectionMethod.BASIC,
    "3": ConnectionMethod.SHARED_KEY,
    "4": ConnectionMethod.IMAP_PASSWORD,
    "5": ConnectionMethod.NONE,
}
_NOT_COLLECTED = "99"
_HTTP_METHODS = {"1": RequestMethod.GET, "2": RequestMethod.POST}
_IMAP_METHODS = {"3": RequestMethod.IMAP_TLS, "4": RequestMethod.IMAP_STARTTLS, "5": RequestMethod.IMAP_PLAIN}
_DIGITS = re.compile(r"[0-9]{1,18}")
_CODE = re.compile(r"\b(\d{3}-\d{5})\b")
_NUMBER = re.compile(r"(?<![\w-])\d{9,11}(?![\w-])")


class Verdict(StrEnum):
    """What a message in the answer to a post says of a group (protocol section 1.5)."""

    NOT_NEWER = "not_newer"
    REFUSED = "refused"


def is_collected_by_agents(row: Mapping[str, Any]) -> bool:
    """Whether a row is for an agent at all."""
    return str(row.get("CONNECTION_METHOD_ID")) != _NOT_COLLECTED


def name_of(row: Mapping[str, Any]) -> str:
    """Return the name in a row, whatever else is wrong with it."""
    return str(row.get("EVENT_COLLECTION_SETTINGS_NAME") or "")


def setting_of(row: Mapping[str, Any], secrets: SecretColumns) -> CollectionSetting:
    """Return a row as a setting with its secrets decrypted. Raises SettingInvalid, naming the column."""
    name = name_of(row)
    opened = {**row, **{column: secrets.decrypt(_text(row, column), column=column) for column in SECRET_COLUMNS}}
    connection = _choice(row, "CONNECTION_METHOD_ID", _CONNECTION_METHODS)
    is_mail = connection is ConnectionMethod.IMAP_PASSWORD
    methods = _IMAP_METHODS if is_mail else _HTTP_METHODS
    return CollectionSetting(
        id=_required(row, "EVENT_COLLECTION_SETTINGS_ID"),
        name=name,
        connection_method=connection,
        request_method=_choice(row, "REQUEST_METHOD_ID", methods),
        url=_required(row, "URL"),
        # Only mailboxes have a port; what an HTTP row holds there is nobody's concern.
        port=_integer(row, "PORT", range(1, 65_536)) if is_mail else None,
        request_header=_text(row, "REQUEST_HEADER"),
        parameter=_text(row, "PARAMETER"),
        proxy=_text(row, "PROXY"),
        auth_token=opened["AUTH_TOKEN"],
        username=_text(row, "USERNAME"),
        password=opened["PASSWORD"],
        access_key_id=_text(row, "ACCESS_KEY_ID"),
        secret_access_key=opened["SECRET_ACCESS_KEY"],
        mailbox=_text(row, "MAILBOXNAME"),
        # A mail is an event by itself, whatever a row holds there.
        response_key=None if is_mail else _text(row, "RESPONSE_KEY"),
        is_list=is_mail or str(row.get("RESPONSE_LIST_FLAG")) == "1",
        event_id_key=None if is_mail else _text(row, "EVENT_ID_KEY"),
        ttl_seconds=_integer(row, "TTL", range(2**31)) or 0,
        row=opened,
    )


def _text(row: Mapping[str, Any], column: str) -> str | None:
    value = row.get(column)
    if value is None or value == "":
        return None
    # A JSON column that came decoded is meant as its text.
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _required(row: Mapping[str, Any], column: str) -> str:
    value = _text(row, column)
    if value is None:
        raise SettingInvalid(
            Text("{setting}: {column} is empty: fill it in in Exastro", setting=name_of(row), column=column),
            reason=Reason.SETTING,
        )
    return value


def _integer(row: Mapping[str, Any], column: str, allowed: range) -> int | None:
    value = _text(row, column)
    if value is None:
        return None
    if not _DIGITS.fullmatch(value) or int(value) not in allowed:
        raise SettingInvalid(
            Text(
                "{setting}: {column} is {given!r}, no whole number from {smallest} to {greatest}: mend it in Exastro",
                setting=name_of(row),
                column=column,
                given=value[:20],
                smallest=allowed[0],
                greatest=allowed[-1],
            ),
            reason=Reason.SETTING,
        )
    return int(value)


def _choice(row: Mapping[str, Any], column: str, choices: Mapping[str, T]) -> T:
    value = str(row.get(column))
    if value not in choices:
        raise SettingInvalid(
            Text(
                "{setting}: {column} is {given!r}, not one of {choices}: mend it in Exastro",
                setting=name_of(row),
                column=column,
                given=value[:20],
                choices=", ".join(choices),
            ),
            reason=Reason.SETTING,
        )
    return choices[value]


def body_of(batch: Batch, version: str) -> tuple[Piece, ...]:
    """Return the JSON body of a post as pieces to be sent one after the other, the events' stored bytes among them."""
    body: list[Piece] = []
    for group in batch.groups:
        body += (b"," if body else b'{"events":[', _head(group, version))
        for number, piece in enumerate(group.pieces):
            body += (b",", piece) if number else (piece,)
        body.append(b"]}")
    return (*body, b"]}")


def _head(group: Group, version: str) -> bytes:
    identity = (
        {"event_collection_settings_id": group.setting_id}
        if group.setting_id
        else {"event_collection_settings_name": group.setting_name}
    )
    head = {"fetched_time": group.fetched_time, **identity, "agent": {"name": group.agent_name, "version": version}}
    return msgspec.json.encode(head)[:-1] + b',"event":['


def code_in(message: str) -> str | None:
    """Return the first code of Exastro's in a message, or None."""
    found = _CODE.search(message)
    return found.group(1) if found else None


def verdict_of(message: str) -> Verdict:
    """Return what a message says. One without a known code is a refusal, unless it speaks of the fetched time."""
    code = code_in(message)
    is_not_newer = code == "499-01818" if code else "fetched_time" in message
    return Verdict.NOT_NEWER if is_not_newer else Verdict.REFUSED


def has_id(message: str, group: Group) -> bool:
    """Whether a message holds the id of a group's setting."""
    return group.setting_id is not None and group.setting_id in message


def has_name(message: str, group: Group) -> bool:
    """Whether a message holds the name of a group's setting as a word."""
    return re.search(rf"(?<![\w-]){re.escape(group.setting_name)}(?![\w-])", message) is not None


def greatest_time(message: str) -> int:
    """Return the greatest fetched time that a message holds, or 0."""
    return max((int(number) for number in _NUMBER.findall(message)), default=0)
