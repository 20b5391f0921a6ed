"""The loop: order, deadlines, workers, signals, children of one turn, and no handler that costs another its turn."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from p2p.errors import TimedOut
from p2p.loop import Loop
from p2p.poller import SelectorPoller
from p2p.tasks import Cancelled, Event, gather, within


@pytest.fixture(params=["the best poller", "any platform's"])
def loop(request, monkeypatch):
    if request.param != "the best poller":
        monkeypatch.setattr("p2p.loop.poller", SelectorPoller)
    reports = []
    loop = Loop(report=lambda what, error: reports.append((what, error)))
    loop.reports = reports
    yield loop
    loop.close()


def turn_until(loop, condition, seconds=5.0):
    end = loop.now() + seconds
    while not condition():
        assert loop.now() < end, "the deadline passed"
        loop.turn(0.05)


def finish(loop, coroutine, seconds=5.0):
    task = loop.start(coroutine)
    turn_until(loop, lambda: task.done, seconds)
    return task.result()


def test_timers_run_in_the_order_of_their_deadlines_and_equal_ones_as_they_came(loop):
    ran = []
    start = loop.now()
    for delay, name in [(0.02, "c"), (0.0, "a"), (0.01, "b1"), (0.01, "b2")]:
        loop.call_at(start + delay, ran.append, name)
    loop.call_at(start, ran.append, "never").cancel()
    turn_until(loop, lambda: len(ran) == 4)
    assert ran == ["a", "b1", "b2", "c"]


def test_end_of_turn_work_runs_once_after_everything_else(loop):
    ran = []
    loop.call_soon(lambda: (loop.at_turn_end(lambda: ran.append("end")), loop.call_soon(ran.append, "soon")))
    loop.turn(0)
    assert ran == ["soon", "end"]
    loop.turn(0)
    assert ran == ["soon", "end"]


def test_a_handler_that_raises_costs_nobody_else_their_turn(loop):
    ran = []
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(ran.append, "next")
    loop.turn(0)
    assert ran == ["next"]
    assert [type(error) for _, error in loop.reports] == [ZeroDivisionError]


def test_call_soon_from_call_soon_for_ever_does_not_starve_descriptors(loop):
    reader, writer = os.pipe()
    seen = []

    def again():
        loop.call_soon(again)
    again()
    loop.watch(reader, on_readable=lambda: seen.append(os.read(reader, 10)))
    os.write(writer, b"x")
    loop.turn(0)
    loop.turn(0)
    assert seen == [b"x"]
    loop.unwatch(reader)
    os.close(reader), os.close(writer)


def test_a_descriptor_unwatched_by_another_handler_of_the_same_turn_is_not_called(loop):
    pipes = [os.pipe() for _ in range(2)]
    called = []

    def handler(index):
        called.append(index)
        for reader, _ in pipes:
            loop.unwatch(reader)
    for index, (reader, writer) in enumerate(pipes):
        loop.watch(reader, on_readable=lambda index=index: handler(index))
        os.write(writer, b"x")
    loop.turn(0)
    assert len(called) == 1
    for pair in pipes:
        os.close(pair[0]), os.close(pair[1])


def test_an_event_for_a_descriptor_that_was_closed_reaches_nobody_who_got_its_number(loop):
    called, ends = [], [socket.socketpair() for _ in range(2)]
    for _, far in ends:
        far.send(b"x")

    def first(own, other):
        """Whoever comes first closes the other and gives its number to a pipe in which there is nothing."""
        called.append(own)
        if len(called) == 1:
            loop.unwatch(other.fileno())
            number = other.detach()
            empty = os.pipe()
            os.dup2(empty[0], number)
            loop.watch(number, on_readable=lambda: called.append("stolen"))
    for own, other in ((0, 1), (1, 0)):
        loop.watch(ends[own][0].fileno(), on_readable=lambda own=own, other=other: first(own, ends[other][0]))
    loop.turn(1)
    assert len(called) == 1 and called[0] in (0, 1)


def test_a_hang_up_is_heard_by_who_waits_for_either_side(loop):
    for side in ("on_readable", "on_writable"):
        near, far = socket.socketpair()
        heard = []
        loop.watch(near.fileno(), **{side: lambda: heard.append(side)})
        far.close()
        loop.turn(1)
        assert heard
        loop.unwatch(near.fileno())
        near.close()


def test_a_regular_file_is_simply_always_ready(loop, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"one\ntwo\n")
    fd = os.open(str(path), os.O_RDONLY)
    got = []

    def readable():
        data = os.read(fd, 3)
        got.append(data)
        if not data:
            loop.unwatch(fd)
    loop.watch(fd, on_readable=readable)
    turn_until(loop, lambda: got and got[-1] == b"")
    assert b"".join(got) == b"one\ntwo\n"
    os.close(fd)


def test_a_timer_that_is_never_due_does_not_end_the_loop_nor_hold_up_the_others(loop):
    ran = []
    for seconds in (float("inf"), 1e9):
        timer = loop.call_later(seconds, ran.append, "never")
        loop.call_later(0.01, ran.append, seconds)
        turn_until(loop, lambda seconds=seconds: seconds in ran)
        timer.cancel()
    forever = loop.call_later(float("inf"), ran.append, "never")
    loop.wake()
    loop.turn()                       # nothing else is due: it would sleep for ever, and is woken
    forever.cancel()
    assert ran == [float("inf"), 1e9]


def test_workers_come_back_in_the_loop_with_their_value_or_failure(loop):
    here = threading.get_ident()

    async def both():
        assert threading.get_ident() == here
        good = loop.work(lambda: (threading.get_ident() != here, 42))
        bad = loop.work(lambda: 1 / 0)
        return await gather([good, bad])
    (value, none), (nothing, error) = finish(loop, both())
    assert value == (True, 42) and none is None and nothing is None and isinstance(error, ZeroDivisionError)


def test_no_worker_result_is_lost_among_a_thousand(loop):
    async def many():
        return [value for value, _ in await gather([loop.work(lambda n=n: n) for n in range(1000)])]
    assert finish(loop, many()) == list(range(1000))


def test_a_signal_ends_the_sleep_and_is_handled_in_the_loop(loop):
    seen = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append(threading.get_ident()))
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    turn_until(loop, lambda: seen)
    assert seen == [threading.get_ident()]
    loop.on_signal(signal.SIGUSR1, None)


def test_no_waking_is_lost_while_the_loop_goes_to_sleep_and_wakes(loop):
    count = 3000
    seen = []

    def waker():
        for number in range(count):
            loop.call_soon(seen.append, number)
            loop.wake()
    thread = threading.Thread(target=waker)
    thread.start()
    end = loop.now() + 20
    while len(seen) < count:
        assert loop.now() < end, "a waking was lost"
        loop.turn(20)
    thread.join()


def test_a_signal_is_not_lost_among_thousands_of_wakings(loop):
    seen = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append(1))
    for _ in range(5000):
        loop.wake()
    os.kill(os.getpid(), signal.SIGUSR1)
    turn_until(loop, lambda: seen)


def test_the_wakeup_descriptor_is_given_back_with_the_last_signal(loop):
    before = signal.set_wakeup_fd(-1)
    for _ in range(2):
        loop.on_signal(signal.SIGUSR1, lambda: None)
        loop.on_signal(signal.SIGUSR2, lambda: None)
        loop.on_signal(signal.SIGUSR1, None)
        loop.on_signal(signal.SIGUSR2, None)
        assert signal.set_wakeup_fd(-1) == -1
    signal.set_wakeup_fd(before)


def test_within_gives_the_value_or_times_out(loop):
    async def late():
        with pytest.raises(TimedOut, match="too slow"):
            await within(loop, loop.future(), 0.01, "too slow")
        quick = loop.future()
        loop.call_later(0.01, quick.set, "here")
        return await within(loop, quick, 5)
    assert finish(loop, late()) == "here"


def test_an_event_wakes_all_who_wait_and_can_be_used_again(loop):
    event, woken = Event(loop), []

    async def waiter(name):
        await event.wait()
        woken.append(name)
        await event.wait()
        woken.append(name + " again")
    for name in "ab":
        loop.start(waiter(name))
    loop.turn(0)
    assert woken == []
    event.notify()
    turn_until(loop, lambda: len(woken) >= 2)
    assert woken == ["a", "b"]
    event.notify()
    turn_until(loop, lambda: len(woken) >= 4)
    assert woken[2:] == ["a again", "b again"]


def test_a_cancelled_task_stops_where_it_waits_and_runs_its_finally(loop):
    left = []

    async def stuck():
        try:
            await loop.future()
        finally:
            left.append("finally")
    task = loop.start(stuck())
    loop.turn(0)
    task.cancel()
    turn_until(loop, lambda: task.done)
    assert left == ["finally"] and task.error is not None


def test_a_task_that_is_cancelled_before_it_has_begun_does_nothing(loop):
    done = []

    async def act():
        done.append("it began")
    task = loop.start(act())
    task.cancel()
    turn_until(loop, lambda: task.done)
    loop.turn(0)
    assert not done and isinstance(task.error, Cancelled)


def test_importing_the_loop_does_not_load_the_slow_modules():
    code = "import sys, p2p.loop; print([m for m in ('ssl', 'subprocess', 'asyncio', 'concurrent.futures', 'ctypes') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
                         cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__)))).stdout
    assert out.strip() == "[]"
