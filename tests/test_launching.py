"""The launcher in real nodes on this computer: what links, peers and processes do to a session while it runs."""

import os
import socket

import pytest

from p2p import limits, proto
from p2p.app import DELIVERY
from p2p.client import Client
from p2p.dispatch import Dispatch
from p2p.errors import LinkDown, Refusal, UserError
from p2p.sessions import EXITED, RUNNING, Participant, Send
from p2p.text import clean
from tests.room import Room

WAITS = "import p2p\nfor event in p2p.attach():\n    pass\n"
NEVER_ATTACHES = "import time\ntime.sleep(600)\n"


def status(node, session, other):
    """How far `other` is, as `node` sees it."""
    return proto.STATUS[node.launcher.sessions.get(session.number).members[other.identity.node_id].status]


def cut(room, one, other):
    """The wire between two nodes breaks; nobody says goodbye."""
    for near, far in ((one, other), (other, one)):
        link = near.link(far.identity.node_id)
        if link is not None:
            link.channel.abort()
            link.channel_lost(LinkDown("the wire broke", "reset"))


def running(room, session):
    """Wait until all instances run, as the host sees it."""
    room.until(lambda: all(member.status == RUNNING for member in session.members.values()), what="all to run")


def forget(room):
    """End all jobs, so that the next run begins with none."""
    for node in room.nodes:
        for job in node.launcher.jobs:
            if job.state != "exited":
                node.launcher.kill(job.number)
    room.until(lambda: all(job.state == "exited" for node in room.nodes for job in node.launcher.jobs))


def test_an_answer_that_a_broken_link_took_arrives_with_the_next_link(room):
    ann, bob = room.nodes
    running(room, room.start(WAITS))          # so that the files are at bob's
    forget(room)
    session = room.do(ann.launcher.run("app", [bob.identity.node_id], []))
    room.until(bob.asking.request_rows)
    cut(room, ann, bob)
    bob.asking.allow(bob.asking.request_rows()[0]["request"])
    room.until(lambda: cut(room, ann, bob) or [job.state for job in bob.launcher.jobs] == ["exited", "running"])
    running(room, session)


def test_a_node_that_was_killed_and_is_back_at_once_takes_part_in_nothing_any_more(room):
    ann, bob = room.nodes
    session = room.start(WAITS)
    running(room, session)
    bob.nonce += 1                            # what a root that was started anew says
    bob.launcher.sessions._sessions.clear()
    cut(room, ann, bob)
    room.until(lambda: status(ann, session, bob) == "unreachable")
    room.until(lambda: ann.find("bob").state == "alive")


class Claimant:
    """Another process of this user that shows a session's token to the root."""

    def __init__(self, room, node, session):
        self.dispatch = Dispatch()
        self.lost = []
        self.heard = []
        self.dispatch.notice(proto.ROSTER, lambda connection, told: self.heard.append(told.members))
        self.dispatch.notice(proto.END, lambda connection, told: self.heard.append("end"))
        self.session = session
        client = Client(room.loop, node.networks, self)
        dialled = client.dial([("127.0.0.1", node.port)], node.networks.tags[0], node.identity.node_id)
        room.until(lambda: dialled.done)
        self.connection = dialled.result()

    def greeting(self, connection):
        return {"role": proto.INSTANCE, "name": "x", "version": "", "nonce": 1, "port": 0, "abilities": 0, "networks": [],
                "addresses": [], "view": 0, "session": self.session.number, "token": self.session.token}

    def connection_ready(self, connection):
        connection.silence = None

    def connection_lost(self, connection, error):
        self.lost.append(error)


def test_what_a_child_of_an_ended_program_still_says_does_not_bring_its_job_back(room):
    ann = room.nodes[0]
    session = room.start(NEVER_ATTACHES, others=False)
    claimant = Claimant(room, ann, session)
    room.until(lambda: claimant.heard)
    ann.launcher.kill(1)
    room.until(lambda: session.is_over)
    claimant.connection.send(proto.LISTENING, port=4711)
    answer = claimant.connection.request(proto.PING)
    room.until(lambda: answer.done)
    assert room.job(0).state == "exited" and session.members[ann.identity.node_id].status == EXITED


def test_the_end_reaches_a_program_that_is_just_starting_and_it_exits_by_itself(room):
    ann, bob = room.nodes
    session = room.start("""
import p2p, time
if p2p.child.bootstrap["me"] != p2p.child.bootstrap["host"]:
    time.sleep(0.7)
app = p2p.attach(wait=0)
for event in app:
    pass
""".replace("import p2p,", "import p2p, p2p.child,", 1))
    assert bob.launcher.jobs.get(1).state == "starting"
    ann.launcher.sessions.close(session)
    ann.launcher.act()
    assert room.wait(session) == 0, ann.launcher.run_row(session)


def test_a_program_that_never_attaches_is_stopped_when_the_session_ends(room):
    ann, bob = room.nodes
    session = room.start(NEVER_ATTACHES)
    ann.launcher.sessions.close(session)
    ann.launcher.act()
    assert room.wait(session) == 1


def test_a_name_of_many_bytes_in_few_cells_keeps_nobody_from_running_or_listing_anything(tmp_path):
    room = Room(tmp_path, 3, names=["ann", "bob", "\u0958" * 85])
    try:
        assert len(clean("\u0958" * 85).encode()) > 255
        session = room.start(WAITS)
        running(room, session)
        ann, bob, eve = room.nodes
        answer = room.do(ann.request(bob.identity.node_id, proto.NODES))
        assert eve.identity.node_id in [row.id for row in answer.nodes]
    finally:
        room.close()


def test_only_a_participant_that_has_not_answered_yet_can_put_its_words_on_the_hosts_screen(room):
    ann, bob = room.nodes
    session = room.start(WAITS)
    running(room, session)
    heard = []
    ann.watchers.append(heard.append)
    for _ in range(3):
        bob.send(ann.identity.node_id, proto.ANSWER, session=session.number, status=proto.DENIED, text="buy now")
    room.do(bob.request(ann.identity.node_id, proto.PING))
    assert not [line for line in heard if "buy now" in line]


def test_a_roster_does_not_make_this_nodes_programs_dial_into_the_world(room):
    launcher = room.nodes[0].launcher
    rows = [row(b"m" * 32, "8.8.8.8"), row(b"n" * 32, "10.1.2.3"), row(b"o" * 32, "example.com"),
            row(room.nodes[1].identity.node_id, "8.8.8.8")]
    placed = [placed["address"] for placed in launcher._placed(rows)]
    assert placed[:3] == ["", "10.1.2.3", ""] and placed[3] not in ("", "8.8.8.8")


def row(node_id, address):
    member = Participant(node_id, "x", RUNNING)
    return {"id": member.id, "name": member.name, "status": member.status, "address": address, "port": 22, "exit": 0}


def test_an_invited_node_stays_within_its_own_app_ports(room):
    ann, bob = room.nodes
    port = room.loop.free_port()
    bob.app_ports = (port, port)
    session = room.start(WAITS)
    running(room, session)
    assert session.members[bob.identity.node_id].port == port != session.members[ann.identity.node_id].port


def test_more_nodes_than_fit_into_a_roster_are_refused_in_one_line(room):
    ann = room.nodes[0]
    with pytest.raises(UserError, match="255"):
        room.do(ann.launcher.run("chat", [os.urandom(32) for _ in range(256)], []))


def test_a_run_ends_when_everybody_else_has_failed(room):
    ann, bob = room.nodes
    room.start(WAITS, others=False)
    forget(room)

    async def fails(*what, **how):
        raise UserError("\N{SNOWMAN}" * 1000)
    bob.offers.bring = fails
    session = room.do(ann.launcher.run("app", [bob.identity.node_id], []))
    room.until(bob.asking.request_rows)
    bob.asking.allow(bob.asking.request_rows()[0]["request"])
    assert room.wait(session) == 1
    assert status(ann, session, bob) == "failed"


def test_an_error_of_our_own_while_fetching_leaves_nobody_waiting_for_ever(room):
    ann, bob = room.nodes
    reported = []
    room.loop.report = lambda what, error: reported.append(error)
    room.start(WAITS, others=False)
    forget(room)

    async def breaks(*what, **how):
        raise KeyError("a bug")
    bob.offers.bring = breaks
    session = room.do(ann.launcher.run("app", [bob.identity.node_id], []))
    room.until(bob.asking.request_rows)
    bob.asking.allow(bob.asking.request_rows()[0]["request"])
    room.until(lambda: status(ann, session, bob) == status(bob, session, bob) == "failed")
    assert [type(error) for error in reported] == [KeyError]


def test_a_start_that_fails_for_a_reason_nobody_thought_of_ends_the_session_and_not_the_other_effects(room):
    ann, bob = room.nodes
    room.start(WAITS, others=False)
    forget(room)
    room.loop.report = lambda what, error: None

    def breaks(*what):
        raise KeyError("a bug")
    ann.launcher._bootstrap = breaks
    session = room.do(ann.launcher.run("app", [bob.identity.node_id], []))
    room.until(bob.asking.request_rows)
    bob.asking.deny(bob.asking.request_rows()[0]["request"])
    assert room.wait(session) == 4 and session.members[ann.identity.node_id].exit == 127


def test_an_address_that_means_something_on_one_computer_only_is_not_told_to_others(room):
    ann, bob = room.nodes
    session = room.start(WAITS)
    running(room, session)
    told = []
    ann.launcher._node.send = lambda node_id, message, **fields: told.append(fields)
    ann.launcher._placed = lambda rows: [dict(row, address="fe80::1%3") for row in rows]
    ann.launcher._send(Send(bob.identity.node_id, proto.ROSTER, {"session": session.number, "members": session.roster()}))
    assert [row["address"] for row in told[0]["members"]] == ["", ""]


def test_a_request_is_shown_though_its_files_cannot_be_compared_for_a_reason_nobody_thought_of(room):
    ann, bob = room.nodes
    room.start(WAITS, others=False)
    forget(room)
    said = []
    bob.watchers.append(said.append)

    async def breaks(session):
        raise KeyError("a bug")
    bob.asking._compare_with_what_is_here = breaks
    room.loop.report = lambda what, error: None
    room.do(ann.launcher.run("app", [bob.identity.node_id], []))
    room.until(lambda: any("wants to run app" in line for line in said), what="the prompt")


def test_when_everybody_denies_the_hosts_program_exits_by_itself_even_if_it_has_only_just_started(room):
    ann, bob = room.nodes
    room.start(WAITS, others=False)
    forget(room)
    for _ in range(3):
        session = room.do(ann.launcher.run("app", [bob.identity.node_id], []))
        room.until(bob.asking.request_rows)
        bob.asking.deny(bob.asking.request_rows()[0]["request"])
        assert room.wait(session) == 4
        assert session.members[ann.identity.node_id].exit == 0
        room.loop.turn(0)


def test_a_program_that_is_on_its_way_out_keeps_its_exit_code_whoever_stops_it(room):
    ann = room.nodes[0]
    session = room.start("""
import p2p, p2p.app, p2p.child
app = p2p.attach()
p2p.child.on_exit(lambda: (print("leaving", flush=True), __import__("time").sleep(30)))
raise ValueError("a bug")
""", others=False)
    room.says(0, "leaving")
    began = room.loop.now()
    ann.launcher.kill(room.job(0).number)
    assert room.wait(session) == 1 and room.job(0).exit == 1
    assert room.loop.now() - began < 2.0


def test_an_end_is_over_soon_though_a_peer_is_busy(room):
    session = room.start("""
import p2p, time
app = p2p.attach()
print("here", flush=True)
if not app.is_host:
    time.sleep(600)
app.wait(p2p.Line)
app.end()
""")
    room.says(0, "here")
    room.says(1, "here")
    began = room.loop.now()
    room.job(0).write(b"end\n")
    assert room.wait(session) == 1 and room.job(0).exit == 0 and room.job(1).exit == -9
    assert room.loop.now() - began < DELIVERY + limits.END_AFTER + 1.5


def shared(room, node, name, source):
    """Offer an application of this source, and wait until the others know."""
    folder = room.folder / node.name / "shared" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(source)
    row = room.do(node.offers.share(str(folder), name))
    version = bytes.fromhex(row["version"])
    room.until(lambda: all(version in [offer.version for offer in other.offers.catalogue.offers()] for other in room.nodes))
    return row


def test_a_strangers_chat_is_not_run_in_place_of_the_one_that_came_with_the_framework(room):
    ann, bob = room.nodes
    theirs = shared(room, bob, "chat", "print('mine now')\n")
    session = room.do(ann.launcher.run("chat", [], []))
    assert session.publisher == ann.identity.node_id and session.version.hex() != theirs["version"]
    named = room.do(ann.launcher.run("chat@bob", [], []))
    assert named.version.hex() == theirs["version"]


@pytest.mark.parametrize("room", [3], indirect=True)
def test_what_a_name_means_here_is_decided_by_whom_this_user_named_and_not_by_an_invitation(room):
    ann, bob, eve = room.nodes
    mine = shared(room, bob, "tool", WAITS)
    shared(room, eve, "tool", WAITS)                                # the very same files
    room.do(ann.launcher.run("tool@bob", [], []))
    assert ann.offers.catalogue.pins["tool"] == bob.identity.node_id
    other = shared(room, eve, "tool", NEVER_ATTACHES)
    session = room.do(eve.launcher.run("tool", [ann.identity.node_id], []))
    room.until(ann.asking.request_rows)
    ann.asking.allow(ann.asking.request_rows()[0]["request"])
    room.until(lambda: status(eve, session, ann) in ("running", "allowed") and ann.launcher.sessions.get(session.number).job)
    assert ann.offers.newest("tool").version.hex() == mine["version"] != other["version"]


def test_a_program_that_does_not_read_costs_its_root_no_more_than_a_few_rosters(room):
    ann = room.nodes[0]
    session = room.start(NEVER_ATTACHES, others=False)
    for number in range(200):
        session.add(os.urandom(32), f"member{number}", RUNNING)
    claimant = Claimant(room, ann, session)
    room.until(lambda: claimant.heard)
    claimant.connection.channel.pause(True)
    link = ann.launcher.guardian.connections[session.job]
    for _ in range(1500):
        ann.launcher.guardian.tell(session)
        room.loop.turn(0)
    assert link.queued < 1 << 19
    session.members[ann.identity.node_id].port = 4242
    ann.launcher.guardian.tell(session)
    claimant.connection.channel.pause(False)
    room.until(lambda: claimant.heard[-1][0].port == 4242)


def test_whoever_says_yes_after_a_cut_takes_part_if_the_session_still_runs_and_does_not_run_on_alone_if_not(room):
    ann, bob = room.nodes
    running(room, room.start(WAITS))          # so that the files are at bob's
    forget(room)
    for is_over in (False, True):
        session = room.do(ann.launcher.run("app", [bob.identity.node_id], []))
        room.until(bob.asking.request_rows)
        ann.launcher.node_gone(bob.identity.node_id)
        if is_over:
            forget(room)
        bob.asking.allow(bob.asking.request_rows()[0]["request"])
        room.until(lambda: status(bob, session, bob) in (("failed", "exited") if is_over else ("running",)))
        assert status(ann, session, bob) == "unreachable" if is_over else running(room, session) is None


TELLS = """
import p2p
class Say(p2p.Message):
    text: str
app = p2p.attach()
peers = []
for event in app:
    print(type(event).__name__, getattr(event, "text", ""), [peer.name for peer in app.peers], flush=True)
    if isinstance(event, p2p.Join):
        peers.append(event.sender)
        assert len(set(peers)) == 1                # the same object each time
    elif isinstance(event, p2p.Line):
        try:
            app.send(peers[0], Say(event.text))
        except p2p.Gone:
            print("gone", flush=True)
"""


@pytest.mark.parametrize("who_noticed", ["both", "host", "guest"])
def test_a_cut_is_a_leave_and_its_end_a_join_and_then_messages_pass_again(room, who_noticed):
    ann, bob = room.nodes
    session = room.start(TELLS)
    for node in (0, 1):
        room.says(node, "Join")
    if who_noticed != "guest":
        ann.launcher.node_gone(bob.identity.node_id)
        room.says(0, "Leave  []")
        assert status(ann, session, bob) == "unreachable"
    if who_noticed != "host":
        bob.launcher.node_gone(ann.identity.node_id)
        room.says(1, "Leave  []")
    cut(room, ann, bob)
    room.until(lambda: status(ann, session, bob) == status(bob, session, ann) == "running")       # the links come back by themselves
    for node, other in ((0, "bob"), (1, "ann")):
        room.until(lambda: room.output(node).rstrip().endswith(f"['{other}']"), what="the second Join")
    for node in (0, 1):
        told = [line.split()[0] for line in room.output(node).splitlines()]
        assert told == (["Join", "Leave"] * len(told))[:len(told)] and told[-1] == "Join"
    for node, text in ((0, "from ann"), (1, "from bob")):
        room.job(node).write(f"{text}\n".encode())
        room.says(1 - node, f"Say {text}")


def test_after_a_cut_a_program_that_has_ended_meanwhile_stays_gone(room):
    ann, bob = room.nodes
    session = room.start(TELLS)
    for node in (0, 1):
        room.says(node, "Join")
    for here, there in ((ann, bob), (bob, ann)):
        here.launcher.node_gone(there.identity.node_id)
    room.says(0, "Leave")
    os.kill(room.job(1).pid, 9)
    room.until(lambda: room.job(1).state == "exited")
    cut(room, ann, bob)
    room.until(lambda: status(ann, session, bob) == "exited")
    room.job(0).write(b"x\n")
    room.says(0, "gone")
    assert room.output(0).count("Join") == 1


@pytest.mark.parametrize("message, fields", [
    (proto.COMMAND, {"command": 1, "words": ["id"], "folder": "/", "as_json": False, "yes": True, "columns": 0, "rows": 0,
                     "color": False, "is_terminal": False}),
    (proto.WATCH, {}), (proto.MANIFEST, {"version": bytes(32)}), (proto.SAY, {"text": "hello"})])
def test_an_instance_may_say_its_port_and_ask_for_the_end_and_nothing_else(room, message, fields):
    session = room.start(NEVER_ATTACHES, others=False)
    claimant = Claimant(room, room.nodes[0], session)
    answer = claimant.connection.request(message, **fields)
    room.until(lambda: answer.done)
    assert isinstance(answer.error, Refusal) and answer.error.code == proto.UNSUPPORTED


def test_many_programs_that_start_at_once_all_reach_their_root_though_idle_strangers_take_its_places(room):
    """Each address has few places for handshakes, and the oldest is evicted: a program must try again."""
    ann = room.nodes[0]
    idle = []

    def push():
        idle.append(socket.create_connection(("127.0.0.1", ann.port)))
        return True
    room.start(WAITS, others=False)
    for _ in range(3):
        room.do(ann.launcher.run("app", [], []))
    try:
        room.until(lambda: push() and (len(idle) > 250 or all(job.state != "starting" for job in ann.launcher.jobs)))
        room.until(lambda: all(job.state != "starting" for job in ann.launcher.jobs))
        assert [job.state for job in ann.launcher.jobs] == ["running"] * 4, room.outputs()
    finally:
        for sock in idle:
            sock.close()


@pytest.mark.parametrize("room", [3], indirect=True)
def test_where_the_host_is_gone_the_others_go_on_and_any_of_them_can_end_it_for_all(room):
    session = room.start("""
import p2p
app = p2p.attach()
for event in app:
    if isinstance(event, p2p.Line):
        app.end()
print("over", flush=True)
""")
    running(room, session)
    ann, bob, eve = room.nodes
    room.do(ann.stop())
    room.until(lambda: all(node.find("ann").state == "left" for node in (bob, eve)))
    assert [room.job(node).state for node in (1, 2)] == ["running", "running"]
    room.job(1).write(b"go\n")
    room.until(lambda: [room.job(node).exit for node in (1, 2)] == [0, 0])
    assert "over" in room.output(1) and "over" in room.output(2)
