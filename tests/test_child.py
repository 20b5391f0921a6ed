"""The process in which an application runs, before and after the author's code."""

import os
import subprocess
import sys

import pytest

import p2p
from tests.nodes import PROGRAM
from tests.room import Room


@pytest.mark.parametrize("word", ["", "x", "-1", "99999", "1", "9" * 30])
def test_whoever_starts_this_mode_by_hand_gets_one_line(word):
    done = subprocess.run([sys.executable, "-I", "-B", str(PROGRAM), "--instance", word], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"run NAME" in done.stderr, done.stderr


def test_a_program_that_no_root_started_is_told_what_to_do(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import p2p; p2p.attach('chat')"], cwd=PROGRAM.parent,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    assert done.returncode == 1 and done.stderr.startswith(b"chat is an application") and done.stderr.count(b"\n") == 1


def test_importing_p2p_costs_next_to_nothing_and_every_public_name_is_there():
    done = subprocess.run([sys.executable, "-S", "-E", "-c", "import sys; before = set(sys.modules); import p2p; "
                           "print(*sorted(set(sys.modules) - before))"], cwd=PROGRAM.parent, stdout=subprocess.PIPE, timeout=20)
    assert done.stdout.split() == [b"p2p"]
    for name in p2p.__all__:
        assert getattr(p2p, name) is not None
    with pytest.raises(AttributeError):
        p2p.nonsense  # noqa: B018


def test_ctrl_c_ends_an_application_without_a_word_of_the_framework(tmp_path):
    room = Room(tmp_path, 2)
    try:
        session = room.start("""
import p2p
for event in p2p.attach():
    print(type(event).__name__, flush=True)
""")
        for node in (0, 1):
            room.says(node, "Join")
        room.job(0).write(b"\x03")
        room.says(1, "Leave")
        room.until(lambda: room.job(0).state == "exited")
        assert room.job(0).exit == 130 and "p2p" not in room.output(0) and "Traceback" not in room.output(0)
        room.job(1).write(b"\x03")
        assert room.wait(session) == 1
    finally:
        room.close()


def test_an_error_in_the_program_lets_out_what_it_had_sent_and_says_goodbye(tmp_path):
    room = Room(tmp_path, 2)
    try:
        session = room.start("""
import p2p
class Say(p2p.Message):
    text: str
app = p2p.attach()
if app.is_host:
    app.broadcast(Say("last words"))
    raise ValueError("of the author")
print(app.wait(Say).text, app.wait(p2p.Leave).sender.name, flush=True)
""")
        assert room.wait(session) == 1
        assert "last words ann" in room.output(1) and "ValueError: of the author" in room.output(0)
        assert "p2p/" not in room.output(0).replace(os.sep, "/")
    finally:
        room.close()
