"""Many at once, peers that flood, and peers that never read: everybody else is served meanwhile, and memory stays bounded.

Real sockets and the product's real TLS. Who floods, and the server it floods, are processes of their own; the innocent one
is here. What is measured is printed (`pytest -s`): bounds are wide, because the computer may be busy with something else.
"""
import os
import resource
import time

import pytest

from p2p import limits, proto
from p2p.codec import HEADER_SIZE, frame
from p2p.errors import LinkDown
from p2p.links import Links
from tests.ends import Bed, ping
from tests.peers import Program, Speaker, figures
from tests.twin import slow_decode
from tests.waiting import wait_until

MANY = 2000
SLOWEST = 3.0          # s that an innocent peer may have to wait, on a computer with two busy cores
TURN = 0.25            # s of CPU that one turn may take; what it takes is a tenth of that
KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def bed(tmp_path):
    bed = Bed(tmp_path)
    yield bed
    bed.loop.close()
    assert bed.events == []


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Starts programs of tests/peers.py, each with a home of its own; they end with the module."""
    started = []

    def start(role, **plan):
        started.append(Program(role, tmp_path_factory.mktemp(role), **plan))
        return started[-1]
    yield start
    for program in started:
        program.close()


@pytest.fixture(scope="module")
def server(programs):
    """The root that is flooded: one for all floods, so that one may not leave behind what harms the next. Its table is large,
    so that what it answers to NODES is."""
    server = programs("root", port=0, members=1000)
    server.port = server.hear()["port"]
    return server


def all_descriptors():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < MANY + 200:
        pytest.skip(f"a process may have {hard} descriptors here: {MANY} connections need {MANY + 200}")


# -- many

def test_two_thousand_connections_at_once_are_served_cost_little_and_give_their_descriptors_back(programs):
    all_descriptors()
    server = programs("server")
    port = server.hear()["port"]
    crowds = [programs("crowd", host="127.0.0.1", port=port, count=MANY // 2) for _ in range(2)]
    crowds[0].ask("one")           # what the first connection makes (contexts, modules) is not what each costs
    before = server.ask("report")
    began = time.monotonic()
    for crowd in crowds:
        crowd.say("open")
    opened = [crowd.hear() for crowd in crowds]
    seconds = time.monotonic() - began
    after = server.ask("report")
    assert sum(crowd["connections"] for crowd in opened) == after["connections"] == MANY
    assert after["descriptors"] - before["descriptors"] == MANY - 1
    for crowd in crowds:
        crowd.say("ping")
    served = [crowd.hear() for crowd in crowds]
    assert sum(crowd["answered"] for crowd in served) == MANY
    idle = server.ask("report")
    each = {name: (idle[name] - before[name]) / (MANY - 1) / KIB for name in ("rss", "pss")}
    print(f"\n{MANY} TLS connections in {seconds:.1f} s, server's CPU {after['cpu'] - before['cpu']:.1f} s; "
          f"KiB for each: PSS {each['pss']:.1f}, RSS {each['rss']:.1f}; "
          f"slowest of {MANY} round trips at once: {max(crowd['worst'] for crowd in served):.2f} s")
    assert each["rss"] < 40
    assert crowds[0].ask("close") and idle["lost"] == 0
    crowds[1].kill()
    wait_until(lambda: server.ask("report")["descriptors"] <= before["descriptors"] - 1, 20.0, "the descriptors")
    over = server.ask("report")
    assert over["connections"] == over["pending"] == 0 and over["lost"] == MANY and over["events"] == []


# -- floods

class Innocent:
    """A member that asks for a round trip again and again."""

    def __init__(self, bed, port):
        self._bed = bed
        self._connection = bed.wait(bed.end("innocent").client().dial([("127.0.0.1", port)], bed.end("innocent").tag))

    def delays(self, seconds):
        """s that each took, sorted."""
        delays, end = [], time.monotonic() + seconds
        while time.monotonic() < end or len(delays) < 10:
            began = time.monotonic()
            ping(self._bed, self._connection)
            delays.append(time.monotonic() - began)
            self._bed.loop.turn(0.005)
        return sorted(delays)

    def leave(self):
        self._connection.abort()


def said(what, delays, before, after, sent):
    """What one flood did, in a line."""
    seconds = after["at"] - before["at"]
    return (f"{what:>28}: round trip of the innocent median {1e3 * delays[len(delays) // 2]:.1f}, worst {1e3 * delays[-1]:.1f} ms; "
            f"the server's longest turn {1e3 * after['worst_turn']:.1f} ms, its CPU {1e3 * after['worst_turn_cpu']:.1f} ms; "
            f"sent {sent / seconds / MIB:.1f} MiB/s; queued {after['queued'] / MIB:.1f} MiB; RSS {after['rss'] / MIB:.0f} MiB")


def report(server):
    return dict(server.ask("report"), at=time.monotonic())


FLOODS = [["keepalives"], ["views"], ["mixed"], ["pings"], ["unknown"], ["lines"], ["nodes"], ["manifests"], ["catalogues"], ["bodies"],
          ["unread pings"], ["unread nodes"], ["mixed", "unknown", "bodies", "unread nodes"]]


@pytest.mark.parametrize("kinds", FLOODS, ids=" and ".join)
def test_an_innocent_peer_is_served_while_others_flood_and_memory_stays_bounded(bed, programs, server, kinds):
    innocent = Innocent(bed, server.port)
    quiet = report(server)
    floods = [programs("flood", host="127.0.0.1", port=server.port, kind=kind) for kind in kinds]
    for flood in floods:
        flood.hear()
    innocent.delays(0.2)
    before = report(server)
    delays = innocent.delays(0.8)
    after = report(server)
    sent = sum(flood.ask("state")["sent"] for flood in floods)
    print("\n" + said(" + ".join(kinds), delays, quiet, after, sent))
    assert delays[-1] < SLOWEST
    assert max(before["worst_turn_cpu"], after["worst_turn_cpu"]) < TURN * len(kinds)
    assert after["rss"] - quiet["rss"] < 64 * MIB * len(kinds)
    assert after["queued"] < (2 * limits.MAX_BUFFERED + limits.MAX_ANSWERING * limits.MAX_BODY) * len(kinds)
    assert sent > MIB // 4 and after["events"] == []
    for flood in floods:
        flood.close()
    innocent.leave()
    wait_until(lambda: server.ask("report")["connections"] == 0, 20.0, "all to be gone")


# -- who never reads

class Deaf:
    """A server here, and a member that takes nothing from TCP until it is told to."""

    def __init__(self, bed):
        self.bed = bed
        self.ann = bed.end("ann")
        self.links = Links(bed.loop, self.ann.identity.node_id, None, None)
        self.server = self.ann.server()
        self.speaker = Speaker(bed, bed.end("bob"), self.server.port, receive_buffer=4096).join()
        bed.until(lambda: self.ann.ready)
        self.connection = self.ann.ready[0]
        self.links.watch(self.connection)
        self.sent = []

    def produce(self):
        """Until the connection says that it has no room."""
        while self.connection.has_room:
            self.post()
            self.bed.loop.turn(0)

    def post(self, size=60_000):
        body = os.urandom(8) * (size // 8)
        self.sent.append(body)
        self.connection.post(proto.DATA.word, 0, body)


def test_a_peer_that_never_reads_costs_bounded_memory_makes_its_producer_wait_and_is_dropped(bed, monkeypatch):
    monkeypatch.setattr(limits, "FRAME_DEADLINE", 1.0)
    deaf, before = Deaf(bed), figures()["rss"]
    connection, began = deaf.connection, bed.loop.now()
    deaf.produce()
    waiting = bed.loop.start(connection.room())
    innocent = bed.wait(bed.end("innocent").client().dial([("127.0.0.1", deaf.server.port)], deaf.ann.tag))
    for _ in range(5):
        ping(bed, innocent)
    assert not connection.has_room and not waiting.done and not deaf.ann.lost
    assert limits.MAX_BUFFERED <= connection.queued < limits.MAX_BUFFERED + 60_000 + HEADER_SIZE
    assert figures()["rss"] - before < 4 * limits.MAX_BUFFERED
    bed.until(lambda: deaf.ann.lost)
    assert deaf.ann.lost[0].reason == "stalled" and 0.9 < bed.loop.now() - began < 15.0
    bed.until(lambda: waiting.done)
    assert isinstance(waiting.error, LinkDown) and connection.queued == 0
    ping(bed, innocent)
    deaf.speaker.close()


def test_a_patient_connection_keeps_a_peer_that_does_not_read_and_loses_nothing(bed, monkeypatch):
    monkeypatch.setattr(limits, "FRAME_DEADLINE", 0.2)
    monkeypatch.setattr(limits, "SILENCE", 0.2)
    monkeypatch.setattr(limits, "TICK", 0.05)
    deaf = Deaf(bed)
    deaf.connection.be_patient()
    deaf.produce()
    waiting = bed.loop.start(deaf.connection.room(limits.LOW_WATER))
    end = bed.loop.now() + 1.0
    while bed.loop.now() < end:
        bed.loop.turn(0.05)
    assert not deaf.ann.lost and not waiting.done and deaf.connection.is_ready
    deaf.post(300_000)
    deaf.speaker.hurry()
    bed.until(lambda: len(deaf.speaker.read()) > sum(map(len, deaf.sent)) and waiting.done)
    bed.until(lambda: deaf.connection.queued == 0)
    frames, rest = slow_decode(bytes(deaf.speaker.read()))
    assert [body for (_, number, _), _, body in frames if number == proto.DATA.number] == deaf.sent and rest == "clean"
    assert waiting.error is None
    deaf.speaker.close()


def test_who_asks_and_does_not_read_the_answers_is_not_heard_until_he_does(bed):
    deaf = Deaf(bed)
    large = bytes(1 << 20)

    async def manifest(connection, fields):
        return {"manifest": large}
    deaf.ann.dispatch.request(proto.MANIFEST, manifest)
    for asked in range(1, 21):
        deaf.speaker.say(frame(proto.MANIFEST.number, asked, bytes(32)))
        for _ in range(3):
            bed.loop.turn(0)
    assert deaf.connection.queued < limits.MAX_BUFFERED + 3 * limits.MAX_BODY
    deaf.speaker.hurry()
    bed.until(lambda: len(deaf.speaker.read()) > 20 * len(large))
    frames, rest = slow_decode(bytes(deaf.speaker.read()))
    assert sorted(request for (_, number, _), request, _ in frames if number == proto.MANIFEST.number) == list(range(1, 21))
    deaf.speaker.close()
