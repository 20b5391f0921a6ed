"""A command's own stdin and stdout: never blocking, never left changed."""

import os
import pty
import termios

import pytest

from p2p.loop import Loop
from p2p.terminal.passthrough import Modes, Passthrough
from p2p.terminal.stdio import Outlet, same_place, wants_color


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.close()


@pytest.mark.parametrize("when, env, is_terminal, expected", [
    ("auto", {"TERM": "xterm"}, True, True),
    ("auto", {"TERM": "xterm"}, False, False),
    ("auto", {"TERM": "dumb"}, True, False),
    ("auto", {}, True, False),
    ("auto", {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
    ("auto", {"TERM": "xterm", "NO_COLOR": ""}, True, True),
    ("auto", {"FORCE_COLOR": "1"}, False, True),
    ("auto", {"FORCE_COLOR": "0"}, False, False),
    ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ("always", {"NO_COLOR": "1"}, False, True),
    ("never", {"TERM": "xterm", "FORCE_COLOR": "1"}, True, False),
])
def test_colours_by_option_then_environment_then_terminal(when, env, is_terminal, expected):
    assert wants_color(when, env, is_terminal) is expected


@pytest.mark.parametrize("pieces, undone", [
    ([b"plain"], b""),
    ([b"\x1b[?1049h\x1b[?25l"], b"\x1b[?1049l\x1b[?25h"),
    ([b"\x1b[?1049h", b"x\x1b[?1049l"], b""),
    ([b"\x1b[?10", b"49", b"h"], b"\x1b[?1049l"),                    # cut anywhere
    ([b"\x1b[?1000;1006h"], b"\x1b[?1000l\x1b[?1006l"),
    ([b"\x1b[?25h"], b""),
    ([b"\x1b", b"[?2004h", b"\x1b[1m"], b"\x1b[?2004l"),
])
def test_what_a_program_switched_on_is_switched_off(pieces, undone):
    modes = Modes()
    for piece in pieces:
        modes.feed(piece)
    assert modes.undo() == b"\x1b[0m" + undone


def test_what_is_noted_of_endless_output_is_bounded():
    modes = Modes()
    for _ in range(1000):
        modes.feed(b"\x1b[?" + b"1;" * 500)
    assert len(modes._tail) < 100


def test_an_outlet_never_waits_for_a_reader_and_loses_nothing(loop):
    reader, writer = os.pipe()
    outlet = Outlet(loop, writer)
    data = os.urandom(3 << 20)
    outlet.write(data)                                   # returns though nobody reads
    loop.turn(0)
    assert not outlet.has_room
    room, drained = loop.start(outlet.room()), loop.start(outlet.drained())
    loop.turn(0)
    assert not room.done
    came = b""
    os.set_blocking(reader, False)
    while not (drained.done and len(came) == len(data)):
        loop.turn(0.1)
        try:
            came += os.read(reader, 1 << 20)
        except BlockingIOError:
            pass
    assert came == data and room.done and os.get_blocking(writer)
    os.close(reader)
    outlet.write(b"x")
    loop.turn(0.1)
    assert isinstance(outlet.error, BrokenPipeError) and outlet.write(b"y") is False
    outlet.close()
    os.close(writer)


def test_stdout_and_stderr_are_one_place_where_they_lead_to_one(tmp_path):
    reader, writer = os.pipe()
    other = os.dup(writer)
    assert same_place(writer, other) and not same_place(reader, 0)
    for fd in (reader, writer, other):
        os.close(fd)


def test_a_terminal_is_raw_between_start_and_stop_and_its_flags_are_never_touched(loop):
    near, far = pty.openpty()
    before = termios.tcgetattr(far)
    keys = []
    passthrough = Passthrough(loop, far, keys.append)
    passthrough.start()
    assert not termios.tcgetattr(far)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    assert os.get_blocking(far)
    os.write(near, b"\x03\x1d\r")
    while b"".join(keys) != b"\x03\x1d\r":
        loop.turn(1.0)
    passthrough.stop()
    passthrough.stop()
    assert termios.tcgetattr(far) == before
    os.close(near)
    os.close(far)


def test_a_pipe_or_an_empty_file_ends_with_nothing_once(loop):
    reader, writer = os.pipe()
    keys = []
    passthrough = Passthrough(loop, reader, keys.append)
    passthrough.start()
    os.write(writer, b"abc")
    os.close(writer)
    while keys[-1:] != [b""]:
        loop.turn(1.0)
    loop.turn(0.01)
    assert keys == [b"abc", b""]
    passthrough.stop()
    os.close(reader)
    with open(os.devnull) as null:
        keys.clear()
        passthrough = Passthrough(loop, null.fileno(), keys.append)
        passthrough.start()
        for _ in range(3):
            loop.turn(0.01)
        assert keys == [b""]
        passthrough.stop()
