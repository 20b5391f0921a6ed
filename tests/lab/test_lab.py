"""The lab keeps what it promises: hosts that reach each other, and every way to disturb them.

Only sockets and stand-in programs here, nothing of the framework, so that a failure elsewhere cannot be the
lab's.
"""
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.interpreters import interpreters
from tests.lab import Lab, bed
from tests.lab.host import REPOSITORY
from tests.waiting import wait_until

pytestmark = pytest.mark.lab

PORT = 4000

# Counts the datagrams that arrive, and answers those that ask for it
LISTEN = """
import socket, sys
s = socket.socket(socket.AF_INET6 if sys.argv[1] == "6" else socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)     # SO_RCVBUFFORCE: nothing is lost here
s.bind(("", %d))
print("ready", flush=True)
while True:
    data, sender = s.recvfrom(2000)
    if data == b"ping":
        s.sendto(b"pong", sender)
    print(data.decode(), sender[0], flush=True)
""" % PORT

PING = """
import socket, sys
where = socket.getaddrinfo(sys.argv[1], %d, type=socket.SOCK_DGRAM)[0]
s = socket.socket(where[0], socket.SOCK_DGRAM)
s.settimeout(0.3)
s.sendto(b"ping", where[4])
sys.exit(s.recv(100) != b"pong")
""" % PORT

SEND = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for i in range(int(sys.argv[2])):
    s.sendto(b"x", (sys.argv[1], %d))
    if i %% 20 == 0:
        time.sleep(0.001)
""" % PORT

# A stand-in for p2pframe.py: `up` answers after a moment, `id` tells whether it does, --json prints a document
PROGRAM = """
import json, os, signal, sys, time
args = sys.argv[1:]
home = args[args.index("--home") + 1]
up = os.path.join(home, "up")
if args[-1] == "up":
    name = args[args.index("--name") + 1]
    os.makedirs(home)
    time.sleep(0.3)
    with open(up, "w") as file:
        file.write(name)
    signal.signal(signal.SIGTERM, lambda *_: (os.remove(up), print("goodbye", flush=True), sys.exit(0)))
    while True:
        signal.pause()
if not os.path.exists(up):
    sys.exit(print("no root", file=sys.stderr) or 3)
facts = {"name": open(up).read(), "args": args, "python": list(sys.version_info[:2])}
print(json.dumps(facts) if "--json" in args else "it runs")
"""


def python(code, *args):
    return [sys.executable, "-I", "-c", code, *args]


def listening(host, family="4"):
    listener = host.start(python(LISTEN, family))
    wait_until(lambda: "ready" in listener.output(), 5, "the listener", listener.output)
    return listener


def reaches(host, address):
    return host.run(python(PING, address)).returncode == 0


@pytest.fixture(scope="module")
def pair():
    """Two hosts, the second listening; each test clears what it did."""
    with Lab(2) as lab:
        one, two = lab.hosts
        two.listener = listening(two)
        yield one, two


def test_hosts_reach_each_other_without_a_default_route(pair):
    one, two = pair
    assert reaches(one, two.address)
    assert one.run(["ip", "route", "show", "default"]).stdout == ""
    assert "Network is unreachable" in one.run(python(PING, "8.8.8.8")).stderr


def test_hosts_reach_each_other_by_link_local_ipv6():
    with Lab(2) as lab:
        one, two = lab.hosts
        listening(two, "6")
        assert reaches(one, f"{two.link_local}%eth0")


def test_the_machine_is_not_on_the_hosts_network(pair):
    with pytest.raises(AssertionError):
        bed.command(python(PING, pair[1].address))
    devices = bed.command(["ip", "-o", "link"])
    assert "port1" not in devices and "br0:" not in devices


def test_a_broadcast_is_heard_until_the_switch_blocks_it(pair):
    one, two = pair
    heard = two.listener.output().count("x ")
    one.run(python(SEND, "10.77.255.255", "1"))
    wait_until(lambda: two.listener.output().count("x ") == heard + 1, 5, "the broadcast")
    one.block_broadcast()
    assert one.run(python(SEND, "10.77.255.255", "20")).returncode == 0       # the sender sees no error
    assert reaches(one, two.address)                                          # later than these, and alone
    assert two.listener.output().count("x ") == heard + 1
    one.clear()
    one.run(python(SEND, "10.77.255.255", "1"))
    wait_until(lambda: two.listener.output().count("x ") == heard + 2, 5, "the broadcast, unblocked")


def test_a_pulled_cable_cuts_both_ways_and_keeps_the_addresses(pair):
    one, two = pair
    two.unplug()
    assert not reaches(one, two.address) and not reaches(two, one.address)
    assert "NO-CARRIER" in two.run(["ip", "link", "show", "eth0"]).stdout
    two.plug()
    assert reaches(one, two.address)
    assert two.link_local in two.run(["ip", "addr", "show", "eth0"]).stdout


def test_a_filter_stops_what_its_rule_names_and_nothing_else(pair):
    one, two = pair
    one.filter("udp", "dport", PORT, "drop")
    assert not reaches(one, two.address)
    one.clear()
    assert reaches(one, two.address)


def test_loss_is_about_what_was_asked(pair):
    one, two = pair
    heard = two.listener.output().count("x ")
    one.loss(20)
    one.run(python(SEND, two.address, "2000"))
    one.clear()
    wait_until(lambda: reaches(one, two.address), 5, "the end of what was sent")
    lost = 2000 - (two.listener.output().count("x ") - heard)
    assert 300 < lost < 500                    # 400 and six standard deviations of 18 either way


TAKE = """
import socket, sys, time
s = socket.create_server(("", 4001))
print("ready", flush=True)
c, _ = s.accept()
start, count = time.monotonic(), 0
while True:
    data = c.recv(65536)
    if not data:
        break
    count += len(data)
print("rate", count * 8 / (time.monotonic() - start) / 1e6, flush=True)
"""

GIVE = """
import socket, sys
c = socket.create_connection((sys.argv[1], 4001))
c.sendall(bytes(int(sys.argv[2])))
"""


@pytest.mark.parametrize("limited", [0, 1])
def test_the_rate_limits_both_directions(pair, limited):
    one, two = pair
    pair[limited].rate("20mbit")
    taker = two.start(python(TAKE))
    wait_until(lambda: "ready" in taker.output(), 5, "the taker", taker.output)
    one.run(python(GIVE, two.address, str(2_000_000)))          # 0.8 s at the full rate
    assert taker.wait(10) == 0
    pair[limited].clear()
    rate = float(taker.output().split()[-1])
    assert 8 < rate < 22, rate
    assert "tbf" not in one.run(["tc", "qdisc", "show", "dev", "eth0"]).stdout


def test_a_command_that_hangs_is_ended_at_its_deadline_with_what_it_said(pair):
    start = time.monotonic()
    with pytest.raises(AssertionError, match="(?s)longer than 0.5 s.*half way"):
        pair[0].run(["sh", "-c", "echo half way; sleep 100 & sleep 100"], timeout=0.5)
    assert time.monotonic() - start < 5


def test_input_and_environment_arrive_and_the_testers_own_do_not(pair, monkeypatch):
    monkeypatch.setenv("P2PFRAME_HOME", "/nowhere")
    done = pair[0].run(["sh", "-c", "cat; env"], input="typed\n", env={"EXTRA": 1})
    assert done.stdout.startswith("typed\n") and "EXTRA=1" in done.stdout
    assert "P2PFRAME_HOME" not in done.stdout and f"HOME={pair[0].folder}" in done.stdout


def test_a_program_at_a_terminal_is_typed_to_and_seen(pair):
    terminal = pair[0].terminal(["sh"], rows=6, columns=40, env={"PS1": "> "})
    terminal.wait_for("> ")
    terminal.type("tty; stty size; printf '\\033[2J\\033[3;5Hmiddle'\r")
    terminal.wait_for(re.compile(r"/dev/pts/\d+\n6 40"))
    wait_until(lambda: terminal.screen()[2] == "    middle> ".rstrip(), 5, "the drawing", terminal.text)
    terminal.resize(10, 60)
    terminal.type("stty size\r")
    terminal.wait_for("10 60")
    terminal.type("sh -c \"echo go''ing; exec sleep 100\"\r")       # said by the very process that Ctrl-C is to end
    terminal.wait_for("going")
    terminal.type("\x03")                                       # Ctrl-C: there is a controlling terminal
    terminal.wait_for("> ")
    terminal.type("exit 7\r")
    assert terminal.wait(10) == 7
    with pytest.raises(AssertionError, match="ended without 'never'"):
        terminal.wait_for("never")
    terminal.close()


def test_a_terminal_answers_the_position_of_its_cursor(pair):
    terminal = pair[0].terminal(["bash", "-c", r"printf 'abc\e[6n'; read -s -d R answer; echo ${answer#?}"])
    terminal.wait_for("[1;4")


def test_nodes_are_started_asked_and_stopped(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with Lab(2, program=program) as lab:
        one, two = lab.hosts
        assert one.p2p("id").returncode == 3
        roots = lab.roots("--port", "4000")
        assert [host.json("id")["name"] for host in lab.hosts] == ["host1", "host2"]
        one.root(home="second")                                  # two nodes on one host
        assert one.json("id", home="second")["name"] == "host1-second"
        assert one.json("nodes", "--wait", "2")["args"][-3:] == ["nodes", "--wait", "2"]
        for version, two.python in interpreters().items():       # each host may run another Python
            assert two.json("id")["python"] == list(version)
        assert roots[0].stop() == 0 and "goodbye" in roots[0].output()
        with pytest.raises(AssertionError, match="no root"):
            one.json("id")
        with pytest.raises(AssertionError, match="(?s)root ended with 1.*FileExistsError"):
            one.root()


def test_leaving_the_lab_kills_everything_and_removes_every_trace():
    with Lab(2) as lab:
        host = lab.hosts[0]
        host.run(["sh", "-c", "setsid sh -c 'trap \"\" HUP TERM; sleep 100; sleep 100' >/dev/null 2>&1 &"])
        host.start(["sleep", "100"])
        host.terminal(["sh"])
        paths = [path for path in bed.namespaces() if path.name.startswith(lab.prefix)]
        assert len(paths) == 3
        pids = wait_until(lambda: len(bed.processes_in(paths)) >= 4 and bed.processes_in(paths), 5, "four processes")
    assert not any(bed.alive(pid) for pid in pids)
    assert not [path for path in bed.namespaces() if path.name.startswith(lab.prefix)]
    assert not lab.folder.exists()


KILLED = """
import os, signal
from tests.lab import Lab
from tests.waiting import wait_until
lab = Lab(1).__enter__()
left = lab.hosts[0].start(["sh", "-c", "echo there; exec sleep 100"])
wait_until(left.output, 5, "a process on the host")
print(lab.prefix, left.pid, lab.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_leaves_is_removed_by_the_next_one():
    killed = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, timeout=30, cwd=REPOSITORY)
    assert killed.returncode == -signal.SIGKILL
    prefix, pid, folder = killed.stdout.decode().split()
    assert bed.alive(int(pid)) and os.path.isdir(folder)
    with Lab(1):
        assert not bed.alive(int(pid)) and not os.path.exists(folder)
        assert not [path for path in bed.namespaces() if path.name.startswith(prefix + "-")]


def test_thirty_two_hosts_stand_within_seconds():
    start = time.monotonic()
    with Lab(32) as lab:
        first, last = lab.hosts[0], lab.hosts[-1]
        listening(last)
        assert reaches(first, last.address)
    assert time.monotonic() - start < 20


def test_ci_fails_where_it_would_skip(tmp_path, monkeypatch):
    from tests import conftest

    class Item:
        def get_closest_marker(self, name):
            return name == "lab"

    monkeypatch.setattr("tests.lab.unavailable", lambda: "no ip here")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no ip here"):
        conftest.pytest_runtest_setup(Item())
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="no ip here"):
        conftest.pytest_runtest_setup(Item())
