"""The bundled applications, between real processes on three nodes: what a person sees and gets."""

import os
import signal
from pathlib import Path

import pytest


pytestmark = pytest.mark.parametrize("room", [3], indirect=True)
APPS = Path(__file__).resolve().parent.parent / "apps"


def start(room, name, *arguments):
    return room.start((APPS / name / "main.py").read_text("utf-8"), *arguments)


def ended(room, node=0):
    room.until(lambda: room.job(node).exit is not None, what="the end")
    return room.job(node).exit


def test_exec_shows_what_a_command_prints_everywhere_and_its_worst_exit_code(room):
    start(room, "exec", "sh", "-c", "echo one; echo two; pwd | grep -q /bob/ && exit 3; true")
    assert ended(room) == 3
    output = room.output(0)
    for name in ("ann", "bob", "eve"):
        assert f"{name}| one\n" in output and f"{name}| two\n" in output
    assert "bob: exit code 3\n" in output and "2 of 3: exit code 0\n" in output


def test_exec_kills_what_takes_too_long_and_tells_what_there_is_not(room):
    start(room, "exec", "--timeout", "0.3", "--group", "sh", "-c", "echo begun; sleep 60 & wait")
    assert ended(room) == 124
    assert room.output(0).count("| begun") == 3 and room.output(0).count("the time was up") == 3
    start(room, "exec", "no-such-command")
    assert ended(room) == 127
    assert room.output(0).count("no-such-command: No such file or directory") == 3
    start(room, "exec")
    assert ended(room) == 2 and "a command is missing, such as: uname -a" in room.output(0)


def test_exec_ends_its_command_when_the_host_is_gone_and_passes_everything_on_before(room):
    start(room, "exec", "sh", "-c", "seq 1 20000; echo $$ > pid; sleep 60")
    room.until(lambda: room.output(0).count("| 20000") == 3, what="all lines of all")
    pids = [int((room.folder / name / "data" / "app" / "pid").read_text()) for name in ("bob", "eve")]
    os.kill(room.job(0).pid, signal.SIGKILL)
    for node in (1, 2):
        ended(room, node)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_farm_prints_results_in_order_though_a_node_dies(room):
    (room.folder / "names").write_text("\n".join(f"n{number}" for number in range(60)) + "\n")
    start(room, "farm", "--workers", "1", "--from", str(room.folder / "names"), "sh", "-c", "sleep 0.03; echo did {}")
    room.says(0, "did n5")
    os.kill(room.job(1).pid, signal.SIGKILL)
    assert ended(room) == 0
    assert [line for line in room.output(0).splitlines() if line.startswith("did")] == [f"did n{number}" for number in range(60)]


def test_farm_tells_what_failed_for_which_argument(room):
    start(room, "farm", "sh", "-c", "test {} != b || { echo no {} >&2; exit 4; }; echo {}", ":::", "a", "b", "c")
    assert ended(room) == 1
    assert "a\nc\n" in room.output(0).replace("b: no b\n", "") and "b: no b\n" in room.output(0)
    start(room, "farm", "--python", "sum(range(int(arg)))", ":::", "10", "1000")
    assert ended(room) == 0 and room.output(0).endswith("45\n499500\n")
    start(room, "farm", "--python", "1 / int(arg)", ":::", "1", "0")
    assert ended(room) == 1 and "farm: work(0) failed: ZeroDivisionError: division by zero" in room.output(0)


def test_farm_without_a_command_says_how_it_is_used(room):
    start(room, "farm", ":::", "x")
    assert ended(room) == 2 and "a command is missing" in room.output(0)


def test_netcheck_measures_each_pair_both_ways(room):
    start(room, "netcheck", "--seconds", "0.05")
    assert ended(room) == 0
    rows = [line.split() for line in room.output(0).splitlines() if line[:3] in NAMES]
    assert len(rows) == 6 and all(row.count("ms") == 2 for row in rows[:3]) and all("bit/s" in " ".join(row) for row in rows[3:])
    assert "6 of 6: eve to bob" in room.output(0)


NAMES = ("ann", "bob", "eve")


def test_tictactoe_is_played_by_two_and_watched_by_the_third(room):
    start(room, "tictactoe")
    for node in (1, 2):
        room.says(node, "ann (X) moves.")
        room.job(node).write(b"9\n")
    room.until(lambda: sorted("watching" in room.output(node) for node in (1, 2)) == [False, True], what="the watcher's word")
    other, watcher = (2, 1) if "watching" in room.output(1) else (1, 2)
    room.says(other, "It is not your turn.")
    for turn, (node, square) in enumerate([(0, 1), (other, 4), (0, 2), (other, 5), (0, 3)]):
        room.until(lambda turn=turn, node=node: room.output(node).count("which square?") == turn // 2 + 1, what="the turn")
        room.job(node).write(b"ten\n%d\n" % square)
        room.says(node, "A number of a free square")
    for node in range(3):
        room.says(node, "ann wins.")
        assert "X | X | X" in room.output(node)
    room.job(other).write(b"\n")
    room.until(lambda: room.output(other).count("You are X: which square?") == 1, what="the second game, which the other begins")
    room.job(other).write(b"\x04")
    for node in (0, watcher):
        room.says(node, "The game is over.")


def test_quiz_counts_votes_and_points(room):
    session = start(room, "quiz")
    room.says(1, "ann asks")
    room.job(0).write(b"nonsense\n")
    room.says(0, "two to eight choices")
    room.job(0).write(b"Capital of Peru? | *Lima | Cusco\n")
    for node in (1, 2):
        room.says(node, "b) Cusco")
        room.job(node).write(b"b\n")
    room.says(0, "b) Cusco ############################## 2")
    room.job(1).write(b"a\n")
    room.says(0, "a) Lima  ############################## 1")
    room.job(0).write(b"\n")
    for node in range(3):
        room.says(node, "Right: bob")
    room.job(0).write(b"score\n")
    room.says(2, "1 bob")
    room.job(0).write(b"\x04")
    assert room.wait(session) == 0
