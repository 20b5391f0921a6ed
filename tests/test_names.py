"""Who of those with names that look alike is the one that is known: pins, alone and behind the membership."""
import time

import pytest

from p2p import limits
from p2p.membership import Membership
from p2p.names import MAX_ABSENT, MAX_NAMES, Names

ME, BOB, EVE, ANN = b"\1" * 32, b"\2" * 32, b"\3" * 32, b"\4" * 32
TAG = b"lan-----"


@pytest.fixture
def table():
    return Membership(ME, "me", 1, 0.0)


def met(table, node_id, name, wall):
    table.linked(node_id, name, "1", 1, "10.0.0.2", 47474, TAG, 1.0)
    member = table.get(node_id)
    table.met(member, wall)
    return member


def known_instead(table, member):
    pin = table.pretends(member)
    return pin and pin.id


def invented(number):
    return number.to_bytes(32, "big")


def test_the_known_one_is_who_was_first_met_by_that_name(table):
    bob, eve = met(table, BOB, "bob", 100.0), met(table, EVE, "B0B", 200.0)
    assert known_instead(table, bob) is None and known_instead(table, eve) == BOB
    met(table, EVE, "eve", 300.0)
    assert known_instead(table, eve) is None
    ann = met(table, ANN, "ann", 50.0)
    met(table, ANN, "bob", 400.0)           # known for longer, but not by this name
    assert known_instead(table, ann) == BOB and ann.first_seen_wall == 50.0
    assert known_instead(table, met(table, EVE, "ME", 500.0)) == ME


def test_whoever_is_met_while_the_clock_is_wrong_is_no_elder(table):
    bob = met(table, BOB, "bob", 1.7e9)
    eve, ann = met(table, EVE, "bob", 5.0), met(table, ANN, "bob", 6.0)       # a board that starts in 1970
    assert known_instead(table, bob) is None and known_instead(table, eve) == known_instead(table, ann) == BOB
    assert eve.first_seen_wall == 5.0
    table.unlinked(BOB, "goodbye", 2.0)
    pins = sorted(table.names, key=lambda pin: pin.id, reverse=True)         # whatever the order in which they are read again
    again = Names(ME, "me")
    for pin in pins:
        again.recall(pin.id, pin.name, pin.first_seen, pin.since)
    assert again.elder("bob").id == BOB
    again.forget(BOB)
    assert again.elder("bob").id == EVE


def test_a_hint_makes_nobody_known_and_renames_nobody_who_was_met(table):
    table.heard(EVE, "bob", "10.0.0.3", 47474, 7, TAG, 1.0)
    assert known_instead(table, table.get(EVE)) is None
    bob = met(table, BOB, "bob", 100.0)
    assert known_instead(table, bob) is None and known_instead(table, table.get(EVE)) == BOB
    table.unlinked(BOB, "goodbye", 2.0)
    table.heard(BOB, "rob", "10.0.0.3", 47474, 8, TAG, 3.0)
    assert bob.name == "bob"


def test_who_was_forgotten_is_still_the_known_one_and_comes_back_as_such(table):
    bob = met(table, BOB, "bob", 100.0)
    table.unlinked(BOB, "goodbye", 2.0)
    for at in (10_000.0, 10_000.0 + 2 * limits.FORGET):
        table.time(at)
    assert table.get(BOB) is None and [pin.id for pin in table.names] == [BOB]
    eve = met(table, EVE, "bob", 900.0)
    assert known_instead(table, eve) == BOB
    bob = met(table, BOB, "bob", 1000.0)
    assert bob.first_seen_wall == 100.0 and known_instead(table, bob) is None and known_instead(table, eve) == BOB


def test_a_name_that_its_bearer_gave_up_is_no_impostors_and_is_his_again_when_he_comes_back(table):
    bob = met(table, BOB, "bob", 100.0)
    met(table, BOB, "robert", 200.0)
    eve = met(table, EVE, "bob", 300.0)
    assert known_instead(table, eve) == BOB and known_instead(table, bob) is None
    met(table, BOB, "Bob", 400.0)            # another form of it is no other name
    assert known_instead(table, bob) is None and known_instead(table, eve) == BOB


def test_a_node_holds_a_few_names_only(table):
    for number in range(20):
        met(table, EVE, f"n{number}", 100.0 + number)
    assert [pin.name for pin in table.names.of(EVE)] == [f"n{number}" for number in range(20 - MAX_NAMES, 20)]
    assert known_instead(table, met(table, BOB, "n3", 900.0)) is None


def test_a_crowd_of_invented_nodes_pushes_out_its_own_names():
    names = Names(ME, "me")
    names.recall(BOB, "bob", 100.0, 100.0)
    names.came(ANN)
    for number in range(MAX_ABSENT + 100):
        names.recall(invented(number), f"n{number}", 200.0 + number, 200.0 + number)
    names.met(ANN, "ann", 9e8)               # who is here is pinned even now
    assert len(list(names)) == MAX_ABSENT + 1
    assert names.elder("bob").id == BOB and names.elder("ann").id == ANN and not names.of(invented(MAX_ABSENT + 50))
    names.went(ANN)                          # and is the newest of those that are not
    assert names.elder("ann") is None and names.elder("bob").id == BOB


def test_a_crowd_of_namesakes_costs_a_label_nothing(table):
    met(table, BOB, "bob", 100.0)
    for number in range(4000):
        table.names.recall(invented(number), "bob", 200.0 + number, 200.0 + number)
    eve = met(table, EVE, "bob", 9e8)
    began = time.perf_counter()
    assert all(known_instead(table, eve) == BOB for _ in range(20_000))
    assert time.perf_counter() - began < 1.0        # looking through them would take a few seconds


def test_a_forgotten_name_goes_to_who_was_known_by_it_next(table):
    for number, node_id in enumerate((BOB, EVE, ANN)):
        met(table, node_id, "bob", 100.0 + number)
    table.unlinked(BOB, "goodbye", 2.0)
    table.forget(BOB)
    assert table.get(BOB) is None and table.names.first_seen(BOB) == 0.0
    assert known_instead(table, table.get(EVE)) is None and known_instead(table, table.get(ANN)) == EVE
    assert known_instead(table, met(table, BOB, "bob", 500.0)) == EVE
