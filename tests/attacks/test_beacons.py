"""UDP: what is not authentic changes nothing, what is authentic is a hint, and nobody gets more bytes out than he put in."""
import contextlib
import os
import time

import pytest

from p2p import limits, proto
from p2p.trust.ecc import parse_node_id
from tests.attacks.hostile import LAN, Member
from tests.attacks.target import DESCRIPTORS
from tests.waiting import wait_until

pytestmark = pytest.mark.lab


@contextlib.contextmanager
def throwing(target, source=None):
    """A function that sends datagrams from one address."""
    sock = target.wire.udp(source)
    try:
        yield lambda *datagrams: target.wire.throw(sock, datagrams)
    finally:
        sock.close()


def unhinted(target):
    """The table, without what changes by itself."""
    return {node: (row["name"], row["address"], row["state"], row["verified"]) for node, row in target.nodes().items()}


def silence(target, port=5000):
    """Whoever is told to dial the attacker at this port hears nothing at all."""
    rules = ("add table inet deaf\nadd chain inet deaf in { type filter hook input priority 0; policy accept; }\n"
             f"add rule inet deaf in tcp dport {port} drop\n")
    target.lab.ip("ip", "netns", "exec", target.attacker.namespace, "nft", "-f", "-", input=rules)


def test_forged_beacons_change_nothing_whichever_byte_is_wrong_and_wherever_they_end(target, count):
    before, eve = unhinted(target), Member("forger")
    good = eve.beacon()
    flipped = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1:] for at in range(len(good))]
    cut = [good[:size] for size in range(len(good))]
    bloated = [good + bytes(size) for size in (1, 16, limits.MAX_DATAGRAM, 1400)]
    # with a right MAC of another network's key, and with the tag of one nobody knows
    alien = good[:-16] + LAN.mac(good[:-16] + b"x")
    unknown = good[:16] + os.urandom(8) + good[24:]
    with throwing(target) as throw:
        throw(*cut, *bloated)
        count("udp-length", len(cut) + len(bloated))
        throw(*flipped, alien, unknown)
        count("udp-mac", len(good) - 24)           # all but the header's fields and the tag
        count("udp-network", 8 + 1)
    assert unhinted(target) == before


def test_replayed_stale_and_reordered_beacons_are_heard_once(target, count):
    """A window of 64 for each sender, whatever address a recording is sent from."""
    eve = Member("replayed")
    # in which run it is counts from its own mouth alone
    with contextlib.closing(eve.join(target.friends, incarnation=5)):
        recorded = [eve.beacon(sequence, 5, port=1) for sequence in range(1000, 1000 + 2 * limits.REPLAY_WINDOW)]
        with throwing(target, target.sources[0]) as throw:
            throw(*recorded)
            before = unhinted(target)
        with throwing(target, target.sources[1]) as throw:
            throw(*recorded)                                                          # replayed
            count("udp-replay", len(recorded))                                        # a socket's buffer holds some 200
            throw(eve.beacon(1000 + limits.REPLAY_WINDOW - 1, 5), eve.beacon(1, 5))   # just outside the window, and far
            throw(*(eve.beacon(sequence, 4) for sequence in range(5000, 5020)))       # an earlier run
            count("udp-replay", len(recorded) + 22)
            assert unhinted(target) == before


def test_beacons_in_a_friends_name_change_neither_who_it_is_nor_where_nor_that_it_lives(target):
    """Any member can make them: they are hints, and a friend's own TLS says otherwise."""
    bob = Member("bob")
    with contextlib.closing(bob.join(target.friends, port=4000)) as line:
        before = unhinted(target)[bob.text]
        with throwing(target) as throw:
            throw(*(Member("mallory", bob.key).beacon(incarnation=number + 2, port=6666) for number in range(50)))
        time.sleep(0.2)
        line.request(proto.PING)
        assert unhinted(target)[bob.text] == before and before[0] == "bob" and before[2] == "alive"


def test_forged_incarnations_far_ahead_do_not_silence_whom_they_name(target):
    """Whoever could make a friend's own beacons stale could keep it from being found where nobody knows it yet."""
    bob = Member("silenced")
    with throwing(target) as throw:
        throw(*(Member("mallory", bob.key).beacon(incarnation=(1 << 64) - 1 - number, port=6666) for number in range(50)))
        wait_until(lambda: bob.text in target.nodes(), 5.0, "the forged ones")
        refused = target.json("stats")["refused"].get("udp-replay", 0)
        throw(*(bob.beacon(sequence, 7) for sequence in range(20)))
        throw(bob.beacon(0, 7))
        wait_until(lambda: target.json("stats")["refused"].get("udp-replay", 0) > refused, 5.0, "the replayed one")
        assert target.json("stats")["refused"]["udp-replay"] == refused + 1


def test_each_beacon_in_anothers_name_costs_the_other_one_dial_at_most(target):
    """A victim whose port refuses is not dialled again and again on the word of one datagram."""
    source = target.sources[2]
    received, sent = target.card()
    with throwing(target, source) as throw:
        throw(*(Member("reflector").beacon(port=1, sender=os.urandom(32)) for _ in range(20)))
        time.sleep(3.0)
    mine = target.card()
    assert (mine[1] - sent) / (mine[0] - received) < 1.0


def test_ten_thousand_questions_bring_fewer_bytes_back_than_they_cost(target):
    """All that leaves the root's card counts: answers, dials to the address in the beacon, and its own beacons meanwhile."""
    silence(target)                 # after the tests above: what waits to be dialled goes on for some seconds
    eve = Member("amplifier")
    received, sent = target.card()
    with throwing(target) as throw:
        for _ in range(50):          # half with invented senders, which the root would have to dial
            throw(*(eve.beacon(answer=True, name="", port=5000) for _ in range(100)))
            throw(*(eve.beacon(answer=True, name="", port=5000, sender=os.urandom(32)) for _ in range(100)))
            target.look()
    time.sleep(2 * limits.DIAL_GIVES_WAY)      # what is still to come for them
    after = target.card()
    assert after[0] - received > 10_000 * 150
    assert (after[1] - sent) / (after[0] - received) < 0.1


def test_a_thousand_invented_nodes_take_neither_descriptors_nor_time_from_friends(target):
    """The root dials whom it has heard of; these are never there."""
    silence(target, 5001)
    eve, bob = Member("inventor"), Member("bob")
    began = target.cpu()
    own = time.thread_time()
    with throwing(target) as throw:
        for _ in range(10):
            throw(*(eve.beacon(sender=os.urandom(32), port=5001) for _ in range(200)))
            target.look()
            time.sleep(0.05)
        own = time.thread_time() - own
        with contextlib.closing(bob.join(target.friends, tries=1)):
            assert unhinted(target)[bob.text][2] == "alive"
    assert target.most_descriptors < DESCRIPTORS - 100
    assert target.cpu() - began < 1.0 + 5 * own
    assert len(target.nodes()) < limits.MAX_MEMBERS


def test_a_forged_copy_of_the_roots_own_identity_is_told_a_few_times_and_believed_by_nobody(target):
    me = target.json("id")
    sender = parse_node_id(me["id"])
    for source in target.sources[:20]:
        with throwing(target, source) as throw:
            throw(*(Member("clone").beacon(sender=sender, incarnation=1 << 60) for _ in range(20)))
    wait_until(lambda: any(" clone: " in line for line in target.log()), 5.0, "the warning")
    time.sleep(0.2)
    assert 1 <= len([line for line in target.log() if " clone: " in line]) <= 5
    assert target.nodes()[me["id"]]["state"] == "alive"
