"""Tasks and `map` between real processes: who works, what becomes of the dead's pieces, what the author is told."""

import os
import signal
import subprocess
import sys

import pytest

from tests.nodes import PROGRAM

START = """
import p2p, os, sys, time
app = p2p.attach()
def say(*words):
    print(*words, flush=True)
"""


@pytest.mark.parametrize("room", [3], indirect=True)
def test_a_map_is_done_by_all_nodes_in_order_with_arguments_and_results_of_all_kinds(room):
    room.start(START + """
@app.task(workers=2)
def square(number, more=0):
    return {"is": number * number + more, "at": os.getpid(), "parent": os.getppid()}
@app.task
def shout(text):
    return text.upper().encode()
if app.is_host:
    results = list(app.map(square, ((number, 1) for number in range(300))))
    assert [item for item, _ in results] == [(number, 1) for number in range(300)]
    assert [result["is"] for _, result in results] == [number * number + 1 for number in range(300)]
    say("processes", len({result["at"] for _, result in results}), "nodes", len({result["parent"] for _, result in results}))
    assert os.getpid() not in {result["at"] for _, result in results}
    say(list(app.map(shout, ["a", "b"])), list(app.map(square, [])), sorted(dict(app.map(square, [3, 2, 1], in_order=False))))
    app.end()
app.run()
""")
    room.until(lambda: room.job(0).exit is not None)
    assert "[('a', b'A'), ('b', b'B')] [] [1, 2, 3]" in room.output(0)
    assert "nodes 3" in room.output(0) and room.job(0).exit == 0


def test_the_documents_example_runs_as_it_is_written(room):
    section = (PROGRAM.parent / "docs" / "applications.md").read_text("utf-8").split("## Many hands")[1]
    source = section.split("```python\n")[1].split("```")[0]
    assert "10**12 + 1000" in source
    session = room.start(source.replace("10**12 + 1000", "10**12 + 70"))
    assert room.wait(session) == 0
    assert room.output(0).split() == ["1000000000039", "1000000000061", "1000000000063"]


def test_pieces_of_the_dead_are_done_by_others_and_processes_end_with_their_instance(room):
    room.start(START + """
@app.task(workers=1)
def slow(number):
    with open("pid.new", "w") as file:
        file.write(str(os.getpid()))
    os.replace("pid.new", "pid")
    time.sleep(0.05)
    return [number, os.getppid()]
if app.is_host:
    seen = {}
    for number, (same, parent) in app.map(slow, range(40)):
        assert number == same
        seen.setdefault(parent, []).append(number)
        if len(seen) == 2 and len(seen[parent]) == 3 and "told" not in seen:
            say("both work")
            seen["told"] = 1
    say("done", sum(len(one) for key, one in seen.items() if key != "told"))
    app.end()
app.run()
""")
    room.says(0, "both work")
    worker = int(next((room.folder / "bob").rglob("pid")).read_text())
    os.kill(room.job(1).pid, signal.SIGKILL)
    room.says(0, "done 40")
    room.until(lambda: not os.path.exists(f"/proc/{worker}") or "Z" in open(f"/proc/{worker}/stat").read(), what="the worker's end")


def test_a_task_that_raises_or_ends_its_process_is_told_with_its_item_and_its_traceback(room):
    room.start(START + """
@app.task(workers=1)
def check(number):
    if number == 3:
        raise KeyError("no three")
    if number == 4:
        os._exit(7)
    if number == 5:
        return {1, 2}
    if number == 6:
        print("printed by a task")
    return number
if app.is_host:
    for wanted in (3, 4, 5):
        got = []
        try:
            for item, result in app.map(check, [1, 2, wanted, 6]):
                got.append(result)
        except p2p.TaskFailed as error:
            say("told", got, error.item, "|", error, "|", "in check" in error.reason)
    say(list(app.map(check, [6, 7])))
    for wrong in (lambda: list(app.map(print, [1])), lambda: list(app.map(check, [{1}])), lambda: list(app.map(check, [bytes(2 << 20)]))):
        try:
            wrong()
        except (ValueError, TypeError) as error:
            say("wrong", error)
    app.end()
app.run()
""")
    room.until(lambda: room.job(0).exit is not None)
    lines = room.output(0)
    assert "told [1, 2] 3 | check(3) failed: KeyError: 'no three' | True" in lines
    assert "told [1, 2] 4 | check(4) failed: 3 processes that worked at it have ended without a result | False" in lines
    assert "told [1, 2] 5 | check(5) failed: TypeError: cannot carry set" in lines
    assert "[(6, 6), (7, 7)]" in lines and "printed by a task" in lines + room.output(1)
    assert "wrong app.map wants one of this program's tasks: put @app.task above print" in lines
    assert "wrong app.map: the item {1}: cannot carry set" in lines and "bytes, a message takes at most 1048576" in lines


def test_who_comes_late_gets_work_and_a_map_may_be_given_up(room):
    room.start("""
import p2p, p2p.child, os, time
while p2p.child.bootstrap and p2p.child.bootstrap["me"] != p2p.child.bootstrap["host"] and not os.path.exists("go"):
    time.sleep(0.05)
app = p2p.attach(wait=0)
def say(*words):
    print(*words, flush=True)
@app.task(workers=1)
def slow(number):
    time.sleep(0.02)
    return os.getppid()
def endless():
    number = 0
    while True:
        yield number
        number += 1
if app.is_host:
    say("mapping")
    parents = set()
    for number, parent in app.map(slow, endless()):
        parents.add(parent)
        if len(parents) == 2:
            break
    say("both", list(app.map(slow, [1])) != [])
    app.end()
app.run()
""")
    room.says(0, "mapping")
    (room.folder / "bob" / "data" / "app" / "go").touch()
    room.says(0, "both True")
    room.until(lambda: room.job(0).exit == 0)


def test_a_program_that_cannot_be_loaded_in_a_worker_is_told(room):
    room.start(START + """
import builtins
if os.environ.get("WORKS") is None and "--worker" in open("/proc/self/cmdline").read():
    raise RuntimeError("not here")
@app.task(workers=1)
def one(number):
    return number
if app.is_host:
    try:
        list(app.map(one, [1]))
    except p2p.TaskFailed as error:
        say("told", error)
    app.end()
app.run()
""")
    room.says(0, "told one(1) failed: RuntimeError: not here")


def test_who_gives_more_tasks_than_can_be_worked_at_is_dropped_before_it_fills_the_memory(room):
    room.start(START + """
from p2p import proto
from p2p.crew import AHEAD
@app.task(workers=1)
def slow(number):
    time.sleep(60)
if app.is_host:
    link = next(iter(app._instance.links))
    for number in range(AHEAD + 2):                  # one is worked at
        link.send(proto.TASK, number=number, name="slow", item=b"i" + bytes(8))
    say("sent")
    for event in app:
        if isinstance(event, p2p.Leave):
            say("dropped")
for event in app:
    if isinstance(event, p2p.Leave):
        say("left", len(app._instance.farming._crew._waiting))
""")
    room.says(0, "dropped")
    room.says(1, "left 0")


def test_the_workers_mode_is_not_for_people():
    for word in ("x", "99", "-1", "999999999999999999999"):
        done = subprocess.run([sys.executable, str(PROGRAM), "--worker", word], stderr=subprocess.PIPE, universal_newlines=True)
        assert done.returncode == 2 and done.stderr.startswith("p2pframe: this mode is for") and done.stderr.count("\n") == 1
