"""Membership decides from evidence alone: every test is a list of what happened and when, with no clock and no socket."""

import random

import pytest

from p2p import limits
from p2p.membership import (ALIVE, DEAD, DIAL_DEAD_FOR, LEFT, NEXT, STATES, SUSPECT, SUSPECT_FOR, UNVERIFIED_FOR, Changed,
                            Clone, Keep, Membership, Release)

ME, BOB, EVE, TAG = b"\1" * 32, b"\2" * 32, b"\3" * 32, b"lan-----"


@pytest.fixture
def table():
    return Membership(ME, "ann", 11, 0.0)


def link(table, now, node=BOB, nonce=5, host="10.0.0.2"):
    table.linked(node, "bob", "1", nonce, host, 47474, TAG, now)


def kinds(table):
    return [type(effect).__name__ for effect in table.effects()]


def state(table, node=BOB):
    member = table.get(node)
    return member.state if member else None


def test_every_state_and_target_of_the_table_is_declared():
    assert {before for before, _ in NEXT} | set(NEXT.values()) <= set(STATES)


def test_a_node_that_was_only_heard_is_dialled_and_never_alive(table):
    table.heard(BOB, "bob", "10.0.0.2", 47474, 5, TAG, 1.0)
    assert [effect for effect in table.effects() if isinstance(effect, Keep)] == [Keep(BOB, [("10.0.0.2", 47474)], TAG)]
    assert state(table) == SUSPECT and not table.get(BOB).verified
    for second in range(2, 60):
        table.heard(BOB, "bob", "10.0.0.2", 47474, 5, TAG, float(second))
        assert state(table) == SUSPECT
    table.time(1.0 + UNVERIFIED_FOR)
    assert state(table) is None


def test_a_hint_makes_us_dial_once_in_ten_seconds(table):
    dials = 0
    for tenth in range(300):
        table.heard(BOB, "bob", f"10.0.0.{tenth % 9}", 47474, tenth + 1, TAG, tenth / 10)
        dials += kinds(table).count("Keep")
    assert dials == 300 / 10 / limits.HINT_PAUSE
    assert len(table.get(BOB).addresses) <= limits.MAX_ADDRESSES


def test_a_killed_node_is_dead_when_its_port_refused_twice(table):
    link(table, 1.0)
    table.unlinked(BOB, "eof", 2.0)
    assert state(table) == SUSPECT
    table.dial_failed(BOB, "refused", 2.1)
    assert state(table) == SUSPECT
    table.dial_failed(BOB, "refused", 2.4)
    assert state(table) == DEAD


def test_an_eof_followed_by_a_new_connection_is_no_death(table):
    link(table, 1.0)
    table.unlinked(BOB, "eof", 2.0)
    table.dial_failed(BOB, "refused", 2.1)
    link(table, 2.2)
    table.dial_failed(BOB, "refused", 2.3)
    table.time(100.0)
    assert state(table) == ALIVE


def test_a_pulled_cable_is_a_death_at_the_deadline_and_not_before(table):
    link(table, 1.0)
    table.unlinked(BOB, "silent", 10.0)
    table.dial_failed(BOB, "timeout", 12.0)
    assert table.deadline() == 10.0 + SUSPECT_FOR
    table.time(10.0 + SUSPECT_FOR - 0.01)
    assert state(table) == SUSPECT
    table.time(10.0 + SUSPECT_FOR)
    assert state(table) == DEAD


def test_goodbye_is_leaving_and_its_last_beacons_do_not_bring_it_back(table):
    link(table, 1.0, nonce=5)
    table.effects()
    table.unlinked(BOB, "goodbye", 2.0)
    assert state(table) == LEFT and kinds(table) == ["Release", "Changed"]
    table.heard(BOB, "bob", "10.0.0.2", 47474, 5, TAG, 20.0)
    assert kinds(table) == []
    table.heard(BOB, "bob", "10.0.0.2", 47474, 6, TAG, 21.0)
    assert kinds(table) == ["Keep"]


def test_a_dead_node_that_is_heard_again_is_dialled_at_once(table):
    link(table, 1.0)
    table.unlinked(BOB, "silent", 10.0)
    table.time(20.0)
    assert state(table) == DEAD
    table.effects()
    table.heard(BOB, "bob", "10.0.0.9", 47474, 5, TAG, 30.0)
    keep = [effect for effect in table.effects() if isinstance(effect, Keep)]
    assert keep and keep[0].addresses[0] == ("10.0.0.9", 47474)


def test_a_node_started_anew_behind_a_dead_wire_is_dialled_though_it_seems_alive(table):
    link(table, 1.0, nonce=5)
    table.effects()
    table.heard(BOB, "bob", "10.0.0.2", 47474, 5, TAG, 2.0)
    assert kinds(table) == []
    table.heard(BOB, "bob", "10.0.0.2", 47474, 77, TAG, 3.0)
    assert kinds(table) == ["Keep"]


def test_a_dead_node_is_dialled_for_an_hour_and_forgotten_after_a_day(table):
    link(table, 1.0)
    table.unlinked(BOB, "silent", 10.0)
    table.effects()
    seen = []
    while table.deadline() is not None:
        now = table.deadline()
        table.time(now)
        seen += [(now, type(effect).__name__) for effect in table.effects() if isinstance(effect, (Release, Changed))]
    assert state(table) is None
    assert [kind for _, kind in seen] == ["Changed", "Release", "Changed"]
    assert [now for now, _ in seen] == [10.0 + SUSPECT_FOR, 14.0 + DIAL_DEAD_FOR, 14.0 + limits.FORGET]


def test_hearsay_cannot_rename_a_verified_node(table):
    link(table, 1.0)
    table.heard(BOB, "mallory", "10.6.6.6", 1, 99, TAG, 20.0)
    assert table.get(BOB).name == "bob"
    assert table.get(BOB).addresses[0] == ("10.0.0.2", 47474)


def test_proven_addresses_are_not_pushed_out_by_hints(table):
    link(table, 1.0)
    for number in range(100):
        table.heard(BOB, "bob", f"10.6.6.{number}", 1, 100 + number, TAG, 2.0 + number)
    assert table.get(BOB).addresses[0] == ("10.0.0.2", 47474)
    assert len(table.get(BOB).addresses) == limits.MAX_ADDRESSES


def test_invented_nodes_fill_the_table_only_to_its_bound_and_push_nobody_verified_out(table):
    link(table, 1.0)
    table.unlinked(BOB, "silent", 2.0)
    dice = random.Random(3)
    for number in range(3 * limits.MAX_MEMBERS):
        table.heard(bytes(dice.randrange(256) for _ in range(32)), "x", "10.6.6.6", 1, number + 1, TAG, 3.0)
    assert len(list(table)) == limits.MAX_MEMBERS
    assert table.get(BOB).verified
    link(table, 4.0, node=EVE)
    assert table.get(EVE).state == ALIVE


def test_this_nodes_own_beacons_are_nothing_and_anothers_with_its_identity_are_told(table):
    table.heard(ME, "ann", "10.0.0.1", 47474, 11, TAG, 1.0)
    assert table.effects() == []
    table.heard(ME, "ann", "10.0.0.7", 47474, 12, TAG, 1.0)
    assert table.effects() == [Clone("10.0.0.7")]


def test_a_remembered_node_is_tried_where_it_was_and_not_said_to_be_here(table):
    table.remembered(BOB, "bob", [("10.0.0.2", 47474)], [TAG], 1e9, 0.0)
    assert state(table) == DEAD
    assert Keep(BOB, [("10.0.0.2", 47474)], TAG) in table.effects()


def test_the_view_is_the_same_for_the_same_living_and_changes_with_them(table):
    other = Membership(BOB, "bob", 1, 0.0)
    link(table, 1.0)
    other.linked(ME, "ann", "1", 11, "10.0.0.1", 47474, TAG, 1.0)
    assert table.view(TAG) == other.view(TAG)
    table.unlinked(BOB, "silent", 2.0)
    assert table.view(TAG) != other.view(TAG)
    link(table, 3.0)
    assert table.view(TAG) == other.view(TAG)


@pytest.mark.parametrize("kind, dials", [("refused", 1), ("timeout", 1), ("unreachable", 1), ("protocol", 1), ("eof", limits.HINT_TRIES)])
def test_an_address_that_is_only_a_hint_is_dialled_once_unless_somebody_there_is_too_busy(table, kind, dials):
    """What a beacon in another's name makes this node send must stay below what the beacon cost."""
    table.heard(BOB, "bob", "10.0.0.2", 47474, 5, TAG, 1.0)
    assert kinds(table).count("Keep") == 1
    for number in range(1, dials):
        table.dial_failed(BOB, kind, 1.0 + number)
        assert "Release" not in kinds(table)
    table.dial_failed(BOB, kind, 5.0)
    assert kinds(table).count("Release") == 1 and state(table) == SUSPECT
    table.heard(BOB, "bob", "10.0.0.2", 47474, 5, TAG, 1.0 + limits.HINT_PAUSE)
    assert kinds(table).count("Keep") == 1


def test_neither_invented_nodes_nor_strangers_that_come_and_go_push_out_whom_we_met_before(table):
    """In the open network anybody can be a thousand nodes, one after the other."""
    table.remembered(BOB, "bob", [("10.0.0.2", 47474)], [TAG], 1e9, 0.0)
    for number in range(1, 3 * limits.MAX_MEMBERS):
        table.heard(number.to_bytes(32, "big"), "x", "10.6.6.6", 1, number, TAG, 1.0)
    for number in range(1, 2 * limits.MAX_MEMBERS):
        stranger = number.to_bytes(32, "little")
        link(table, 2.0, node=stranger)
        if table.get(stranger):
            table.get(stranger).first_seen_wall = 2e9 + number
            table.unlinked(stranger, "eof", 3.0)
    assert table.get(BOB) and len(list(table)) == limits.MAX_MEMBERS
