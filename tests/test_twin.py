"""The connection against its slow twin (tests/twin.py): the same bytes in, cut anywhere, make the same of themselves.

Over a channel in memory whose kernel takes little, over real sockets, and over real TLS.
"""
import random
import socket
import time

import pytest

from bench.plain import PlainChannel, PlainLoop
from p2p import limits, proto
from p2p.codec import ERROR, HEADER, MAGIC, RESPONSE, VERSION, frame
from p2p.connection import Connection
from p2p.dispatch import Dispatch
from p2p.errors import LinkDown, PeerError, Refusal, UserError
from p2p.loop import Loop
from tests.memory import pair
from tests.twin import RULES, SAID_NO, Twin, slow_decode

HELLO = dict(role=0, name="n", version="1", nonce=1, port=1, abilities=0, networks=[], addresses=[], view=0)
ASKED = [proto.PING, proto.NODES, proto.PING, proto.SAY, proto.NODES]


class Owner:
    """Does with each message what RULES say, and notes it."""

    def __init__(self, loop, asks):
        self.loop, self.asks = loop, asks
        self.dispatch = Dispatch()
        self.calls, self.lost, self.futures = [], [], {}
        self.running = self.finished = 0
        for number, rule in RULES.items():
            getattr(self, "on_" + rule)(proto.MESSAGES[number])

    def greeting(self, connection):
        return HELLO

    def connection_ready(self, connection):
        connection.on_finished = self.count_finish
        for number, message in enumerate(self.asks, 1):
            fields = {"text": "hello"} if message is proto.SAY else {}
            self.futures[number] = connection.request(message, timeout=None, **fields)

    def connection_refused(self, connection, error):
        self.lost.append(error)

    def count_finish(self):
        self.finished += 1

    def connection_lost(self, connection, error):
        self.lost.append(error)

    def on_note(self, message):
        self.dispatch.raw(message, lambda connection, request, body: self.calls.append((message.number, request, bytes(body))))

    def on_fields(self, message):
        self.dispatch.raw(message, lambda connection, request, body: self.calls.append(
            (message.number, request, message.unpack(body).view)))

    def on_finish(self, message):
        self.dispatch.raw(message, lambda connection, request, body: connection.finish("enough"))

    def on_bug(self, message):
        self.dispatch.raw(message, lambda connection, request, body: 1 / 0)

    def on_answer(self, message):
        async def answer():
            return {"nodes": []}
        self.serve(message, answer)

    def on_refuse(self, message):
        async def refuse():
            raise UserError(SAID_NO)
        self.serve(message, refuse)

    def on_never(self, message):
        async def never():
            self.running += 1
            try:
                await self.loop.future()
            finally:
                self.running -= 1
        self.serve(message, never)

    def serve(self, message, work):
        def handler(connection, fields):
            self.calls.append((message.number, 0, None))
            return work()
        self.dispatch.request(message, handler)


# -- traffic

def good_body(number, dice):
    """A body that fits, sometimes longer than its reader knows."""
    if number == proto.DATA.number:
        return bytes([dice.randrange(256)]) * dice.choice([0, 1, 16, 64, 64, 64, 1024, 1025, dice.choice([500, 3000, 70_000])])
    fields = {
        proto.VIEW.number: {"view": dice.getrandbits(64)}, proto.SAY.number: {"text": "hi"},
        proto.BLOCK.number: {"digest": bytes(32), "offset": 0, "length": 1}, proto.GOODBYE.number: {"reason": "x", "leaving": True},
        proto.HELLO.number: HELLO}.get(number, {})
    return proto.MESSAGES[number].pack(**fields) + dice.choice([b"", b"", b"newer"]) if number not in (
        proto.INTERRUPT.number, proto.RESIZE.number) else b""


def answers(dice):
    """An answer or an ERROR, to what was asked or to nothing."""
    request = dice.randrange(0, len(ASKED) + 2)
    message = ASKED[request - 1] if 0 < request <= len(ASKED) else proto.PING
    if dice.random() < 0.4:
        body = dice.choice([proto.Error.pack({"code": 4, "text": "no such thing"}), b"", b"\xff"])
        return frame(message.number, request, body, dice.choice([RESPONSE | ERROR, RESPONSE | ERROR, ERROR]))
    body = dice.choice([b"\0\0", b"\0\0newer", b"\0\0", b"\0\0", b"\0\0", b"\1"])
    return frame(message.number, request, body, RESPONSE)


def usual(dice):
    """Some frames that end nothing."""
    roll = dice.random()
    if roll < 0.15:
        return answers(dice)
    if roll < 0.25:          # what this node does not know: a type, a flag, something where there should be nothing
        number, flags, spare = dice.choice([(0x7777, 0, 0), (0x7778, 4, 0), (proto.PING.number, 8, 0), (proto.VIEW.number, 0, 5),
                                            (proto.HELLO.number, 0, 0), (proto.ROSTER.number, 0, 0)])
        body = bytes(dice.choice([0, 5, 64]))
        return HEADER.pack(MAGIC, VERSION, flags, number, spare, dice.choice([0, 7, 9]), len(body)) + body
    number = dice.choice([proto.DATA, proto.DATA, proto.VIEW, proto.VIEW, proto.KEEPALIVE, proto.PING, proto.NODES, proto.SAY,
                          proto.BLOCK]).number
    body = good_body(number, dice)
    # A run of equal frames is what the fast one takes together. Ids are new ones, but for questions that are never answered
    ids = {proto.BLOCK.number: [0, 7], proto.NODES.number: [], proto.SAY.number: []}.get(number, [0])
    return b"".join(frame(number, dice.choice(ids + [dice.randrange(10, 1 << 32)]), body)
                    for _ in range(dice.choice([1, 1, 1, 2, 3, 40] if len(body) < 2000 else [1, 1, 2])))


def ending(dice):
    """Something that ends it: said well, or badly."""
    return dice.choice([
        frame(proto.GOODBYE.number, 0, proto.GOODBYE.pack(reason="x", leaving=dice.random() < 0.5)), frame(proto.GOODBYE.number, 0, b"\5"),
        frame(proto.INTERRUPT.number, 0, b""), frame(proto.RESIZE.number, 0, b""), frame(proto.VIEW.number, 0, b"1234567"),
        frame(proto.SAY.number, 3, b"\xff\xff"), frame(proto.SAY.number, 3, b"\4\0abc"), frame(proto.BLOCK.number, 3, bytes(43)),
        HEADER.pack(MAGIC, VERSION, 0, proto.DATA.number, 0, 0, limits.MAX_BODY + 1), HEADER.pack(MAGIC, VERSION + 1, 0, 1, 0, 0, 0),
        b"GET / HTTP/1.1\r\n\r\n", HEADER.pack(MAGIC + 1, VERSION, 0, proto.DATA.number, 0, 0, 0)])


def traffic(dice):
    """A whole stream, from its HELLO, or what stands in its place."""
    first = frame(proto.HELLO.number, 0, good_body(proto.HELLO.number, dice))
    if dice.random() < 0.1:
        first = dice.choice([b"", ending(dice), answers(dice), frame(proto.HELLO.number, 0, b"\0"), usual(dice),
                             frame(proto.HELLO.number, 0, good_body(proto.HELLO.number, dice), RESPONSE)])
    stream = first + b"".join(usual(dice) for _ in range(dice.randrange(40)))
    if dice.random() < 0.4:
        stream += ending(dice) + b"".join(usual(dice) for _ in range(dice.randrange(3)))
    if dice.random() < 0.2:
        at = dice.randrange(len(stream) or 1)
        stream = stream[:at] + bytes([dice.randrange(256)]) + stream[at + 1:]
    return stream[:dice.randrange(len(stream) + 1)] if dice.random() < 0.2 else stream


def pieces(stream, dice):
    """Cut at random; now and then byte by byte for a while."""
    at = 0
    while at < len(stream):
        size = dice.choice([1, 2, 15, 16, 17, 100, 1000, 5000, 65536, 1 << 20])
        if size == 1:
            for byte in stream[at:at + 50]:
                yield bytes([byte])
            at += 50
        else:
            yield stream[at:at + size]
            at += size


# -- transports: something to put bytes into, and what came back

class InMemory:
    """A channel whose kernel takes from one byte to enough at a time."""

    def __init__(self, loop, dice, outgoing):
        client, server = pair(loop, capacity=1 << 30)
        self.channel, self.far = (client, server) if outgoing else (server, client)
        self.channel.capacity = dice.choice([1, 7, 200, 1 << 16])
        self.channel.trickle = dice.choice([None, None, 1000])
        self.got = bytearray()
        self.far.start(self)

    def channel_open(self):
        """Nothing to say yet."""

    channel_writable = channel_open

    def channel_readable(self):
        try:
            self.got += self.far.receive(1 << 20)
        except LinkDown:
            pass

    def put(self, data):
        if not self.channel.is_closed:
            self.far.send(data)

    def end(self):
        self.far.abort()

    def is_heard(self):
        """Has the connection taken all that was put?"""
        return self.channel.is_closed or not self.channel.inbox


class OverSockets:
    """Real sockets without TLS, whose buffers are as small as the kernel makes them."""

    def __init__(self, loop, dice, outgoing):
        self.loop = loop
        near, self.sock = socket.socketpair()
        for sock in (near, self.sock):
            sock.setblocking(False)
        if dice.random() < 0.5:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.channel = PlainChannel(loop, near, None, ("127.0.0.1", 1), outgoing)
        self.got = bytearray()
        loop.watch(self.sock.fileno(), on_readable=self.read)

    def read(self):
        try:
            data = self.sock.recv(1 << 20)
        except (BlockingIOError, ConnectionError):
            return
        self.got += data
        if not data:
            self.loop.unwatch(self.sock.fileno())

    def put(self, data):
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view):]
            except BlockingIOError:
                self.loop.turn(0)
            except ConnectionError:
                return

    def end(self):
        self.sock.shutdown(socket.SHUT_WR)

    def is_heard(self):
        return True


def play(loop, wire, connection, cut, dice):
    """Let the connection hear it, in pieces and with pauses."""
    for piece in cut:
        wire.put(piece)
        if dice.random() < 0.02:
            connection.pause(True)
            loop.turn(0)
            connection.pause(False)
        for _ in range(dice.choice([0, 1, 1, 3])):
            loop.turn(0)


def over(loop, owner, wire, seconds=20.0):
    """Turn until the end is known; the connection is told that nothing follows once it has heard everything."""
    deadline = time.monotonic() + seconds
    quiet = 0
    while quiet < 3:
        assert time.monotonic() < deadline, "it neither hears all nor ends"
        before = len(wire.got), len(owner.calls)
        loop.turn(0.001)
        quiet = quiet + 1 if wire.is_heard() and before == (len(wire.got), len(owner.calls)) else 0
    if not owner.lost and not owner.finished:
        wire.end()
    while not owner.lost and not owner.finished:
        assert time.monotonic() < deadline, "it does not end"
        loop.turn(0.01)
    for _ in range(3):
        loop.turn(0)


# -- what is compared

def outcome(owner):
    """How it ended, once."""
    assert len(owner.lost) + owner.finished == 1
    if owner.finished:
        return "own", "finished"
    error = owner.lost[0]
    return ("peer", error.reason) if isinstance(error, PeerError) else ("down", error.kind)


def became(future):
    """What became of a request."""
    assert future.done
    return {type(None): "answered", Refusal: "refused", PeerError: "malformed"}.get(type(future.error), "down")


def is_beginning(some, whole):
    return some == whole[:len(some)]


def check(twin, owner, connection, got, reports):
    """Did the connection make of it what the twin did?"""
    ended = outcome(owner)
    assert ended in twin.errors
    sent, rest = slow_decode(got)
    late = {(flags, number, request) for flags, number, request in twin.late}
    ours = [(flags, number, request) for (flags, number, _), request, _ in sent]
    at_once, later = [one for one in ours if one not in late], [one for one in ours if one in late]
    is_exact = twin.is_exact and ended == twin.errors[0]
    assert is_beginning(owner.calls, twin.calls) and is_beginning(at_once, twin.sent) and is_beginning(later, twin.late)
    assert owner.running == 0 and (ended == ("own", "finished") or not connection.is_open)
    assert bool(reports) == (ended == ("down", "closed"))
    states = {request: became(future) for request, future in owner.futures.items()}
    if is_exact:
        assert owner.calls == twin.calls and states == twin.settled
        assert {number: came for number, (came, _) in connection.traffic.kinds.items() if came} == twin.counts
    for request, state in states.items():
        assert state in (twin.settled[request], "down")
    if ended in (("own", "finished"), ("down", "eof")) and twin.is_exact:
        assert rest == "clean" and at_once == twin.sent
    if ended == ("down", "eof"):
        assert later == twin.late and connection.traffic.in_bytes == twin.bytes


def compare(kind_of_wire, cut, dice):
    """Both hear these pieces; the twin."""
    outgoing = dice.random() < 0.4
    asks = dice.choice([[], ASKED])
    reports = []
    loop = (PlainLoop if kind_of_wire is OverSockets else Loop)(report=lambda what, error: reports.append(error))
    try:
        owner, wire = Owner(loop, asks), kind_of_wire(loop, dice, outgoing)
        connection = Connection(loop, wire.channel, owner)
        loop.turn(0)
        twin = Twin(outgoing, dict(enumerate(asks, 1)))
        for piece in cut:
            twin.feed(piece)
        twin.end()
        play(loop, wire, connection, cut, dice)
        over(loop, owner, wire)
        check(twin, owner, connection, wire.got, reports)
    finally:
        loop.close()
    return twin


@pytest.mark.parametrize("seed", range(0, 300, 10))
@pytest.mark.parametrize("kind_of_wire", [InMemory, OverSockets])
def test_a_connection_agrees_with_its_slow_twin_on_random_traffic_with_random_cuts(kind_of_wire, seed):
    for number in range(seed, seed + 10):
        print(f"seed {number}")
        dice = random.Random(number)
        compare(kind_of_wire, list(pieces(traffic(dice), dice)), dice)


@pytest.mark.parametrize("kind_of_wire", [InMemory, OverSockets])
def test_a_large_body_may_be_cut_wherever_it_begins_and_ends(kind_of_wire):
    hello, after = frame(proto.HELLO.number, 0, proto.HELLO.pack(**HELLO)), frame(proto.VIEW.number, 0, bytes(8))
    whole = frame(proto.DATA.number, 0, bytes(range(256)) * 300)
    enough = len(whole) // 64            # from about here on its place is reserved
    for first in (1, 15, 16, 17, enough - 1, enough, enough + 1, enough + 15, len(whole) // 2, len(whole) - 1, len(whole)):
        for second in (1, 2, 1000, len(whole) - first - 1, len(whole) - first, len(whole) - first + 1):
            if second > 0:
                stream = whole + after
                cut = [hello, stream[:first], stream[first:first + second], stream[first + second:]]
                twin = compare(kind_of_wire, cut, random.Random(first * second))
                assert len(twin.calls) == 2


def test_nobody_works_on_more_questions_of_one_peer_than_allowed():
    hello = frame(proto.HELLO.number, 0, proto.HELLO.pack(**HELLO))
    body = proto.BLOCK.pack(digest=bytes(32), offset=0, length=1)
    questions = [frame(proto.BLOCK.number, request, body) for request in range(1, limits.MAX_REQUESTS + 4)]
    twin = compare(InMemory, [hello] + questions, random.Random(1))
    assert twin.serving == limits.MAX_REQUESTS and len(twin.calls) == limits.MAX_REQUESTS + 3
