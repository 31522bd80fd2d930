"""Two and three real agents on one store, with a Lease between them: never two at work, nothing lost or repeated."""

import json
import random
from pathlib import Path

import pytest

from cluster import Cluster, running_cluster
from ita_ag_oase.demo.loopback import Reply
from lease_api import forbidden, silence, status
from soak.wall_clock import WallClock, library, sweep
from support import Deploy, StatusPage, do_without, free_port

# Long, where one leads all the time; short, where the number of takeovers counts.
LONG = {"LEASE_SECONDS": "60", "LEASE_RENEW_SECONDS": "40", "LEASE_RETRY_SECONDS": "2"}
SHORTER = {"LEASE_SECONDS": "2", "LEASE_RENEW_SECONDS": "1.2", "LEASE_RETRY_SECONDS": "0.4"}


def test_the_other_takes_over_when_the_leader_ends(tmp_path: Path, deploy: Deploy) -> None:
    with running_cluster(tmp_path, deploy, "a", "b") as cluster:
        first = cluster.wait_for_leader()
        cluster.wait_for_post()
        cluster.terminate(first)
        cluster.wait_for_post(other_than=first)
        # Given back, not waited for.
        assert [write.holder for write in cluster.lease.shelf.writes if write.by == first][-1] == ""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_five_takeovers_by_kills_and_ends_lose_and_repeat_nothing(
    tmp_path: Path, deploy: Deploy, seed: int
) -> None:
    random_ = random.Random(seed)
    with running_cluster(tmp_path, deploy, "a", "b", "c", times=SHORTER) as cluster:
        for turn in range(25):
            leader = cluster.wait_for_leader()
            cluster.source.add(random_.randint(1, 20))
            cluster.agents[leader].goes_on_for(random_.uniform(0.0, 0.5))
            end = cluster.kill if random_.random() < 0.5 else cluster.terminate
            end(leader)
            cluster.start(leader)
            assert len(cluster.terms()) > turn
    assert len(cluster.terms()) >= 25


@pytest.mark.timeout(300)
def test_a_leader_that_was_frozen_writes_and_posts_nothing_when_it_wakes(tmp_path: Path, deploy: Deploy) -> None:
    random_ = random.Random(1)
    with running_cluster(tmp_path, deploy, "a", "b") as cluster:
        for _ in range(4):
            frozen = cluster.wait_for_leader()
            cluster.source.add(100)
            cluster.agents[frozen].goes_on_for(random_.uniform(0.0, 3.0))
            cluster.freeze(frozen)
            cluster.wait_for_post(other_than=frozen)
            cluster.thaw(frozen)
            cluster.wait_for_post()


def test_a_frozen_leader_that_is_killed_then_is_missed_by_nobody(tmp_path: Path, deploy: Deploy) -> None:
    with running_cluster(tmp_path, deploy, "a", "b") as cluster:
        frozen = cluster.wait_for_leader()
        cluster.freeze(frozen)
        cluster.wait_for_post(other_than=frozen)
        cluster.kill(frozen)
        cluster.wait_for_post(other_than=frozen)


@pytest.mark.parametrize(
    "answer", [silence(), status(500, "etcdserver: request timed out"), forbidden("a"), status(401, "Unauthorized")]
)
def test_a_leader_ends_its_term_while_the_api_is_of_no_use_and_one_leads_again_after(
    tmp_path: Path, deploy: Deploy, answer: Reply
) -> None:
    with running_cluster(tmp_path, deploy, "a", "b") as cluster:
        cluster.wait_for_post()
        cluster.lease.trouble = lambda _, __: answer
        cluster.wait_until_nobody_leads()
        posts = len(cluster.posts)
        cluster.source.add(10)
        for agent in cluster.agents.values():
            agent.wait_for_line("lease_failed")
            # Both together longer than a Lease lasts, and than it is from poll to poll.
            assert agent.goes_on_for(2)
        assert len(cluster.posts) == posts
        cluster.lease.trouble = lambda _, __: None
        cluster.wait_for_post()


def test_a_leader_that_is_refused_is_followed_by_one_that_is_not(tmp_path: Path, deploy: Deploy) -> None:
    with running_cluster(tmp_path, deploy, "a", "b") as cluster:
        leader = cluster.wait_for_leader()
        cluster.lease.trouble = lambda name, _: forbidden(name) if name == leader else None
        cluster.wait_for_post(other_than=leader)


def test_a_leader_whose_network_is_cut_is_followed_by_one_whose_is_not(tmp_path: Path, deploy: Deploy) -> None:
    with running_cluster(tmp_path, deploy, "a", "b") as cluster:
        leader = cluster.wait_for_leader()
        cluster.cut_off(leader)
        # Exastro and the store are still in its reach.
        cluster.wait_for_post(other_than=leader)
        cluster.agents[leader].wait_for_line("lease_failed")


def test_a_lease_that_is_forgotten_stops_the_leader_until_there_is_one_again(tmp_path: Path, deploy: Deploy) -> None:
    with running_cluster(tmp_path, deploy, "a", "b") as cluster:
        cluster.wait_for_post()
        cluster.lease.shelf.forget()
        cluster.wait_until_nobody_leads()
        cluster.lease.shelf.make()
        # The number of the Lease is raised above it.
        cluster.wait_for_new_term()
        cluster.wait_for_post()


def test_a_lease_that_is_made_anew_in_a_moment_lets_no_two_work(tmp_path: Path, deploy: Deploy) -> None:
    with running_cluster(tmp_path, deploy, "a", "b", "c") as cluster:
        for _ in range(3):
            cluster.wait_for_post()
            cluster.lease.shelf.forget()
            cluster.lease.shelf.make()
            cluster.wait_for_new_term()


def test_clocks_that_differ_by_an_hour_change_nothing(tmp_path: Path, deploy: Deploy) -> None:
    found = library()
    if found is None:
        do_without("libfaketime is not installed (the Debian package of that name)")
    clocks = [WallClock(found, _made(tmp_path / name), random.Random(1)) for name in ("early", "late")]
    with running_cluster(tmp_path, deploy) as cluster:
        for name, clock, offset in zip("ab", clocks, (-3_600, 3_600), strict=True):
            clock.move_to(offset)
            cluster.start(name, **clock.environment)
        for end in (cluster.kill, cluster.terminate, cluster.kill):
            leader = cluster.wait_for_leader()
            end(leader)
            cluster.wait_for_post(other_than=leader)
            cluster.start(leader, **clocks["ab".index(leader)].environment)
    for process in cluster.deployment.processes:
        sweep(process.pid)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_both_tell_who_leads_and_the_other_polls_nothing(tmp_path: Path, deploy: Deploy) -> None:
    ports = {name: free_port() for name in "ab"}
    with running_cluster(tmp_path, deploy, times={**LONG, "EXECUTE_INTERVAL": "3"}) as cluster:
        for name, port in ports.items():
            cluster.start(name, STATUS_PORT=str(port))
        leader = cluster.wait_for_leader()
        (other,) = {*ports} - {leader}
        pages = {name: StatusPage(port) for name, port in ports.items()}
        cluster.agents[other].wait_until(lambda: pages[other].ask("/readyz") == (200, "ok: standby\n"), "the standby")
        cluster.agents[leader].wait_until(lambda: pages[leader].ask("/readyz") == (200, "ok: leader\n"), "the leader")
        cluster.agents[other].wait_until(lambda: pages[other].status["election"]["holder"], "a look at the Lease")
        elections = {name: page.status["election"] for name, page in pages.items()}
        assert elections[leader]["holder"] == elections[other]["holder"] == elections[leader]["identity"]
        assert (elections[leader]["term"], elections[other]["term"]) == (1, None)
        leads = {name: page.metrics["leader monitoring/oase-agent"] for name, page in pages.items()}
        assert leads == {leader: 1.0, other: 0.0}
        assert [page.ask("/livez") for page in pages.values()] == [(200, "ok\n")] * 2
        assert cluster.agents[other].lines("collection_started") == []
        assert "stands by" in pages[other].ask("/")[1]


def test_check_tells_whether_the_lease_can_be_read_and_written(tmp_path: Path, deploy: Deploy) -> None:
    with running_cluster(tmp_path, deploy, times=LONG) as cluster:
        environment = cluster.deployment.environment
        environment.update(cluster.lease.environment("c"))
        assert _about_the_lease(cluster) == ("ok", "monitoring/oase-agent can be read and written; nobody holds it now")
        cluster.lease.trouble = lambda _, request: forbidden("c") if request.method == "PUT" else None
        state, message = _about_the_lease(cluster)
        assert state == "failed"
        assert message.endswith(
            "update is refused: give the service account a Role with the verbs get and update on the Lease "
            "monitoring/oase-agent"
        )
        assert [write.holder for write in cluster.lease.shelf.writes] == [""]
        cluster.lease.trouble = lambda _, __: None
        cluster.start("a")


def _about_the_lease(cluster: Cluster) -> tuple[str, str]:
    found = json.loads(cluster.deployment.run("check", "--json").stdout)
    (finding,) = [finding for finding in found if finding["check"] == "election"]
    return finding["state"], finding["message"]
