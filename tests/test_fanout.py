"""One frame for many connections: order, counts, latency, and what happens to those that end meanwhile."""

import gc
import tracemalloc

import pytest

from p2p import limits, proto
from p2p.fanout import FULL, Fanout
from p2p.loop import Loop
from tests.test_connection import connected, until

SAY = proto.INPUT.word


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def crowd(loop, count):
    """(senders, what each receiver got, as lists of (message number, body))."""
    senders, heard = [], []
    for _ in range(count):
        (sender, _), (_, owner) = connected(loop)
        got = []
        for message in (proto.INPUT, proto.VIEW):
            owner.dispatch.raw(
                message, lambda connection, request, body, got=got, number=message.number: got.append((number, bytes(body))))
        senders.append(sender)
        heard.append(got)
    return senders, heard


def told(*bodies):
    return [(proto.INPUT.number, body) for body in bodies]


def test_everybody_gets_everything_in_order_in_one_write(loop):
    senders, heard = crowd(loop, 5)
    writes = []
    for sender in senders:
        sender.channel.send = lambda data, send=sender.channel.send: writes.append(len(data)) or send(data)
    fanout = Fanout(loop)
    for number in range(100):
        fanout.post(senders, SAY, b"%d" % number)
    until(loop, lambda: all(len(got) == 100 for got in heard))
    assert all(got == told(*(b"%d" % number for number in range(100))) for got in heard)
    assert len(writes) == 5
    assert all(sender.traffic.kinds[proto.INPUT.number][1] == 100 for sender in senders)


def test_what_goes_to_one_alone_keeps_its_place_between_what_goes_to_all(loop):
    senders, heard = crowd(loop, 3)
    fanout = Fanout(loop)
    senders[0].post(proto.VIEW.word, 0, b"before")
    fanout.post(senders, SAY, b"1")
    fanout.post(senders, SAY, b"2")
    senders[1].post(proto.VIEW.word, 0, b"between")
    fanout.post(senders, SAY, b"3")
    fanout.flush()
    fanout.post(senders, SAY, b"4")
    until(loop, lambda: heard[2] == told(b"1", b"2", b"3", b"4") and len(heard[0]) == len(heard[1]) == 5)
    assert heard[0] == [(proto.VIEW.number, b"before")] + told(b"1", b"2", b"3", b"4")
    assert heard[1] == told(b"1", b"2") + [(proto.VIEW.number, b"between")] + told(b"3", b"4")


def test_who_ends_meanwhile_gets_what_was_sent_before_and_the_others_get_all(loop):
    senders, heard = crowd(loop, 3)
    fanout = Fanout(loop)
    fanout.post(senders, SAY, b"1")
    senders[0].finish("enough")
    senders[1].abort()
    fanout.post([senders[2]], SAY, b"2")
    until(loop, lambda: heard[2] == told(b"1", b"2") and heard[0])
    assert heard[0] == told(b"1") and heard[1] == []


def test_two_senders_of_broadcasts_share_their_connections(loop):
    senders, heard = crowd(loop, 2)
    one, two = Fanout(loop), Fanout(loop)
    one.post(senders, SAY, b"1")
    two.post(senders, SAY, b"2")
    one.post(senders, SAY, b"3")
    two.post(senders, SAY, b"4")
    until(loop, lambda: all(len(got) == 4 for got in heard))
    assert all(got == told(b"1", b"2", b"3", b"4") for got in heard)


def test_a_batch_counts_as_queued_and_leaves_when_it_is_large(loop):
    senders, heard = crowd(loop, 2)
    fanout = Fanout(loop)
    fanout.post(senders, SAY, bytes(1000))
    assert senders[0].queued == 1016 and senders[0].has_room
    while fanout._batch is not None:
        fanout.post(senders, SAY, bytes(1000))
        assert senders[0].queued <= FULL + 2032
    large = bytes(3 * limits.LOW_WATER // 4)
    fanout.post(senders, SAY, large)
    until(loop, lambda: all(got and got[-1] == (proto.INPUT.number, large) for got in heard))


def test_no_write_is_empty_for_python_38_takes_that_for_the_end_of_the_connection(loop):
    (sender, receiver), (_, owner) = connected(loop)
    got, offered = [], []
    owner.dispatch.raw(proto.INPUT, lambda connection, request, body: got.append(len(body)))
    sender.channel.send_many = lambda views, send=sender.channel.send_many: offered.extend(map(len, views)) or send(views)
    receiver.pause(True)
    fanout = Fanout(loop)
    for _ in range(60):
        fanout.post([sender], SAY, bytes(200_000))
        loop.turn(0)
    assert sender.queued > 1_000_000, "the kernel was to be full"
    receiver.pause(False)
    until(loop, lambda: got == [200_000] * 60)
    assert min(offered) > 0 and sender.is_ready


def test_what_was_sent_to_all_is_given_back_without_the_collector(loop):
    senders, heard = crowd(loop, 2)
    fanout = Fanout(loop)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20):
            fanout.post(senders, SAY, bytes(200_000))
            until(loop, lambda number=number: all(len(got) > number for got in heard))
            for got in heard:
                got[-1] = None
        assert tracemalloc.get_traced_memory()[0] - before < 1_000_000
    finally:
        tracemalloc.stop()
        gc.enable()


def test_messages_are_counted_once_whether_they_go_to_one_or_to_all(loop):
    senders, heard = crowd(loop, 2)
    fanout = Fanout(loop)
    before = [sender.traffic.out_messages for sender in senders]
    for _ in range(100):
        fanout.post(senders, SAY, b"all")
        senders[0].post(SAY, 0, b"one")
        fanout.post(senders, SAY, b"all")
    until(loop, lambda: len(heard[0]) == 300 and len(heard[1]) == 200)
    assert [sender.traffic.out_messages - known for sender, known in zip(senders, before)] == [300, 200]


def test_one_message_alone_does_not_wait_for_others(loop):
    senders, heard = crowd(loop, 2)
    began = loop.now()
    Fanout(loop).post(senders, SAY, b"now")
    loop.turn(5)
    until(loop, lambda: all(heard))
    assert loop.now() - began < 1


def test_a_busy_loop_lets_a_batch_wait_but_not_for_long(loop):
    senders, heard = crowd(loop, 2)
    fanout, turns = Fanout(loop), []

    async def produce():
        began = loop.now()
        while not heard[0]:
            fanout.post(senders, SAY, b"more")
            turns.append(loop.now() - began)
            await loop.sleep(0)
    task = loop.start(produce())
    until(loop, lambda: task.done)
    assert len(turns) > 1 and turns[-1] < 1
