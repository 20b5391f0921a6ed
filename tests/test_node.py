"""Whole nodes in one process, over real sockets on loopback: meeting, leaving, dying, and what a role may ask."""

import shutil
from types import SimpleNamespace

import pytest

from p2p import limits, proto
from p2p.client import Client
from p2p.dispatch import Dispatch
from p2p.errors import LinkDown, Refusal, UserError
from p2p.neighbours import whom_to_ask
from p2p.node import Node
from p2p.verbs.people import node_rows
from tests.bench import Bench
from tests.nodes import PROGRAM, free_port


class Bed(Bench):
    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.port = free_port()
        self.nodes = []
        self.notices = []

    def make(self, name, **options):
        node = Node(self.loop, str(self.folder / name), name, options.pop("port", self.port), entry=str(PROGRAM), **options)
        node.watchers.append(lambda text: self.notices.append((name, text)))
        return node

    def do(self, coroutine):
        task = self.loop.start(coroutine)
        self.until(lambda: task.done)
        return task.result()

    def start(self, name, **options):
        node = self.make(name, **options)
        self.do(node.start())
        self.nodes.append(node)
        return node

    def states(self, node):
        return {member.name: member.state for member in node.members()}

    def meet(self):
        names = {node.name: "alive" for node in self.nodes}
        self.until(lambda: all(self.states(node) == names for node in self.nodes))
        self.until(lambda: all(node.link(other.identity.node_id) for node in self.nodes for other in self.nodes if other is not node))

    def stop(self, node):
        self.nodes.remove(node)
        self.do(node.stop())

    def crash(self, node):
        """Everything closes without a word, as the kernel does it for a killed process."""
        self.nodes.remove(node)
        for connection in node.links.everything():
            connection.abort()
        node.neighbours.close()
        node.broadcaster.close()
        node.client.close()
        node.server.close()
        node.links.close("")
        node.publisher.close()
        node.owners.close()
        node._lock.release()

    def close(self):
        for node in list(self.nodes):
            self.stop(node)
        self.loop.close()


@pytest.fixture
def bed(tmp_path):
    bed = Bed(tmp_path)
    yield bed
    bed.close()


def test_three_nodes_on_one_computer_meet_and_take_the_next_free_ports(bed):
    nodes = [bed.start(name) for name in ("ann", "bob", "eve")]
    bed.meet()
    assert nodes[0].port == bed.port and len({node.port for node in nodes}) == 3
    assert bed.do(nodes[0].ping(nodes[2].identity.node_id)) < 1.0
    assert all(any(f"{other} (" in text and "is here" in text for name, text in bed.notices if name == "ann") for other in ("bob", "eve"))


@pytest.mark.parametrize("seed", range(6))
def test_nodes_that_start_in_the_same_instant_settle_on_the_same_connections_and_stay_with_them(bed, seed):
    nodes = [bed.make(f"n{number}") for number in range(4)]
    tasks = [bed.loop.start(node.start()) for node in nodes]
    bed.until(lambda: all(task.done for task in tasks))
    bed.nodes = nodes
    bed.meet()

    def wire(node, other):
        """The TCP connection: its client's port and its server's."""
        channel = node.links.get(other.identity.node_id).channel
        ends = channel._sock.getsockname()[1], channel._sock.getpeername()[1]
        return ends if channel.outgoing else ends[::-1]

    def wires():
        return {(one.name, two.name): wire(one, two) for one in nodes for two in nodes if one is not two}

    def is_settled():
        now = wires()
        return all(now[pair] == now[pair[::-1]] for pair in now)
    bed.until(is_settled)
    before = wires()
    end = bed.loop.now() + 1.0
    while bed.loop.now() < end:
        bed.loop.turn(0.05)
    assert is_settled() and bed.states(nodes[0]) == {f"n{number}": "alive" for number in range(4)}
    assert before == wires()
    assert not any("left" in text or "gone" in text for _, text in bed.notices)


def test_a_goodbye_is_leaving_and_a_crash_is_death(bed):
    ann, bob, eve = [bed.start(name) for name in ("ann", "bob", "eve")]
    bed.meet()
    bed.stop(bob)
    bed.until(lambda: bed.states(ann)["bob"] == "left")
    bed.crash(eve)
    bed.until(lambda: bed.states(ann)["eve"] == "dead")
    assert any("bob" in text and text.endswith("left") for _, text in bed.notices)
    bed.start("bob")
    bed.until(lambda: bed.states(ann)["bob"] == "alive")


def test_when_a_node_was_last_heard_is_told_by_its_link_and_kept_when_that_is_gone(bed):
    ann, bob = bed.start("ann"), bed.start("bob")
    bed.meet()
    link = ann.link(bob.identity.node_id)
    link.last_in -= 3.0
    heard = link.last_in
    rows = {row["name"]: row["last_seen_s"] for row in node_rows(ann)}
    assert 3.0 <= rows["bob"] < 20.0 and rows["ann"] == 0.0
    ann.neighbours.down(bob.identity.node_id, link, LinkDown("silence", "silent"))
    assert ann.neighbours.table.get(bob.identity.node_id).last_seen == heard


def test_a_node_that_reached_one_by_address_learns_the_rest_and_later_newcomers(bed):
    ann, bob = bed.start("ann"), bed.start("bob")
    bed.meet()
    far = bed.start("far", port=free_port())       # another UDP port: no beacon passes between them
    assert bed.do(far.connect("127.0.0.1", ann.port)).name == "ann"
    bed.until(lambda: bed.states(far) == {"ann": "alive", "bob": "alive", "far": "alive"} == bed.states(bob))
    bed.start("eve")
    bed.until(lambda: bed.states(far).get("eve") == "alive")


def test_who_was_met_is_found_again_without_any_beacon(bed):
    ann, far = bed.start("ann"), bed.start("far", port=free_port())
    bed.do(far.connect("127.0.0.1", ann.port))
    bed.stop(far)
    far = bed.start("far", port=free_port())
    bed.until(lambda: bed.states(far).get("ann") == "alive")


def test_a_line_is_said_cleaned(bed):
    ann, bob = bed.start("ann"), bed.start("bob")
    bed.meet()
    bed.do(ann.request(bob.identity.node_id, proto.SAY, text="hi \x1b[2J there\n[1] eve wants"))
    bed.until(lambda: any("<ann>" in text for name, text in bed.notices if name == "bob"))
    [said] = [text for name, text in bed.notices if name == "bob" and "<ann>" in text]
    assert "\x1b" not in said and "\n" not in said


def test_a_peer_cannot_even_name_a_command_of_the_owner(bed):
    ann, bob = bed.start("ann"), bed.start("bob")
    bed.meet()
    for message, fields in ((proto.COMMAND, dict(command=1, words=["down"], folder="/", as_json=False, yes=True, columns=80, rows=24,
                                                 color=False, is_terminal=False)), (proto.WATCH, {})):
        with pytest.raises(Refusal) as caught:
            bed.do(bob.request(ann.identity.node_id, message, **fields))
        assert caught.value.code == proto.UNSUPPORTED
    assert not ann.stopped.done


@pytest.mark.parametrize("role", [proto.OWNER, proto.INSTANCE, 9])
def test_another_node_cannot_claim_a_role_and_this_node_cannot_be_its_own_peer(bed, role):
    ann, bob = bed.start("ann"), bed.start("bob")
    bed.meet()
    ends = []

    class Claimant:
        dispatch = Dispatch()

        def greeting(self, connection):
            return dict(bob.greeting(connection), role=self.role, session=1, token=b"x")

        def connection_ready(self, connection):
            pass

        def connection_lost(self, connection, error):
            ends.append(error)
    for networks, claimed in ((bob.networks, role), (ann.networks, proto.NODE), (ann.networks, proto.INSTANCE)):
        claimant = Claimant()
        claimant.role = claimed
        client = Client(bed.loop, networks, claimant)
        known = len(ends)
        client.dial([("127.0.0.1", ann.port)], networks.tags[0])
        bed.until(lambda: len(ends) > known)
        client.close()
    assert {"role", "self", "token"} <= set(ann.refused)
    assert bed.states(ann) == {"ann": "alive", "bob": "alive"}


def test_two_nodes_with_one_identity_are_noticed(bed):
    ann = bed.start("ann")
    bed.stop(ann)
    shutil.copytree(str(bed.folder / "ann"), str(bed.folder / "copy"))
    bed.start("ann")
    bed.start("copy")
    bed.until(lambda: any("identity" in text for _, text in bed.notices))


def test_a_home_serves_one_root_and_a_stopped_one_gives_everything_back(bed):
    ann = bed.start("ann")
    with pytest.raises(UserError, match="already runs"):
        bed.do(bed.make("ann").start())
    port = ann.port
    bed.stop(ann)
    again = bed.start("ann")
    assert again.port == port and again.identity.text == ann.identity.text


def test_names_find_nodes_and_twins_are_told_apart(bed):
    ann = bed.start("ann")
    for home in ("one", "two"):
        node = bed.make(home)
        node.name = "bob"
        bed.do(node.start())
        bed.nodes.append(node)
    bed.until(lambda: len(list(ann.links)) == 2 and bed.states(ann)["bob"] == "alive")
    bed.until(lambda: all(member.state == "alive" for member in ann.members()))
    with pytest.raises(UserError, match="ambiguous: say bob@") as caught:
        ann.find("bob")
    said = str(caught.value).split("say ")[1].split(" or ")
    labels = sorted(ann.label(ann.find(word.split()[0]).id) for word in said)
    newer = labels[1].split()[0]
    assert labels == ["bob", f"{newer} (NOT the known one)"] and newer in [word.split()[0] for word in said]
    assert sum("the known one" in word for word in said) == 1
    text = bed.nodes[1].identity.text
    assert ann.find(text[:8]).id == bed.nodes[1].identity.node_id
    for bad in ("", "nobody", text[:3], "bob@zzzz", "*"):
        with pytest.raises(UserError):
            ann.find(bad)


def test_statistics_have_the_keys_of_the_command_line(bed):
    ann, bob = bed.start("ann"), bed.start("bob")
    bed.meet()
    bed.do(ann.ping(bob.identity.node_id))
    stats = ann.statistics()
    assert set(stats) == {"uptime_s", "loop", "tcp", "udp", "nodes", "messages", "refused"}
    assert set(stats["loop"]) == {"turns", "busy_percent", "worst_ms"}
    for wire in ("tcp", "udp"):
        assert set(stats[wire]) == {"in_bytes", "out_bytes", "in_messages", "out_messages", "connections"} and stats[wire]["in_bytes"] > 0
    assert set(stats["nodes"][0]) == {"id", "name", "in_bytes", "out_bytes", "rtt_ms"}
    assert stats["messages"]["HELLO"]["in"] >= 1 and stats["messages"]["PING"]["out"] >= 1


def test_what_went_over_connections_that_this_node_ended_is_counted(bed):
    ann, bob = bed.start("ann"), bed.start("bob")
    bed.meet()
    link = ann.link(bob.identity.node_id)
    before = ann.traffic().out_bytes
    link.finish("enough")
    bed.until(lambda: ann.past_traffic.out_bytes)
    assert ann.traffic().out_bytes > before and ann.statistics()["messages"]["GOODBYE"]["out"] >= 1


def test_a_start_that_fails_half_way_leaves_nothing_that_others_could_reach(bed):
    node = bed.make("ann")
    (bed.folder / "ann" / "state-name" / "in the way").mkdir(parents=True)
    (bed.folder / "ann").chmod(0o700)
    with pytest.raises(UserError):
        bed.do(node.start())
    assert bed.loop.free_port(bed.port) == bed.port
    shutil.rmtree(bed.folder / "ann" / "state-name")
    bed.start("ann")
    assert bed.nodes[0].port == bed.port


def test_a_part_that_cannot_be_closed_keeps_neither_the_home_nor_the_others(bed):
    ann = bed.start("ann")

    def breaks(*what):
        raise UserError("the disk is gone")
    ann.owners.close = ann.neighbours.close = ann.launcher.stop = breaks
    bed.stop(ann)
    assert ann.stopped.done and [type(error) for error in bed.events] == [UserError] * 3
    bed.events.clear()
    bed.start("ann")                   # home and port are free


def test_nothing_is_written_into_a_home_that_was_given_back(bed):
    ann = bed.start("ann")
    folder = bed.folder / "app"
    folder.mkdir()
    (folder / "main.py").write_text("pass\n")
    bed.do(ann.offers.share(str(folder), "app"))
    bed.stop(ann)                      # sooner than changes are gathered
    path = bed.folder / "ann" / "catalogue"
    assert path.stat().st_size > 200
    path.unlink()
    ann.offers._announce()
    bed.idle(0.2)
    assert not path.exists()


def test_a_job_that_would_start_while_its_node_stops_finds_no_table_to_write(bed):
    node = bed.start("ann")
    node.publisher.due()
    bed.do(node.stop("enough"))
    node.publisher.catch_up()          # by a session whose files came just now: the simulation's seed 871615733


def test_a_shell_that_cannot_show_a_notice_does_not_stop_what_it_was_about(bed):
    ann = bed.start("ann")

    def breaks(text):
        raise ValueError("no such terminal")
    ann.watchers.insert(0, breaks)
    bed.start("bob")
    bed.meet()
    assert any(name == "ann" and "is here" in text for name, text in bed.notices)
    bed.events.clear()


def test_of_those_who_see_the_same_one_is_asked_at_a_time_and_each_in_the_end():
    views = {b"mine": 7, **{bytes([number]): 8 for number in range(20)}}
    asked = {}
    for second in range(0, 200, 5):
        for peer in whom_to_ask(views, 7, asked, float(second)):
            assert all(float(second) - when >= limits.VIEW_PAUSE for when, _ in asked.values())
            asked[peer] = float(second), (views[peer], 7)
    assert len(asked) == 20                       # so a peer that lies about what it sees hides nobody
    many = {bytes([number]): number for number in range(50)}
    assert len(whom_to_ask(many, 7, {}, 0.0)) == limits.VIEW_QUESTIONS


def test_beacons_of_the_living_cost_no_look_at_the_system(bed, monkeypatch):
    ann = bed.start("ann")
    bed.start("bob")
    bed.meet()
    calls = []
    monkeypatch.setattr(bed.loop, "interfaces", lambda: calls.append(1) or [])
    bob = next(member for member in ann.neighbours.table if not member.is_self)
    assert ann.neighbours.table.is_no_news(bob.id, bob.nonce) and not ann.neighbours.table.is_no_news(bob.id, bob.nonce + 1)
    beacon = SimpleNamespace(name="bob", port=9, nonce=bob.nonce, answer=False)
    for _ in range(50):
        ann.neighbours.heard(bob.id, ann.networks.all()[0], beacon, "127.0.0.1")
        ann.neighbours.heard(bytes(32), ann.networks.all()[0], beacon, "127.0.0.1")
    assert not calls


def test_views_that_differ_for_good_are_asked_about_ever_more_rarely(bed, monkeypatch):
    monkeypatch.setattr(limits, "VIEW_PAUSE", 0.0)
    monkeypatch.setattr(limits, "VIEW_EVERY", 0.02)
    ann, bob = bed.start("ann"), bed.start("bob")
    bed.meet()
    asked = []
    ask = ann.neighbours.ask_view
    ann.neighbours.ask_view = lambda connection, tag=None: asked.append(connection) or ask(connection, tag)
    bob.neighbours.table.view = lambda tag: 4711
    bed.until(lambda: asked)
    end = bed.loop.now() + 1.0
    bed.until(lambda: bed.loop.now() > end)
    assert len(asked) < 4
    bob.neighbours.table.view = lambda tag: 4712               # news
    known = len(asked)
    bed.until(lambda: len(asked) > known)
