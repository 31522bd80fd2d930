"""What each log event means in words: the `message` of its line, and what to do about it.

What fails tells what to do in its `detail`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ita_ag_oase.text import Text


class Message(NamedTuple):
    """The sentence for an event, made with the facts of its line, and what a person can do about it, if anything."""

    text: Text
    action: Text | None = None


MESSAGES: Mapping[str, Message] = {
    "agent_started": Message(
        Text("the agent {version} started as {agent}; it works with {exastro}, events that wait: {waiting_events}")
    ),
    "agent_stopped": Message(Text("the agent has stopped")),
    "agent_stopping": Message(Text("the agent is stopping: nothing is polled any more")),
    "attachment_left_out": Message(Text("{setting}: an attachment is not collected: {name}, {size} bytes")),
    "batch_cut": Message(Text("what was refused is sent again in smaller requests: {detail}")),
    "batch_delivered": Message(Text("delivered to Exastro: events {events}, groups {groups}")),
    "batch_parked": Message(
        Text("{setting}: events are parked: {events}, reason: {detail}"),
        Text("they stay in the store, the rest goes on; `ita-ag-oase outbox` shows, retries or drops them"),
    ),
    "batch_sending": Message(Text("sending to Exastro: events {events}, groups {groups}")),
    "clock_agrees": Message(Text("the clock agrees with Exastro's again, within {seconds} s")),
    "clock_differs": Message(
        Text("the clock differs from Exastro's by {seconds} s"),
        Text("events may expire too early or too late, since Exastro's clock is another one: set both by NTP"),
    ),
    "clock_followed": Message(
        Text("Exastro's clock speaks for a step of {seconds} s, which the agent follows"),
        Text("the cursors moved with the clock"),
    ),
    "clock_stepped": Message(
        Text("the clock was set by {seconds} s"),
        Text("the agent goes on by the time that has passed until Exastro's clock agrees with the new time"),
    ),
    "collection_failed": Message(Text("{setting}: the poll failed: {detail}")),
    "collection_finished": Message(
        Text("{setting}: polled: new events {new}, known ones {known}, repeated ones {repeated}")
    ),
    "collection_recovered": Message(Text("{setting}: polls work again, failures before: {failures}")),
    "collection_started": Message(Text("{setting}: the poll starts")),
    "delivery_failed": Message(Text("events could not be delivered: {detail}")),
    "delivery_recovered": Message(Text("events are delivered again, failures before: {failures}")),
    "events_unusable": Message(
        Text("{setting}: events are unusable: {events}, reason: {detail}"),
        Text("Exastro shows them as unusable: check the setting's keys and flags, and what the source says"),
    ),
    "key_collided": Message(Text("{setting}: a group's key is taken at Exastro; it gets a later one")),
    "leadership_lost": Message(
        Text("term {term} of this agent has ended: {detail}"),
        Text("it stands by; another agent goes on with the work, where there is one"),
    ),
    "leadership_released": Message(Text("the Lease {lease} is given back, so that another agent takes over at once")),
    "leadership_won": Message(Text("this agent leads: it holds the Lease {lease}, and term {term} begins")),
    "lease_failed": Message(Text("the Lease {lease} cannot be read or written: {detail}")),
    "lease_kept": Message(
        Text("the Lease could not be given back, and ends by itself in {seconds} s: {detail}"),
        Text("another agent takes over that much later; nothing is lost"),
    ),
    "lease_recovered": Message(Text("the Lease {lease} can be read and written again, failures before: {failures}")),
    "library_message": Message(Text("{text}")),
    "mail_passed_by": Message(Text("{setting}: the server does not hand out the mail with UID {uid}; it is passed by")),
    "mail_shortened": Message(
        Text("{setting}: a mail of {size_bytes} bytes is collected with its first {kept_bytes} bytes"),
        Text("raise RESPONSE_MAX_BYTES where the whole mail is needed"),
    ),
    "message_unclear": Message(
        Text("a message of Exastro belongs to no group: {detail}"),
        Text("nothing is lost: the groups are offered again one by one"),
    ),
    "nothing_to_deliver": Message(Text("nothing waits for delivery")),
    "purge_failed": Message(Text("old event ids could not be forgotten: {detail}")),
    "purge_recovered": Message(Text("old event ids are forgotten again, failures before: {failures}")),
    "setting_unusable": Message(Text("{setting}: the event collection setting cannot be used: {detail}")),
    "settings_applied": Message(
        Text("event collection settings are in use: polls started {started}, stopped {stopped}")
    ),
    "settings_failed": Message(Text("event collection settings could not be fetched: {detail}")),
    "settings_fetching": Message(Text("event collection settings are being fetched")),
    "settings_file_kept": Message(Text("{path} could not be removed: {detail}")),
    "settings_file_missing": Message(
        Text("{path} could not be written: {detail}"),
        Text("have changed settings fetched with SIGHUP instead"),
    ),
    "settings_known": Message(Text("the agent begins with the settings of last time: {settings}")),
    "settings_recovered": Message(Text("event collection settings are fetched again, failures before: {failures}")),
    "standby_started": Message(
        Text("this agent stands by as {holder}: it works only while it holds the Lease {lease}")
    ),
    "status_server_failed": Message(Text("there is no status page for now: {detail}")),
    "status_server_started": Message(Text("the status page is at {url}")),
    "stock_store_taken_over": Message(
        Text("taken over from {path}: events {events}, ids {ids}, cursors {cursors}, unreadable rows {unreadable}")
    ),
    "store_in_use": Message(
        Text("another agent works on the store {path}"), Text("this one takes over when that one ends")
    ),
    "store_left_locked": Message(
        Text("term {term} of {holder} has ended, though it still holds the lock on the store {path}"),
        Text("this one goes on without the lock, and that one can write nothing; look after its machine"),
    ),
    "store_lock_ineffective": Message(
        Text(
            "the file system of {path} has no working locks, so that nothing keeps a second agent away from the store"
        ),
        Text("use another volume"),
    ),
    "store_on_network": Message(
        Text("the store {path} lies on a network file system ({type})"),
        Text(
            "see that its locks work, and that one agent uses this store; mount it without the options in "
            "`local_locks`, with which locks are known on this machine only"
        ),
    ),
    "store_repaired": Message(
        Text("the store {path} was damaged ({damage}); saved: events {events}, ids {ids}, lost: events {lost}"),
        Text("the agent goes on with what could be read; keep the file set aside until you have looked at it"),
    ),
    "time_zone_unknown": Message(
        Text("{variable} names no time zone: {given}; {used} is used"),
        Text("write a name such as Asia/Tokyo"),
    ),
    "tls_not_verified": Message(
        Text("certificates are not checked, as {variable} says"), Text("anyone on the way can read along")
    ),
    "value_adjusted": Message(
        Text("{variable} is {given}, which is out of range; {used} is used"), Text("write a value within the range")
    ),
}
