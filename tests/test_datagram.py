"""What members believe of a datagram: nothing changes unless MAC and sequence are right."""

import hashlib
import hmac

import pytest

from p2p import limits, proto
from p2p.codec import HEADER_SIZE, frame
from p2p.datagram import MAX_RUNS, MAX_SENDERS, Opener, seal
from p2p.errors import PeerError

SENDER = b"s" * 32


class Network:
    tag = b"lan-----"

    def mac(self, data):
        return hmac.new(b"k" * 32, data, hashlib.sha256).digest()[:16]

    def is_authentic(self, data, mac):
        return hmac.compare_digest(self.mac(data), mac)


NETWORK = Network()


def beacon(sequence, incarnation=1, sender=SENDER, **fields):
    values = dict(name="ann", port=1, nonce=2, view=3, answer=False)
    values.update(fields)
    return seal(NETWORK, sender, incarnation, sequence, proto.BEACON, **values)


@pytest.fixture
def opener():
    return Opener(lambda tag: NETWORK if tag == NETWORK.tag else None)


def reason(opener, data):
    with pytest.raises(PeerError) as caught:
        opener.open(data)
    return caught.value.reason


def test_an_authentic_datagram_is_opened_once(opener):
    message, envelope, fields, network = opener.open(beacon(1))
    assert (message, envelope.sender, fields.name, network) == (proto.BEACON, SENDER, "ann", NETWORK)
    assert reason(opener, beacon(1)) == "replay"


def test_every_flipped_byte_and_every_truncation_is_refused_and_changes_nothing(opener):
    data = beacon(5)
    for at in range(len(data)):
        assert reason(opener, data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]) in ("mac", "magic", "version", "length", "network")
        assert reason(opener, data[:at]) == "length"
    assert opener._windows == {}
    assert opener.open(data)


def test_reordering_is_fine_within_the_window_and_stale_beyond_it(opener):
    opener.open(beacon(100))
    opener.open(beacon(100 - limits.REPLAY_WINDOW + 1))
    assert reason(opener, beacon(100 - limits.REPLAY_WINDOW)) == "replay"
    assert reason(opener, beacon(100 - limits.REPLAY_WINDOW + 1)) == "replay"
    opener.open(beacon(99))
    opener.open(beacon(10_000))
    assert reason(opener, beacon(101)) == "replay"


def test_a_recording_of_an_earlier_run_is_stale_once_the_sender_has_told_which_one_is_its_own(opener):
    opener.open(beacon(500, incarnation=7))
    opener.open(beacon(1, incarnation=8))
    assert reason(opener, beacon(500, incarnation=7)) == "replay"
    opener.prove(SENDER, 8)
    assert reason(opener, beacon(501, incarnation=7)) == reason(opener, beacon(1, incarnation=8)) == "replay"
    opener.open(beacon(2, incarnation=8))
    opener.open(beacon(1, incarnation=9))           # it may have started anew
    opener.prove(SENDER, 3)                         # it lost its state folder and is who it was: a backup of its key
    opener.open(beacon(1, incarnation=3))


@pytest.mark.parametrize("is_proven", [False, True])
def test_forged_incarnations_that_lie_far_ahead_do_not_make_the_senders_own_datagrams_stale(opener, is_proven):
    opener.open(beacon(1, incarnation=8))
    if is_proven:
        opener.prove(SENDER, 8)
    for number in range(1, 100):
        opener.open(beacon(5, incarnation=(1 << 63) + number))
        opener.open(beacon(1 + number, incarnation=8))
    assert reason(opener, beacon(100, incarnation=8)) == "replay"
    assert [len(runs) for windows in opener._windows.values() for runs in windows.values()] == [MAX_RUNS]


def test_the_own_window_of_a_sender_who_is_silent_is_not_pushed_out_by_forged_ones(opener):
    opener.prove(SENDER, 8)
    opener.open(beacon(77, incarnation=8))
    for number in range(100):
        opener.open(beacon(1, incarnation=9 + number))
    assert reason(opener, beacon(77, incarnation=8)) == "replay"
    opener.open(beacon(78, incarnation=8))


def test_senders_are_apart_and_bounded(opener):
    for number in range(MAX_SENDERS + 50):
        opener.open(beacon(1, sender=number.to_bytes(32, "big")))
    assert len(opener._windows[NETWORK.tag]) == MAX_SENDERS


def test_oversized_and_foreign_datagrams_are_refused(opener):
    assert reason(opener, beacon(1) + bytes(limits.MAX_DATAGRAM)) == "length"
    assert reason(opener, b"GET / HTTP/1.1\r\n" * 10) == "magic"
    body = proto.Envelope.pack({"tag": NETWORK.tag, "sender": SENDER, "incarnation": 1, "sequence": 1})
    data = frame(proto.SAY.number, 0, body + bytes(16))
    # a message of TCP in a datagram, with a right MAC
    data = data[:HEADER_SIZE - 4] + (len(data) - HEADER_SIZE).to_bytes(4, "little") + data[HEADER_SIZE:]
    assert reason(opener, data + NETWORK.mac(data)) == "unknown"
