"""Real nodes on this computer, driven by their own command line, for tests that need no network of their own.

All nodes of one `Nodes` share a root port number, hence a UDP port, that no other test run uses at the same time: they
hear each other and nobody else. Each has a home of its own below a folder of the test.
"""
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.waiting import wait_until

PROGRAM = Path(__file__).resolve().parent.parent / "p2pframe.py"
LAN = bytes.fromhex("f762ef0b1095b6c5")      # the tag of the open network
READY = 15.0          # s for a root to come up on two loaded cores


def free_port():
    """A port that nobody has now, for TCP and UDP; below those that systems hand out by themselves, so that none gets it next."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("", port))
                udp.bind(("", port))
            except OSError:
                continue
            return port


def environment(home, **more):
    """What a program gets: nothing of the one who tests but the path."""
    env = {key: value for key, value in os.environ.items() if key in ("PATH", "SYSTEMROOT", "TMPDIR", "LD_LIBRARY_PATH")}
    env.update(HOME=str(home), LANG="C.UTF-8", LC_ALL="C.UTF-8", TERM="xterm-256color")
    env.update(more)
    return env


class Nodes:
    """Starts roots and runs commands; `close` ends whatever is left."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.port = free_port()
        self._started = []

    def home(self, name):
        """The folder of one node's state."""
        return self.folder / name

    def argv(self, name, *words):
        """The command line of one node."""
        return [sys.executable, str(PROGRAM), "--home", str(self.home(name)), *map(str, words)]

    def env(self, **more):
        """The environment of all."""
        return environment(self.folder, **more)

    def start(self, argv, stdin=subprocess.DEVNULL, **how):
        """A process that is ended with the others: a Popen with pipes."""
        process = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env(),
                                   cwd=self.folder, encoding="utf-8", errors="replace", **how)
        self._started.append(process)
        return process

    def up(self, name, *options):
        """A root, ready; its Popen."""
        process = self.start(self.argv(name, "--name", name, "--port", self.port, *options, "up"))
        line = process.stdout.readline()
        assert "ready on port" in line, line + process.stderr.read()
        return process

    def run(self, name, *words, input=None, timeout=30.0, **how):
        """Run a command to its end; CompletedProcess."""
        stdin = {"input": input} if input is not None else {"stdin": how.pop("stdin", subprocess.DEVNULL)}
        return subprocess.run(self.argv(name, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, env=self.env(),
                              cwd=self.folder, encoding="utf-8", errors="replace", **stdin, **how)

    def json(self, name, *words, code=0):
        """What `--json WORDS` prints, parsed."""
        done = self.run(name, "--json", *words)
        assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def meet(self, *names):
        """Roots that list each other as alive."""
        processes = [self.up(name) for name in names]
        for name in names:
            self.json(name, "nodes", "--wait", len(names), "--timeout", "10")
        return processes

    def close(self):
        """End everything, gently first: a root takes its jobs with it."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._started:
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5.0)
            process.stdout.close()
            process.stderr.close()
            if process.stdin:
                process.stdin.close()


def ended(process, timeout=10.0):
    """The exit code of a process that is expected to end by itself."""
    wait_until(lambda: process.poll() is not None, timeout, "the process to end")
    return process.returncode
