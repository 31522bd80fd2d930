"""Two and three real agents on one store, with a Lease between them: never two at work, nothing lost or repeated."""

from pathlib import Path

from cluster import running_cluster
from support import Deploy


def test_one_works_and_the_other_takes_over_when_it_ends(tmp_path: Path, deploy: Deploy) -> None:
    with running_cluster(tmp_path, deploy, "a", "b") as cluster:
        first = cluster.wait_for_leader()
        cluster.wait_for_post(first)
        cluster.terminate(first)
        second = cluster.wait_for_leader(other_than=first)
        cluster.wait_for_post(second)
