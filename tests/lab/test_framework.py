"""The framework on several computers: what the README promises, seen from outside through its own command line."""

import json
import re
import signal

import pytest

from tests.lab import Lab
from tests.lab.host import REPOSITORY
from tests.waiting import wait_until

pytestmark = pytest.mark.lab

CHAT = REPOSITORY / "apps" / "chat"


def states(host, home="home"):
    """{name: state} of all nodes that this one lists."""
    return {row["name"]: row["state"] for row in host.json("nodes", home=home)}


def see(host, wanted, timeout=10.0, home="home"):
    """Wait until the table is exactly this."""
    wait_until(lambda: states(host, home) == wanted, timeout, f"{host.name} to list {wanted}", lambda: str(states(host, home)))


def meet(lab):
    """Roots on all hosts, each of which lists all as alive."""
    roots = lab.roots()
    for host in lab.hosts:
        host.json("nodes", "--wait", str(len(lab.hosts)), "--timeout", "10")
    return roots


def requests(host):
    return host.json("requests")


def allow(host, timeout=10.0):
    """Wait for the one open request and allow it."""
    number = wait_until(lambda: [row["request"] for row in requests(host)], timeout, f"a request at {host.name}")[0]
    assert host.p2p("allow", str(number)).returncode == 0


def job(host, app="chat"):
    """The number of the one job of an application that runs here."""
    return str(wait_until(lambda: [row["job"] for row in host.json("jobs") if row["app"] == app and row["state"] == "running"],
                          15.0, f"a job of {app} on {host.name}", lambda: str(host.json("jobs")))[0])


def output(host, number):
    return host.p2p("output", number).stdout


def attached(host, number):
    """A terminal attached to a job."""
    return host.terminal(host.p2p_argv("attach", number))


def app_folder(host, name, **files):
    """A folder of an application with a main.py and more."""
    folder = host.folder / name
    folder.mkdir()
    for path, text in files.items():
        (folder / path.replace("_py", ".py")).write_text(text)
    return folder


def test_three_hosts_find_each_other_run_chat_and_exchange_lines():
    with Lab(3) as lab:
        ann, bob, eve = lab.hosts
        meet(lab)
        assert ann.json("share", CHAT)["name"] == "chat"
        started = ann.json("run", "chat", bob.name, eve.name)
        assert sorted(row["status"] for row in started["nodes"] if row["name"] != ann.name) == ["asked", "asked"]
        request = wait_until(lambda: requests(bob), 5.0, "the request")[0]
        assert (request["app"], request["name"], request["args"]) == ("chat", ann.name, [])
        allow(bob)
        allow(eve)
        terminals = {host: attached(host, job(host)) for host in lab.hosts}
        for host in lab.hosts:
            others = [other for other in lab.hosts if other is not host]
            for other in others:
                wait_until(lambda: f"* {other.name} joined" in output(host, job(host)), 10.0, f"{host.name} to see {other.name} join",
                           lambda: output(host, job(host)))
        for host, terminal in terminals.items():
            terminal.type(f"hello from {host.name}\r")
            for other in lab.hosts:
                if other is not host:
                    terminals[other].wait_for(f"<{host.name}> hello from {host.name}")


def test_a_denied_and_an_unanswered_and_an_unknown_node_are_told_with_their_exit_codes():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        meet(lab)
        ann.json("share", CHAT)
        run = ann.start(ann.p2p_argv("run", "chat", bob.name, "--wait"))
        number = wait_until(lambda: requests(bob), 5.0, "the request")[0]["request"]
        assert bob.p2p("deny", str(number)).returncode == 0
        assert run.wait(15.0) == 4, run.output()
        unknown = ann.p2p("run", "chat", "nobody")
        assert unknown.returncode == 1 and "nobody" in unknown.stderr and unknown.stderr.count("\n") == 1
        assert ann.p2p("run", "nochat", bob.name).returncode == 1


def test_an_application_that_ends_everywhere_gives_the_host_all_exit_codes():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        meet(lab)
        folder = app_folder(ann, "adder", main_py="import sys, p2p\napp = p2p.attach('adder')\nprint('args', app.args)\n"
                                                  "sys.exit(0 if app.is_host else int(app.args[0]))\n")
        ann.json("share", folder)
        bob_done = ann.start(ann.p2p_argv("--json", "run", "adder", bob.name, "--wait", "--", "7", "x y"))
        allow(bob)
        assert bob_done.wait(20.0) == 1, bob_done.output()
        rows = {row["name"]: (row["status"], row["exit"]) for row in json.loads(bob_done.output())["nodes"]}
        assert rows == {ann.name: ("exited", 0), bob.name: ("exited", 7)}
        assert "args ['7', 'x y']" in output(bob, "1")


def test_a_rule_allows_exactly_what_was_allowed_and_asks_again_for_a_new_version_or_other_arguments():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        meet(lab)
        folder = app_folder(ann, "task", main_py="import p2p\np2p.attach('task')\n")
        ann.json("share", folder)

        def run(*arguments):
            return ann.start(ann.p2p_argv("run", "task", bob.name, "--wait", "--", *arguments))
        first = run("one")
        number = wait_until(lambda: requests(bob), 5.0, "the request")[0]["request"]
        assert bob.p2p("allow", str(number), "--always").returncode == 0
        assert first.wait(20.0) == 0, first.output()
        assert run("one").wait(20.0) == 0
        other = run("two")
        number = wait_until(lambda: requests(bob), 5.0, "a new request for other arguments")[0]["request"]
        bob.p2p("deny", str(number))
        assert other.wait(10.0) == 4
        (folder / "main.py").write_text("import p2p\np2p.attach('task')  # changed\n")
        ann.json("share", folder)
        changed = run("one")
        number = wait_until(lambda: requests(bob), 5.0, "a new request for another version")[0]["request"]
        bob.p2p("deny", str(number))
        assert changed.wait(10.0) == 4
        assert len(bob.json("rules")) == 1


def test_a_killed_host_is_noticed_and_the_instances_of_the_others_go_on():
    with Lab(3) as lab:
        ann, bob, eve = lab.hosts
        roots = meet(lab)
        ann.json("share", CHAT)
        ann.json("run", "chat", bob.name, eve.name)
        allow(bob)
        allow(eve)
        for host in lab.hosts:
            for other in lab.hosts:
                if other is not host:
                    wait_until(lambda: f"* {other.name} joined" in output(host, job(host)), 10.0, "all to join",
                               lambda: output(host, job(host)))
        roots[0].send_signal(signal.SIGKILL)           # the session's own host
        for host in (bob, eve):
            wait_until(lambda: states(host)[ann.name] == "dead", 10.0, "the death", lambda: str(states(host)))
            wait_until(lambda: f"* {ann.name} left" in output(host, job(host)), 10.0, "the Leave", lambda: output(host, job(host)))
        bobs, eves = attached(bob, job(bob)), attached(eve, job(eve))
        bobs.type("still here?\r")
        eves.wait_for(f"<{bob.name}> still here?")


def test_the_instance_ends_when_its_root_is_killed():
    with Lab(1) as lab:
        ann = lab.hosts[0]
        root = ann.root()
        folder = app_folder(ann, "sleeper", main_py="import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(600)\n")
        ann.json("share", folder)
        ann.json("run", "sleeper")
        text = wait_until(lambda: re.search(r"pid (\d+)", output(ann, "1")), 10.0, "the instance")
        root.send_signal(signal.SIGKILL)
        wait_until(lambda: ann.run(["kill", "-0", text.group(1)]).returncode != 0, 5.0, "the instance's end")
        again = ann.root()
        assert again.poll() is None and ann.json("jobs") == []


def test_a_pulled_cable_is_noticed_and_healed():
    with Lab(3) as lab:
        ann, bob, eve = lab.hosts
        meet(lab)
        eve.unplug()
        for host in (ann, bob):
            wait_until(lambda: states(host)[eve.name] == "dead", 15.0, "the silence", lambda: str(states(host)))
            assert states(host)[ann.name] == states(host)[bob.name] == "alive"
        eve.plug()
        everybody = {host.name: "alive" for host in lab.hosts}
        for host in lab.hosts:
            see(host, everybody, 20.0)


@pytest.mark.parametrize("whose", [0, 2])
def test_a_session_that_a_pulled_cable_has_split_is_whole_again_when_the_cable_is_back(whose):
    """The cable of the host, and that of a guest."""
    with Lab(3) as lab:
        ann, bob, eve = lab.hosts
        lost = lab.hosts[whose]
        there = [host for host in lab.hosts if host is not lost]
        meet(lab)
        folder = app_folder(ann, "teller", main_py="""
import p2p
class Say(p2p.Message):
    text: str
app = p2p.attach()
for event in app:
    who = event.sender.name if hasattr(event, "sender") else ""
    print(type(event).__name__, who, getattr(event, "text", ""), flush=True)
    if isinstance(event, p2p.Line):
        app.broadcast(Say(event.text))
""")
        ann.json("share", folder)
        ann.json("run", "teller", bob.name, eve.name)
        allow(bob)
        allow(eve)
        numbers = {host: job(host, "teller") for host in lab.hosts}

        def told(host, *lines, timeout=15.0):
            wait_until(lambda: all(line in output(host, numbers[host]) for line in lines), timeout, f"{lines} at {host.name}",
                       lambda: output(host, numbers[host]))
        for host in lab.hosts:
            told(host, *(f"Join {other.name}" for other in lab.hosts if other is not host))
        lost.unplug()
        for host in there:
            told(host, f"Leave {lost.name}")
        told(lost, *(f"Leave {host.name}" for host in there))
        lost.plug()
        for host in lab.hosts:
            others = [other.name for other in lab.hosts if other is not host and lost in (host, other)]
            wait_until(lambda: all(output(host, numbers[host]).count(f"Join {other}") == 2 for other in others), 15.0,
                       f"{host.name} to see {others} join again", lambda: output(host, numbers[host]))
        assert {row["status"] for row in ann.json("jobs")[0]["nodes"]} == {"running"}
        terminal = attached(lost, numbers[lost])
        terminal.type("back\r")
        for host in there:
            told(host, f"Say {lost.name} back")
            assert not any(f"Leave {other.name}" in output(host, numbers[host]) for other in there)


def test_where_broadcast_is_blocked_one_connect_is_enough_to_learn_everybody():
    with Lab(3) as lab:
        ann, bob, eve = lab.hosts
        for host in lab.hosts:
            host.block_broadcast()
        lab.roots()
        assert states(ann) == {ann.name: "alive"}
        reached = ann.json("connect", bob.address)
        assert (reached["name"], reached["address"]) == (bob.name, bob.address)
        eve.json("connect", bob.address)
        everybody = {host.name: "alive" for host in lab.hosts}
        for host in lab.hosts:
            see(host, everybody, 20.0)
        refused = ann.p2p("connect", "10.0.0.250:9")
        assert refused.returncode == 1 and refused.stderr.count("\n") == 1


def test_remembered_addresses_are_tried_at_the_next_start():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        roots = meet(lab)
        for host in lab.hosts:
            host.block_broadcast()
        assert roots[0].stop() == 0
        see(bob, {ann.name: "left", bob.name: "alive"})
        ann.root()
        see(ann, {ann.name: "alive", bob.name: "alive"})


def test_two_nodes_share_one_host_and_a_third_elsewhere_sees_both():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        ann.root()
        ann.root(home="second")
        bob.root()
        everybody = {"host1": "alive", "host1-second": "alive", "host2": "alive"}
        for host, home in ((ann, "home"), (ann, "second"), (bob, "home")):
            see(host, everybody, home=home)
        ports = {ann.json("id")["port"], ann.json("id", home="second")["port"]}
        assert 47474 in ports and len(ports) == 2
        ids = {ann.json("id")["id"], ann.json("id", home="second")["id"]}
        assert len(ids) == 2


def test_an_update_fetches_only_what_is_new_and_the_old_version_serves_until_then():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        meet(lab)
        folder = app_folder(ann, "data", main_py="print('one')\n")
        (folder / "big").write_bytes(bytes(range(256)) * 8192)
        first = ann.json("share", folder)
        wait_until(lambda: bob.json("apps")[0]["holders"], 5.0, "the offer")
        [row] = bob.json("sync", "data")
        assert (row["version"], row["fetched"]) == (first["version"], first["bytes"])
        (folder / "main.py").write_text("print('two')\n")
        second = ann.json("share", folder)
        wait_until(lambda: bob.json("apps")[0]["version"] == second["version"], 5.0, "the new offer")
        [planned] = bob.json("sync", "data", "--dry-run")
        assert planned["fetched"] == len("print('two')\n")
        assert not bob.json("apps")[0]["installed"]
        [row] = bob.json("sync", "data")
        assert row["fetched"] == len("print('two')\n")
        installed = bob.home() / "apps" / "data" / second["version"]
        assert sorted(path.name for path in installed.iterdir()) == ["big", "main.py"]


def test_a_receiver_killed_in_the_middle_of_a_fetch_has_the_old_version_whole_and_finishes_later():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        roots = meet(lab)
        folder = app_folder(ann, "data", main_py="print('one')\n")
        ann.json("share", folder)
        wait_until(lambda: bob.json("apps")[0]["holders"], 5.0, "the offer")
        [first] = bob.json("sync", "data")
        for number in range(8):
            (folder / f"block{number}").write_bytes(bytes([number]) * (1 << 20))
        second = ann.json("share", folder)
        wait_until(lambda: bob.json("apps")[0]["version"] == second["version"], 5.0, "the new offer")
        bob.rate("20mbit")
        bob.start(bob.p2p_argv("sync", "data"))
        wait_until(lambda: list(bob.home().glob("**/*block*")) or list((bob.home() / "staging").glob("**/*")), 10.0, "the fetch to begin")
        roots[1].send_signal(signal.SIGKILL)
        roots[1].wait(5.0)
        apps = bob.home() / "apps" / "data"
        assert [path.name for path in apps.iterdir()] == [first["version"]]
        assert (apps / first["version"] / "main.py").read_text() == "print('one')\n"
        bob.clear()
        bob.root()
        bob.json("nodes", "--wait", "2", "--timeout", "10")
        wait_until(lambda: [row for row in bob.json("apps") if row["holders"]], 5.0, "the catalogue")
        [row] = bob.json("sync", "data")
        assert row["version"] == second["version"] and (apps / second["version"] / "block7").read_bytes() == bytes([7]) * (1 << 20)


def test_garbage_on_tcp_and_udp_costs_a_line_in_the_log_and_nothing_else():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        meet(lab)
        program = (
            "import os, socket, sys\n"
            "host = sys.argv[1]\n"
            "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "for size in (0, 1, 15, 16, 88, 200, 1200, 1400):\n"
            "    udp.sendto(os.urandom(size), (host, 47474))\n"
            "for data in (b'', b'GET / HTTP/1.1\\r\\n\\r\\n', os.urandom(500), b'\\x16\\x03\\x01\\x00\\x05hello'):\n"
            "    tcp = socket.create_connection((host, 47474), 5)\n"
            "    tcp.sendall(data)\n"
            "    tcp.close()\n")
        assert bob.run([bob.p2p_argv()[0], "-c", program, ann.address]).returncode == 0
        wait_until(lambda: sum(ann.json("stats")["refused"].values()) >= 8, 5.0, "the refusals", lambda: str(ann.json("stats")["refused"]))
        assert states(ann) == {"host1": "alive", "host2": "alive"}
        assert "refused:" in ann.p2p("log", "-n", "50").stdout


def test_up_ends_cleanly_on_sigterm_and_the_others_hear_that_it_left():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        roots = meet(lab)
        assert roots[0].stop() == 0
        see(bob, {ann.name: "left", bob.name: "alive"}, 2.0)
        assert ann.p2p("nodes").returncode == 3
