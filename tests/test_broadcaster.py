"""Discovery over real UDP on loopback: heard by all nodes of a computer, and of no use to whoever wants to multiply traffic."""

import socket

import pytest

from p2p import limits, proto
from p2p.broadcaster import Broadcaster
from p2p.datagram import seal
from p2p.trust.network import open_network
from tests.bench import Bench
from tests.nodes import free_port


class Networks:
    """The open network alone."""

    def __init__(self):
        self.lan = open_network()

    def all(self):
        return [self.lan]

    def by_tag(self, tag):
        return self.lan if tag == self.lan.tag else None


class Bed(Bench):
    def __init__(self):
        super().__init__()
        self.networks = Networks()
        self.port = free_port()
        self.made = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.sequence = 0

    def broadcaster(self, me, name="ann"):
        made = Broadcaster(self.loop, me, self.networks, 1, self.port, lambda tag: {"name": name, "port": 5, "nonce": 7, "view": 9},
                           lambda sender, network, fields, host: made.heard.append((sender, fields.name, host)),
                           lambda reason, host: made.refused.append(reason), lambda: 2)
        made.heard, made.refused = [], []
        self.made.append(made)
        return made

    def beacon(self, answer=True, name="stranger", sender=b"s" * 32):
        self.sequence += 1
        return seal(self.networks.lan, sender, 1, self.sequence, proto.BEACON, name=name, port=1, nonce=2, view=3, answer=answer)

    def send(self, data):
        self.socket.sendto(data, ("127.0.0.1", self.port))

    def received(self):
        found = []
        while True:
            try:
                found.append(self.socket.recv(2000))
            except BlockingIOError:
                return found

    def close(self):
        for broadcaster in self.made:
            broadcaster.close()
        self.socket.close()
        self.loop.close()


@pytest.fixture
def bed():
    bed = Bed()
    yield bed
    bed.close()


def test_two_nodes_of_one_computer_hear_each_other_and_themselves_by_their_own_id(bed):
    ann, bob = bed.broadcaster(b"a" * 32, "ann"), bed.broadcaster(b"b" * 32, "bob")
    assert ann.can_hear and bob.can_hear
    ann.start()
    bob.start()
    bed.until(lambda: {sender for sender, *_ in ann.heard} == {sender for sender, *_ in bob.heard} == {b"a" * 32, b"b" * 32})
    assert ann.refused == bob.refused == []


def test_a_beacon_that_asks_is_answered_with_no_more_bytes_than_it_brought(bed):
    node = bed.broadcaster(b"a" * 32, "a name that is a good deal longer than the question's own \u4e2d\u6587")
    question = bed.beacon(name="")
    bed.send(question)
    answers = []
    bed.until(lambda: answers.extend(bed.received()) or answers)
    assert len(answers) == 1 and len(answers[0]) <= len(question)
    assert node.heard[0][:2] == (b"s" * 32, "")


def test_a_source_gets_one_answer_a_second_whatever_it_sends(bed):
    node = bed.broadcaster(b"a" * 32)
    sent = got = 0
    for _ in range(2000):
        question = bed.beacon()
        bed.send(question)
        sent += len(question)
        bed.loop.turn(0)
        got += sum(map(len, bed.received()))
    bed.until(lambda: len(node.heard) >= 1900)
    got += sum(map(len, bed.received()))
    assert 0 < got <= sent / 100


def test_what_is_not_authentic_is_neither_heard_nor_answered(bed):
    node = bed.broadcaster(b"a" * 32)
    good = bed.beacon()
    forged = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1:] for at in range(0, len(good), 7)]
    bad = forged + [b"", b"x", bytes(200), good[:-1], good + b"\0", good + bytes(limits.MAX_DATAGRAM)]
    for data in bad:
        bed.send(data)
    bed.until(lambda: len(node.refused) == len(bad))
    assert node.heard == [] and bed.received() == []
    bed.send(good)
    bed.until(lambda: node.heard)
    bed.send(good)
    bed.until(lambda: node.refused[-1] == "replay")
    assert len(node.heard) == 1


def test_its_own_beacon_is_not_answered(bed):
    node = bed.broadcaster(b"a" * 32)
    bed.send(bed.beacon(sender=b"a" * 32))
    bed.until(lambda: node.heard)
    bed.idle(0.05)
    assert bed.received() == []


def test_its_own_beacons_are_no_replays_after_a_copy_of_the_node_was_heard(bed):
    node = bed.broadcaster(b"a" * 32)
    later = seal(bed.networks.lan, b"a" * 32, 2, 1, proto.BEACON, name="copy", port=1, nonce=99, view=3, answer=False)
    bed.send(later)
    bed.until(lambda: node.heard)
    node.start()
    bed.until(lambda: node.traffic["in_messages"] > 3)
    bed.send(later)
    bed.until(lambda: node.refused == ["replay"])


def test_nothing_is_sent_after_close(bed):
    node = bed.broadcaster(b"a" * 32)
    other = bed.broadcaster(b"b" * 32)
    node.start()
    bed.until(lambda: other.heard)
    node.close()
    sent = node.traffic["out_messages"]
    end = bed.loop.now() + 0.7          # beyond the start's first beacons
    while bed.loop.now() < end:
        bed.loop.turn(0.05)
    assert node.traffic["out_messages"] == sent
