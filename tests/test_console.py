"""The console at a real terminal, seen as a person sees it, and at one that has stopped reading."""

import os
import pty
import re
import signal
import sys
import termios

import pytest

from p2p import limits, system
from p2p.terminal.console import Console, open_console
from p2p.terminal.plain import PlainConsole
from tests.bench import Bench
from tests.lab.terminal import Terminal
from tests.waiting import wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# A shell that echoes; SIGUSR1 is news from the network
SHELL = r'''
import os, signal, sys
from p2p.loop import Loop
from p2p.terminal.console import open_console
loop = Loop()
def on_line(text):
    console.print(f"[{text}]")
    if text == "quit":
        loop.stop()
    elif text == "slow":
        loop.call_later(0.2, console.print, "done")
    elif text == "attach":
        console.suspend()
        os.write(1, b"a job")
        loop.watch(0, on_readable=job)
    elif text.startswith("write "):
        console.write(eval(text[6:]))
    elif text == "size":
        console.print(f"{console.rows} x {console.columns}")
    elif text == "end":
        console.end_line()
def job():
    os.write(1, repr(os.read(0, 100)).encode())
    loop.unwatch(0)
    loop.call_later(0.2, console.resume)
def say(text, stop=False):
    console.print(text)
    if stop:
        loop.stop()
console = open_console(loop, 0, 1, "p2p> ", on_line, lambda: say("EOF", True), lambda: say("interrupted"),
                       complete=lambda text, cursor: [w for w in ("nodes", "networks", "\u65e5\u672c") if w.startswith(text[:cursor])])
count = 0
def news():
    global count
    count += 1
    console.print(f"news {count}")
loop.on_signal(signal.SIGUSR1, news)
try:
    loop.run()
finally:
    console.close()
print("bye", type(console).__name__, flush=True)
'''


@pytest.fixture
def shell():
    """Starts shells at terminals; all are closed at the end."""
    started = []

    def start(rows=24, columns=80, term="xterm"):
        terminal = Terminal([sys.executable, "-c", SHELL], rows, columns, env=dict(os.environ, TERM=term), cwd=ROOT)
        started.append(terminal)
        terminal.wait_for("p2p> ")
        return terminal
    yield start
    for terminal in started:
        terminal.close()
        assert not terminal.unknown


def news(terminal, number):
    terminal.process.send_signal(signal.SIGUSR1)
    terminal.wait_for(f"news {number}")


def shown(terminal, *rows):
    """Waits until the screen ends with these rows, nothing below them."""
    wait_until(lambda: [row for row in terminal.screen() if row][-len(rows):] == list(rows), 10, f"{rows}", terminal.text)


def test_a_half_typed_line_survives_what_is_printed_and_stays_the_last(shell):
    terminal = shell()
    terminal.type("hel")
    shown(terminal, "p2p> hel")
    for number in (1, 2, 3):
        news(terminal, number)
    shown(terminal, "news 1", "news 2", "news 3", "p2p> hel")
    terminal.type("lo\x1b[D\x1b[D")
    news(terminal, 4)
    shown(terminal, "news 4", "p2p> hello")
    wait_until(lambda: terminal.cursor[1] == 8)
    terminal.type("x\r")
    shown(terminal, "news 4", "p2p> helxlo", "[helxlo]", "p2p>")
    assert sum("p2p>" in row for row in terminal.screen()) == 2


def test_at_the_bottom_of_the_screen_and_over_several_rows_it_is_the_same(shell):
    terminal = shell(rows=6, columns=20)
    line = "abcdefghij" * 4
    terminal.type(line)
    shown(terminal, "p2p> abcdefghijabcde", "fghijabcdefghijabcde", "fghij")
    for number in range(1, 6):
        news(terminal, number)
    shown(terminal, "news 4", "news 5", "p2p> abcdefghijabcde", "fghijabcdefghijabcde", "fghij")
    terminal.type("\x01")
    wait_until(lambda: terminal.cursor == (3, 5), detail=terminal.text)
    news(terminal, 6)
    shown(terminal, "news 6", "p2p> abcdefghijabcde", "fghijabcdefghijabcde", "fghij")
    terminal.type("\x05" + "12345" * 3)
    shown(terminal, "p2p> abcdefghijabcde", "fghijabcdefghijabcde", "fghij123451234512345")
    wait_until(lambda: terminal.cursor[1] == 0)
    terminal.type("\x7f")
    shown(terminal, "fghij12345123451234")
    terminal.type("\x15日本\r")
    shown(terminal, "[日本]", "p2p>")


def test_fast_typing_arrives_whole_while_much_is_printed(shell):
    terminal = shell()
    typed = "".join(chr(97 + number % 26) for number in range(60))
    for number, key in enumerate(typed):
        terminal.type(key)
        if number % 10 == 5:
            terminal.process.send_signal(signal.SIGUSR1)
    terminal.wait_for("news 1")
    shown(terminal, "p2p> " + typed)


def test_the_terminal_is_as_before_after_the_end(shell):
    terminal = shell()
    raw = terminal.modes()
    assert not raw[3] & termios.ICANON and b"\x1b[?2004h" in terminal.raw
    terminal.type("quit\r")
    assert terminal.wait() == 0
    after = terminal.modes()
    assert after[3] & termios.ICANON and after[3] & termios.ECHO and after[0] & termios.ICRNL
    assert terminal.raw.rindex(b"\x1b[?2004l") > terminal.raw.rindex(b"\x1b[?2004h")
    shown(terminal, "p2p> quit", "[quit]", "bye Console")


def test_ctrl_c_gives_the_line_up_and_ctrl_d_on_an_empty_one_ends(shell):
    terminal = shell()
    terminal.type("one\rabc\x03")
    shown(terminal, "p2p> one", "[one]", "p2p> abc^C", "interrupted", "p2p>")
    terminal.type("x\x04\x7f\x04")
    assert terminal.wait() == 0
    shown(terminal, "EOF", "bye Console")


def test_ctrl_l_clears_and_tab_completes_or_lists(shell):
    terminal = shell()
    terminal.type("n\t\t")
    shown(terminal, "networks  nodes", "p2p> n")
    terminal.type("e\t")
    shown(terminal, "p2p> networks")
    terminal.type("\x0c")
    wait_until(lambda: terminal.screen()[0] == "p2p> networks", detail=terminal.text)
    assert terminal.cursor == (0, 14)
    terminal.type("\x15日\t")
    shown(terminal, "p2p> 日本")
    assert [row for row in terminal.screen() if row] == ["p2p> 日本"]


def test_what_is_printed_while_one_types_ahead_stays_above(shell):
    terminal = shell()
    terminal.type("slow\rnext\rhalf")
    shown(terminal, "p2p> slow", "[slow]", "p2p> next", "[next]", "p2p> half")
    shown(terminal, "[next]", "done", "p2p> half")


def test_progress_is_shown_above_the_prompt_replaced_and_wiped(shell):
    terminal = shell()
    for step, above in [(r"b'\r10 %\x1b[K'", ["10 %"]), (r"b'\r20 %\x1b[K'", ["20 %"])]:
        terminal.type(f"write {step}\r")
        shown(terminal, f"[write {step}]", *above, "p2p>")
    assert "10 %" not in terminal.screen()
    news(terminal, 1)
    shown(terminal, "news 1", "20 %", "p2p>")
    terminal.type("write b'\\r\\x1b[K'\r")
    shown(terminal, "[write b'\\r\\x1b[K']", "p2p>")
    terminal.type("write b'one\\ntwo\\nrest'\r")
    shown(terminal, "one", "two", "rest", "p2p>")
    terminal.type("end\r")
    shown(terminal, "p2p> end", "[end]", "rest", "p2p>")


@pytest.mark.parametrize("columns", [30, 12])
def test_a_new_size_keeps_the_line_and_destroys_no_output(shell, columns):
    terminal = shell(columns=20)
    news(terminal, 1)
    terminal.type("abcdefghijklmnopqrstuvwxyz")
    shown(terminal, "news 1", "p2p> abcdefghijklmno", "pqrstuvwxyz")
    terminal.resize(10, columns)
    line = "p2p> abcdefghijklmnopqrstuvwxyz"
    shown(terminal, *[line[at:at + columns] for at in range(0, len(line), columns)])
    assert "news 1" in terminal.screen()
    terminal.type("\x15size\r")
    shown(terminal, f"10 x {columns}", "p2p>")


def test_a_job_gets_the_terminal_as_it_was_and_the_prompt_comes_back_below(shell):
    terminal = shell()
    terminal.type("attach\rtyped ahead\r")
    terminal.wait_for("a job")
    assert terminal.modes()[3] & termios.ICANON
    terminal.process.send_signal(signal.SIGUSR1)
    terminal.type("keys\r")
    shown(terminal, "a jobkeys", r"b'keys\n'", "news 1", "p2p> typed ahead", "[typed ahead]", "p2p>")
    assert terminal.text().startswith("p2p> attach\n[attach]\na job")
    terminal.type("back\r")
    shown(terminal, "[back]", "p2p>")


def test_after_a_stop_the_terminal_is_taken_again(shell):
    terminal = shell()
    terminal.type("half")
    shown(terminal, "p2p> half")
    terminal.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: os.waitpid(terminal.process.pid, os.WUNTRACED | os.WNOHANG)[0])
    cooked = terminal.modes()
    cooked[3] |= termios.ICANON | termios.ECHO
    termios.tcsetattr(terminal._master, termios.TCSANOW, cooked)
    terminal.process.send_signal(signal.SIGCONT)
    wait_until(lambda: not terminal.modes()[3] & termios.ICANON)
    terminal.type("way\r")
    shown(terminal, "[halfway]", "p2p>")


def test_a_dumb_terminal_gets_plain_lines(shell):
    terminal = shell(term="dumb")
    terminal.type("hello\r")
    terminal.wait_for("[hello]\np2p> ")
    news(terminal, 1)
    terminal.wait_for("p2p> ")
    terminal.type("quit\r")
    terminal.wait_for("bye PlainConsole")
    assert b"\x1b" not in terminal.raw and terminal.wait() == 0


# In this process: terminals that do not read

@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.loop.close()


@pytest.fixture
def terminal(bench):
    """(the near end, a Console at the far end)"""
    master, slave = pty.openpty()
    system.set_terminal_size(slave, 24, 80)
    on_line, on_eof = bench.handlers()
    console = open_console(bench.loop, slave, slave, "> ", on_line, on_eof, lambda: bench.events.append("^C"), env={"TERM": "xterm"})
    assert isinstance(console, Console)
    yield master, console
    console.close()
    os.close(master), os.close(slave)


def test_a_terminal_that_stopped_reading_stops_nobody_and_lines_are_counted(bench, terminal, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BUFFERED", 1 << 19)
    master, console = terminal
    bench.loop.turn(0)
    for number in range(1000):
        console.print(f"line {number} " + "x" * 2000)
        if not number % 100:
            began = bench.loop.now()
            bench.loop.turn(0)
            assert bench.loop.now() - began < 0.5
    assert console._pending() < 2 * limits.MAX_BUFFERED + 4096
    os.set_blocking(master, False)
    got = bytearray()

    def read():
        try:
            got.extend(os.read(master, 65536))
        except BlockingIOError:
            pass
        return b"not shown" in got and got.endswith(b"> ")
    bench.until(read)
    lost = int(re.search(rb"\.\.\. (\d+) lines are not shown", got).group(1))
    assert lost + len(re.findall(rb"line \d+ x", got)) == 1000 and lost > 400
    os.write(master, b"still here\r")
    bench.until(lambda: bench.events == ["still here"])


def test_an_idle_console_at_a_stopped_terminal_costs_no_turns_and_closes_in_time(bench, terminal):
    master, console = terminal
    console.print("x" * 300_000)
    bench.loop.turn(0)
    bench.until(bench.idle)
    began = bench.loop.now()
    console.close()
    assert bench.loop.now() - began < 1


def test_no_byte_of_a_command_is_lost_however_its_pieces_fall(bench, terminal):
    master, console = terminal
    long = b"x" * 200_000
    os.set_blocking(master, False)
    got = bytearray()

    def read(until):
        try:
            got.extend(os.read(master, 65536))
        except BlockingIOError:
            pass
        return until in got
    for piece in (b"one\r", b"\ntwo\r", b"", b"\n", b"three", b"\nfo", "ü".encode()[:1], "ü".encode()[1:], b"r\n"):
        console.write(piece)
        bench.loop.turn(0)
    bench.until(lambda: read("foür\r\n".encode()))
    assert [line for line in (b"one", b"two", b"three") if line + b"\r\r\n" in got or line + b"\r\n" in got] == [b"one", b"two", b"three"]
    for at in range(0, len(long), 5000):
        console.write(long[at:at + 5000])
    console.end_line()
    console.print("end")
    bench.until(lambda: read(b"end"))
    assert got.count(b"x") == len(long)


def test_who_waits_for_room_waits_until_the_terminal_reads(bench, terminal):
    master, console = terminal
    console.print("x" * (limits.LOW_WATER + 300_000))
    task = bench.loop.start(console.room())
    for _ in range(5):
        bench.loop.turn(0)
    assert not task.done
    os.set_blocking(master, False)

    def read():
        try:
            os.read(master, 65536)
        except BlockingIOError:
            pass
        return task.done
    bench.until(read)


def test_the_shared_descriptor_stays_blocking_and_typing_costs_few_bytes(bench, terminal):
    master, console = terminal
    bench.loop.turn(0)
    os.read(master, 1000)
    for key in b"hello":
        os.write(master, bytes([key]))
        bench.until(lambda: console._output.pending == 0 and console._drawn.whole.endswith(chr(key)))
    echoed = b""
    while len(echoed) < 5:
        echoed += os.read(master, 1000)
    assert echoed == b"hello"


def test_a_closed_window_is_the_end_of_the_input(bench):
    master, slave = pty.openpty()
    on_line, on_eof = bench.handlers()
    console = open_console(bench.loop, slave, slave, "> ", on_line, on_eof, None, env={"TERM": "xterm"})
    bench.loop.turn(0)
    os.close(master)
    bench.until(lambda: bench.events == ["EOF"])
    console.print("nobody reads this")
    bench.loop.turn(0)
    console.close()
    os.close(slave)


def test_two_terminals_or_half_a_terminal_are_plain(bench):
    one, two = pty.openpty(), pty.openpty()
    pipe = os.pipe()
    for ends in ((one[1], two[1]), (one[1], pipe[1]), (pipe[0], one[1])):
        console = open_console(bench.loop, *ends, "> ", *bench.handlers(), on_interrupt=None, env={"TERM": "xterm"})
        assert isinstance(console, PlainConsole)
        console.close()
    for fd in one + two + pipe:
        os.close(fd)
