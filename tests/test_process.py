"""Children on real terminals and pipes: output before exit, backpressure, resizing, signals, nothing inherited."""

import os
import signal
import subprocess
import sys
import types

import pytest

from p2p import process, system
from p2p.errors import UserError
from tests.bench import Bench
from tests.lab.bed import alive
from tests.waiting import wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Nursery(Bench):
    """A bench with children on it; what each printed and how it ended."""

    def __init__(self):
        super().__init__()
        self.children = []

    def spawn(self, *argv, terminal=(24, 80), **how):
        events = []
        child = self.loop.spawn(list(argv), cwd=how.pop("cwd", ROOT), env=dict(os.environ), terminal=terminal,
                                on_output=events.append, on_exit=lambda code: events.append(code), **how)
        child.events = events
        self.children.append(child)
        return child

    def python(self, code, *argv, **how):
        return self.spawn(sys.executable, "-u", "-c", code, *argv, **how)

    def finish(self, child):
        """(output, exit code), and nothing comes after the code."""
        self.until(lambda: child.events and isinstance(child.events[-1], int))
        self.loop.turn(0)
        return said(child), child.events[-1]


def said(child):
    assert all(isinstance(event, bytes) for event in child.events[:-1])
    return b"".join(event for event in child.events if isinstance(event, bytes))


@pytest.fixture
def bench():
    bench = Nursery()
    yield bench
    for child in bench.children:
        child.close()
    bench.until(lambda: all(child.exit is not None for child in bench.children))
    bench.loop.close()
    assert not bench.events


@pytest.mark.parametrize("terminal", [(24, 80), None])
@pytest.mark.parametrize("code", [0, 7, -signal.SIGKILL])
def test_all_output_comes_before_the_exit_code(bench, terminal, code):
    child = bench.python("import os, sys\nprint('x' * 100000, end='')\n"
                         "code = int(sys.argv[1])\nos._exit(code) if code >= 0 else os.kill(os.getpid(), -code)",
                         str(code), terminal=terminal)
    assert bench.finish(child) == (b"x" * 100000, code)


def test_it_stands_on_a_terminal_of_the_given_size_in_a_session_of_its_own(bench):
    child = bench.python("import os\nprint(*map(os.isatty, range(3)), tuple(os.get_terminal_size()), os.getsid(0) == os.getpid())",
                         terminal=(10, 33))
    assert bench.finish(child) == (b"True True True (33, 10) True\r\n", 0)


def test_with_pipes_it_reads_what_is_written_and_stderr_is_part_of_the_output(bench):
    child = bench.python("import sys\nprint(sys.stdin.readline().upper(), file=sys.stderr)", terminal=None)
    assert child.write(b"hello\n") == 6
    assert bench.finish(child) == (b"HELLO\n\n", 0)


def test_with_pipes_stdin_can_be_a_descriptor(bench):
    with open(os.devnull, "rb") as nothing:
        child = bench.python("import sys\nprint(repr(sys.stdin.read()))", terminal=None, stdin=nothing.fileno())
        assert child.write(b"lost") == 0
    assert bench.finish(child) == (b"''\n", 0)


def test_what_is_typed_arrives_and_is_echoed_by_the_terminal(bench):
    child = bench.python("print(repr(input()))")
    assert child.write(b"hal\xc3\xa9\x7flo\r") == 9              # the backspace takes the whole é
    out, code = bench.finish(child)
    assert out.endswith(b"'hallo'\r\n") and out.startswith(b"hal\xc3\xa9") and code == 0


def test_a_child_that_never_reads_costs_a_bounded_buffer_and_no_blocking(bench):
    child = bench.python("import time, tty\ntty.setraw(0)\nprint('ready')\ntime.sleep(60)")
    bench.until(lambda: b"ready" in said(child))
    taken = [child.write(b"x" * 50000) for _ in range(10)]
    assert taken[0] == 50000 and taken[-1] == 0 and sum(taken) < 200_000


def test_what_was_buffered_is_typed_when_the_child_reads_again(bench):
    reader, writer = os.pipe()
    child = bench.python("import os, sys, tty\ntty.setraw(0)\nprint('ready')\nos.read(int(sys.argv[1]), 1)\ngot = 0\n"
                         "while got < 60000: got += len(os.read(0, 65536))\nprint('got', got)", str(reader), pass_fds=(reader,))
    os.close(reader)
    bench.until(lambda: b"ready" in said(child))
    assert child.write(b"x" * 60000) == 60000
    bench.loop.turn(0)
    os.write(writer, b"go")
    os.close(writer)
    out, code = bench.finish(child)
    assert out.endswith(b"got 60000\n") and code == 0


def test_a_noisy_child_leaves_each_turn_to_the_others(bench):
    child = bench.spawn("yes")
    bench.until(lambda: said(child))
    for _ in range(50):
        before = len(said(child))
        bench.loop.turn(0.05)
        assert len(said(child)) - before <= process.READ_A_TURN


def test_a_paused_child_stops_and_loses_nothing_even_if_it_ends_meanwhile(bench):
    child = bench.python("print('x' * 30000, end='')", terminal=None)
    child.pause()
    bench.until(lambda: child.exit is not None)
    turns = bench.loop.turns
    bench.loop.turn(0.05)
    bench.loop.turn(0.05)
    assert child.events == [] and bench.loop.turns - turns == 2
    child.resume()
    assert bench.finish(child) == (b"x" * 30000, 0)


def test_an_ended_child_and_a_silent_loop_cost_no_turns(bench):
    child = bench.python("import os, time\nos.close(0); os.close(1); os.close(2)\ntime.sleep(60)")
    bench.until(lambda: child._reading is None)       # it has closed its terminal, which is readable for ever now
    bench.loop.turn(0.2)
    bench.until(bench.idle)


def test_pausing_inside_on_output_holds_the_rest(bench):
    child = bench.python("print('x' * 200000, end='')", terminal=None)
    got = []

    def output(data):
        got.append(data)
        child.pause()
        bench.loop.call_later(0.001, child.resume)
    child._on_output = output
    bench.until(lambda: child.events)
    assert sum(map(len, got)) == 200000 and child.events == [0]


def test_a_grandchild_that_keeps_the_terminal_does_not_hide_the_end(bench):
    child = bench.python("import subprocess\nprint(subprocess.Popen(['sleep', '60']).pid)")
    out, code = bench.finish(child)
    assert code == 0 and alive(int(out))
    os.kill(int(out), signal.SIGKILL)


def test_one_that_ends_before_anybody_listens_is_noticed_all_the_same(bench, monkeypatch):
    def start(*words):
        child = original(*words)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        return child
    original = process._start
    monkeypatch.setattr(process, "_start", start)
    out, code = bench.finish(bench.spawn("sh", "-c", "sleep 60 & echo $!; exit 3"))      # sleep keeps the terminal: no end of output
    os.kill(int(out), signal.SIGKILL)
    assert code == 3


def test_only_the_meant_descriptors_are_inherited(bench):
    meant, other = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(other, True)
    child = bench.python("import os\nfound = []\nfor fd in range(3, 200):\n  try: os.fstat(fd)\n  except OSError: pass\n"
                         "  else: found.append(fd)\nprint(found)", pass_fds=(meant,))
    out, _ = bench.finish(child)
    assert out.strip() == b"[%d]" % meant
    os.close(meant), os.close(other)


CONTROLLED = "import os, signal, sys, time\nfrom p2p.system import make_controlling_terminal\nmake_controlling_terminal(0)\n"


def draws_again(bench, child, rows, columns, both):
    """The same size again shows as two. A program that gets no CPU between them sees one, so it may take another try."""
    tries = []

    def seen():
        if said(child).endswith(both):
            return True
        if child._resize_timer is None and bench.loop.now() >= sum(tries[-1:]):
            child.events.clear()
            child.resize(rows, columns)
            tries.append(bench.loop.now() + 1.0)         # s to show what it saw
        return False
    bench.until(seen)
    bench.until(lambda: child._resize_timer is None)


def test_a_new_size_reaches_the_program_and_the_same_size_makes_it_draw_again(bench):
    child = bench.python(CONTROLLED + "signal.signal(signal.SIGWINCH, lambda *_: print(tuple(os.get_terminal_size())))\n"
                         "print('ready')\nwhile True: time.sleep(1)")
    bench.until(lambda: b"ready" in said(child))
    child.resize(30, 100)
    bench.until(lambda: b"(100, 30)" in said(child))
    draws_again(bench, child, 30, 100, b"(99, 30)\r\n(100, 30)\r\n")
    child.events.clear()
    child.resize(30, 100)
    child.resize(5, 1)                                 # at once another one: the pending return must not undo it
    bench.until(lambda: b"(1, 5)" in said(child))
    bench.until(lambda: child._resize_timer is None)
    draws_again(bench, child, 5, 1, b"(2, 5)\r\n(1, 5)\r\n")
    child.resize(0, 1 << 30)
    assert system.terminal_size(child._writing) == (1, process.MAX_SIDE)


def test_ctrl_c_typed_and_a_signal_both_reach_the_program(bench):
    for act in (lambda child: child.write(b"\x03"), lambda child: child.signal(signal.SIGINT)):
        child = bench.python(CONTROLLED + "print('ready')\ntime.sleep(60)")
        bench.until(lambda: b"ready" in said(child))
        act(child)
        out, code = bench.finish(child)
        assert b"KeyboardInterrupt" in out and code in (1, -signal.SIGINT)


def test_a_root_that_was_started_with_nohup_in_the_background_has_children_that_hear(bench):
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        child = bench.python("import signal\nprint([signal.getsignal(number) == signal.SIG_IGN for number in (1, 2, 3, 15)])")
        assert all(signal.getsignal(number) is signal.SIG_IGN for number in numbers)
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
    assert bench.finish(child) == (b"[False, False, False, False]\r\n", 0)


def test_a_signal_reaches_the_whole_group_and_nobody_after_the_end(bench, monkeypatch):
    child = bench.spawn("sh", "-c", "sleep 60 & echo $!; wait")
    bench.until(lambda: said(child).endswith(b"\n"))
    grandchild = int(said(child))
    child.signal(signal.SIGTERM)
    assert bench.finish(child)[1] == -signal.SIGTERM
    wait_until(lambda: not alive(grandchild), 5.0, "the end of the grandchild")
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("a signal for a pid that may be another's"))
    child.signal(signal.SIGTERM)
    child.close()


def test_closing_kills_reaps_and_calls_nothing_any_more(bench):
    child = bench.python("import signal, time\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nprint('ready')\ntime.sleep(60)")
    bench.until(lambda: b"ready" in said(child))
    child.events.clear()
    child.close()
    child.close()
    bench.until(lambda: child.exit == -signal.SIGKILL)
    assert child.events == [] and child.write(b"x") == 0
    child.resize(1, 1)


def test_the_death_of_the_root_ends_a_child_by_its_terminal(bench):
    code = ("import os, sys\nfrom p2p.loop import Loop\nloop = Loop()\n"
            "child = loop.spawn([sys.executable, '-c', sys.argv[1]], cwd='.', env=dict(os.environ), terminal=(24, 80),\n"
            "                   on_output=lambda data: os.write(1, data), on_exit=print)\nloop.run()")
    root = bench.python(code, CONTROLLED + "print(os.getpid(), flush=True)\ntime.sleep(60)")
    bench.until(lambda: said(root).endswith(b"\n"))
    child = int(said(root))
    root.signal(signal.SIGKILL)
    bench.finish(root)

    wait_until(lambda: not alive(child), 5.0, "the end of the orphan")


def test_many_that_end_at_once_are_all_reaped(bench):
    children = [bench.spawn("sh", "-c", f"exit {number}", terminal=None) for number in range(20)]
    assert [bench.finish(child)[1] for child in children] == list(range(20))


def test_other_peoples_children_are_left_to_them(bench):
    other = subprocess.Popen(["true"])
    bench.finish(bench.spawn("true"))
    assert os.waitpid(other.pid, 0) == (other.pid, 0)
    other.wait()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the list of open descriptors is Linux's")
@pytest.mark.parametrize("call, fails", [
    (lambda: process._open_terminal(24, 80), "dup"), (lambda: process._open_terminal(24, 80), "set_blocking"),
    (lambda: process._open_pipes(0), "dup"), (lambda: process._open_pipes(None), "second pipe")])
def test_where_descriptors_run_out_half_way_none_is_left_behind(monkeypatch, call, fails):
    def refuses(*what):
        raise OSError(24, "too many open files")
    if fails == "second pipe":
        real, made = os.pipe, []
        monkeypatch.setattr(os, "pipe", lambda: refuses() if made else made.append(1) or real())
    else:
        monkeypatch.setattr(os, fails, refuses)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError):
        call()
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("argv, cwd, named", [
    (["/no/such/program"], None, "/no/such/program"), (["true"], "/no/such/folder", "/no/such/folder"), (["true", "a\0b"], None, "true")])
def test_what_cannot_be_started_is_one_line_and_leaves_no_descriptor(bench, argv, cwd, named):
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with pytest.raises(UserError, match=named) as caught:
        bench.spawn(*argv, cwd=cwd or ROOT)
    assert "\n" not in str(caught.value)
    assert before is None or set(os.listdir("/proc/self/fd")) == before


def test_nothing_is_left_open_after_the_end(bench):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))
    bench.finish(bench.spawn("true"))
    before = descriptors()
    for terminal in ((24, 80), None):
        bench.finish(bench.spawn("true", terminal=terminal))
    assert descriptors() == before


def test_without_terminals_a_child_gets_a_window_and_its_end_is_looked_for(bench, monkeypatch):
    ends = iter([None, None, 3])
    started = []

    class Popen:
        pid, returncode = 4242, None

        def __init__(self, argv, **how):
            started.append((argv, how["creationflags"]))

        def poll(self):
            self.returncode = next(ends)
            return self.returncode
    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.setattr(system, "pass_descriptors", lambda fds: {"close_fds": True})
    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(subprocess, "CREATE_NEW_CONSOLE", 16, raising=False)
    monkeypatch.setattr(process, "LOOK_EVERY", 0.001)
    monkeypatch.setattr(process, "signal", types.SimpleNamespace())        # no SIGCHLD and no SIGKILL there
    child = bench.spawn("app.exe")
    assert bench.finish(child) == (b"", 3)
    assert started == [(["app.exe"], 16)]
