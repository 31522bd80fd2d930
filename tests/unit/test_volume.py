"""Whether the store lies on a file system that other machines use, and whose locks they see."""

from pathlib import Path

import pytest

from ita_ag_oase.model import Journal
from ita_ag_oase.store.volume import NetworkVolume, fitting_journal, network_volume

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /storage rw,relatime - nfs4 server:/export rw,vers=4.2,hard,local_lock=none,addr=127.0.0.1
31 22 0:41 / /old rw,relatime shared:7 master:2 - nfs server:/old rw,vers=3,nolock,local_lock=all
32 22 0:42 / /with\\040blank rw,relatime - cifs //server/share rw,nobrl
33 30 0:43 / /storage/local rw,relatime - tmpfs tmpfs rw
34 22 0:44 / /covered rw,relatime - nfs4 server:/below rw
35 22 0:45 / /covered rw,relatime - xfs /dev/vdb rw
36 22 0:46 / /bucket rw,nosuid,nodev,relatime - fuse.s3fs s3fs rw,user_id=0,group_id=0
37 22 0:47 / /gluster rw,relatime - fuse.glusterfs server:/volume rw,user_id=0
38 22 0:48 / /merged rw,relatime - fuse.fuse-overlayfs fuse-overlayfs rw,user_id=0
39 22 0:49 / /stick rw,relatime - fuseblk /dev/sdb1 rw,user_id=0
40 22 0:50 / /cluster rw,relatime - ocfs2 /dev/vdc rw
41 22 0:51 / /guest rw,relatime - virtiofs share rw
"""


@pytest.mark.parametrize(
    ("path", "volume"),
    [
        pytest.param("/var/store", None, id="a disk"),
        pytest.param("/storage/org/store", NetworkVolume("nfs4", ()), id="NFS"),
        pytest.param("/old/store", NetworkVolume("nfs", ("local_lock=all", "nolock")), id="NFS without locks"),
        pytest.param("/with blank/store", NetworkVolume("cifs", ("nobrl",)), id="SMB without locks"),
        pytest.param("/storage/local/store", None, id="a disk below NFS"),
        pytest.param("/storage-2/store", None, id="a name that only begins alike"),
        pytest.param("/covered/store", None, id="a disk on top of NFS"),
        pytest.param("/bucket/store", NetworkVolume("fuse.s3fs", ()), id="a bucket"),
        pytest.param("/gluster/store", NetworkVolume("fuse.glusterfs", ()), id="GlusterFS"),
        pytest.param("/merged/store", None, id="layers of a container"),
        pytest.param("/stick/store", None, id="a disk by a program"),
        pytest.param("/cluster/store", NetworkVolume("ocfs2", ()), id="a disk that machines share"),
        pytest.param("/guest/store", NetworkVolume("virtiofs", ()), id="a folder of the host"),
    ],
)
def test_the_file_system_is_found_by_its_mount(path: str, volume: NetworkVolume | None) -> None:
    assert network_volume(Path(path), MOUNTS) == volume
    assert fitting_journal(Path(path), MOUNTS) == (Journal.TRUNCATE if volume else Journal.WAL)


def test_this_machine_can_be_asked(tmp_path: Path) -> None:
    assert network_volume(tmp_path / "store") is None
