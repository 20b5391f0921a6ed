"""Names that look alike, and who of them is the one that is known."""
import pytest

from p2p import limits
from p2p.lookalike import skeleton
from p2p.membership import MAX_PAST, Membership

ME, BOB, EVE, ANN = b"\1" * 32, b"\2" * 32, b"\3" * 32, b"\4" * 32
TAG = b"lan-----"


@pytest.mark.parametrize("one, other", [
    ("bob", "BOB"), ("bob", "b0b"), ("bob", "b\u043eb"), ("alice", "\u0430lice"), ("bill", "biII"), ("paul", "pau1"), ("modern", "modem"),
    ("win", "vvin"), ("büro", "bu\u0308ro"), ("büro", "buro"), ("anton", "\u0430nt\u03bfn"), ("bob", "\uff42ob"), ("straße", "strasse"),
    ("x", "\u0445")])
def test_names_that_look_alike_have_one_skeleton(one, other):
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize("one, other", [
    ("bob", "rob"), ("pc1", "pc2"), ("lab1-12", "lab11-2"), ("ann", "anna"), ("node5", "nodes"), ("bob", "bob.local"), ("a b", "ab")])
def test_others_do_not(one, other):
    assert skeleton(one) != skeleton(other)


def met(table, node_id, name, wall):
    table.linked(node_id, name, "1", 1, "10.0.0.2", 47474, TAG, 1.0)
    member = table.get(node_id)
    member.first_seen_wall = member.first_seen_wall or wall
    member.named_wall = member.named_wall or wall
    return member


def test_the_known_one_is_who_was_first_met_by_that_name():
    table = Membership(ME, "me", 1, 0.0)
    bob, eve = met(table, BOB, "bob", 100.0), met(table, EVE, "B0B", 200.0)
    assert table.elder(bob) is table.elder(eve) is bob
    met(table, EVE, "eve", 300.0)
    assert table.elder(bob) is bob and table.elder(eve) is eve
    old = met(table, ANN, "ann", 50.0)
    met(table, ANN, "bob", 400.0)           # known for longer, but not by this name
    assert old.named_wall == 400.0 and table.elder(old) is bob
    assert table.elder(met(table, EVE, "ME", 500.0)) is table.me


def test_a_hint_makes_nobody_known():
    table = Membership(ME, "me", 1, 0.0)
    table.heard(EVE, "bob", "10.0.0.3", 47474, 7, TAG, 1.0)
    assert table.elder(met(table, BOB, "bob", 100.0)).id == BOB


def test_who_was_forgotten_is_still_the_known_one_and_comes_back_as_such():
    table = Membership(ME, "me", 1, 0.0)
    bob = met(table, BOB, "bob", 100.0)
    table.unlinked(BOB, "goodbye", 2.0)
    for at in (10_000.0, 10_000.0 + 2 * limits.FORGET):
        table.time(at)
    assert table.get(BOB) is None and [member.id for member in table.past()] == [BOB]
    eve = met(table, EVE, "bob", 900.0)
    assert table.elder(eve) is bob
    again = met(table, BOB, "bob", 1000.0)
    assert again.first_seen_wall == again.named_wall == 100.0 and table.elder(eve) is again and not table.past()


def test_a_crowd_of_invented_nodes_pushes_out_its_own_names():
    table = Membership(ME, "me", 1, 0.0)
    table.recall(BOB, "bob", 100.0, 100.0)
    for number in range(MAX_PAST + 100):
        table.recall(number.to_bytes(32, "big"), f"n{number}", 200.0 + number, 200.0 + number)
    assert len(table.past()) == MAX_PAST
    assert table.elder(met(table, EVE, "b0b", 9e9)).id == BOB
