"""Sessions: several machines wired together without any I/O; every test is a conversation."""

import random

import pytest

from p2p import limits, proto
from p2p.errors import PeerError, UserError
from p2p.sessions import (ALLOWED, ASKED, DENIED, EXITED, EXPIRED, FAILED, NEXT, RUNNING, UNREACHABLE, Ask, Changed, Fetch, Kill, Over,
                          Send, Session, Start, Tell, Withdraw, exit_code)
from tests.rounds import ANN, BOB, EVE, MALLORY, NAMES, World, meet


@pytest.fixture
def world():
    return World(ANN, BOB, EVE)


def test_a_run_from_the_invitation_to_the_exit_codes(world):
    session = world.host(BOB, EVE)
    assert (world.took(ANN, Start), world.took(BOB, Ask), world.took(BOB, Start)) == (1, 1, 0)
    assert world.statuses(ANN) == {"ann": ALLOWED, "bob": ASKED, "eve": ASKED}
    world.do(BOB, "decided", True)
    assert world.took(BOB, Fetch) == 1 and world.took(BOB, Start) == 0
    world.do(BOB, "fetched")
    assert world.took(BOB, Start) == 1
    world.do(ANN, "listening", 5000)
    world.do(BOB, "listening", 5001)
    world.run(EVE, 5002)
    for node in (ANN, BOB, EVE):
        assert world.statuses(node) == {"ann": RUNNING, "bob": RUNNING, "eve": RUNNING}
        assert [member.port for member in world.session(node).members.values()] == [5000, 5001, 5002]
        assert world.took(node, Tell) and not world.took(node, Over)
    world.do(BOB, "finished", 0)
    world.do(EVE, "finished", 3)
    assert not world.took(ANN, Over) and world.took(BOB, Over)
    world.do(ANN, "finished", 0)
    assert world.took(ANN, Over) == 1
    assert [member.exit for member in session.members.values()] == [0, 0, 3]
    assert exit_code(session, ANN) == 1


@pytest.mark.parametrize("answers, code", [
    ((DENIED, DENIED), 4), ((EXPIRED, EXPIRED), 5), ((DENIED, EXPIRED), 1), ((EXITED, DENIED), 1), ((EXITED, EXITED), 0),
    ((UNREACHABLE, EXITED), 1)])
def test_the_exit_code_of_a_run(world, answers, code):
    session = world.host(BOB, EVE)
    for node, status in zip((BOB, EVE), answers):
        session.members[node].status = status
        session.members[node].exit = 0 if status == EXITED else None
    session.members[ANN].status, session.members[ANN].exit = EXITED, 0
    assert exit_code(session, ANN) == code


def test_a_no_is_told_to_the_host_and_starts_nothing(world):
    world.host(BOB)
    world.do(BOB, "decided", False)
    assert world.statuses(ANN)["bob"] == DENIED
    assert not world.took(BOB, Fetch) and world.took(BOB, Over)
    world.do(BOB, "decided", True)
    world.do(BOB, "fetched")
    assert not world.took(BOB, Start) and world.statuses(ANN)["bob"] == DENIED


def test_files_that_cannot_be_fetched_are_a_failure_at_the_host(world):
    world.host(BOB)
    world.do(BOB, "decided", True)
    world.do(BOB, "fetched", "the disk is full")
    assert world.statuses(ANN)["bob"] == FAILED and not world.took(BOB, Start)


def test_an_invitation_that_nobody_answers_expires_on_both_sides(world):
    world.host(BOB)
    world.at(limits.ASK_FOR - 1)
    assert world.statuses(ANN)["bob"] == ASKED
    world.at(limits.ASK_FOR)
    assert world.statuses(ANN)["bob"] == EXPIRED == world.statuses(BOB)["bob"]
    assert world.took(BOB, Withdraw) == 1


def test_a_host_that_hears_nothing_gives_the_invitation_up(world):
    world.host(BOB)
    world.lost = [(BOB, ANN)]
    world.at(limits.ASK_FOR + limits.ASK_GRACE)
    assert world.statuses(ANN)["bob"] == EXPIRED


def test_a_node_that_cannot_be_reached_is_unreachable_and_the_others_go_on(world):
    world.lost = [(ANN, BOB)]
    world.host(BOB, EVE)
    assert world.statuses(ANN) == {"ann": ALLOWED, "bob": UNREACHABLE, "eve": ASKED}


def test_when_the_host_dies_the_others_go_on_and_hear_of_each_other(world):
    world.host(BOB, EVE)
    for node, port in ((ANN, 5000), (BOB, 5001), (EVE, 5002)):
        world.run(node, port)
    del world.machines[ANN]
    for node in (BOB, EVE):
        world.machines[node].node_gone(ANN)
    world.settle()
    assert world.statuses(BOB) == {"ann": UNREACHABLE, "bob": RUNNING, "eve": RUNNING} == world.statuses(EVE)
    assert not world.took(BOB, Kill)
    world.do(BOB, "finished", 0)
    assert world.statuses(EVE)["bob"] == EXITED


def test_when_the_host_dies_before_the_answer_the_request_is_withdrawn(world):
    world.host(BOB)
    world.machines[BOB].node_gone(ANN)
    world.settle()
    assert world.took(BOB, Withdraw) == 1 and world.took(BOB, Over) == 1


def test_the_hosts_end_ends_everybody_and_anothers_asks_the_host(world):
    world.host(BOB, EVE)
    world.run(ANN, 5000)
    world.run(BOB, 5001)
    world.do(BOB, "ask_for_end")
    assert world.took(ANN, Kill) == 1 and world.took(BOB, Kill) == 1
    assert world.took(EVE, Withdraw) == 1 and world.statuses(ANN)["eve"] in (ASKED, EXPIRED)


def test_where_the_host_is_gone_a_participants_end_is_everybodys(world):
    world.host(BOB, EVE)
    for node, port in ((ANN, 5000), (BOB, 5001), (EVE, 5002)):
        world.run(node, port)
    world.machines[EVE].end(BOB, 7)
    world.settle()
    assert world.took(EVE, Kill) == 0             # while the host is there, it decides
    for node in (BOB, EVE):
        world.machines[node].node_gone(ANN)
    world.do(BOB, "ask_for_end")
    assert world.took(BOB, Kill) == world.took(EVE, Kill) == 1
    world.do(EVE, "ask_for_end")
    assert world.took(BOB, Kill) == world.took(EVE, Kill) == 0


def test_a_reason_of_any_length_and_script_fits_into_an_answer(world):
    world.host(BOB)
    world.do(BOB, "decided", True)
    world.do(BOB, "fetched", "\N{SNOWMAN}" * 1000)
    assert world.statuses(ANN)["bob"] == FAILED


def test_more_nodes_than_a_roster_holds_are_refused(world):
    session = Session(7, "chat", b"v" * 32, ANN, b"the open", [], ANN, b"t" * 32, 5000)
    with pytest.raises(UserError, match="255"):
        world.machines[ANN].start(session, [(number.to_bytes(32, "big"), "x") for number in range(256)], 0.0)
    assert world.session(ANN) is None


def test_a_node_speaks_for_itself_alone(world):
    """Forged, foreign and late messages change nothing."""
    world = World(ANN, BOB, EVE, MALLORY)
    world.host(BOB, EVE)
    world.run(ANN, 5000)
    world.run(BOB, 5001)
    before = world.statuses(ANN)
    ann = world.machines[ANN]
    ann.answered(MALLORY, 7, ALLOWED)
    ann.ready(MALLORY, 7, 1)
    ann.exited(MALLORY, 7, 0)
    ann.end(MALLORY, 7)
    ann.answered(BOB, 7, DENIED)
    ann.answered(BOB, 99, ALLOWED)
    row = proto.Member.unpack_all(proto.Member.pack({"id": ANN, "name": "x", "status": EXITED, "address": "", "port": 1}))
    ann.rostered(BOB, 7, [row])
    world.machines[BOB].rostered(EVE, 7, [row])
    world.machines[BOB].end(EVE, 7)
    world.settle()
    assert world.statuses(ANN) == before and world.statuses(BOB)["ann"] == RUNNING
    assert not world.took(ANN, Kill) and not world.took(BOB, Kill)


def test_repeated_messages_change_nothing(world):
    world.host(BOB)
    world.run(ANN, 5000)
    world.run(BOB, 5001)
    for _ in range(3):
        world.machines[ANN].answered(BOB, 7, ALLOWED)
        world.machines[ANN].ready(BOB, 7, 5001)
        world.settle()
    world.took(ANN, Changed)
    world.machines[ANN].exited(BOB, 7, 3)
    world.machines[ANN].exited(BOB, 7, 0)
    world.machines[ANN].ready(BOB, 7, 1)
    world.machines[BOB].invited(ANN, invitation(ANN, number=7), 0.0)
    world.do(BOB, "finished", 0)
    world.settle()
    bob = world.session(ANN).members[BOB]
    assert world.took(ANN, Changed) == 1 and (bob.status, bob.exit, bob.port) == (EXITED, 3, 5001)


def test_a_ready_that_overtakes_the_answer_counts(world):
    world.host(BOB, EVE)
    world.lost = [(EVE, ANN), (ANN, BOB)]
    world.run(EVE, 5002)
    assert world.statuses(BOB)["eve"] == RUNNING and world.statuses(ANN)["eve"] == ASKED
    world.lost = []
    world.machines[ANN].ready(EVE, 7, 5002)
    world.settle()
    assert world.statuses(ANN)["eve"] == RUNNING


def invitation(sender, number=9, roster=(ANN, BOB)):
    rows = [{"id": node, "name": "", "status": 0, "address": "", "port": 0} for node in roster]
    return proto.INVITE.unpack(proto.INVITE.pack(
        session=number, app="a", version=b"v" * 32, publisher=ANN, network=b"the open", files=0, bytes=0, arguments=[], roster=rows, port=1,
        token=b"t" * 32, expires_s=60))


@pytest.mark.parametrize("roster", [(ANN,), (BOB,), (ANN, BOB, BOB), ()])
def test_an_invitation_that_contradicts_itself_is_the_peers_fault(world, roster):
    with pytest.raises(PeerError):
        world.machines[BOB].invited(ANN, invitation(ANN, roster=roster), 0.0)
    assert world.machines[BOB].get(9) is None


def test_an_invitation_into_a_session_that_exists_cannot_take_it_over(world):
    world.host(BOB)
    with pytest.raises(PeerError):
        world.machines[BOB].invited(EVE, invitation(EVE, number=7, roster=(EVE, BOB)), 0.0)
    assert world.session(BOB).host == ANN


def test_sessions_are_bounded_and_those_that_are_over_make_room(world):
    bob = world.machines[BOB]
    for number in range(1, limits.MAX_SESSIONS_OTHERS + 1):
        bob.invited(ANN, invitation(ANN, number=number), 0.0)
    with pytest.raises(UserError, match="sessions of others"):
        bob.invited(ANN, invitation(ANN, number=1000), 0.0)
    for number in range(2000, 2000 + limits.MAX_SESSIONS - limits.MAX_SESSIONS_OTHERS):      # invitations leave room for one's own
        bob.start(Session(number, "own", b"v" * 32, BOB, b"the open", [], BOB, b"t" * 32, 1), [], 0.0)
    with pytest.raises(UserError, match="sessions are open"):
        bob.start(Session(3000, "own", b"v" * 32, BOB, b"the open", [], BOB, b"t" * 32, 1), [], 0.0)
    bob.decided(bob.get(5), False)
    bob.invited(ANN, invitation(ANN, number=1000), 0.0)
    assert bob.get(5) is None and len(list(bob)) == limits.MAX_SESSIONS


def test_invented_nodes_cannot_keep_the_places_from_who_is_known_for_longer(world):
    bob = world.machines[BOB]
    for number in range(1, limits.MAX_SESSIONS_OTHERS + 1):
        stranger = (1000 + number).to_bytes(32, "big")
        bob.invited(stranger, invitation(stranger, number=number, roster=(stranger, BOB)), 0.0, 5000.0 + number)
    bob.decided(bob.get(limits.MAX_SESSIONS_OTHERS), True)                 # a yes keeps its place
    with pytest.raises(UserError, match="sessions of others"):
        bob.invited(MALLORY, invitation(MALLORY, number=900, roster=(MALLORY, BOB)), 0.0, 9000.0)
    world.settle()
    bob.invited(ANN, invitation(ANN, number=1000), 0.0, 10.0)
    effects = bob.effects()
    assert bob.get(1000).members[BOB].status == ASKED
    assert [effect.session.number for effect in effects if isinstance(effect, Withdraw)] == [limits.MAX_SESSIONS_OTHERS - 1]
    assert [effect.fields["status"] for effect in effects if isinstance(effect, Send) and effect.message is proto.ANSWER] == [FAILED]


def test_the_table_of_steps_ends_everywhere():
    ends = {after for after in NEXT.values()} - {before for before, _ in NEXT}
    assert ends == {DENIED, EXPIRED, FAILED, EXITED}
    assert {after for (before, _), after in NEXT.items() if before == UNREACHABLE} == ends | {ALLOWED, RUNNING}     # only not seen


def test_one_who_denied_cannot_rewrite_it_or_end_the_session(world):
    world.host(BOB, EVE)
    world.run(ANN, 5000)
    world.do(EVE, "decided", False)
    ann = world.machines[ANN]
    for call, what in (("exited", 0), ("ready", 5002)):
        getattr(ann, call)(EVE, 7, what)
    ann.end(EVE, 7)
    ann.end(BOB, 7)                       # invited only
    world.settle()
    eve = world.session(ANN).members[EVE]
    assert (eve.status, eve.exit, eve.port) == (DENIED, None, 0) and not world.took(ANN, Kill)


def test_nothing_starts_after_the_end_even_where_files_were_still_on_their_way(world):
    world.host(BOB)
    world.run(ANN, 5000)
    world.do(BOB, "decided", True)
    world.do(ANN, "close")
    world.do(BOB, "fetched")
    assert not world.took(BOB, Start) and world.took(BOB, Over) and world.statuses(ANN)["bob"] == FAILED
    world.do(ANN, "finished", 0)
    assert world.took(ANN, Over) == 1


def test_an_end_does_not_wait_for_invitations_and_is_said_once(world):
    session = world.host(BOB)
    world.run(ANN, 5000)
    for _ in range(3):
        world.do(ANN, "close")
    world.do(ANN, "finished", 0)
    assert world.took(ANN, Kill) == 1 and session.is_over and world.statuses(ANN)["bob"] == EXPIRED
    world.do(BOB, "decided", True)
    assert not world.took(BOB, Fetch)


def test_a_roster_that_was_overtaken_sends_nobody_back(world):
    world.host(BOB, EVE)
    old = proto.ROSTER.unpack(proto.ROSTER.pack(session=7, members=world.session(ANN).roster())).members
    world.run(BOB, 5001)
    world.run(EVE, 5002)
    world.took(EVE, Tell)
    world.machines[EVE].rostered(ANN, 7, old)
    world.settle()
    assert world.statuses(EVE)["bob"] == RUNNING and world.session(EVE).members[BOB].port == 5001 and not world.took(EVE, Tell)


def test_what_was_lost_with_a_link_is_repeated_when_it_is_there_again(world):
    world.host(BOB)
    world.run(ANN, 5000)
    world.lost = [(BOB, ANN)]
    world.run(BOB, 5001)
    assert world.statuses(ANN)["bob"] == ASKED
    meet(world, ANN, BOB)
    assert world.statuses(ANN)["bob"] == RUNNING and world.session(ANN).members[BOB].port == 5001
    world.lost = [(BOB, ANN), (ANN, BOB)]
    world.do(BOB, "finished", 4)
    meet(world, ANN, BOB)
    assert (world.statuses(ANN)["bob"], world.session(ANN).members[BOB].exit) == (EXITED, 4)


def test_a_lost_no_and_a_lost_end_arrive_with_the_next_link(world):
    world.host(BOB, EVE)
    world.run(ANN, 5000)
    world.run(EVE, 5002)
    world.lost = [(BOB, ANN), (ANN, EVE)]
    world.do(BOB, "decided", False)
    world.do(ANN, "close")
    assert not world.took(EVE, Kill)
    meet(world, ANN, EVE)
    assert world.took(EVE, Kill) == 1 and world.took(EVE, Start) == 1
    world = World(ANN, BOB)
    world.host(BOB)
    world.lost = [(BOB, ANN)]
    world.do(BOB, "decided", False)
    meet(world, ANN, BOB)
    assert world.statuses(ANN)["bob"] == DENIED


def test_meeting_again_when_nothing_was_lost_changes_nothing(world):
    world.host(BOB, EVE)
    world.run(ANN, 5000)
    world.run(BOB, 5001)
    before = {node: world.statuses(node) for node in (ANN, BOB, EVE)}
    for node in (ANN, BOB, EVE):
        world.noted[node].clear()
    for one, other in ((ANN, BOB), (ANN, EVE), (BOB, EVE)) * 3:
        meet(world, one, other)
    assert {node: world.statuses(node) for node in (ANN, BOB, EVE)} == before and not any(world.noted.values())


@pytest.mark.parametrize("token", [b"", b"t" * 31])
def test_an_invitation_without_a_secret_is_the_peers_fault(world, token):
    invite = invitation(ANN)
    invite.token = token
    with pytest.raises(PeerError):
        world.machines[BOB].invited(ANN, invite, 0.0)


def test_whatever_comes_in_whatever_order_nobody_goes_back_and_the_machine_stays_bounded():
    """Random conversations with loss, repetition and forgery; the rules hold after each step."""
    rank = {ASKED: 0, ALLOWED: 1, RUNNING: 2}
    for seed in range(60):
        dice = random.Random(seed)
        world = World(ANN, BOB, EVE)
        world.host(BOB, EVE)
        best = {}
        for _ in range(60):
            node, other = dice.choice([ANN, BOB, EVE]), dice.choice([ANN, BOB, EVE, MALLORY])
            machine, session = world.machines[node], world.session(node)
            world.lost = [pair for pair in ((ANN, BOB), (BOB, ANN), (EVE, ANN), (BOB, EVE)) if dice.random() < 0.2]
            forged = [proto.Member.unpack_all(proto.Member.pack(dict(row, status=dice.randrange(9), port=dice.randrange(9))))
                      for row in session.roster()]
            dice.choice([
                lambda: machine.decided(session, dice.random() < 0.7), lambda: machine.fetched(session, dice.choice(["", "", "full"])),
                lambda: machine.listening(session, 5000), lambda: machine.finished(session, dice.randrange(3)),
                lambda: machine.ready(other, 7, 9), lambda: machine.exited(other, 7, 1), lambda: machine.rostered(other, 7, forged),
                lambda: machine.answered(other, 7, dice.randrange(9)), lambda: machine.met(other), lambda: machine.end(other, 7),
                lambda: machine.node_gone(other) if other != node else None, lambda: world.at(world.now + dice.random() * 20)])()
            world.settle()
            for owner in world.machines:
                for member in world.session(owner).members.values():
                    if member.status == UNREACHABLE:
                        continue
                    now = (rank.get(member.status, 3), member.status)
                    was = best.get((owner, member.id), (0, ASKED))
                    assert now[0] > was[0] or now == was, (seed, NAMES[owner], NAMES[member.id], was, now)
                    best[owner, member.id] = now
        for node in world.machines:
            starts = [effect for effect in world.noted[node] if isinstance(effect, Start)]
            overs = [effect for effect in world.noted[node] if isinstance(effect, Over)]
            assert len(starts) <= 1 and (node == ANN or len(overs) <= 1)
