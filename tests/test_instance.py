"""Links among instances, and what is promised about messages on them: real processes on nodes of this computer."""

import pytest


START = """
import p2p, p2p.app, p2p.instance, sys, time
from p2p import limits
class Piece(p2p.Message):
    number: int
    data: bytes = b""
class Never(p2p.Message):
    pass
def say(*words):
    print(*words, flush=True)
def numbers_until_leave(app, pause=0):
    got = []
    for event in app:
        if isinstance(event, Piece):
            got.append(event.number)
            time.sleep(pause)
        elif isinstance(event, p2p.Leave):
            break
    return got
"""
DELIVERED = """
app = p2p.attach()
if app.is_host:
    HOST
    got = numbers_until_leave(app)
    say("got", got == list(range(COUNT)), len(got))
else:
    for number in range(COUNT):
        app.broadcast(Piece(number, bytes(SIZE)))
    END
"""


def running(room):
    room.until(lambda: all(job.state == "running" for node in room.nodes for job in node.launcher.jobs), what="the instances")


@pytest.mark.parametrize("room", [3], indirect=True)
def test_nothing_is_lost_or_said_twice_when_both_ends_dial_at_the_same_time(room):
    for _ in range(3):
        session = room.start(START + """
p2p.instance.SECOND_DIALLER = 0
app = p2p.attach()
got = {}
for event in app:
    if isinstance(event, p2p.Join):
        got[event.sender] = []
        for number in range(200):
            app.send(event.sender, Piece(number))
    elif isinstance(event, Piece):
        got[event.sender].append(event.number)
        if len(got) == 2 and all(numbers == list(range(200)) for numbers in got.values()):
            say("complete")
    elif isinstance(event, p2p.Leave):
        say("left")
    elif isinstance(event, p2p.Line):
        app.end()
""")
        for node in range(3):
            room.says(node, "complete", 8.0)
        assert not any("left" in room.output(node) for node in range(3))
        room.job(1).write(b"end\n")
        assert room.wait(session) == 0


def test_a_program_that_is_busy_beyond_every_deadline_is_not_dead_and_its_sender_waits_in_bounded_memory(room):
    room.start(START + """
import resource
limits.FRAME_DEADLINE = 0.5
app = p2p.attach()
if not app.is_host:
    time.sleep(2)
    for number in range(8):                  # more than the kernel takes: the last frame stays cut
        app.broadcast(Piece(number, bytes(1000000)))
    time.sleep(2)
else:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(60):
        app.broadcast(Piece(number, bytes(1000000)))
    say("grown", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, "MiB")
got = []
for event in app:
    if isinstance(event, Piece):
        got.append(event.number)
        if got == list(range(8 if app.is_host else 60)):
            say("complete")
    elif isinstance(event, p2p.Leave):
        say("left")
""")
    room.says(1, "complete")
    room.says(0, "complete")
    assert "left" not in room.output(0) + room.output(1)
    assert int(room.output(0).split("grown ")[1].split()[0]) < 40


def test_two_programs_that_both_send_before_they_look_do_not_wait_for_each_other(room):
    room.start(START + """
app = p2p.attach()
for number in range(60):
    app.broadcast(Piece(number, bytes(1000000)))
for wanted in range(60):
    assert app.wait(Piece).number == wanted
say("complete")
app.wait(Never)
""")
    room.says(0, "complete")
    room.says(1, "complete")


def test_a_program_that_does_not_look_takes_bounded_memory_and_whoever_waits_in_vain_for_one_thing_is_told(room):
    room.start(START + """
p2p.instance.UNREAD = 2 << 20
app = p2p.attach()
if app.is_host:
    for number in range(40):
        app.broadcast(Piece(number, bytes(500000)))
    app.wait(Never)
else:
    while not app._instance.is_full:
        app._turn(1)
    for call in (lambda: app.wait(Never), lambda: app.request(app.host, Never())):
        try:
            call()
        except p2p.app.UserError as error:
            say(error.code)
    app.send(app.host, Piece(0))                # sending does not make it read on
    app._turn(0.2)
    say("waiting", app._events.size < 4 << 20)
    say("complete", [app.wait(Piece).number for _ in range(40)] == list(range(40)))
    app.wait(Never)
""")
    room.says(1, "full\nfull\nwaiting True\ncomplete True")


def test_two_programs_that_send_without_end_and_never_look_are_told_and_do_not_wait_for_ever(room):
    room.start(START + """
p2p.instance.UNREAD = 2 << 20
p2p.app.STUCK = 0.5
app = p2p.attach()
sent = 0
try:
    while True:
        app.broadcast(Piece(sent, bytes(500000)))
        sent += 1
except p2p.app.UserError as error:
    say("told", error.code)
got = 0
while got < 10:
    app.wait(Piece)
    got += 1
say("read on")
app.wait(Never)
""")
    room.until(lambda: any("told full" in room.output(node) for node in (0, 1)), what="an error instead of a deadlock")
    room.says(0 if "told full" in room.output(0) else 1, "read on")


@pytest.mark.parametrize("host, count, size, end", [
    ("time.sleep(2)", 10, 1_000_000, "app.quit()"),                                      # a reader that is busy when its peer quits
    ("[app.broadcast(Piece(0)) or time.sleep(0.1) for _ in range(20)]", 50, 60_000, ""),  # one that writes to who has come to its end
])
def test_what_was_sent_before_a_program_ends_is_delivered_to_a_busy_peer(room, host, count, size, end):
    room.start(START + DELIVERED.replace("HOST", host).replace("COUNT", str(count)).replace("SIZE", str(size)).replace("END", end))
    room.says(0, f"got True {count}")


def test_a_program_that_works_through_a_long_queue_still_moves_the_network(room):
    room.start(START + """
app = p2p.attach()
if app.is_host:
    numbers_until_leave(app, 0.05)
for number in range(60):
    app.broadcast(Piece(number))
app._turn_until(lambda: False, 0.3)
began = time.monotonic()
app._deliver()
say("read after", time.monotonic() - began, "s")
app.wait(Never)
""")
    room.says(1, " s\n")
    assert float(room.output(1).split()[2]) < 0.7


def test_a_program_ends_at_once_though_its_inbox_is_full(room):
    room.start(START + """
p2p.instance.UNREAD = 2 << 20
app = p2p.attach()
if app.is_host:
    for number in range(40):
        app.broadcast(Piece(number, bytes(500000)))
    app.wait(Never)
while not app._instance.is_full:
    app._turn(1)
app.broadcast(Piece(0))
say("full")
""")
    room.says(1, "full")
    room.until(lambda: room.job(1).exit == 0, 2.0, "the end")


def test_what_a_peer_said_is_delivered_though_it_is_dead_and_cannot_be_written_to_any_more(room):
    room.start(START + """
app = p2p.attach()
peer = app.peers[0]
if app.is_host:
    app.wait(Piece)
    while app._instance.link(peer)._write_error is None:       # no turn of the loop: as a program that only sends
        app._instance.link(peer).send(p2p.app.DATA, schema=1, fields=b"x")
        app._loop.flush()
    say("got", numbers_until_leave(app))
else:
    app.send(peer, Piece(0))
    time.sleep(0.3)
    for number in range(5):
        app.send(peer, Piece(number))
    import os
    os._exit(0)
""")
    room.says(0, "got [0, 1, 2, 3, 4]")


def test_a_slow_reader_hears_all_that_a_peer_said_that_has_exited_long_ago(room):
    session = room.start(START + """
app = p2p.attach()
if app.is_host:
    got = numbers_until_leave(app, 0.15)
    say("got", got)
else:
    app._deliver()                   # a process that dies with something unread takes what it has sent along
    for number in range(12):
        app.broadcast(Piece(number, bytes(100000)))
    link = app._instance.link(app.host)
    app._turn_until(lambda: not link.queued)
    import os
    os._exit(0)
""")
    assert room.wait(session) == 0 and "got [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]" in room.output(0)


def test_a_peer_whose_root_says_nothing_has_left_when_its_port_refuses(room):
    room.nodes[1].launcher.jobs._on_end = lambda job: None
    room.start("import p2p\nfor event in p2p.attach():\n    print(type(event).__name__, flush=True)\n")
    for node in (0, 1):
        room.says(node, "Join")
    room.job(1).process.signal(9)
    room.says(0, "Leave", 1.0)


def test_a_wire_that_breaks_is_nobodys_leave_and_who_sends_waits_for_the_next(room):
    room.start(START + """
app = p2p.attach()
for event in app:
    if isinstance(event, p2p.Line):
        link = app._instance.link(app.peers[0])
        link.channel._sock.shutdown(2)
        app._turn_until(lambda: not link.is_open)        # one turn may only bring what came before the end
        app.broadcast(Piece(7))
    elif not isinstance(event, p2p.Join):
        say(type(event).__name__, getattr(event, "number", ""))
""")
    running(room)
    for node in (0, 1):
        for time in (1, 2, 3):
            room.job(node).write(b"cut\n")
            room.until(lambda: room.output(1 - node).count("Piece 7") == time, what="the message on the new wire")
    assert "Leave" not in room.output(0) + room.output(1)


def test_who_is_dropped_for_what_it_sent_sees_the_other_leave(room):
    room.start(START + """
app = p2p.attach()
if not app.is_host:
    app._instance.link(app.peers[0]).send(p2p.app.DATA, schema=Piece.schema_id, fields=b"too short")
for event in app:
    say(type(event).__name__, app.peers)
""")
    for node in (0, 1):
        room.says(node, "Leave []")


def test_an_instance_alone_has_told_its_root_when_attach_returns_and_can_end_at_once(room):
    session = room.start("import p2p, time\napp = p2p.attach()\ntime.sleep(600)\n", others=False)
    room.until(lambda: room.job(0).state == "running", 5.0)
    room.nodes[0].launcher.kill(room.job(0).number)
    room.wait(session)
    began = room.loop.now()
    session = room.start("import p2p\napp = p2p.attach()\napp.end()\nfor event in app:\n    pass\n", others=False)
    assert room.wait(session) == 0 and room.loop.now() - began < 2.0


def test_without_its_root_the_session_ends_here_and_the_program_by_itself(room):
    session = room.start("import p2p\nfor event in p2p.attach():\n    pass\nprint('over', flush=True)\n", others=False)
    running(room)
    room.nodes[0].launcher.guardian.connections[room.job(0)].abort()
    assert room.wait(session) == 0 and "over" in room.output(0)


def test_another_class_of_the_same_name_cannot_write_on_the_screen(room):
    room.start(START + """
import p2p.child, p2p.message
if p2p.child.bootstrap["me"] == p2p.child.bootstrap["host"]:
    Piece.schema_text = "Piece(\\x1b[2Jevil: int)"
    p2p.message._classes[1] = p2p.message._classes.pop(Piece.schema_id)
app = p2p.attach()
app.wait(Never)
""")
    room.says(1, "different versions")
    assert "evil" in room.output(1) and "\x1b" not in room.output(1)
