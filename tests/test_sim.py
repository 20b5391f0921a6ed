"""The simulation: a seed is a run, the promises hold in it, and each invariant catches a bug that is put in on purpose."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from p2p import limits, membership, proto
from p2p.client import Client
from p2p.jobs import Jobs
from p2p.log import Log
from p2p.membership import Membership
from p2p.neighbours import Neighbours
from p2p.sync.staging import Staging
from p2p.sync.transfer import Fetch
from tests.sim import stories
from tests.sim.faults import KINDS
from tests.sim.run import Broken, Simulation, report

ROOT = Path(__file__).resolve().parent.parent

# (nodes, minutes, seed): some of all sizes, and those that once found something
FIXED = [(2, 30, 1), (3, 30, 2), (4, 30, 3), (6, 20, 4), (6, 20, 5), (12, 10, 6), (25, 5, 7), (5, 8, 117), (8, 10, 871615733),
         (2, 120, 910173)]


def live(nodes, minutes, seed, faults=tuple(KINDS)):
    """A run in which every promise is kept; the Simulation."""
    lines = []
    simulation = Simulation(nodes, seed, faults, lines.append)
    try:
        simulation.run(60 * minutes)
    except Broken as error:
        report(simulation, error, f"python -m tests.sim --nodes {nodes} --minutes {minutes} --seed {seed}")
        raise
    return simulation


def process(hash_seed, trace, *words):
    """The same run in a process of its own: what it prints, and its trace."""
    done = subprocess.run([sys.executable, "-m", "tests.sim", *words, "--trace", str(trace)], cwd=ROOT, stdout=subprocess.PIPE,
                          env=dict(os.environ, PYTHONHASHSEED=hash_seed), encoding="utf-8", check=True)
    return done.stdout, trace.read_bytes()


def test_a_seed_is_the_same_run_byte_for_byte_whatever_the_hash_seed(tmp_path):
    words = ("--nodes", "6", "--minutes", "8", "--seed", "7")
    one, other = process("1", tmp_path / "one", *words), process("2", tmp_path / "other", *words)
    assert one == other and len(one[1]) > 100_000
    assert process("1", tmp_path / "third", *words[:-1], "8") != one


@pytest.mark.parametrize("nodes, minutes, seed", FIXED)
def test_promises_hold_in_known_runs(nodes, minutes, seed):
    simulation = live(nodes, minutes, seed)
    assert simulation.invariants.ended > 0 and sum(simulation.faults.counts.values()) > 0


def test_promises_hold_in_runs_that_nobody_has_seen_before():
    for nodes in (3, 5, 8):
        seed = random.SystemRandom().getrandbits(32)
        print(f"seed {seed} with {nodes} nodes")
        live(nodes, 10, seed)


@pytest.mark.parametrize("fault", KINDS)
def test_each_fault_happens_and_is_survived(fault):
    assert live(4, 6, 11, (fault,)).faults.counts[fault] > 0


def test_nothing_is_kept_of_identities_that_are_forgotten(monkeypatch):
    monkeypatch.setattr(limits, "FORGET", 300.0)
    monkeypatch.setattr(membership, "DIAL_DEAD_FOR", 120.0)
    simulation = live(4, 90, 3, ("forge", "kill", "wipe"))       # found the times at which views had been asked for
    assert len(simulation.world.identities) > 30


@pytest.mark.parametrize("path", sorted(stories.FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_a_story_goes_as_it_is_written(path):
    written, played = stories.play(path)
    assert played == written             # `python -m tests.sim.stories` writes all anew


# -- bugs on purpose

def breaks(seed=3, faults=(), minutes=16, nodes=4):
    """What the run says is broken."""
    with pytest.raises(Broken) as caught:
        Simulation(nodes, seed, faults, lambda line: None).run(60 * minutes)
    return str(caught.value)


def test_a_node_under_anothers_id_is_caught(monkeypatch):
    linked = Membership.linked

    def confused(self, node_id, *rest):
        others = [member.id for member in self if member.verified and not member.is_self]
        linked(self, (others + [node_id])[0], *rest)
    monkeypatch.setattr(Membership, "linked", confused)
    assert breaks().startswith("identity: ")


def test_a_node_that_is_not_dialled_again_is_caught(monkeypatch):
    keep = Client.keep

    def keep_once(self, node_id, addresses, tag):
        if node_id not in self._kept:
            keep(self, node_id, addresses, tag)
    monkeypatch.setattr(Client, "lost", lambda self, node_id: None)
    monkeypatch.setattr(Client, "keep", keep_once)       # nor on the word of a beacon
    assert breaks(faults=("cut",)).startswith("agreement: ")


def test_a_dead_node_that_stays_alive_in_a_table_is_caught(monkeypatch):
    monkeypatch.delitem(membership.NEXT, (membership.ALIVE, "connection lost"))
    assert breaks(faults=("kill", "power")).startswith("agreement: ")


def test_a_version_that_is_installed_half_is_caught(monkeypatch):
    async def run(self):
        """Fetches nothing."""
    monkeypatch.setattr(Fetch, "run", run)
    monkeypatch.setattr(Staging, "commit", lambda self: self._store.install(self, f"{self.path}/tree"))
    assert breaks().startswith("whole: ")


def test_a_run_whose_end_is_never_told_is_caught(monkeypatch):
    def ended(self, job, code):
        job.state, job.exit = "exited", code
    monkeypatch.setattr(Jobs, "_ended", ended)
    assert breaks(minutes=30).startswith("exits: ")


def test_a_wrong_exit_status_is_caught(monkeypatch):
    ended = Jobs._ended
    monkeypatch.setattr(Jobs, "_ended", lambda self, job, code: ended(self, job, code + 1))
    assert breaks().startswith("exits: ")


def test_timers_that_are_never_cancelled_are_caught(monkeypatch):
    def arm(self):
        self._loop.call_later(3600.0, self._due)
    monkeypatch.setattr(Neighbours, "_arm", arm)
    said = breaks(minutes=30, faults=("kill",))
    assert said.startswith("bounded: ") and "timers" in said


def test_a_log_without_a_budget_is_caught(monkeypatch):
    heard, simulate = Neighbours.heard, Simulation(3, 3, ("forge",), lambda line: None)

    def talkative(self, sender, network, beacon, host):
        for _ in range(30):
            self._node.log.write("beacon", beacon.name)
        heard(self, sender, network, beacon, host)
    monkeypatch.setattr(Neighbours, "heard", talkative)
    simulate.run(600)                                    # the budget holds
    monkeypatch.setattr(Log, "write", lambda self, kind, text: self._add(kind, text))
    said = breaks(faults=("forge",))
    assert said.startswith("bounded: ") and "log" in said


def test_a_handler_that_fails_is_caught(monkeypatch):
    monkeypatch.setattr(Neighbours, "_on_view", lambda self, connection, view: proto.no_such_name)
    assert "a handler failed" in breaks() or "handling a message failed" in breaks()
