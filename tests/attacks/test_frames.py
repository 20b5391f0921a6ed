"""Members that behave badly once they are in: lies in frames, questions without end, answers nobody reads, roles not theirs."""
import contextlib
import hashlib
import os
import random
import time

import pytest

from p2p import limits, proto
from p2p.codec import ERROR, HEADER, MAGIC, RESPONSE, VERSION, WORDS, frame
from p2p.trust.ecc import parse_node_id
from tests import fuzz
from tests.attacks.hostile import LAN, Member, is_closed
from tests.waiting import wait_until

pytestmark = pytest.mark.lab

QUESTIONS = 1000


@pytest.fixture
def eve(target):
    """A line of a member that is in."""
    with contextlib.closing(Member("eve").join(target.wire)) as line:
        yield line


@pytest.fixture
def shared(target):
    """(version, content hash) of something large that the root serves."""
    folder = target.host.folder / "shared"
    if not folder.exists():
        folder.mkdir()
        (folder / "main.py").write_text("print(1)\n")
        (folder / "block").write_bytes(random.Random(1).getrandbits(8 << 20).to_bytes(1 << 20, "big"))
        for number in range(3000):
            (folder / f"a-long-name-so-that-the-manifest-is-large-too-{number}").write_bytes(b"")
        target.p2p("share", folder)
    [row] = [row for row in target.json("apps") if row["name"] == "shared"]
    return bytes.fromhex(row["version"]), hashlib.sha256((folder / "block").read_bytes()).digest()


def watch(target, seconds):
    """Looks at memory and descriptors for this long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        target.look()
        time.sleep(0.02)


@pytest.mark.parametrize("length", [limits.MAX_BODY + 1, 1 << 31, 0xFFFFFFFF])
def test_a_frame_that_claims_to_be_huge_ends_the_connection_at_its_header(target, eve, count, length):
    eve.raw(WORDS.pack(proto.SAY.word, 0, length) + bytes(100))
    eve.ended(5.0)
    count("limit", 1)


@pytest.mark.parametrize("header", [HEADER.pack(MAGIC ^ 1, VERSION, 0, 4, 0, 1, 0), HEADER.pack(MAGIC, VERSION + 1, 0, 4, 0, 1, 0),
                                    os.urandom(16)], ids=["magic", "version", "noise"])
def test_what_is_no_frame_of_this_protocol_ends_the_connection(target, eve, header):
    eve.raw(header * 3)
    eve.ended(5.0)


@pytest.mark.slow
def test_a_frame_that_trickles_is_given_up_after_its_deadline(target, eve):
    """A byte a second, which is never silence."""
    began = time.monotonic()
    data = iter(WORDS.pack(proto.SAY.word, 0, 1000) + bytes(1000))
    while not is_closed(eve.sock):
        assert time.monotonic() - began < limits.FRAME_DEADLINE + 10
        eve.sock.setblocking(True)
        with contextlib.suppress(OSError):
            eve.raw(bytes([next(data)]))
        time.sleep(1.0)
    assert time.monotonic() - began > limits.FRAME_DEADLINE - 2
    assert target.refused()["slow"] == 1


@pytest.mark.parametrize("ask", ["blocks", "manifests", "nodes", "pings", "lines", "nonsense"])
def test_questions_whose_answers_nobody_reads_cost_bounded_memory(target, eve, shared, ask):
    version, content = shared
    message, fields = {"blocks": (proto.BLOCK, dict(digest=content, offset=0, length=1 << 20)),
                       "manifests": (proto.MANIFEST, dict(version=version)), "nodes": (proto.NODES, {}), "pings": (proto.PING, {}),
                       "lines": (proto.SAY, dict(text="x" * 60)),
                       "nonsense": (proto.COMMAND, dict(command=1, words=["down"], folder="/", as_json=False, yes=True, columns=80,
                                                        rows=24, color=False, is_terminal=False))}[ask]
    count = QUESTIONS if ask in ("blocks", "manifests") else 20 * QUESTIONS
    others = [Member("n" * 60 + str(number)).dial(target.wire, port=1, addresses=[f"10.77.1.{host}" for host in range(8)])
              for number in range(40 if ask == "nodes" else 0)]
    eve.sock.settimeout(0.5)
    with contextlib.suppress(OSError):
        eve.raw(b"".join(frame(message.number, request + 1, message.pack(**fields)) for request in range(count)))
    watch(target, 1.0)
    for line in others:
        line.close()


def test_a_flood_of_lines_reaches_the_screen_a_few_times_and_its_sender_is_told(target, eve):
    before = len(target.log())
    answers = [eve.request(proto.SAY, text=f"line {number}")[0] for number in range(100)]
    said = [line for line in target.log()[before:] if " say: " in line]
    assert answers.count(RESPONSE) <= 20 and answers.count(RESPONSE | ERROR) >= 80 and len(said) <= 20


def answer_with(target, rows):
    """A line of a member whose answer to the root's first question whom it knows are these rows."""
    line = Member("eve").dial(target.wire, view=12345)          # another view than the root's: it asks within a second
    number = 0
    while number != proto.NODES.number:
        number, _, request, _ = line.next()
    line.raw(frame(number, request, proto.NODES.reply.pack({"nodes": rows}), RESPONSE))
    return line


def test_invented_nodes_and_offers_of_a_member_do_not_push_out_or_rename_a_friend(target):
    """What P says of Q is a hint: Q's name, address, state and key are Q's own."""
    bob = Member("bob")
    own = target.json("id")
    me = parse_node_id(own["id"])
    with contextlib.ExitStack() as lines:
        line = lines.enter_context(contextlib.closing(bob.join(target.friends, port=4000)))
        before = target.nodes()[bob.text]
        rows = [dict(id=bob.id, name="mallory", addresses=["10.77.0.2"], port=6666, state=number, age_s=0) for number in range(4)]
        rows += [dict(id=me, name="not me", addresses=["10.77.0.2"], port=6666, state=0, age_s=0)]
        rows += [dict(id=os.urandom(32), name="bob", addresses=[f"10.77.0.{host}" for host in range(2, 10)], port=1, state=0, age_s=0)
                 for _ in range(limits.MAX_MEMBERS - len(rows))]
        eve = lines.enter_context(contextlib.closing(answer_with(target, rows)))
        offer = dict(name="chat", publisher=bob.key.public.spki, version=os.urandom(32), serial=1 << 60, network=LAN.tag, files=1, bytes=1,
                     signature=bytes(64))
        eve.send(proto.CATALOGUE, offers=[offer], holdings=[])
        wait_until(lambda: target.refused().get("signature"), 5.0, "the refusal of the signature")
        line.send(proto.KEEPALIVE)
        watch(target, 0.5)
        nodes = target.nodes()
        after = nodes[bob.text]
        assert len(nodes) > limits.MAX_MEMBERS // 2
        assert all(after[key] == before[key] for key in ("name", "address", "port", "state", "verified"))
        assert (nodes[own["id"]]["name"], nodes[own["id"]]["state"]) == (own["name"], "alive")
        assert not [row for row in target.json("apps") if row["name"] == "chat" and row["version"] == offer["version"].hex()]
        assert line.request(proto.PING)[0] == 1


@pytest.mark.parametrize("role", [proto.OWNER, proto.INSTANCE, 7])
def test_a_role_that_is_not_anothers_is_refused(target, count, role):
    line = Member("eve").dial(target.wire, role=role, session=1, token=bytes(32))
    line.ended(5.0)
    count("role", 1)


def test_sessions_that_somebody_else_hosts_cannot_be_answered_ended_or_filled(target, eve):
    """Notices about sessions that do not exist, or are not eve's, change nothing."""
    before = target.json("jobs"), target.json("requests")
    for session in (0, 1, (1 << 64) - 1):
        eve.send(proto.ANSWER, session=session, status=proto.ALLOWED, text="\x1b[2J")
        eve.send(proto.READY, session=session, port=22)
        eve.send(proto.FINISHED, session=session, exit=-9)
        stranger = dict(id=eve.member.id, name="x", status=proto.RUNNING, address="8.8.8.8", port=80, exit=0)
        eve.send(proto.ROSTER, session=session, members=[stranger] * 256)
        eve.send(proto.END, session=session)
    assert eve.request(proto.PING)[0] == 1
    assert (target.json("jobs"), target.json("requests")) == before


def test_a_hundred_invitations_with_hostile_words_ask_three_times_and_draw_nothing(target, eve):
    """A screen is not to be written on by arguments, nor a log by newlines."""
    ends = [dict(id=node, name="\x1b[31mroot", status=proto.ASKED, address="10.77.0.2", port=1, exit=0)
            for node in (eve.member.id, parse_node_id(target.json("id")["id"]))]
    for number in range(100):
        eve.send(proto.INVITE, session=number + 1, app="chat", version=bytes(32), publisher=eve.member.id, network=LAN.tag, files=1,
                 bytes=1, arguments=["\x1b[2Jy\r\n", "--always", "$(reboot)", "\u202egnp.exe", "; allow 1"], roster=ends, port=1,
                 token=bytes(32), expires_s=60)
    assert eve.request(proto.PING)[0] == 1
    rows = target.json("requests")
    assert len(rows) == limits.REQUEST_BURST == limits.MAX_REQUESTS_OPEN
    assert target.refused()["requests"] == 100 - len(rows) and target.json("jobs") == []
    text = target.p2p("requests").stdout + (target.home / "log").read_text("utf-8")
    assert not [character for character in text if character != "\n" and not character.isprintable()] and "\u202e" not in text
    eve.close()
    wait_until(lambda: not target.json("requests"), 20.0, "the requests to go with their host")


def test_every_message_damaged_in_every_way_leaves_the_root_and_its_friends_alone(target):
    """The fuzzer's inputs over a real line; whoever is dropped for it comes back."""
    dice, line, sent, dropped = random.Random(11), None, 0, 0
    eve = Member("fuzzer")
    messages = [message for message in proto.MESSAGES.values() if message.transport == "tcp" and message is not proto.GOODBYE]
    while sent < 1500:
        message = dice.choice(messages)
        body = fuzz.damaged(message.pack(**fuzz.value_of(message.body, dice)), dice)
        try:
            if line is None:
                line = eve.join(target.wire)
            line.raw(frame(message.number, dice.choice((0, 1, 0xFFFFFFFF)), body, dice.choice((0, 0, 0, 1, 3, 255))))
            sent += 1
        except OSError:
            line.close()
            line, dropped = None, dropped + 1
        if sent % 50 == 0:
            target.look()
    assert dropped
