"""What kind of file system the store lies on: whether its locks can be trusted, and which journal fits it."""

import re
from dataclasses import dataclass
from pathlib import Path

from ita_ag_oase.model import Journal

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK_TYPES = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "fhgfs", "fuse", "gfs2", "gpfs", "lustre", "nfs", "nfs4", "ocfs2"}
    | {"orangefs", "smb3", "smbfs", "virtiofs"}
)
# Of the many that programs serve, most reach over a network (glusterfs, s3fs, sshfs, rclone); these lie on a disk here.
_LOCAL_FUSE_TYPES = frozenset(
    {"fuse.bindfs", "fuse.cryfs", "fuse.encfs", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.lxcfs", "fuse.mergerfs"}
    | {"fuse.ntfs-3g", "fuse.unionfs", "fuse.unionfs-fuse", "fuse.zfs"}
)
# With these, a lock is known on this machine only (nfs(5), mount.cifs(8)).
_LOCAL_LOCKS = frozenset({"nolock", "local_lock=all", "local_lock=flock", "local_lock=posix", "nobrl"})


@dataclass(frozen=True, slots=True)
class NetworkVolume:
    """A file system that other machines use as well; `local_locks` are mount options that keep locks from them."""

    type: str
    local_locks: tuple[str, ...]


def fitting_journal(path: Path, mounts: str | None = None) -> Journal:
    """Return how changes to a store are to be made safe: without shared memory, where other machines may use it.

    A WAL has an index in memory that all who use the file must share (https://sqlite.org/wal.html): one machine's.
    """
    return Journal.WAL if network_volume(path, mounts) is None else Journal.TRUNCATE


def network_volume(path: Path, mounts: str | None = None) -> NetworkVolume | None:
    """Return the network file system that a file lies on; None where it is none, or that cannot be told.

    `mounts` is the text of /proc/self/mountinfo (proc(5)), which only Linux has.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    file = path.resolve()
    best: tuple[int, NetworkVolume | None] = (0, None)
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split(" ")[4]))
        depth = len(point.parts)
        if depth >= best[0] and file.is_relative_to(point):
            # Of those at the same place, the last lies on top.
            best = (depth, _as_network_volume(before.split(" ")[5], after))
    return best[1]


def _as_network_volume(own_options: str, rest: str) -> NetworkVolume | None:
    type_, *_, options = rest.split(" ")
    is_served = type_.startswith("fuse.") and type_ not in _LOCAL_FUSE_TYPES
    if type_ not in _NETWORK_TYPES and not is_served:
        return None
    return NetworkVolume(type_, tuple(sorted(_LOCAL_LOCKS.intersection(f"{own_options},{options}".split(",")))))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
