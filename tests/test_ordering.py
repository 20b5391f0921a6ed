"""One order for all: what the sequencer and its followers promise where links break, peers leave and somebody lies."""

import random

import pytest

from p2p.errors import PeerError
from p2p.limits import MAX_SHARED, MAX_SHARED_KEYS
from p2p.ordering import CHANGE, ENTRY, MESSAGE, WINDOW, Entry, Follower, Sequencer, State


class Member:
    """A follower, what it has delivered, and the two wires between it and the host, which keep their order until they break."""

    def __init__(self, name):
        self.name = name
        self.follower = Follower(name)
        self.got = []
        self.to_host, self.from_host = [], []
        self.is_linked = False


def begun():
    sequencer = Sequencer()
    assert sequencer.begin() == []
    return sequencer


class Session:
    """A host and its followers; whose wire moves next, breaks, or is made again is drawn."""

    def __init__(self, seed, count):
        self.chance = random.Random(seed)
        self.sequencer = begun()
        self.members = [Member(str(number)) for number in range(count)]
        self.numbered = []

    def link(self, member):
        member.is_linked = True
        self.sequencer.lost(member.name)
        member.to_host.append(("follow", member.follower.last))
        member.to_host += [("propose", *one) for one in member.follower.pending]

    def cut(self, member):
        member.is_linked = False
        member.to_host.clear()
        member.from_host.clear()

    def propose(self, member, text):
        serial = member.follower.propose(MESSAGE, 1, text)
        if member.is_linked:
            member.to_host.append(("propose", serial, MESSAGE, 1, text))

    def move(self, member):
        if member.to_host and self.chance.random() < 0.5:
            what, *more = member.to_host.pop(0)
            if what == "follow":
                entries = self.sequencer.follow(member.name, more[0])
                assert entries is not None, "nobody left, so nobody needs the state"
                member.from_host += [(entry, self.sequencer.stable) for entry in entries]
            elif what == "confirm":
                self.sequencer.confirm(member.name, more[0])
            else:
                entry = self.sequencer.propose(member.name, *more)
                if entry:
                    self.numbered.append((entry.sender, entry.fields))
                    for other in self.members:
                        if other.is_linked and other.name in self.sequencer.followers:
                            other.from_host.append((entry, self.sequencer.stable))
        elif member.from_host:
            entry, stable = member.from_host.pop(0)
            if member.follower.arrived(entry, stable):
                member.got.append((entry.sender, entry.fields))
            member.to_host.append(("confirm", member.follower.last))


@pytest.mark.parametrize("seed", range(40))
def test_all_get_the_same_in_the_same_order_once_each_however_wires_break(seed):
    session = Session(seed, 4)
    chance = session.chance
    for member in session.members:
        session.link(member)
    while any(member.to_host for member in session.members):
        session.move(chance.choice(session.members))
    said = {member.name: [] for member in session.members}
    for step in range(3000):
        member = chance.choice(session.members)
        if not member.is_linked:
            if chance.random() < 0.3:
                session.link(member)
        elif chance.random() < 0.01:
            session.cut(member)
        elif step < 2000 and chance.random() < 0.1:
            said[member.name].append(b"%d" % step)
            session.propose(member, b"%d" % step)
        else:
            session.move(member)
    for member in session.members:
        if not member.is_linked:
            session.link(member)
    while any(member.to_host or member.from_host for member in session.members):
        session.move(chance.choice(session.members))
    assert len(session.numbered) == sum(map(len, said.values())) > 50
    for member in session.members:
        assert member.got == session.numbered and not member.follower.pending
        assert [text for sender, text in member.got if sender == member.name] == said[member.name]
    assert session.sequencer.stable == session.sequencer.number and not session.sequencer._log
    session.members[0].follower.became_stable(session.sequencer.stable)
    assert session.members[0].follower.is_settled


def entry(number, sender="a", serial=0, fields=b""):
    return Entry(number, sender, serial or number, MESSAGE, 1, fields)


def test_who_joins_late_or_was_gone_too_long_gets_the_state_and_who_was_gone_a_moment_gets_the_rest():
    host = begun()
    assert host.follow("a", 0) == [] and host.follow("b", 0) == []
    first = host.propose("a", 1, MESSAGE, 1, b"one")
    assert host.follow("late", 0) is None and host.followers == ["a", "b", "late"]
    assert host.follow("late", 1) == []
    host.confirm("a", 1)
    host.left("b")
    assert host.stable == 1
    second = host.propose("a", 2, MESSAGE, 1, b"two")
    assert host.follow("b", 1) == [second], "it is still here for `late`"
    host.confirm("a", 2), host.confirm("b", 2), host.confirm("late", 2)
    host.left("b")
    for serial in (3, 4):
        host.propose("a", serial, MESSAGE, 1, b"more")
        host.confirm("a", host.number), host.confirm("late", host.number)
    assert host.follow("b", 2) is None and first.number == 1


def test_what_is_proposed_before_the_host_is_ready_waits_in_its_order_and_in_bounded_memory():
    host = Sequencer()
    assert host.propose("a", 1, MESSAGE, 1, b"one") is None and host.propose("b", 1, MESSAGE, 1, b"two") is None
    with pytest.raises(PeerError, match="more than the others can read"):
        for serial in range(1, 1000):
            host.propose("eve", serial, MESSAGE, 1, bytes(100_000))
    entries = host.begin()
    assert [(one.number, one.fields) for one in entries[:2]] == [(1, b"one"), (2, b"two")] and host.number == len(entries)


def test_what_was_numbered_while_one_was_away_is_not_numbered_again():
    host, away = begun(), Follower("a")
    serial = away.propose(MESSAGE, 1, b"x")
    host.propose("a", serial, MESSAGE, 1, b"x")
    assert host.propose("a", serial, MESSAGE, 1, b"x") is None
    away.begin_at(host.number, host.serial_of("a"))
    assert away.is_settled and away.last == 1 and away.propose(MESSAGE, 1, b"y") == 2


def test_the_slowest_sets_the_pace():
    host, mine = begun(), Follower("a")
    host.follow("a", 0), host.follow("slow", 0)
    count = 0
    while mine.has_room:
        came = host.propose("a", mine.propose(MESSAGE, 1, bytes(100_000)), MESSAGE, 1, bytes(100_000))
        assert mine.arrived(came, host.stable)
        host.confirm("a", came.number)
        count += 1
    assert count == -(-WINDOW // (100_000 + ENTRY))
    host.confirm("slow", host.number - 1)
    mine.became_stable(host.stable)
    assert mine.has_room and not mine.is_settled
    host.confirm("slow", host.number)
    mine.became_stable(host.stable)
    assert mine.is_settled


def test_who_does_not_wait_is_dropped_before_it_fills_the_hosts_memory():
    host = begun()
    host.follow("slow", 0)
    with pytest.raises(PeerError, match="more than the others can read"):
        for serial in range(1, 1000):
            host.propose("eve", serial, MESSAGE, 1, bytes(100_000))
    assert sum(len(one.fields) for one in host._log) <= 2 * WINDOW + 100_000
    assert host.propose("ann", 1, MESSAGE, 1, b"hello").fields == b"hello"


@pytest.mark.parametrize("lie", [lambda host: host.confirm("a", 5), lambda host: host.follow("a", 5)])
def test_who_confirms_what_was_never_said_is_refused(lie):
    host = begun()
    host.follow("a", 0)
    host.propose("a", 1, MESSAGE, 1, b"")
    with pytest.raises(PeerError, match="never said"):
        lie(host)


def test_a_hole_in_the_order_is_refused_and_what_comes_twice_is_passed_over():
    follower = Follower("b")
    assert follower.arrived(entry(1), 0) and not follower.arrived(entry(1), 0)
    with pytest.raises(PeerError, match="leaves something out"):
        follower.arrived(entry(3), 0)
    assert follower.arrived(entry(2), 0)


def test_the_state_is_bounded_alike_for_all_and_tells_what_is_different():
    one, two = State(), State()
    for key, size in (("a", 10), ("big", MAX_SHARED - 100), ("c", 200), ("a", 20)):
        fields = State.encode(key, bytes(size))
        assert one.apply(fields) == two.apply(fields)
    assert list(one.values) == ["a", "big"], "c did not fit"
    one.apply(State.encode("big", None))
    one.apply(State.encode("c", [1, {"x": None}]))
    late = State()
    assert late.replace(one.entries()) == [("a", bytes(20)), ("c", [1, {"x": None}])]
    assert two.replace(one.entries()) == [("big", None), ("c", [1, {"x": None}])] and two.values == one.values
    for number in range(MAX_SHARED_KEYS + 5):
        one.apply(State.encode(f"k{number}", 1))
    assert len(one.values) == MAX_SHARED_KEYS
    assert one.apply(State.encode("a", None)) == ("a", None) and one.apply(State.encode("z", 1)) == ("z", 1)


def test_what_cannot_be_shared_is_told_and_what_was_spoilt_is_refused():
    with pytest.raises(TypeError, match=r"share\('k', ...\): cannot carry set"):
        State.encode("k", {1})
    with pytest.raises(TypeError, match="is a str, not int"):
        State.encode(3, 1)
    with pytest.raises(ValueError, match="all that is shared may have"):
        State.encode("k", bytes(MAX_SHARED))
    good = State.encode("key", [1, "two"])
    for spoilt in [good[:length] for length in range(len(good))] + [good + b"x"]:
        with pytest.raises(PeerError):
            State().apply(spoilt)
    assert CHANGE != MESSAGE
