"""Floods of connections: whoever proves nothing gives way, so that friends get in while it lasts. Each counts to 20 of 20."""
import contextlib
import threading
import time

import pytest

from p2p import limits, proto
from tests.attacks.hostile import Member, Wire, inside
from tests.attacks.target import FRIENDS
from tests.waiting import wait_until

pytestmark = pytest.mark.lab

FLOOD = 600             # connections that the attacker holds open, from all of its addresses
_keys = []


def members(number):
    """Identities, made once: a key and a certificate take longer than a handshake."""
    while len(_keys) < number:
        _keys.append(Member(f"member{len(_keys)}"))
    return _keys[:number]


class Flood:
    """Opens connections on threads for as long as the block lasts; `opened` counts them."""

    def __init__(self, target, open_one, threads=2):
        self.target, self.open_one = target, open_one
        self.opened, self.cpu, self.stopped = 0, 0.0, threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]

    def run(self):
        with inside(self.target.wire.namespace):
            self.flood()

    def flood(self):
        kept = []
        while not self.stopped.is_set():
            try:
                kept.append(self.open_one(self.target.wire))
                self.opened += 1
            except OSError:
                pass
            if len(kept) > FLOOD // len(self.threads):
                kept.pop(0).close()
        for sock in kept:
            sock.close()
        self.cpu += time.thread_time()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        wait_until(lambda: self.opened >= 3 * limits.MAX_PENDING, 20.0, "the flood")
        return self

    def __exit__(self, *error):
        self.stopped.set()
        for thread in self.threads:
            thread.join(20.0)


class Friend(threading.Thread):
    """Gets in, as a node does that dials again, and then asks for a round trip again and again; `rounds` counts them."""

    def __init__(self, member, wire):
        super().__init__(daemon=True)
        self.member, self.wire = member, wire
        self.rounds, self.failure, self.left = 0, None, threading.Event()

    def run(self):
        try:
            with contextlib.closing(self.member.join(self.wire)) as line:
                while not self.left.wait(0.2):
                    line.request(proto.PING)
                    self.rounds += 1
        except (OSError, AssertionError) as error:
            self.failure = repr(error)

    def leave(self):
        """The end of it."""
        self.left.set()
        self.join(20.0)


def silent(wire):
    """A connection that says nothing."""
    return wire.tcp(timeout=2.0)


def knocking(wire):
    """The same as fast as the kernel takes it: the root's queue of connections to be accepted is always full."""
    return wire.knock()


def slow(wire):
    """A handshake that goes no further."""
    sock = wire.tcp(timeout=2.0)
    sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    return sock


def keyed(wire):
    """A member that finishes TLS and never says HELLO: it has proved a key and holds a place all the same."""
    return members(FRIENDS + 1)[-1].dial(wire, greet=False)


def mixed(wire, turn=[0]):      # noqa: B006 - one count for all threads is what is wanted
    """Members without a HELLO hold the places, and silent strangers push."""
    turn[0] += 1
    return keyed(wire) if turn[0] % 4 == 0 else silent(wire)


@pytest.mark.parametrize("attack", [silent, knocking, slow, keyed, mixed], ids=lambda attack: attack.__name__)
def test_twenty_of_twenty_friends_get_in_while_it_lasts_and_are_served(target, attack):
    friends = [Friend(member, target.friend(number)) for number, member in enumerate(members(FRIENDS + 1)[:FRIENDS])]
    evicted = target.refused().get("evicted", 0)
    with Flood(target, attack) as flood:
        for friend in friends:
            friend.start()
        try:
            wait_until(lambda: target.look() or all(friend.rounds for friend in friends), 40.0, "20 of 20 friends",
                       lambda: f"{sum(friend.rounds > 0 for friend in friends)} are in; {[friend.failure for friend in friends]}")
            once = [friend.rounds for friend in friends]
            wait_until(lambda: all(friend.rounds > before for friend, before in zip(friends, once)), 10.0,
                       "all to be served at the same time")
            alive = {row["id"] for row in target.nodes().values() if row["state"] == "alive"}
            assert {friend.member.text for friend in friends} <= alive
        finally:
            for friend in friends:
                friend.leave()
        assert flood.opened > 3 * limits.MAX_PENDING
    assert [friend.failure for friend in friends if friend.failure] == []
    assert target.refused().get("evicted", 0) > evicted
    assert len([line for line in target.log() if "gave way" in line]) < 200


def test_who_is_many_nodes_gets_a_share_of_the_places_and_friends_the_rest(target):
    """One computer with more identities than it may connect, each with a right handshake."""
    eve = members(limits.MAX_LINKS_ADDRESS + 10)
    one = Wire(target.attacker.namespace, target.host.address, sources=[target.sources[0]])
    with contextlib.ExitStack() as lines:
        kept = refused = 0
        for member in eve:
            try:
                line = lines.enter_context(contextlib.closing(member.dial(one)))
                line.request(proto.PING)
                kept += 1
            except OSError:
                refused += 1
            target.look()
        assert (kept, refused) == (limits.MAX_LINKS_ADDRESS, 10)
        assert target.refused()["crowded"] == 10
        Member("bob").join(target.friends, tries=1).close()
