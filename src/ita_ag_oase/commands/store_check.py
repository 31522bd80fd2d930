"""What `check` finds out about the store without making or changing one."""

import os
from collections.abc import Iterator
from pathlib import Path

from ita_ag_oase.commands.findings import Check, Finding, State
from ita_ag_oase.errors import AgentError
from ita_ag_oase.settings import Settings
from ita_ag_oase.store.access import StoreAccess, is_older
from ita_ag_oase.store.database import StoreLock, try_locks
from ita_ag_oase.store.reserve import RESERVE_BYTES, Reserve, free_bytes
from ita_ag_oase.store.volume import NetworkVolume, network_volume
from ita_ag_oase.text import Text

_SUBJECT = Text("store")
_MEBIBYTE = 1_048_576


def check_store(settings: Settings) -> Iterator[Finding]:
    """Yield whether the folder can be written, locked and filled, and whether the store in it can be read."""
    folder = _nearest_folder(settings.store_path.parent)
    found = _check_folder(folder)
    yield found
    yield _check_file(settings)
    if found.state is State.FAILED:
        return
    yield _check_room(folder, settings)
    volume = network_volume(folder)
    if volume is not None:
        yield _judged(folder, volume)


def _nearest_folder(folder: Path) -> Path:
    """Return the folder, or where it is not there yet, the one in which it will be made."""
    return next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)


def _check_folder(folder: Path) -> Finding:
    try:
        works = try_locks(folder)
    except AgentError as err:
        action = Text("make {folder} a folder that this user can write, or name another in STORAGEPATH", folder=folder)
        return Finding(Check.STORE, _SUBJECT, State.FAILED, Text("{error}", error=err), action)
    if not works:
        message = Text("locks do not work in {folder}, so that nothing keeps a second agent away", folder=folder)
        action = Text("name a folder of another volume in STORAGEPATH")
        return Finding(Check.STORE, _SUBJECT, State.FAILED, message, action)
    return Finding(Check.STORE, _SUBJECT, State.OK, Text("{folder} can be written, and locks work", folder=folder))


def _check_file(settings: Settings) -> Finding:
    path = settings.store_path
    try:
        if not path.exists():
            return Finding(Check.STORE, _SUBJECT, State.OK, Text("there is none at {path} yet", path=path))
        if is_older(path):
            message = Text("an older version of the agent wrote {path}", path=path)
            return Finding(Check.STORE, _SUBJECT, State.WARNING, message, Text("this version renews it at its start"))
        with StoreAccess(path) as store:
            used_bytes = store.sizes().used_bytes
        is_taken = StoreLock(path).is_taken()
    except (AgentError, OSError) as err:
        return Finding(Check.STORE, _SUBJECT, State.FAILED, Text("{error}", error=err))
    if used_bytes >= settings.storage_max_bytes:
        message = Text("{path} holds as much as it may, so that polling pauses", path=path)
        action = Text("look at `ita-ag-oase outbox`, or raise STORAGE_MAX_BYTES")
        return Finding(Check.STORE, _SUBJECT, State.FAILED, message, action)
    if is_taken:
        return Finding(Check.STORE, _SUBJECT, State.OK, Text("{path} can be read; an agent uses it now", path=path))
    return Finding(Check.STORE, _SUBJECT, State.OK, Text("{path} can be read; no agent uses it now", path=path))


def _check_room(folder: Path, settings: Settings) -> Finding:
    path, max_bytes = settings.store_path, settings.storage_max_bytes
    free = free_bytes(folder / path.name)
    facts = {"free": free // _MEBIBYTE, "max": max_bytes // _MEBIBYTE}
    if free < (_MEBIBYTE if Reserve(path).is_there() else RESERVE_BYTES):
        message = Text("its volume has {free} MiB left, less than polling takes", **facts)
        action = Text("free some, enlarge the volume, or name a folder of another one in STORAGEPATH")
        return Finding(Check.STORE, _SUBJECT, State.FAILED, message, action)
    present = path.stat().st_size if path.exists() else 0
    if present + free < max_bytes:
        message = Text("its volume has {free} MiB left, but it may grow to {max} MiB", **facts)
        action = Text("enlarge the volume or lower STORAGE_MAX_BYTES; polling pauses where either is full")
        return Finding(Check.STORE, _SUBJECT, State.WARNING, message, action)
    return Finding(
        Check.STORE, _SUBJECT, State.OK, Text("its volume has room for the {max} MiB it may grow to", **facts)
    )


def _judged(folder: Path, volume: NetworkVolume) -> Finding:
    if volume.local_locks:
        message = Text(
            "{folder} is on a network ({type}), mounted so that locks are known on this machine only ({options})",
            folder=folder,
            type=volume.type,
            options=", ".join(volume.local_locks),
        )
        action = Text("mount it without these options, or name another folder in STORAGEPATH")
        return Finding(Check.STORE, _SUBJECT, State.WARNING, message, action)
    message = Text("{folder} is on a network ({type})", folder=folder, type=volume.type)
    action = Text("see that its locks work between machines, and that one agent uses this store")
    return Finding(Check.STORE, _SUBJECT, State.WARNING, message, action)
