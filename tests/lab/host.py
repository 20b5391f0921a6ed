"""A host of the lab: a network namespace with one network card, and what a test does on such a computer.

Every command has a deadline, its own home and a clean environment: nothing on the host reads or writes the
state of the person who runs the tests. Output of what is started goes to a file, never to a pipe that could
fill up; a failure shows it.
"""
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.lab.terminal import Terminal
from tests.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PROGRAM = REPOSITORY / "p2pframe.py"
READY = 15.0          # s for a root to answer on two loaded cores


class Running(subprocess.Popen):
    """A started process that writes into a file: `output()` is all it has said so far, stderr included."""

    def __init__(self, argv, log, **more):
        self.log = log
        with open(log, "wb") as out:
            super().__init__(argv, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **more)

    def output(self):
        return self.log.read_text("utf-8", "replace")

    def stop(self, timeout=10.0):
        """SIGTERM, and the exit code; a process that does not end in time is a failure."""
        if self.poll() is None:
            self.send_signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {timeout} s of SIGTERM; its output:\n{self.output()}") from None

    def close(self):
        """The end, whatever it is doing."""
        self.kill()
        self.wait(5.0)


class Host:
    """One computer: `name`, `address` (IPv4), `link_local` (IPv6, to be used with %eth0), `folder` for its files.

    `python` may be set to another interpreter (see tests/interpreters.py) before anything is started.
    """

    def __init__(self, lab, number, address, link_local):
        self.lab, self.number = lab, number
        self.name = f"host{number}"
        self.namespace = f"{lab.prefix}-{self.name}"
        self.port = f"port{number}"
        self.address, self.link_local = address, link_local
        self.folder = lab.folder / self.name
        self.folder.mkdir()
        self.python = sys.executable
        self._started = 0

    # Programs

    def _argv(self, argv):
        return ["ip", "netns", "exec", self.namespace, *map(str, argv)]

    def environment(self, more=None):
        """What a program here finds in its environment: no P2PFRAME_*, PYTHON* or XDG_* of the one who tests."""
        env = {key: value for key, value in os.environ.items()
               if not key.startswith(("P2PFRAME", "PYTHON", "XDG_", "COV_"))}
        env.update(HOME=str(self.folder), LANG="C.UTF-8", LC_ALL="C.UTF-8", TERM="xterm-256color")
        for key, value in (more or {}).items():
            env[key] = str(value)
        return env

    def run(self, argv, timeout=30.0, input=None, env=None, cwd=None):
        """Runs to the end; CompletedProcess with text. At the deadline the whole group dies: AssertionError."""
        process = subprocess.Popen(self._argv(argv), stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment(env),
                                   cwd=cwd or self.folder, encoding="utf-8", errors="replace",
                                   start_new_session=True)
        try:
            out, err = process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            try:
                out, err = process.communicate(timeout=2.0)
            except subprocess.TimeoutExpired:          # a grandchild in a session of its own holds the pipe
                out = err = "(unknown)"
            raise AssertionError(f"{self.name}: {list(map(str, argv))} took longer than {timeout} s\n"
                                 f"stdout: {out}\nstderr: {err}") from None
        finally:
            for stream in (process.stdout, process.stderr):
                stream.close()
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def start(self, argv, env=None, cwd=None, stdin=subprocess.DEVNULL):
        """Starts and returns a Running (a Popen): stdout and stderr are in its `output()`."""
        self._started += 1
        log = self.folder / f"{self._started}.out"
        return self.lab.keep(Running(self._argv(argv), log, env=self.environment(env), cwd=cwd or self.folder,
                                     stdin=stdin))

    def terminal(self, argv, rows=24, columns=80, env=None, cwd=None):
        """Starts a program at a terminal of its own."""
        return self.lab.keep(Terminal(self._argv(argv), rows, columns, self.environment(env), cwd or self.folder))

    # The framework

    def home(self, label="home"):
        """The folder of one node's state; another label is another node on the same host."""
        return self.folder / label

    def p2p_argv(self, *args, home="home"):
        """The command line of `p2pframe.py --home … ARGS`, for `start` and `terminal`."""
        return [self.python, self.lab.program, "--home", self.home(home), *args]

    def p2p(self, *args, home="home", timeout=30.0, input=None, env=None, cwd=None):
        """Runs `p2pframe.py --home … ARGS` to the end; CompletedProcess."""
        return self.run(self.p2p_argv(*args, home=home), timeout, input, env, cwd)

    def json(self, *args, home="home", timeout=30.0):
        """What `--json ARGS` prints, parsed; AssertionError with all output unless it exits with 0."""
        done = self.p2p("--json", *args, home=home, timeout=timeout)
        said = f"{self.name}: {args} exit {done.returncode}\nstdout: {done.stdout}\nstderr: {done.stderr}"
        assert done.returncode == 0, said
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"not one JSON document: {said}") from None

    def start_root(self, *options, home="home"):
        """Starts `p2pframe.py OPTIONS up` without waiting for it; `ready` waits."""
        name = self.name if home == "home" else f"{self.name}-{home}"
        return self.start(self.p2p_argv("--name", name, *options, "up", home=home))

    def ready(self, root, home="home"):
        """Waits until the root answers, or fails with what it said."""
        def answers():
            assert root.poll() is None, f"{self.name}: the root ended with {root.returncode}:\n{root.output()}"
            return self.p2p("id", home=home, timeout=READY).returncode == 0
        wait_until(answers, READY, f"the root on {self.name}", root.output)
        return root

    def root(self, *options, home="home"):
        """Starts a node as the host's own (`up`) and returns its Running as soon as it answers."""
        return self.ready(self.start_root(*options, home=home), home)

    # The network

    def unplug(self):
        """Pulls the cable at the switch: this host sees no carrier, the others see nothing at all."""
        self.lab.switch(f"link set {self.port} down")

    def plug(self):
        """Puts the cable back, and returns when the card sees its carrier again."""
        self.lab.switch(f"link set {self.port} up")
        wait_until(lambda: "LOWER_UP" in self.run(["ip", "link", "show", "eth0"]).stdout, 5.0, "the carrier")

    def filter(self, *words):
        """The switch applies an nftables rule to all from and to this host: filter("tcp", "dport", 4000, "drop")."""
        self.lab.add_rule(self, " ".join(map(str, words)))

    def block_broadcast(self):
        """The switch passes no UDP broadcast or multicast from or to this host (as guest networks do)."""
        self.filter("meta l4proto udp meta pkttype { broadcast, multicast } drop")

    def loss(self, percent):
        """Each packet from or to this host is lost with this chance; two such hosts lose both shares."""
        self.filter(f"numgen random mod 10000 < {round(percent * 100)} drop")

    def rate(self, speed, latency="200ms"):
        """Limits the link both ways with a token bucket: "20mbit"; packets that would wait longer are lost."""
        bucket = f"root tbf rate {speed} burst 32kb latency {latency}"
        self.lab.ip("tc", "-n", self.lab.switch_name, "qdisc", "replace", "dev", self.port, *bucket.split())
        self.lab.ip("tc", "-n", self.namespace, "qdisc", "replace", "dev", "eth0", *bucket.split())

    def clear(self):
        """Takes back every filter, loss and rate of this host; an unplugged cable stays out."""
        self.lab.drop_rules(self)
        for namespace, device in ((self.lab.switch_name, self.port), (self.namespace, "eth0")):
            if " tbf " in self.lab.ip("tc", "-n", namespace, "qdisc", "show", "dev", device):
                self.lab.ip("tc", "-n", namespace, "qdisc", "del", "dev", device, "root")

