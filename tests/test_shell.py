"""The shell at a terminal of its own, and a job's terminal from a one-shot `attach`: seen as a person sees them."""

import json
import signal
import sys
import termios
import time

import pytest

from tests.lab.terminal import Terminal
from tests.nodes import Nodes
from tests.waiting import wait_until

ECHO = """
import os, signal, sys
def size(*_):
    os.write(1, b"size %d %d\\n" % os.get_terminal_size(0))
signal.signal(signal.SIGWINCH, size)
print("\\x1b[?1049h\\x1b[?25l\\x1b[?1000hready", flush=True)
for line in sys.stdin:
    word = line.strip()
    print("got", word, flush=True)
    if word.isdigit():
        sys.exit(int(word))
"""


@pytest.fixture
def nodes(tmp_path):
    made = Nodes(tmp_path)
    made.terminals = []
    yield made
    for terminal in made.terminals:
        terminal.close()
    made.close()


def shell(nodes, name, *options, rows=30, columns=100, **env):
    """A shell with its own root."""
    terminal = Terminal(nodes.argv(name, "--name", name, "--port", nodes.port, *options), rows, columns, nodes.env(**env), nodes.folder)
    nodes.terminals.append(terminal)
    terminal.wait_for(f"{name}> ")
    return terminal


def command(nodes, name, *words, rows=24, columns=80):
    """A one-shot command at a terminal."""
    terminal = Terminal(nodes.argv(name, *words), rows, columns, nodes.env(), nodes.folder)
    nodes.terminals.append(terminal)
    return terminal


def share(nodes, name, app, program):
    """Offer a program as an application."""
    folder = nodes.folder / app
    folder.mkdir()
    (folder / "main.py").write_text(program)
    return nodes.json(name, "share", folder)


def last_line(terminal):
    """The last line of the screen that is not empty."""
    return terminal.text().rstrip("\n").splitlines()[-1]


# -- the shell

def test_two_shells_find_ask_answer_and_run_and_the_prompt_is_always_the_last_line(nodes):
    ann, bob = shell(nodes, "ann"), shell(nodes, "bob")
    for terminal in (ann, bob):        # it may have been there before the prompt
        wait_until(lambda: "is here" in terminal.text(), 10.0, "the other", terminal.text)
    assert len(ann.text().split("* bob")[0].splitlines()) <= 3          # the greeting
    share(nodes, "bob", "echo", ECHO)
    wait_until(lambda: any(row["name"] == "echo" for row in nodes.json("ann", "apps")), 5.0, "the offer")
    ann.type("run echo bob\r")
    bob.wait_for("wants to run echo")
    assert last_line(bob) == "bob>"
    bob.type("allow\r")
    bob.wait_for("N is missing")
    bob.type("\r y\r")                                # an empty line repeats nothing, "y" is no answer
    bob.wait_for("y: no such verb")
    assert nodes.json("bob", "requests")[0]["request"] == 1
    bob.type("allow 1\r")
    ann.wait_for("* bob: echo allowed")
    bob.type("half a line")
    bob.wait_for("half a line")
    assert nodes.run("ann", "say", "bob", "hello").returncode == 0
    bob.wait_for("<ann> hello")
    wait_until(lambda: last_line(bob) == "bob> half a line", 5.0, "the half-typed line", bob.text)
    bob.type("\x15exit\r")
    bob.wait_for("would end with this node")
    bob.type("exit\r")
    assert bob.wait() == 0
    wait_until(lambda: "* bob" in ann.text(), 10.0, "bob", ann.text)
    ann.type("kill 1\r\x04")
    assert ann.wait() == 0


def test_a_command_that_waits_lets_answers_pass_and_nothing_else_and_ctrl_c_gives_it_up(nodes):
    ann = shell(nodes, "ann")
    ann.type("nodes --wait 5\rid\rrequests\r")
    ann.wait_for("nothing waits for your word")
    assert "version" not in ann.text()                # `id` stands behind the one that waits
    ann.type("\x03")
    ann.wait_for("^C")
    ann.type("log -n 1\r")
    ann.wait_for("started on port")
    assert "version" not in ann.text().replace("version 0", "")
    ann.type("quit\r")
    assert ann.wait() == 0


def test_completion_knows_verbs_options_nodes_and_applications(nodes):
    nodes.up("bob")
    ann = shell(nodes, "ann")
    wait_until(lambda: "* bob" in ann.text(), 10.0, "bob", ann.text)
    share(nodes, "bob", "echo", ECHO)
    wait_until(lambda: any(row["name"] == "echo" for row in nodes.json("ann", "apps")), 5.0, "the offer")
    ann.type("netw\t\r")
    ann.wait_for("MEMBERS")

    def completes(typed, line):
        ann.type("\x15" + typed + "\t")               # the first TAB may be what makes the shell ask for the names
        return last_line(ann) == f"ann> {line}"
    wait_until(lambda: completes("pi\tbo", "ping bob"), 5.0, "the name of a node", ann.text)
    wait_until(lambda: completes("sync --fr\tbob ec", "sync --from bob echo"), 5.0, "the name of an application", ann.text)
    ann.type("--dr\t\r")
    ann.wait_for("would be fetched")
    ann.type("help \t\t")
    ann.wait_for("connect")
    ann.type("\x15exit\r")
    assert ann.wait() == 0


def test_a_shell_beside_a_running_root_is_its_guest_and_hears_its_notices(nodes):
    root = nodes.up("ann")
    guest = shell(nodes, "ann")
    guest.type("id\r")
    guest.wait_for(f"pid      {root.pid}")
    nodes.up("bob")
    guest.wait_for("* bob")
    guest.type("exit\r")
    assert guest.wait() == 0 and root.poll() is None
    guest = shell(nodes, "ann")
    nodes.run("ann", "down")
    guest.wait_for("the root has ended")
    assert guest.wait() == 0


def test_a_dumb_terminal_gets_plain_lines(nodes):
    ann = shell(nodes, "ann", TERM="dumb")
    share(nodes, "ann", "echo", ECHO)
    for typed, shown in (("networks\n", "lan"), ("id\n", "pid"), ("half\x03", "^C")):
        ann.type(typed)
        ann.wait_for(shown)
        wait_until(lambda: last_line(ann) == "ann>", 5.0, "the prompt", ann.text)
    nodes.json("ann", "run", "echo")
    ann.wait_for("* job 1")
    ann.type("\x04")
    ann.wait_for("`exit` again ends it")
    ann.type("exit\n")
    assert ann.wait() == 0
    assert b"\x1b" not in ann.raw
    lines = ann.text().splitlines()
    at = lines.index("ann> networks")
    assert lines[at + 1].startswith("NAME") and "ann> id" in lines
    assert not any(line.startswith("ann> ") and ("*" in line or "job" in line) for line in lines), ann.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_shell_cleanly_and_leaves_the_terminal_as_it_was(nodes, number):
    nodes.up("bob")
    ann = shell(nodes, "ann")
    wait_until(lambda: "* bob" in ann.text(), 10.0, "bob", ann.text)
    before = nodes.terminals and Terminal(["true"]).modes()
    ann.process.send_signal(number)
    assert ann.wait() == 128 + number
    assert ann.modes()[3] & (termios.ECHO | termios.ICANON) == before[3] & (termios.ECHO | termios.ICANON)
    wait_until(lambda: {row["name"]: row["state"] for row in nodes.json("bob", "nodes")}["ann"] == "left", 5.0, "the goodbye")


# -- attach

@pytest.fixture
def job(nodes):
    """A root with a job that echoes."""
    nodes.up("ann")
    share(nodes, "ann", "echo", ECHO)
    nodes.json("ann", "run", "echo")
    wait_until(lambda: "ready" in nodes.run("ann", "output", "1").stdout, 10.0, "the job")
    return nodes


def test_attach_replays_types_resizes_and_leaves_by_ctrl_right_bracket(job):
    terminal = command(job, "ann", "attach", "1", rows=20, columns=70)
    before = terminal.modes()
    terminal.wait_for("ready")
    terminal.wait_for("size 70 20")
    terminal.resize(33, 99)
    terminal.wait_for("size 99 33")
    terminal.type("hello\r")
    terminal.wait_for("got hello")
    terminal.type("\x1d")
    terminal.wait_for("left job 1")
    assert terminal.wait() == 0
    assert terminal.modes() == before or terminal.modes()[3] & termios.ECHO
    for undone in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l"):
        assert terminal.raw.count(undone) == 1
    again = command(job, "ann", "attach", "1", rows=33, columns=99)
    again.wait_for("got hello")                       # the replay
    again.wait_for("size 98 33")                      # the same size again makes it draw
    again.wait_for("size 99 33")
    again.type("7\r")
    again.wait_for("job 1 has ended: it exited with 7")
    assert again.wait() == 1
    assert job.json("ann", "jobs")[0]["exit"] == 7
    ended = job.run("ann", "attach", "1")
    assert ended.returncode == 1 and "`output 1`" in ended.stderr


@pytest.mark.parametrize("end", ["root", "SIGTERM", "SIGINT"])
def test_the_terminal_is_restored_whatever_ends_attach(job, end):
    terminal = command(job, "ann", "attach", "1")
    terminal.wait_for("ready")
    wait_until(lambda: not terminal.modes()[3] & termios.ICANON, 5.0, "raw keys")
    if end == "root":
        import os
        os.kill(job.json("ann", "id")["pid"], signal.SIGKILL)
        assert terminal.wait() == 1
        assert "has ended" in terminal.output
    else:
        terminal.process.send_signal(getattr(signal, end))
        assert terminal.wait() == {"SIGTERM": 143, "SIGINT": 130}[end]
    assert terminal.modes()[3] & termios.ICANON and terminal.modes()[3] & termios.ECHO


def test_ctrl_c_goes_to_the_job_and_not_to_attach(job):
    terminal = command(job, "ann", "attach", "1")
    terminal.wait_for("ready")
    wait_until(lambda: not terminal.modes()[3] & termios.ICANON, 5.0, "raw keys")
    terminal.type("\x03")
    terminal.wait_for("job 1 has ended")
    assert terminal.wait() == 1


def test_run_in_the_foreground_attaches_and_its_end_is_the_exit_code(job):
    terminal = command(job, "ann", "run", "echo", "--fg")
    terminal.wait_for("ready")
    terminal.type("0\r")
    terminal.wait_for("has ended: it exited with 0")
    assert terminal.wait() == 0
    piped = job.run("ann", "run", "echo", "--fg", "--wait", input="a\n3\n")
    assert piped.returncode == 1 and "got a" in piped.stdout


def test_who_gives_up_waiting_for_a_session_is_told_what_goes_on_and_a_shell_hears_of_an_end_once(job):
    waiting = command(job, "ann", "run", "echo", "--wait")
    wait_until(lambda: len(job.json("ann", "jobs")) == 2, 10.0, "the second job")
    waiting.type("\x03")
    waiting.wait_for("`kill 2` ends it")
    assert waiting.wait() == 130
    guest = command(job, "ann")
    guest.wait_for("ann> ")
    guest.type("attach 2\r")
    guest.wait_for("Ctrl-] leaves it")
    guest.wait_for("ready")
    guest.type("0\r")
    guest.wait_for("exited with 0")
    guest.type("jobs\r")
    guest.wait_for("UNSEEN")
    assert guest.output.count("exited with 0") == 1


def test_output_is_plain_text_and_can_be_followed_to_the_end(job):
    follower = job.start(job.argv("ann", "output", "1", "--follow"))
    assert follower.stdout.readline() == "ready\n"
    assert job.json("ann", "output", "1").splitlines()[0] == "ready"
    terminal = command(job, "ann", "attach", "1")
    terminal.type("one\r5\r")
    assert terminal.wait() == 1
    lines = follower.stdout.read().splitlines()
    assert follower.wait(5.0) == 0 and "got one" in lines and lines[-1] == "got 5"


def test_a_follower_that_does_not_read_stops_neither_the_job_nor_other_commands(nodes):
    nodes.up("ann")
    share(nodes, "ann", "flood", "import sys\nfor n in range(400_000):\n    print(n, '.' * 60)\nprint('done')\n")
    nodes.json("ann", "run", "flood")
    follower = nodes.start(nodes.argv("ann", "output", "1", "--follow"))
    wait_until(lambda: nodes.json("ann", "jobs")[0]["state"] == "exited", 30.0, "the end of the job that nobody reads")
    began = time.monotonic()
    nodes.json("ann", "id")
    assert time.monotonic() - began < 2.0
    text, told = follower.communicate(timeout=20)
    assert follower.returncode == 0 and text.endswith("done\n")
    assert "left out" in told and len(text) < 20 << 20


def test_kill_ends_a_job_and_returns_when_it_has_ended(job):
    pid = job.json("ann", "jobs")[0]["pid"]
    assert job.json("ann", "kill", "1") == {}
    [row] = job.json("ann", "jobs")
    assert row["state"] == "exited" and row["pid"] == pid and row["exit"] != 0
    assert job.json("ann", "kill", "1", code=1)["error"]["code"] == "no-such-job"
    assert job.json("ann", "kill", "9", code=1)["error"]["code"] == "no-such-job"


def test_a_run_is_asked_allowed_waited_for_and_a_rule_answers_the_next_one(nodes):
    nodes.meet("ann", "bob")
    share(nodes, "ann", "task", "import sys\nsys.exit(int(sys.argv[1]))\n")
    run = nodes.start(nodes.argv("ann", "--json", "run", "task", "bob", "--wait", "--", "0"))
    [request] = wait_until(lambda: nodes.json("bob", "requests"), 5.0, "the request")
    assert set(request) == {"request", "kind", "node", "name", "app", "version", "args", "expires_s"}
    assert nodes.json("bob", "allow", request["request"], "--always") == {}
    document = json.loads(run.communicate(timeout=20)[0])
    assert run.returncode == 0 and set(document) == {"session", "app", "version", "job", "nodes"}
    assert [set(row) for row in document["nodes"]] == [{"id", "name", "status", "exit"}] * 2
    [rule] = nodes.json("bob", "rules")
    assert set(rule) == {"rule", "node", "name", "app", "version", "args", "answer"}
    assert nodes.run("ann", "run", "task", "bob", "--wait", "--", "0").returncode == 0        # by the rule
    assert nodes.json("bob", "rules", "drop", rule["rule"]) == {} and nodes.json("bob", "rules") == []
    [job] = [row for row in nodes.json("bob", "jobs") if row["job"] == 1]
    assert set(job) == {"job", "session", "app", "version", "host", "port", "nodes", "pid", "state", "exit", "unseen"}
    denied = nodes.start(nodes.argv("ann", "run", "task", "bob", "--wait", "--", "0"))
    [request] = wait_until(lambda: nodes.json("bob", "requests"), 5.0, "the request")
    assert "any" in nodes.run("bob", "allow", request["request"], "--any-args").stderr
    assert nodes.run("bob", "deny", request["request"]).returncode == 0
    assert denied.wait(15.0) == 4
    assert nodes.json("bob", "deny", "99", code=1)["error"]["code"] == "no-such-request"


assert sys.platform != "win32", "a job's terminal is a pty"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
def test_the_terminal_is_as_it_was_after_sigkill_of_the_shell_and_its_root(tmp_path):
    nodes = Nodes(tmp_path)
    terminal = Terminal(nodes.argv("ann", "--name", "ann", "--port", nodes.port), env=nodes.env())
    try:
        before = terminal.modes()
        terminal.wait_for("ann>")
        wait_until(lambda: terminal.modes() != before, 5.0, "raw mode")
        terminal.process.kill()
        wait_until(lambda: terminal.modes() == before, 5.0, "the terminal to be as it was", lambda: f"{before}\n{terminal.modes()}")
    finally:
        terminal.close()
        nodes.close()
