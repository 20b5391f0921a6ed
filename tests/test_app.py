"""The application's interface, between real processes on two or three nodes of this computer (all roots in this one)."""

import json
import os
import signal

import pytest

from tests.room import NAMES, Room


@pytest.mark.parametrize("room", [3], indirect=True)
def test_everybody_joins_exactly_once_before_its_first_message_and_leaves_once_after_its_last(room):
    session = room.start("""
import p2p
class Say(p2p.Message):
    text: str
app = p2p.attach()
print("roster", sorted(peer.name for peer in app.peers), app.host.name, app.is_host, flush=True)
for number in range(100):
    app.broadcast(Say(f"{number}"))
heard, seen = {}, []
for event in app:
    if isinstance(event, p2p.Join):
        assert event.sender not in seen
        seen.append(event.sender)
        heard[event.sender] = []
    elif isinstance(event, Say):
        heard[event.sender].append(int(event.text))
    elif isinstance(event, p2p.Leave):
        assert heard.pop(event.sender) == list(range(100))
        print("left", event.sender.name, flush=True)
    elif isinstance(event, p2p.Line):
        app.quit(3)
    if heard and all(len(numbers) == 100 for numbers in heard.values()) and len(heard) == 2:
        print("all heard", flush=True)
""")
    for node in range(3):
        room.says(node, "all heard")
    assert "roster ['bob', 'eve'] ann True" in room.output(0) and "roster ['ann', 'bob'] ann False" in room.output(2)
    room.job(2).write(b"go\n")
    room.says(0, "left eve")
    room.says(1, "left eve")
    os.kill(room.job(1).pid, signal.SIGKILL)
    room.says(0, "left bob", 5.0)
    room.job(0).write(b"go\n")
    assert room.wait(session) == 1
    assert [member["exit"] for member in room.nodes[0].launcher.run_row(session)["nodes"]] == [3, -signal.SIGKILL, 3]


def test_requests_are_answered_by_callbacks_and_fail_by_name(room):
    room.start("""
import p2p, time
class Ask(p2p.Message):
    question: str
class Answer(p2p.Message):
    text: str
app = p2p.attach()
inside = []
@app.on(Ask)
def answer(event):
    assert not inside, "a handler was entered from inside another"
    inside.append(event)
    if event.question == "slow":
        time.sleep(1)
    if event.question == "back":
        reply = app.request(event.sender, Ask("inner"), timeout=5) if app.is_host else None
        print("back", reply, flush=True)
    if event.question == "die":
        import os
        os.kill(os.getpid(), 9)
    inside.clear()
    return Answer(event.question.upper())
@app.on(p2p.Line)
def typed(line):
    peer = app.peers[0]
    try:
        print("got", app.request(peer, Ask(line.text), timeout=0.5 if line.text == "slow" else 5).text, flush=True)
    except (p2p.Gone, p2p.Timeout) as error:
        print(type(error).__name__, error, flush=True)
app.run()
""")
    room.until(lambda: all(job.state == "running" for node in room.nodes for job in node.launcher.jobs))
    for typed, expected in ((b"hello", "got HELLO"), (b"slow", "Timeout bob did not answer Ask in 0.5 s"), (b"again", "got AGAIN"),
                            (b"die", "Gone bob is gone")):
        room.job(0).write(typed + b"\n")
        room.says(0, expected)


def test_end_delivers_what_was_sent_before_and_every_program_exits_by_itself(room):
    session = room.start("""
import p2p
class Piece(p2p.Message):
    number: int
    data: bytes
app = p2p.attach()
if app.is_host:
    for number in range(300):
        app.broadcast(Piece(number, bytes(10000)))
    app.end()
    print("ended", flush=True)
    for event in app:
        pass
else:
    got = [event.number for event in app if isinstance(event, Piece)]
    print("complete", got == list(range(300)), flush=True)
""")
    assert room.wait(session) == 0
    assert "complete True" in room.output(1) and "ended" in room.output(0)


def test_a_participant_may_ask_for_the_end_and_the_host_ends_it_for_all(room):
    session = room.start("""
import p2p
app = p2p.attach()
if not app.is_host:
    app.end()
for event in app:
    pass
print("over", flush=True)
""")
    assert room.wait(session) == 0
    assert "over" in room.output(0) and "over" in room.output(1)


def test_a_program_that_does_not_stop_after_the_end_is_stopped(room):
    session = room.start("""
import p2p, time, signal
app = p2p.attach()
if app.is_host:
    app.end()
else:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(600)
""")
    assert room.wait(session) == 1
    assert room.job(1).exit == -signal.SIGKILL


def test_a_busy_program_is_not_taken_for_dead(room):
    room.start("""
import p2p, time
class Say(p2p.Message):
    text: str
app = p2p.attach()
for event in app:
    if isinstance(event, p2p.Line):
        app.broadcast(Say(event.text))
    elif isinstance(event, Say):
        print("busy", flush=True)
        time.sleep(2.5)
        app.broadcast(Say("after"))
        break
    elif isinstance(event, p2p.Leave):
        print("left", flush=True)
for event in app:
    if isinstance(event, (Say, p2p.Leave)):
        print(type(event).__name__, flush=True)
""")
    room.until(lambda: all(job.state == "running" for node in room.nodes for job in node.launcher.jobs))
    room.job(0).write(b"work\n")
    room.says(1, "busy")
    room.says(0, "busy", 10.0)
    assert "left" not in room.output(0)


def test_other_versions_of_a_class_are_told_at_once_and_do_not_break_anything(room):
    room.start("""
import p2p
fields = {"text": str} if p2p.child.bootstrap["me"] == p2p.child.bootstrap["host"] else {"text": str, "size": int}
Say = type("Say", (p2p.Message,), {"__annotations__": fields})
app = p2p.attach()
app.broadcast(Say(*["x", 1][:len(fields)]))
for event in app:
    print(event, flush=True)
""".replace("import p2p\n", "import p2p, p2p.child\n", 1))
    for node in (0, 1):
        room.says(node, "different versions")
    assert all("Traceback" not in room.output(node) for node in (0, 1))


def test_the_networks_table_and_the_places_of_an_application_are_there(room):
    session = room.start("""
import json, os, p2p, sys
app = p2p.attach()
print(json.dumps({"nodes": sorted(node.name for node in app.nodes()), "args": app.args, "argv": sys.argv[1:],
                  "cwd": os.getcwd() == os.path.realpath(app.data), "files": sorted(os.listdir(app.dir)), "me": app.me.name}), flush=True)
""", "one", "two words", "--flag=ü")
    assert room.wait(session) == 0
    for node in (0, 1):
        told = json.loads(room.output(node).splitlines()[0])
        assert told == {"nodes": ["ann", "bob"], "args": ["one", "two words", "--flag=ü"], "argv": ["one", "two words", "--flag=ü"],
                        "cwd": True, "files": ["main.py"], "me": NAMES[node]}


@pytest.mark.parametrize("source, code, shown", [
    ("import sys; sys.exit(7)", 7, ""),
    ("raise SystemExit('it is no use')", 1, "it is no use"),
    ("def f():\n    return 1 / 0\nf()", 1, "ZeroDivisionError"),
    ("print('x'", 1, "SyntaxError"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
    ("import p2p\nclass Bad(p2p.Message):\n    field: complex", 1, "TypeError"),
])
def test_every_end_of_a_program_is_an_exit_code_and_shows_the_authors_own_file(room, source, code, shown):
    session = room.start(source, others=False)
    assert room.wait(session) == 1
    assert room.job(0).exit == code and shown in room.output(0)
    assert "p2p/child.py" not in room.output(0)


def test_an_application_that_never_attaches_runs_and_ends_like_any_other(room):
    session = room.start("print(input('your name? '))")
    for node in (0, 1):
        room.says(node, "your name?")
        room.job(node).write(b"zoe\n")
        room.says(node, "zoe\nzoe")
    assert room.wait(session) == 0


def test_the_installed_version_stays_exactly_as_shared(room):
    session = room.start("import helper\nprint(helper.VALUE)", others=False)
    folder = room.folder / "app"
    assert room.wait(session) == 1 and "No module named 'helper'" in room.output(0)
    (folder / "helper.py").write_text("VALUE = 5\n")
    session = room.start("import helper\nprint(helper.VALUE)")
    assert room.wait(session) == 0 and "5" in room.output(1)
    for node in room.nodes:
        installed = node.offers.store.folder("app", session.version)
        assert sorted(os.listdir(installed)) == ["helper.py", "main.py"]


def test_nothing_secret_stands_in_arguments_or_environment(room):
    session = room.start("import os, sys, time\nprint(open('/proc/self/cmdline').read(), open('/proc/self/environ').read(), flush=True)\n"
                         if os.path.exists("/proc/self/environ") else "import os, sys\nprint(sys.argv, os.environ)\n", others=False)
    assert room.wait(session) == 0
    shown = room.output(0)
    assert session.token.hex() not in shown and room.nodes[0].publisher.name not in shown


def test_a_stranger_and_a_wrong_token_are_refused_at_the_instances_port(room):
    room.start("import p2p\nfor event in p2p.attach():\n    pass\n")
    room.until(lambda: all(job.state == "running" for node in room.nodes for job in node.launcher.jobs))
    from p2p import proto
    from p2p.client import Client
    from p2p.dispatch import Dispatch
    ann, bob = room.nodes
    outcome = []

    class Intruder:
        dispatch = Dispatch()

        def greeting(self, connection):
            return {"role": proto.INSTANCE, "name": "x", "version": "", "nonce": 1, "port": 0, "abilities": 0, "networks": [],
                    "addresses": [],
                    "view": 0, "session": next(iter(ann.launcher.jobs)).session.number, "token": b"guess"}

        def connection_ready(self, connection):
            outcome.append("hello")

        def connection_lost(self, connection, error):
            outcome.append("refused")
    client = Client(room.loop, bob.networks, Intruder())
    for port in (room.job(0).port, ann.port):
        outcome.clear()
        future = client.dial([("127.0.0.1", port)], bob.networks.tags[0])
        room.until(lambda: future.done and "refused" in outcome)
    client.close()


def test_what_has_a_name_of_the_frameworks_own_and_who_does_not_answer_are_no_trouble(room):
    room.start("""
import p2p, time
class Ask(p2p.Message):
    request: str
class Answer(p2p.Message):
    request: str
class Unheard(p2p.Message):
    pass
class Quit(p2p.Message):
    pass
app = p2p.attach()
@app.on(Ask)
def answer(event):
    return Answer(event.request + event.sender.name)
@app.on(Quit)
def leave(event):
    app.quit()
@app.on(p2p.Line)
def typed(line):
    peer = app.peers[0]
    print(app.request(peer, Ask("you are ")).request)
    began = time.monotonic()
    for to, message in (peer, Unheard()), (app.me, Ask("")), (peer, Quit()):
        try:
            app.request(to, message, timeout=30)
        except (p2p.app.UserError, ValueError) as error:
            print(type(error).__name__, error)
    print(app.peers, time.monotonic() - began < 10)
    app.send(app.me, Ask("to myself"))
    print(app.wait(Ask, sender=app.me).request)
    print("done", flush=True)
app.run()
""")
    room.until(lambda: all(job.state == "running" for node in room.nodes for job in node.launcher.jobs))
    room.job(0).write(b"go\n")
    room.says(0, "done")
    assert room.output(0).split("go\n")[1].splitlines() == [
        "you are ann", "UserError bob did not answer Unheard: it has no handler for Unheard",
        "ValueError Ask: a request to oneself would wait for ever", "Gone bob is gone", "[] True", "to myself", "done"]


@pytest.mark.parametrize("room", [3], indirect=True)
def test_waiting_for_one_thing_leaves_the_others_in_their_order_and_ends_when_it_cannot_come(room):
    session = room.start("""
import p2p
class Say(p2p.Message):
    text: str
app = p2p.attach()
name = app.me.name
if not app.is_host:
    for number in range(3):
        app.broadcast(Say(f"{name} {number}"))
    if name == "bob":
        app.wait(p2p.Line)
        app.quit()
    for event in app:
        pass
    raise SystemExit
bob, eve = sorted(app.peers, key=lambda peer: peer.name)
print([app.wait(Say, sender=eve).text for _ in range(3)])
try:
    app.wait(Say, sender=eve, timeout=0.1)
except p2p.Timeout as error:
    print("timeout:", error, flush=True)
print("typed", app.wait(p2p.Line).text, flush=True)
try:
    print([app.wait(Say, sender=bob).text for _ in range(3)], flush=True)
    app.wait(Say, sender=bob)
except p2p.Gone as error:
    print("gone:", error)
print([type(event).__name__ + " " + event.sender.name for event in iter(app.poll, None)])
app.end()
try:
    app.wait(Say)
except p2p.Gone as error:
    print("gone:", error, app.has_ended, flush=True)
""")
    room.says(0, "timeout:")
    room.job(0).write(b"x\n")
    room.says(0, "'bob 2'")
    room.job(1).write(b"x\n")
    assert room.wait(session) == 0
    lines = room.output(0).splitlines()
    assert "['eve 0', 'eve 1', 'eve 2']" in lines and "timeout: no Say in 0.1 s" in lines and "typed x" in lines
    assert "gone: bob is gone" in lines and "gone: the session has ended True" in lines
    left = next(line for line in lines if "Leave" in line)
    assert sorted(left.strip("[]").replace("'", "").split(", ")) == ["Join bob", "Join eve", "Leave bob"] and left.endswith("'Leave bob']")


def test_who_is_killed_has_left_for_the_others_in_less_than_a_second(room):
    room.start("import p2p\nfor event in p2p.attach():\n    print(type(event).__name__, flush=True)\n")
    for node in (0, 1):
        room.says(node, "Join")
    os.kill(room.job(1).pid, signal.SIGKILL)
    room.says(0, "Leave", 1.0)


def test_what_is_printed_can_do_nothing_to_the_terminal_unless_the_program_wants_it(room):
    room.start(r"""
import p2p
app = p2p.attach()
app.print("a\x1b[31mb", 5, "tab\tline\r\nnext\u202eevil\u00a0z\x07", "\ud800")
app.print("\x1b[1mbold\x1b[m", raw=True)
app.print()
print("done", flush=True)
""", others=False)
    room.says(0, "done")
    assert room.output(0) == "a\ufffd[31mb 5 tab\tline\nnext\ufffdevil z\ufffd \ufffd\n\x1b[1mbold\x1b[m\n\ndone\n"


def test_two_peers_of_one_name_are_told_apart_and_no_name_can_write_on_the_screen(tmp_path):
    room = Room(tmp_path, 3, ["ann", "b\x1b[2Job", "b\x1b[2Job"])
    try:
        room.start("import p2p\napp = p2p.attach()\nprint(sorted(p.name for p in app.peers), flush=True)\napp.wait(p2p.Eof)\n")
        room.until(lambda: "]\n" in room.output(0), what="the names")
        one, two = json.loads(room.output(0).replace("'", '"'))
        assert one != two and one == "b\ufffd[2Job" and two.startswith("b\ufffd[2Job@") and two.endswith("(NOT the known one)")
    finally:
        room.close()
