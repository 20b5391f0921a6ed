"""Sessions that a broken network has split: what each node believes meanwhile and afterwards."""

import pytest

from p2p import proto
from p2p.sessions import (ALLOWED, EXITED, RUNNING, UNREACHABLE, Kill, Over, Send, Session, Sessions, Tell, exit_code)
from tests.nodes import LAN
from tests.rounds import ANN, BOB, EVE, World, all_run, cut, meet


@pytest.fixture
def world():
    return World(ANN, BOB, EVE)


def test_a_session_that_a_cut_has_split_is_whole_again_when_the_links_are_back(world):
    all_run(world)
    cut(world, (ANN, BOB), (BOB, EVE))
    assert world.statuses(ANN) == {"ann": RUNNING, "bob": UNREACHABLE, "eve": RUNNING}
    assert world.statuses(BOB) == {"ann": UNREACHABLE, "bob": RUNNING, "eve": UNREACHABLE}
    meet(world, ANN, BOB)
    meet(world, BOB, EVE)
    for node in (ANN, BOB, EVE):
        assert world.statuses(node) == {"ann": RUNNING, "bob": RUNNING, "eve": RUNNING}
        assert [member.port for member in world.session(node).members.values()] == [5000, 5001, 5002]
        assert world.took(node, Tell) and not world.took(node, Over) and not world.took(node, Kill)
    world.do(BOB, "ask_for_end")                   # it asks the host again, and not everybody
    assert world.took(ANN, Kill) == world.took(BOB, Kill) == world.took(EVE, Kill) == 1


def test_what_happened_during_a_cut_is_known_to_all_after_it(world):
    all_run(world)
    cut(world, (ANN, BOB), (BOB, EVE))
    world.do(BOB, "finished", 3)
    world.do(ANN, "close")
    world.do(EVE, "finished", 0)
    meet(world, ANN, BOB)
    meet(world, BOB, EVE)
    assert world.statuses(ANN)["bob"] == world.statuses(EVE)["bob"] == EXITED == world.statuses(BOB)["eve"]
    assert world.session(ANN).members[BOB].exit == 3


def test_an_end_that_was_said_during_a_cut_reaches_who_was_cut_off(world):
    all_run(world)
    cut(world, (ANN, BOB))
    world.do(ANN, "close")
    for node in (ANN, EVE):
        world.do(node, "finished", 0)
    assert world.session(ANN).is_over and not world.took(BOB, Kill)
    meet(world, ANN, BOB)
    assert world.took(BOB, Kill) == 1


def test_a_host_that_has_quit_meanwhile_does_not_end_the_others_when_it_sees_them_again(world):
    all_run(world)
    cut(world, (ANN, BOB), (ANN, EVE))
    world.do(ANN, "finished", 0)
    assert world.session(ANN).is_over
    meet(world, ANN, BOB)
    meet(world, ANN, EVE)
    assert not world.took(BOB, Kill) and not world.took(EVE, Kill)
    assert world.statuses(ANN) == world.statuses(BOB) == {"ann": EXITED, "bob": RUNNING, "eve": RUNNING}
    world.do(BOB, "finished", 0)
    world.do(EVE, "finished", 0)
    assert world.session(ANN).is_over and exit_code(world.session(ANN), ANN) == 0


def test_whoever_said_yes_during_a_cut_takes_part_after_it(world):
    world.host(BOB, EVE)
    world.run(ANN, 5000)
    world.machines[ANN].node_gone(BOB)             # the other has not noticed
    world.settle()
    world.lost = [(BOB, ANN)]
    world.do(BOB, "decided", True)
    assert world.statuses(ANN)["bob"] == UNREACHABLE
    meet(world, ANN, BOB)
    world.do(BOB, "fetched")
    world.do(BOB, "listening", 5001)
    assert world.statuses(ANN)["bob"] == RUNNING == world.statuses(BOB)["ann"]


def test_a_root_that_was_started_anew_takes_part_no_more(world):
    all_run(world)
    cut(world, (ANN, BOB), (BOB, EVE))
    world.machines[BOB] = Sessions(BOB, "bob")
    meet(world, ANN, BOB)
    meet(world, EVE, BOB)
    assert world.statuses(ANN)["bob"] == world.statuses(EVE)["bob"] == UNREACHABLE and world.session(BOB) is None


def test_whether_a_third_can_be_reached_each_sees_for_itself_where_it_can(world):
    """The host is cut off from one of two that see each other: for them nobody is gone, and they hear of who comes back."""
    all_run(world)
    gone, back = ([proto.Member.unpack_all(proto.Member.pack(dict(row, status=status))) for row in world.session(ANN).roster()
                   if row["id"] == EVE] for status in (UNREACHABLE, RUNNING))
    bob = world.machines[BOB]
    bob.rostered(ANN, 7, gone, [ANN, EVE])
    assert world.statuses(BOB)["eve"] == RUNNING
    bob.rostered(ANN, 7, gone, [ANN])
    assert world.statuses(BOB)["eve"] == UNREACHABLE
    bob.rostered(ANN, 7, back, [ANN])
    assert world.statuses(BOB)["eve"] == RUNNING
    bob.node_gone(EVE)
    bob.rostered(ANN, 7, back, [ANN])              # here it is gone, whatever the host sees
    assert world.statuses(BOB)["eve"] == UNREACHABLE
    bob.met(EVE)
    bob.rostered(ANN, 7, back, [ANN])
    assert world.statuses(BOB)["eve"] == RUNNING


def test_a_room_of_255_costs_each_node_a_megabyte_and_not_all_together_gigabytes():
    others = [number.to_bytes(32, "big") for number in range(1000, 1000 + 255)]
    machine = Sessions(ANN, "ann")
    session = Session(7, "chat", b"v" * 32, ANN, LAN, [], ANN, b"t" * 32, 5000)
    machine.start(session, [(node, f"node{node[-1]}") for node in others], 0.0)
    machine.effects()
    size = 0
    for call in (lambda node: machine.answered(node, 7, ALLOWED), lambda node: machine.ready(node, 7, 5000)):
        for node in others:
            call(node)
            size += sum(len(proto.ROSTER.pack(**effect.fields)) for effect in machine.effects()
                        if isinstance(effect, Send) and effect.message is proto.ROSTER)
    assert size / 255 < 1 << 20


def test_a_guests_end_that_was_lost_with_the_link_is_asked_for_again_or_is_everybodys_when_the_host_is_gone(world):
    all_run(world)
    world.lost = [(BOB, ANN)]
    world.do(BOB, "ask_for_end")
    assert not any(world.took(node, Kill) for node in (ANN, BOB, EVE))
    meet(world, ANN, BOB)
    assert [world.took(node, Kill) for node in (ANN, BOB, EVE)] == [1, 1, 1]
    meet(world, ANN, BOB)
    assert not any(world.took(node, Kill) for node in (ANN, BOB, EVE))
    world = World(ANN, BOB, EVE)
    all_run(world)
    world.lost = [(BOB, ANN)]
    world.do(BOB, "ask_for_end")
    world.lost = []
    world.machines[EVE].node_gone(ANN)
    world.machines[BOB].node_gone(ANN)
    world.settle()
    assert [world.took(node, Kill) for node in (BOB, EVE)] == [1, 1]


def test_a_guest_that_ended_the_session_while_it_alone_was_cut_off_from_the_host_ends_it_for_all_when_it_is_seen_again(world):
    all_run(world)
    cut(world, (ANN, BOB))
    world.do(BOB, "ask_for_end")
    world.do(BOB, "finished", 0)
    assert not world.took(ANN, Kill) and not world.took(EVE, Kill)
    meet(world, ANN, BOB)
    assert world.took(ANN, Kill) == world.took(EVE, Kill) == 1 and world.statuses(ANN)["bob"] == EXITED
