"""Asking and answering between real roots (all in this process, on real TLS links) with real processes as instances.

What a peer must not be able to do is sent by real peers over their real links, not called. What else a session goes
through is in test_launching.
"""

import json
import os
import re
import signal

import pytest

from p2p import limits, proto
from p2p.errors import UserError
from p2p.jobs import EXITED
from p2p.loop import Loop
from p2p.node import Node
from p2p.record import parse
from p2p.trust.ecc import node_id_text
from tests.nodes import LAN, PROGRAM, Nodes, free_port
from tests.test_jobs import is_gone
from tests.waiting import wait_until

NAMES = ("ann", "bob", "eve")
EXITS = "import sys\nsys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)\n"
WAITS = "import time\ntime.sleep(60)\n"


class Roots:
    """Some roots that have met. `said[name]` holds the notices of each."""

    def __init__(self, folder, names):
        self.loop = Loop()
        self.folder = folder
        self.port = free_port()
        self.nodes = []
        self.said = {name: [] for name in names}
        for name in names:
            self.start(name)
        self.until(self.have_met, "all to meet")

    def have_met(self):
        """Has each a link with each other?"""
        return all(one.link(self.id(other)) for one in self.nodes for other in self.nodes if one is not other)

    def start(self, name):
        node = Node(self.loop, str(self.folder / name), name, self.port, entry=str(PROGRAM))
        node.watchers.append(self.said[name].append)
        self.do(node.start())
        self.nodes.append(node)
        return node

    @staticmethod
    def id(node):
        return node.identity.node_id

    def until(self, condition, what="it", seconds=15.0):
        end = self.loop.now() + seconds
        while not condition():
            assert self.loop.now() < end, f"waited in vain for {what}; said: {self.said}"
            self.loop.turn(0.02)

    def do(self, coroutine):
        task = self.loop.start(coroutine)
        self.until(lambda: task.done, "a coroutine")
        return task.result()

    def share(self, node, **files):
        folder = self.folder / "app"
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        return self.do(node.offers.share(str(folder)))

    def run(self, host, *invited, arguments=()):
        return self.do(host.launcher.run("app", [self.id(node) for node in invited], list(arguments)))

    def request(self, node):
        """The number of the one open request, once it is there."""
        self.until(lambda: node.asking.request_rows(), f"a request at {node.name}")
        return node.asking.request_rows()[0]["request"]

    def heard(self, node, text):
        self.until(lambda: any(text in line for line in self.said[node.name]), f"{text!r} at {node.name}")
        return next(line for line in self.said[node.name] if text in line)

    def statuses(self, node, session):
        return {row["name"]: row["status"] for row in node.launcher.members_row(node.launcher.sessions.get(session.number))}

    def is_status(self, node, session, **wanted):
        self.until(lambda: wanted.items() <= self.statuses(node, session).items(), f"{wanted} at {node.name}")

    def settle(self):
        """All that was sent before has been heard: a round trip on each link."""
        for one in self.nodes:
            for other in self.nodes:
                if one is not other and one.link(self.id(other)):
                    self.do(one.ping(self.id(other)))

    def close(self):
        for node in self.nodes:
            self.do(node.stop())
        self.loop.close()


@pytest.fixture
def roots(request, tmp_path):
    roots = Roots(tmp_path, NAMES[:getattr(request, "param", 2)])
    yield roots
    roots.close()


three = pytest.mark.parametrize("roots", [3], indirect=True)


def test_a_run_has_the_keys_of_the_contract_and_the_exit_code_of_its_worst_instance(roots):
    ann, bob = roots.nodes
    version = roots.share(ann, main=EXITS)["version"]
    session = roots.run(ann, bob, arguments=["3"])
    row = ann.launcher.run_row(session)
    assert list(row) == ["session", "app", "version", "job", "nodes"] and (row["app"], row["version"], row["job"]) == ("app", version, 1)
    assert row["nodes"][1] == {"id": node_id_text(roots.id(bob)), "name": "bob", "status": "asked", "exit": None}
    assert roots.do(_first_row(bob, roots))["args"] == ["3"]
    bob.asking.allow(1)
    assert roots.do(ann.launcher.wait(session)) == 1
    assert [(row["status"], row["exit"]) for row in ann.launcher.members_row(session)] == [("exited", 3)] * 2
    roots.until(lambda: bob.launcher.job_rows()[0]["state"] == "exited")
    job = bob.launcher.job_rows()[0]
    assert list(job) == ["job", "session", "app", "version", "host", "port", "nodes", "pid", "state", "exit", "unseen"]
    assert (job["session"], job["host"], job["exit"]) == (row["session"], "ann", 3)


async def _first_row(node, roots):
    while not node.asking.request_rows():
        await roots.loop.sleep(0.01)
    return node.asking.request_rows()[0]


def test_everything_that_was_answered_started_and_ended_is_written_down(roots):
    ann, bob = roots.nodes
    version = roots.share(ann, main=EXITS)["version"][:12]
    roots.run(ann, bob, arguments=["0"])
    bob.asking.allow(roots.request(bob), always=True)
    roots.until(lambda: bob.launcher.job_rows() and bob.launcher.job_rows()[0]["state"] == "exited")
    roots.do(ann.launcher.wait(roots.run(ann, bob, arguments=["0"])))
    roots.until(lambda: len(bob.launcher.job_rows()) == 2 and bob.launcher.job_rows()[1]["state"] == "exited")
    host = {"app": "app", "version": version, "node": node_id_text(roots.id(ann)), "name": "ann", "args": "0"}
    rows = [parse(line) for line in bob.log.last(50)]
    for kind, fields in (("asked", {"request": 1}), ("allow", {"request": 1, "by": "owner", "rule": 1, "covers": "these arguments"}),
                         ("start", {"job": 1, "by": "request 1"}), ("end", {"job": 1, "exit": 0}), ("allow", {"by": "rule 1", "rule": 1}),
                         ("start", {"job": 2, "by": "rule 1"}), ("end", {"job": 2, "exit": 0})):
        assert any(row["kind"] == kind and {**host, **fields}.items() <= row.items() for row in rows), (kind, fields, rows)
    assert len({row["session"] for row in rows if row["kind"] == "start"}) == 2
    kept = [row["kind"] for row in map(parse, bob.log.last(50, kept_only=True))]
    assert kept == ["allow", "start", "end"] * 2
    mine = [parse(line) for line in ann.log.last(50)]
    assert any(row["kind"] == "run" and row["by"] == "owner" and row["nodes"] == "bob" for row in mine)
    assert any(row["kind"] == "answer" and row["name"] == "bob" and row["status"] == "allowed" for row in mine)
    assert any(row["kind"] == "answer" and row["name"] == "bob" and row["status"] == "exited" and row["exit"] == 0 for row in mine)


@three
def test_when_everybody_says_no_the_run_is_denied_and_ends_here_too(roots):
    ann, bob, eve = roots.nodes
    roots.share(ann, main=WAITS)
    session = roots.run(ann, bob, eve)
    waiting = roots.loop.start(ann.launcher.wait(session))
    bob.asking.deny(roots.request(bob))
    roots.is_status(ann, session, bob="denied")
    assert not waiting.done
    eve.asking.deny(roots.request(eve))
    roots.until(lambda: waiting.done)
    assert waiting.result() == 4 and session.job.state == EXITED and not bob.launcher.job_rows()


def test_when_nobody_answers_the_run_expires_and_the_late_answer_is_refused(roots, monkeypatch):
    monkeypatch.setattr(limits, "ASK_FOR", 0.5)
    ann, bob = roots.nodes
    roots.share(ann, main=WAITS)
    session = roots.run(ann, bob)
    number = roots.request(bob)
    assert roots.do(ann.launcher.wait(session)) == 5
    with pytest.raises(UserError, match="no request"):
        bob.asking.allow(number)
    assert not bob.launcher.job_rows() and roots.heard(bob, "[1] has expired: app of ann does not run here")


def test_who_asks_too_often_reads_that_nobody_was_asked(roots, monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_BURST", 1)
    ann, bob = roots.nodes
    roots.share(ann, main=WAITS)
    for _ in range(2):
        session = roots.run(ann, bob)
    roots.is_status(ann, session, bob="denied")
    assert roots.heard(ann, "* bob: nobody was asked: this node asks there too often")


def test_a_rule_is_kept_over_a_restart_and_a_no_by_rule_is_silent(roots):
    ann, bob = roots.nodes
    roots.share(ann, main=EXITS)
    session = roots.run(ann, bob, arguments=["7"])
    bob.asking.deny(roots.request(bob), never=True)
    assert roots.do(ann.launcher.wait(session)) == 4
    path = roots.folder / "bob" / "rules.json"
    assert json.loads(path.read_text())[0]["args"] == ["7"]
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0
    roots.do(bob.stop())
    roots.nodes.remove(bob)
    bob = roots.start("bob")
    roots.until(roots.have_met, "the link")
    roots.said["bob"].clear()
    for _ in range(2 * limits.REQUEST_BURST):
        assert roots.do(ann.launcher.wait(roots.run(ann, bob, arguments=["7"]))) == 4
    assert not bob.asking.request_rows() and not roots.said["bob"]
    assert roots.heard(ann, "* bob: a remembered answer of its user")
    bob.asking.drop_rule(1)
    roots.run(ann, bob, arguments=["7"])
    assert roots.request(bob) and json.loads(path.read_text()) == []


def test_all_versions_of_a_trusted_publisher_run_without_asking_in_a_managed_network_and_no_others(roots):
    from tests.test_joining import found, id_of, joined
    ann, bob = roots.nodes
    studio = found(ann)
    joined(roots, bob, roots.do(ann.inviting.invite(studio)).code)
    folder = roots.folder / "made"
    folder.mkdir()

    def run(text, network):
        (folder / "main.py").write_text(text)
        roots.do(ann.offers.share(str(folder), "made", network))
        return roots.do(ann.launcher.run("made", [id_of(bob)], [], network))
    run("print(1)", "studio")
    number = roots.request(bob)
    roots.until(lambda: bob.offers.catalogue.newest("made", id_of(ann), [studio.tag]), "the offer")
    bob.asking.allow(number, always=True, any_version=True)
    second = run("print(2)", "studio")
    roots.is_status(ann, second, bob="exited")
    assert not bob.asking.request_rows()
    run("print(3)", "lan")
    number = roots.request(bob)
    with pytest.raises(UserError, match="managed networks only"):
        bob.asking.allow(number, always=True, any_version=True)
    bob.asking.deny(number)


def test_a_file_of_rules_that_cannot_be_read_is_said_and_nothing_is_allowed(roots):
    ann, bob = roots.nodes
    roots.do(bob.stop())
    roots.nodes.remove(bob)
    bob.disk.write_atomic(str(roots.folder / "bob" / "rules.json"), b"[" * 100_000)
    with pytest.raises(UserError, match="cannot be read as rules"):
        roots.start("bob")


def test_the_prompt_says_which_files_are_not_those_that_were_allowed(roots):
    ann, bob = roots.nodes
    roots.share(ann, main=EXITS, left="1", same="2")
    roots.run(ann, bob, arguments=["0"])
    first = roots.heard(bob, "wants to run app")
    assert re.search(r"^\[1\] ann \(\w{10}…, first seen today\) wants to run app \w{6}… 0 with you; it runs with your rights — "
                     r"allow 1 \| deny 1 \(60 s\)$", first)
    bob.asking.allow(1, always=True)
    roots.until(lambda: bob.launcher.job_rows() and bob.launcher.job_rows()[0]["state"] == "exited")
    roots.run(ann, bob, arguments=["--other", "a b"])
    assert "--other 'a b' with you; you allowed it with other arguments before; it runs" in roots.heard(bob, "[2]")
    roots.share(ann, main=EXITS + "# worse\n", added="1", same="2")
    roots.run(ann, bob, arguments=["0"])
    line = roots.heard(bob, "[3]")
    differs = r"not the version \w{6}… that you allowed before: main.py changed, added.py added, left.py removed"
    assert re.search(rf"with you; {differs}; it runs with your rights — allow 3", line), line


def test_a_host_that_does_not_show_its_files_is_asked_about_all_the_same(roots, monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_BURST", 10)
    ann, bob = roots.nodes
    roots.share(ann, main=EXITS)
    roots.run(ann, bob)
    bob.asking.allow(roots.request(bob))
    roots.until(lambda: bob.launcher.job_rows() and bob.launcher.job_rows()[0]["state"] == "exited")
    roots.share(ann, main=EXITS + "# other\n")
    monkeypatch.setattr("p2p.asking.LOOK_FOR", 0.1)
    ann.dispatch.raw(proto.MANIFEST, lambda connection, request, body: None)
    roots.run(ann, bob)
    assert "files could not be compared; it runs with your rights — allow 2" in roots.heard(bob, "[2]")
    roots.run(ann, bob)
    roots.until(lambda: len(bob.asking.request_rows()) == 2, "the third request")
    bob.asking.deny(3)                              # while its files are being looked at
    roots.run(ann, bob)
    roots.heard(bob, "[4]")
    assert not any("[3]" in line for line in roots.said["bob"])


@three
def test_who_is_not_asked_and_who_only_takes_part_cannot_speak_for_others(roots):
    """Real notices of real peers about a session that is not theirs to speak of."""
    ann, bob, eve = roots.nodes
    roots.share(ann, main=WAITS)
    session = roots.run(ann, bob)
    bob.asking.allow(roots.request(bob))
    roots.is_status(ann, session, bob="allowed")
    roots.until(lambda: bob.launcher.job_rows(), "bob's job")
    row = {"id": roots.id(bob), "name": "", "status": proto.EXITED, "address": "", "port": 1}
    mine = dict(row, id=roots.id(ann))
    for liar in (eve, bob):
        for victim in (ann, bob):
            link = liar.link(roots.id(victim)) if liar is not victim else None
            if link is None:
                continue
            link.send(proto.ROSTER, session=session.number, members=[row, mine])
            if liar is eve:
                link.send(proto.ANSWER, session=session.number, status=proto.DENIED, text="a forged word")
                link.send(proto.READY, session=session.number, port=666)
                link.send(proto.FINISHED, session=session.number, exit=0)
                link.send(proto.END, session=session.number)
    roots.settle()
    for node in (ann, bob):
        assert set(roots.statuses(node, session).values()) == {"allowed"} and node.launcher.job_rows()[0]["state"] != "exited"
        assert "forged word" not in "".join(roots.said[node.name])
        assert all(member.port != 666 for member in node.launcher.sessions.get(session.number).members.values())


def test_one_who_was_answered_cannot_fill_the_screen_with_answers(roots):
    ann, bob = roots.nodes
    roots.share(ann, main=WAITS)
    session = roots.run(ann, bob)
    roots.request(bob)

    def answer():
        bob.link(roots.id(ann)).send(proto.ANSWER, session=session.number, status=proto.DENIED, text="buy now\x1b[2J")
    roots.until(lambda: answer() or any("buy now" in line for line in roots.said["ann"]), "the first")
    for _ in range(20):
        answer()
    roots.settle()
    lines = [line for line in roots.said["ann"] if "buy now" in line]
    assert len(lines) == 1 and "\x1b" not in lines[0]


def invite(roots, host, to, number, app="app"):
    """An INVITE as a root of its own making may send it: straight onto the wire."""
    rows = [{"id": roots.id(node), "name": "x", "status": 0, "address": "", "port": 0} for node in roots.nodes]
    link = host.link(roots.id(to))
    if link:
        link.send(proto.INVITE, session=number, app=app, version=b"v" * 32, publisher=roots.id(host), network=LAN, files=1, bytes=1,
                  arguments=[], roster=rows, port=1, token=b"t" * 32, expires_s=60)


def test_a_flood_of_invitations_asks_three_times_and_is_counted(roots):
    ann, bob = roots.nodes
    numbers = iter(range(1, 10_000))
    roots.until(lambda: invite(roots, ann, bob, next(numbers)) or bob.refused.get("requests", 0) > 40, "the refusals")
    assert len(bob.asking.request_rows()) == limits.MAX_REQUESTS_OPEN

    def prompts():
        return sum("wants to run" in line for line in roots.said["bob"])
    roots.until(lambda: prompts() >= limits.MAX_REQUESTS_OPEN, "the prompts")
    roots.settle()
    assert prompts() == limits.MAX_REQUESTS_OPEN


@pytest.mark.parametrize("name", ["../up", "a/b", "", "CON"])
def test_an_application_with_a_hostile_name_costs_its_inviter_the_link_and_asks_nobody(roots, name):
    ann, bob = roots.nodes
    roots.until(lambda: invite(roots, ann, bob, 1, name) or bob.refused.get("name"), "the refusal")
    assert not bob.asking.request_rows()


def test_files_that_cannot_be_brought_are_a_failure_there_and_here(roots):
    ann, bob = roots.nodes
    roots.share(ann, main=EXITS)
    bob.offers.store._quota = 1
    session = roots.run(ann, bob)
    bob.asking.allow(roots.request(bob))
    assert roots.do(ann.launcher.wait(session)) == 1
    roots.is_status(ann, session, bob="failed")
    assert "could not be fetched" in roots.heard(bob, "fetched") and not bob.launcher.job_rows()
    assert "installed applications may have" in roots.heard(ann, "installed")


def test_what_cannot_be_done_is_said_in_one_line(roots):
    ann, bob = roots.nodes
    roots.share(ann, main=EXITS)
    stranger = b"s" * 32
    many = [bytes([number // 256, number % 256]) * 16 for number in range(256)]
    for nodes, arguments, what in (([stranger], [], "is not connected"), (many, [], "has room for 255"),
                                   ([], ["x"] * 65, "at most 64"), ([], ["\u20ac" * 342], "at most 64")):
        with pytest.raises(UserError, match=what):
            roots.do(ann.launcher.run("app", nodes, arguments))
    for call in (ann.asking.allow, ann.asking.deny, ann.launcher.kill, ann.asking.drop_rule):
        with pytest.raises(UserError, match="lists"):
            call(99)
    assert not ann.launcher.job_rows() and not list(ann.launcher.sessions)


def test_oneself_and_a_node_named_twice_are_asked_once_at_most(roots):
    ann, bob = roots.nodes
    roots.share(ann, main=WAITS)
    roots.run(ann, ann, bob, bob)
    roots.request(bob)
    roots.settle()
    assert len(bob.asking.request_rows()) == 1 and not ann.asking.request_rows()
    assert ann.link(roots.id(bob)).traffic.kinds[proto.INVITE.number][1] == 1


def test_ports_for_applications_are_taken_from_the_range_that_was_given(roots):
    ann, _ = roots.nodes
    roots.share(ann, main=WAITS)
    port = free_port()
    ann.app_ports = (port, port)
    session = roots.run(ann)
    assert session.port == port
    listener = roots.loop.listen(port, ann.networks, lambda channel: channel.abort())
    with pytest.raises(UserError, match="--app-ports"):
        roots.run(ann)
    listener.close()


def test_an_instance_that_is_deaf_for_the_hang_up_ends_with_its_roots_connection(tmp_path):
    nodes = Nodes(tmp_path)
    folder = tmp_path / "deaf"
    folder.mkdir()
    (folder / "main.py").write_text("import os, signal, p2p\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\napp = p2p.attach('deaf')\n"
                                    "open('pid', 'w').write(str(os.getpid()))\nfor event in app:\n    pass\n")
    try:
        root = nodes.up("ann")
        nodes.json("ann", "share", folder)
        nodes.json("ann", "run", "deaf")
        pid = nodes.home("ann") / "data" / "deaf" / "pid"
        number = int(wait_until(lambda: pid.exists() and pid.read_text(), 15.0, "the instance"))
        assert not is_gone(number)
        root.send_signal(signal.SIGKILL)
        wait_until(lambda: is_gone(number), 10.0, "the instance's end")
    finally:
        nodes.close()


def test_who_takes_a_known_name_is_told_as_not_the_one_that_is_known_also_after_a_restart(roots):
    ann, bob = roots.nodes
    roots.do(bob.stop())
    roots.nodes.remove(bob)
    roots.do(ann.stop())                      # and writes down whom it knows
    roots.nodes.remove(ann)
    (roots.folder / "bob").rename(roots.folder / "old")
    roots.said["bob"], roots.said["ann"] = [], []
    ann, eve = roots.start("ann"), roots.start("bob")
    roots.until(roots.have_met, "them to meet")
    label = ann.label(roots.id(eve))
    assert label == f"bob@{eve.identity.text[:6]} (NOT the known one)"
    roots.heard(ann, f"* {label}")
    assert [row.name for row in ann.publisher.snapshot().nodes if row.id == roots.id(eve)] == [label]
    roots.share(eve, main=EXITS)
    roots.run(eve, ann)
    roots.request(ann)
    assert re.search(r"first seen today, NOT the bob known since \d{4}-\d\d-\d\d\)", roots.heard(ann, "wants to run"))
    assert any(label in line for line in ann.log.last(20))
    with pytest.raises(UserError, match=r"bob@\w{6} \(the known one, dead\)"):
        ann.find("bob")
