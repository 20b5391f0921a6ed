"""Runs a command on every computer of the session, this one included, and shows here what each of them prints.

    run exec --all -- uname -a
    run exec bob eve -- --timeout 10 sh -c 'df -h | tail -1'

Each owner sees the command in the request and is asked before anything runs. The exit code is 0 where all were, else the
largest; 124 means that the time was up, 127 that there is no such command there.
"""

import argparse
import os
import signal
import subprocess
import sys

import p2p

PIECE = 1 << 16            # bytes read from the command at once, and the longest line that is sent


class Output(p2p.Message):
    text: str


class Ended(p2p.Message):
    code: int
    problem: str = ""


def arguments():
    parser = argparse.ArgumentParser(prog="run exec [NODE...|--all] --", description="Runs a command on every computer of the session.")
    parser.add_argument("--timeout", type=float, default=0, metavar="S", help="kill it after so many seconds (exit code 124)")
    parser.add_argument("--group", action="store_true", help="show a computer's output when it has ended, not line by line")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its words; for pipes and such: sh -c '...'")
    given = parser.parse_args()
    if given.command[:1] == ["--"]:
        del given.command[0]
    if not given.command:
        parser.error("a command is missing, such as: uname -a")
    return given


class Command:
    """The command on this computer. `lines()` is what it has printed since the last look; `code` counts once it `is_over`."""

    def __init__(self, words, timeout):
        self.code = None
        self.problem = ""
        self._process = None
        self._rest = b""
        self._has_ended = False
        try:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                             start_new_session=True)
        except OSError as error:
            self.code, self.problem = 127, f"{words[0]}: {error.strerror}"
            return
        os.set_blocking(self._process.stdout.fileno(), False)
        if timeout > 0:
            app.every(timeout)(self._too_late)

    @property
    def is_over(self):
        """Has it ended, and was all read that it printed?"""
        return self._process is None or self._has_ended

    def _too_late(self):
        if self.code is None:
            self.kill()
            self.code, self.problem = 124, "the time was up"
        return False

    def kill(self):
        """It, and whatever it has started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def lines(self):
        """Whole lines; the rest at the end."""
        if self.is_over:
            return []
        exit_code = self._process.poll()         # first: what is read below then is all there will be
        data = b""
        while len(data) < PIECE:
            try:
                piece = os.read(self._process.stdout.fileno(), PIECE)
            except BlockingIOError:
                break
            if not piece:
                break
            data += piece
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > PIECE or exit_code is not None and self._rest and not data:
            lines, self._rest = lines + [self._rest], b""
        if exit_code is not None and not data:
            self._has_ended = True
            if self.code is None:
                self.code = exit_code if exit_code >= 0 else 128 - exit_code
        return [line.decode("utf-8", "replace") for line in lines]


class Report:
    """What everybody has said, shown at the host."""

    def __init__(self, is_grouped):
        self.codes = {}
        self._is_grouped = is_grouped
        self._kept = {}

    def said(self, peer, text):
        text = p2p.clean(text, 4096)
        if self._is_grouped:
            self._kept.setdefault(peer, []).append(text)
        else:
            app.print(f"{peer.name}| {text}")

    def ended(self, peer, code, problem):
        for text in self._kept.pop(peer, ()):
            app.print(f"{peer.name}| {text}")
        self.codes[peer] = code
        if code or problem:
            app.print(f"{peer.name}: {p2p.clean(problem, 200) or f'exit code {code}'}")


given = arguments()
app = p2p.attach("exec")
report = Report(given.group)
command = Command(given.command, given.timeout)
has_said = False
while not app.has_ended:
    lines = command.lines()
    for line in lines:
        if app.is_host:
            report.said(app.me, line)
        else:
            app.print(line)
            app.send(app.host, Output(line))
    if command.is_over and not has_said:
        has_said = True
        if app.is_host:
            report.ended(app.me, command.code, command.problem)
        else:
            app.send(app.host, Ended(command.code, command.problem))
    event = app.poll(0.5 if command.is_over else 0.0 if lines else 0.05)
    if isinstance(event, Output) and app.is_host:
        report.said(event.sender, event.text)
    elif isinstance(event, Ended) and app.is_host:
        report.ended(event.sender, event.code, event.problem)
    elif isinstance(event, p2p.Leave) and app.is_host and event.sender not in report.codes:
        report.ended(event.sender, 1, "left before its command had ended")
    elif isinstance(event, p2p.Leave) and event.sender is app.host:
        break                       # nobody is left to see it
    if app.is_host and has_said and all(peer in report.codes for peer in app.peers):
        codes = list(report.codes.values())
        app.print(f"{codes.count(0)} of {len(codes)}: exit code 0")
        app.end()
command.kill()
sys.exit(max(report.codes.values(), default=command.code or 0))
