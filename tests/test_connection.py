"""One connection over a channel in memory: order, requests, backpressure, deadlines. (Over real TLS: test_channel.py.)"""

import pytest

from p2p import limits, proto
from p2p.codec import HEADER, RESPONSE, frame
from p2p.connection import Connection
from p2p.dispatch import Dispatch
from p2p.errors import LinkDown, PeerError, Refusal, UserError
from p2p.links import Links
from p2p.loop import Loop
from tests.memory import pair


class Owner:
    """Records what a connection tells its owner."""

    def __init__(self, nonce=1):
        self.dispatch = Dispatch()
        self.ready, self.lost = [], []
        self.nonce = nonce

    def greeting(self, connection):
        return dict(role=0, name="n", version="1", nonce=self.nonce, port=1, abilities=0, networks=[], addresses=[], view=0)

    def connection_ready(self, connection):
        self.ready.append(connection)

    def connection_lost(self, connection, error):
        self.lost.append(error)


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def until(loop, condition, seconds=5.0):
    end = loop.now() + seconds
    while not condition():
        assert loop.now() < end, "the deadline passed"
        loop.turn(0.02)


def connected(loop, **how):
    ends = pair(loop, **how)
    owners = Owner(), Owner()
    both = [Connection(loop, end, owner) for end, owner in zip(ends, owners)]
    until(loop, lambda: owners[0].ready and owners[1].ready)
    return both, owners


def raw_peer(loop):
    """A server-side connection and the bare channel of its client, which speaks as badly as the test wants."""
    client, server = pair(loop)
    owner = Owner()
    connection = Connection(loop, server, owner)

    class Silent:
        def channel_open(self):
            pass

        def channel_readable(self):
            pass

        channel_writable = channel_readable
    client.start(Silent())
    until(loop, lambda: client.inbox)
    return connection, owner, client


HELLO = frame(proto.HELLO.number, 0, proto.HELLO.pack(**Owner().greeting(None)))


def answer(client):
    magic, version, flags, number, _, request, length = HEADER.unpack_from(client.inbox)
    body = bytes(client.inbox[16:16 + length])
    del client.inbox[:16 + length]
    return flags, number, request, body


def test_the_server_speaks_first_and_both_are_ready_after_both_hellos(loop):
    connection, owner, client = raw_peer(loop)
    assert answer(client)[1] == proto.HELLO.number and not owner.ready
    client.send(HELLO)
    until(loop, lambda: owner.ready)
    assert connection.is_ready


@pytest.mark.parametrize("trickle", [1, 3, 16, 17, None])
def test_requests_are_answered_whatever_the_cuts(loop, trickle):
    (a, b), (_, owner) = connected(loop, trickle=trickle)

    async def nodes(connection, fields):
        return {"nodes": []}
    owner.dispatch.request(proto.NODES, nodes)
    replies = [a.request(proto.NODES), a.request(proto.PING)]
    until(loop, lambda: all(reply.done for reply in replies))
    assert replies[0].result().nodes == []


def test_anything_before_the_hello_ends_the_connection(loop):
    connection, owner, client = raw_peer(loop)
    client.send(frame(proto.PING.number, 1, b""))
    until(loop, lambda: owner.lost)
    assert owner.lost[0].reason == "order" and client.ended


def test_an_unknown_request_is_answered_unsupported_and_unknown_notices_and_responses_are_not(loop):
    connection, owner, client = raw_peer(loop)
    answer(client)
    client.send(HELLO + frame(0x7777, 0, b"notice") + frame(0x7777, 9, b"response", RESPONSE) + frame(0x7777, 5, b"request"))
    until(loop, lambda: client.inbox)
    flags, number, request, body = answer(client)
    assert (number, request, proto.unpack_error(body)[0]) == (0x7777, 5, proto.UNSUPPORTED)
    loop.turn(0)
    assert not client.inbox and connection.is_ready


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", frame(1, 0, b"")[:12] + b"\xff\xff\xff\xff", b"\0" * 64])
def test_garbage_ends_that_connection_with_one_peer_error(loop, garbage):
    connection, owner, client = raw_peer(loop)
    client.send(HELLO + garbage)
    until(loop, lambda: owner.lost)
    assert isinstance(owner.lost[0], PeerError) and len(owner.lost) == 1


def test_what_a_handler_raises_becomes_an_error_answer_with_its_line(loop):
    (a, b), (_, owner) = connected(loop)

    async def fails(connection, fields):
        raise UserError("the disk is full; free some space")
    owner.dispatch.request(proto.NODES, fails)
    reply = a.request(proto.NODES)
    until(loop, lambda: reply.done)
    with pytest.raises(Refusal, match="the disk is full; free some space"):
        reply.result()
    assert a.is_ready and b.is_ready


def test_a_bug_in_a_handler_costs_that_connection_alone(loop):
    (a, b), (_, owner) = connected(loop)
    reports = []
    loop.report = lambda what, error: reports.append(error)
    owner.dispatch.raw(proto.VIEW, lambda connection, request, body: 1 / 0)
    a.send(proto.VIEW, view=1)
    until(loop, lambda: owner.lost)
    assert isinstance(reports[0], ZeroDivisionError)


def test_requests_in_flight_fail_when_the_connection_ends(loop):
    (a, b), (_, owner) = connected(loop)

    async def never(connection, fields):
        await loop.future()
    owner.dispatch.request(proto.NODES, never)
    reply = a.request(proto.NODES)
    loop.turn(0.01)
    b.abort()
    until(loop, lambda: reply.done)
    assert reply.error.kind == "eof"
    late = a.request(proto.PING)
    until(loop, lambda: late.done)
    assert isinstance(late.error, LinkDown)


def test_an_unanswered_request_times_out_and_its_late_answer_is_dropped(loop):
    (a, b), (_, owner) = connected(loop)
    gate = loop.future()

    async def slow(connection, fields):
        await gate
        return {"nodes": []}
    owner.dispatch.request(proto.NODES, slow)
    reply = a.request(proto.NODES, timeout=0.01)
    until(loop, lambda: reply.done)
    assert reply.error.kind == "timeout"
    gate.set()
    ping = a.request(proto.PING)
    until(loop, lambda: ping.done)
    assert ping.error is None and a.is_ready


def test_a_hundred_messages_of_one_turn_leave_in_one_write(loop):
    (a, b), _ = connected(loop)
    writes = []
    send = a.channel.send
    a.channel.send = lambda data: writes.append(len(data)) or send(data)
    for _ in range(100):
        a.send(proto.VIEW, view=1)
    loop.turn(0)
    assert len(writes) == 1


def test_a_peer_that_never_reads_costs_bounded_memory_and_the_producer_is_told(loop):
    (a, b), _ = connected(loop)
    b.channel.pause(True)
    b.channel.other._wake = lambda: None
    sent = 0
    while a.has_room:
        a.send(proto.INPUT, command=1, data=bytes(60000))
        sent += 60000
        loop.turn(0)
    assert sent <= limits.MAX_BUFFERED + 2 * limits.MAX_BODY
    waiter = loop.start(a.room())
    loop.turn(0)
    assert not waiter.done and a.channel.is_paused
    a.sweep(loop.now())
    a.sweep(loop.now() + limits.FRAME_DEADLINE + 1)
    until(loop, lambda: waiter.done)
    assert isinstance(waiter.error, LinkDown)


def test_a_producer_goes_on_when_the_peer_reads_again_and_nothing_is_lost(loop):
    (a, b), (_, owner) = connected(loop)
    got = []
    owner.dispatch.raw(proto.INPUT, lambda connection, request, body: got.append(len(body)))
    b.channel.pause(True)

    async def produce():
        for _ in range(150):
            await a.room()
            a.send(proto.INPUT, command=1, data=bytes(60000))
    task = loop.start(produce())
    for _ in range(20):
        loop.turn(0)
    assert not task.done
    b.channel.pause(False)
    until(loop, lambda: task.done and len(got) == 150)


def test_questions_read_at_once_whose_answers_nobody_reads_wait_in_order_and_one_that_answers_at_once_stays_bounded(loop):
    (a, b), (_, owner) = connected(loop)
    large = bytes(limits.MAX_BODY // 2)
    owner.dispatch.raw(proto.DATA, lambda connection, request, body: connection.post(proto.INPUT.word, 0, body + large))
    got = []
    a.owner.dispatch.raw(proto.INPUT, lambda connection, request, body: got.append(int.from_bytes(body[:4], "little")))
    a.channel.pause(True)
    for number in range(200):
        a.post(proto.DATA.word, 0, number.to_bytes(4, "little"))
    until(loop, lambda: b.channel.is_paused)
    for _ in range(20):
        loop.turn(0)
    assert b.queued < limits.MAX_BUFFERED + 16 * limits.MAX_BODY and b.channel.is_paused and not got
    b.sweep(loop.now())
    b.sweep(loop.now() + limits.FRAME_DEADLINE - 1)
    a.post(proto.DATA.word, 0, (200).to_bytes(4, "little"))         # behind those that lie aside
    a.channel.pause(False)
    until(loop, lambda: len(got) == 201)
    assert got == list(range(201)) and not owner.lost and b.queued == 0


def test_the_time_in_which_a_peer_is_not_heard_does_not_count_against_the_frame_it_was_sending(loop):
    connection, owner, client = raw_peer(loop)
    client.send(HELLO)
    until(loop, lambda: owner.ready)
    client.send(frame(proto.SAY.number, 1, bytes(200))[:50])
    until(loop, lambda: not client.other.inbox)
    now = loop.now()
    connection.silence = None
    connection.sweep(now)
    connection.pause(True)
    connection.sweep(now + limits.FRAME_DEADLINE + 1)
    connection.pause(False)
    connection.sweep(now + limits.FRAME_DEADLINE + 2)
    assert not owner.lost


def test_who_is_not_heard_because_he_reads_slowly_is_not_taken_for_silent(loop):
    (a, b), (owner, _) = connected(loop)
    b.channel.pause(True)
    while a.queued < limits.MAX_BUFFERED:
        a.send(proto.INPUT, command=1, data=bytes(60000))
        loop.turn(0)
    now = loop.now()
    a._full_since = None                # it takes something now and then
    a.sweep(now + limits.SILENCE + 1)
    assert not owner.lost and a.channel.is_paused
    b.channel.pause(False)
    until(loop, lambda: a.queued < limits.LOW_WATER)
    a.sweep(loop.now() + limits.SILENCE - 1)
    assert not owner.lost
    a.sweep(loop.now() + limits.SILENCE + 1)
    assert owner.lost[0].kind == "silent"


def test_quiet_frames_in_front_do_not_hide_the_questions_behind_them_from_backpressure(loop):
    (a, b), (_, owner) = connected(loop)
    owner.dispatch.raw(proto.DATA, lambda connection, request, body: connection.post(proto.INPUT.word, 0, bytes(30_000)))
    a.channel.pause(True)
    for _ in range(16):
        a.send(proto.KEEPALIVE)
    for _ in range(3000):
        a.post(proto.DATA.word, 0, b"")
    until(loop, lambda: b.channel.is_paused)
    for _ in range(20):
        loop.turn(0)
    assert b.queued < 4 * limits.MAX_BUFFERED


def test_a_finished_connection_lets_out_what_is_queued_for_as_long_as_the_other_end_reads_on(loop, monkeypatch):
    monkeypatch.setattr(limits, "LINGER", 0.1)
    (a, b), (_, owner) = connected(loop)
    got = []
    owner.dispatch.raw(proto.INPUT, lambda connection, request, body: got.append(len(body)))
    b.channel.pause(True)
    for _ in range(10):
        a.send(proto.INPUT, command=1, data=bytes(60000))
    a.finish("enough")

    async def slowly():
        while not owner.lost:
            b.channel.pause(False)
            loop.turn_began = loop.now()
            await loop.sleep(0.0)
            b.channel.pause(True)
            await loop.sleep(0.05)
    task = loop.start(slowly())
    until(loop, lambda: owner.lost)
    until(loop, lambda: task.done)
    assert len(got) == 10 and owner.lost[0].kind in ("goodbye", "replaced")


def test_a_frame_that_trickles_for_ever_is_given_up_though_bytes_keep_coming(loop):
    connection, owner, client = raw_peer(loop)
    client.send(HELLO)
    until(loop, lambda: owner.ready)
    start = loop.now()
    long_frame = frame(proto.SAY.number, 1, bytes(200))
    times = [0, 10, 20, 29]
    clock = {"t": start}
    loop_now, loop.now = loop.now, lambda: clock["t"]
    for at, step in zip(times, range(0, 400, 20)):
        clock["t"] = loop.turn_began = start + at
        client.send(long_frame[step:step + 20])
        for _ in range(3):
            connection.channel_readable()
        connection.sweep(clock["t"])
        assert not owner.lost
    clock["t"] = start + limits.FRAME_DEADLINE + 1
    client.send(long_frame[80:100])
    connection.channel_readable()
    connection.sweep(clock["t"])
    loop.now = loop_now
    assert owner.lost and owner.lost[0].reason == "slow"


def test_silence_is_noticed_and_a_keepalive_goes_out_before(loop):
    (a, b), (owner, _) = connected(loop)
    now = loop.now()
    a.sweep(now + limits.KEEPALIVE + 0.1)
    assert a.traffic.kinds[proto.KEEPALIVE.number][1] == 1
    a.sweep(now + limits.SILENCE + 0.1)
    assert owner.lost[0].kind == "silent"


def test_goodbye_arrives_before_the_end_with_all_that_was_sent_before(loop):
    (a, b), (_, owner) = connected(loop)
    got = []
    owner.dispatch.notice(proto.VIEW, lambda connection, view: got.append(view.view))
    for number in range(1000):
        a.send(proto.VIEW, view=number)
    a.finish("done for today", leaving=True)
    until(loop, lambda: owner.lost)
    assert got == list(range(1000))
    assert owner.lost[0].kind == "goodbye" and "done for today" in str(owner.lost[0])


def test_more_requests_than_allowed_fail_at_once(loop):
    (a, b), (_, owner) = connected(loop)

    async def never(connection, fields):
        await loop.future()
    owner.dispatch.request(proto.NODES, never)
    replies = [a.request(proto.NODES, timeout=None) for _ in range(limits.MAX_REQUESTS + 1)]
    until(loop, lambda: replies[-1].done)
    assert replies[-1].error.kind == "busy" and not replies[0].done


class Table:
    """Links of one node, and what they said."""

    def __init__(self, loop, me):
        self.ups, self.downs = [], []
        self.links = Links(loop, me, lambda c: self.ups.append(c), lambda node, c, error: self.downs.append(error.kind))


def two_connections(loop, first_dialler, second_dialler, nonces=(5, 5)):
    """Two connections between nodes a and b, seen from each of them."""
    ids = {"a": b"a" * 32, "b": b"b" * 32}
    tables = {name: Table(loop, node) for name, node in ids.items()}
    diallers = {}
    for dialler, nonce in zip((first_dialler, second_dialler), nonces):
        other = "b" if dialler == "a" else "a"
        ends = pair(loop, (ids[dialler], ids[other]))
        owners = Owner(nonce), Owner(nonce)
        both = [Connection(loop, end, owner) for end, owner in zip(ends, owners)]
        until(loop, lambda: owners[0].ready and owners[1].ready)
        for name, connection in ((dialler, both[0]), (other, both[1])):
            diallers[connection] = dialler
            tables[name].links.adopt(connection)
    return {name: diallers[table.links.get(ids["b" if name == "a" else "a"])] for name, table in tables.items()}, tables


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_of_two_connections_dialled_together_both_ends_keep_the_lower_ids(loop, order):
    kept, tables = two_connections(loop, *order)
    assert kept == {"a": "a", "b": "a"}
    assert all(len(table.ups) == 1 and not table.downs for table in tables.values())


def test_a_node_started_anew_replaces_its_old_connection_and_is_told_as_gone_and_here(loop):
    kept, tables = two_connections(loop, "a", "b", nonces=(5, 6))
    assert kept == {"a": "b", "b": "b"}
    assert tables["a"].downs == ["restart"] and len(tables["a"].ups) == 2


def test_a_later_connection_of_the_same_run_replaces_the_one_its_dialler_lost(loop):
    ids = (b"a" * 32, b"b" * 32)
    table = Table(loop, ids[0])
    connections = []
    for _ in range(2):
        ends = pair(loop, (ids[1], ids[0]))
        owners = Owner(5), Owner(5)
        both = [Connection(loop, end, owner) for end, owner in zip(ends, owners)]
        until(loop, lambda: owners[0].ready and owners[1].ready)
        connections.append(both[1])
    connections[1].opened_at += 10
    for connection in connections:
        assert table.links.adopt(connection)
    assert table.links.get(ids[1]) is connections[1] and len(table.ups) == 1 and not table.downs


def test_a_patient_connection_has_no_deadlines_and_hears_a_producer_that_waits_for_it(loop):
    (a, b), (owner, _) = connected(loop)
    a.be_patient()
    b.channel.pause(True)
    b.channel.other._wake = lambda: None
    while a.has_room:
        a.send(proto.INPUT, command=1, data=bytes(60000))
        loop.turn(0)
    assert not a.channel.is_paused
    a.sweep(loop.now() + 10 * limits.FRAME_DEADLINE)
    assert not owner.lost
    for _ in range(limits.MAX_BUFFERED // 60000 + 2):         # answers that nobody waits for room with: these are bounded
        a.send(proto.INPUT, command=1, data=bytes(60000))
    loop.turn(0)
    assert a.channel.is_paused


def test_what_the_other_end_said_before_it_went_is_heard_though_a_write_has_failed_meanwhile(loop):
    (a, b), (owner, other) = connected(loop)
    got = []
    owner.dispatch.raw(proto.VIEW, lambda connection, request, body: got.append(len(owner.lost)))
    a.pause(True)
    b.send(proto.VIEW, view=1)
    loop.turn(0)
    b.channel.abort()
    a.send(proto.VIEW, view=2)
    loop.turn(0)
    assert not owner.lost and not got
    a.pause(False)
    until(loop, lambda: owner.lost)
    assert got == [0]


def test_a_pause_is_not_ended_by_sending(loop):
    (a, b), _ = connected(loop)
    a.pause(True)
    a.send(proto.VIEW, view=1)
    loop.turn(0)
    assert a.channel.is_paused
    a.pause(False)
    assert not a.channel.is_paused
