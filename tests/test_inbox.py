"""What the user types or sends in, as events: from a terminal, a pipe, a file, /dev/null, and where nothing is open."""

import os

import pytest

from p2p.inbox import LINES_AHEAD, MAX_LINE, PIECE, Inbox, Input
from p2p.loop import Loop
from p2p.message import Eof, Line
from tests.room import Room

ECHO = """
import p2p
app = p2p.attach()
for event in app:
    print(repr(event), flush=True)
    if isinstance(event, p2p.Eof):
        print("then", app.poll(0.1), flush=True)
        app.quit()
"""
THREE = "Line('one')\nLine('')\nLine('thrée')\nEof()\nthen None"


@pytest.mark.parametrize("how, expected", [
    ('exec "$@" < "$INPUT"', THREE),
    ('cat "$INPUT" | "$@"', THREE),
    ('{ cat "$INPUT"; printf "\\n"; } | "$@"', THREE),
    ('exec "$@" < /dev/null', "Eof()\nthen None"),
    ('exec "$@" <&-', "Eof()\nthen None"),
])
def test_every_kind_of_input_gives_its_lines_and_one_eof(tmp_path, how, expected):
    (tmp_path / "input").write_bytes("one\r\n\nthrée".encode())
    room = Room(tmp_path, 1)
    spawn = room.loop.spawn
    room.loop.spawn = lambda argv, **more: spawn(["/bin/sh", "-c", how.replace("$INPUT", str(tmp_path / "input")), "sh", *argv], **more)
    try:
        session = room.start(ECHO)
        assert room.wait(session) == 0
        assert room.output(0).strip() == expected
    finally:
        room.close()


def test_a_terminal_gives_whole_lines_and_an_eof_for_ctrl_d(tmp_path):
    room = Room(tmp_path, 1)
    try:
        session = room.start(ECHO)
        room.until(lambda: room.job(0).state == "running")
        room.job(0).write("one\r\r".encode())
        room.says(0, "Line('')")
        room.job(0).write("thr\x7fhrée\x04".encode())     # Ctrl-D behind something: it is handed over without a line's end
        room.says(0, "hrée")
        assert "Line('th" not in room.output(0)
        room.job(0).write(b"\x04")
        assert room.wait(session) == 0
        assert "Line('one')" in room.output(0) and room.output(0).endswith("Line('thhrée')\nEof()\nthen None\n")
    finally:
        room.close()


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_input_is_read_only_as_fast_as_the_program_looks(loop, tmp_path):
    lines = [f"{number}" for number in range(20 * LINES_AHEAD)]
    (tmp_path / "many").write_text("\n".join(lines))
    fd = os.open(tmp_path / "many", os.O_RDONLY)
    inbox, got = Inbox(), []
    typed = Input(loop, inbox, fd)
    while not got or not isinstance(got[-1], Eof):
        typed.wanted()
        for _ in range(3):
            loop.turn(0)
        assert len(inbox) <= LINES_AHEAD + PIECE
        got.append(inbox.take())
    assert [event.text for event in got[:-1]] == lines and not inbox and inbox.size == 0
    os.close(fd)


def test_a_line_without_end_comes_in_parts_that_cut_no_character(loop):
    reader, writer = os.pipe()
    inbox = Inbox()
    Input(loop, inbox, reader).wanted()
    text = "xx" + "\N{SNOWMAN}" * (MAX_LINE // 3 * 2)
    data = text.encode()
    while data:
        data = data[os.write(writer, data[:PIECE]):]
        loop.turn(0)
    os.write(writer, b"\xff\xfe\n")
    os.close(writer)
    while inbox.find(Eof) is None:
        loop.turn(0.1)
    parts = [inbox.take().text for _ in range(len(inbox) - 1)]
    assert len(parts) > 1 and "".join(parts) == text + "\N{REPLACEMENT CHARACTER}" * 2
    os.close(reader)


def test_the_first_event_of_a_class_from_a_sender_is_found_and_the_others_keep_their_order():
    inbox = Inbox()
    for text in "abc":
        inbox.put(Line(text), 1)
    inbox.put(Eof())
    assert inbox.take(inbox.find(Eof)) == Eof() and inbox.find(Eof) is None and inbox.find(Line, object()) is None
    assert [inbox.take().text for _ in range(3)] == ["a", "b", "c"] and inbox.size == 0
