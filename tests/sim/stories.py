"""Stories: what happens to some nodes, in words, and what each of their people then reads. Compared whole.

A line of a story is a command; what it shows stands below it, four blanks deep. `python -m tests.sim.stories` plays all
in `stories/` and writes them anew: read the difference before you commit it. Lines that begin with `#` say why.

    nodes ann bob                 they start, one beside the other
    ann> share /work/chat         a verb of the product, typed by ann's person; its answer, and its exit code if it is not 0
    bob> network join CODE        ... the word CODE stands for the last that `network invite` or `create --shared`
                                  gave, WRONG for another that begins so
    ann hears                     what her shell has shown her since the last time
    wait 5                        seconds
    folder ann /work/chat 2000    a folder with a main.py of so many bytes
    kill, power, leave, start, pause, resume, lie, honest; each with a name
    cut ann bob                   their streams are reset
    part ann | bob cho            the network falls apart; `heal`
    mute                          broadcasts do not pass

The network is a perfect one, nobody does anything by himself, and programs stay until they are asked to go. The invariants
are looked at as in every run.
"""

import sys
from pathlib import Path

from p2p.owner import Caller
from p2p.verbs.runner import run

from .host import Host
from .run import Simulation

FOLDER = Path(__file__).with_name("stories")
STEP = 0.05              # s
PATIENCE = 120.0         # s for a verb
INDENT = "    "


class Person(Caller):
    """Who types a verb: reads both streams."""

    def __init__(self, loop):
        super().__init__(loop, folder="/work")
        self.read_so_far = b""

    def write(self, stream, data):
        self.read_so_far += data


class Story:
    """Plays one. `lines` is the transcript so far."""

    def __init__(self):
        self.lines = []
        self._simulation = Simulation(0, 1, (), self._told)
        self._world, self._network = self._simulation.world, self._simulation.network
        self._network.be_perfect()
        self._simulation.invariants.start()
        self._hosts = {}
        self._heard = {}
        self._code = ""

    def _told(self, line):
        """What the world tells is in the story already."""

    def play(self, text):
        """The transcript of a story, whatever stood below its commands before."""
        for line in text.splitlines():
            if line.startswith(INDENT):
                continue
            self.lines.append(line)
            if line and not line.startswith("#"):
                self._command(line)
        self._simulation.invariants.look_at_all()
        return "\n".join(self.lines) + "\n"

    def _command(self, line):
        first, _, rest = line.partition(" ")
        words = rest.split()
        if first.endswith(">"):
            self._types(self._hosts[first[:-1]], words)
        elif rest == "hears":
            heard, self._heard[first] = self._heard[first], []
            self._show(heard or ["(nothing)"])
        else:
            getattr(self, f"do_{first}")(*words)

    def _show(self, lines):
        self.lines += [f"{INDENT}{line}".rstrip() for line in lines]

    def _types(self, host, words):
        person, until = Person(host.loop), self._world.now + PATIENCE
        codes = {"CODE": self._code, "WRONG": self._code[:2] + self._code[2:][::-1]}
        words = [codes.get(word, word) for word in words]
        task = host.loop.start(run(host.node, words, person))
        while not task.done and self._world.now < until:
            self._world.run(STEP)
        said = person.read_so_far.decode().splitlines()
        self._show(said)
        if words[:2] == ["network", "invite"]:
            self._code = said[0]
        if words[:2] == ["network", "create"] and "--shared" in words:
            self._code = said[1].strip()
        if not task.done or task.result():
            self._show([f"(exit {task.result()})" if task.done else "(no end)"])

    # -- what happens

    def do_nodes(self, *names):
        for name in names:
            host = self._hosts[name] = Host(self._world, self._network, len(self._hosts) + 1, name)
            host.distance, host.is_eager, host.has_person, host.program_kind = 0.001, False, False, "stays"
            self.do_start(name)

    def do_start(self, name):
        self._heard[name] = []
        host = self._hosts[name]
        host.boot()
        host.node.version = "1"
        host.node.watchers.append(lambda text: self._heard[name].append(text))
        self._world.run(STEP)

    def do_wait(self, seconds):
        self._world.run(float(seconds))

    def do_folder(self, name, folder, size):
        disk = self._hosts[name].disk.opened_by(self._hosts[name].loop)
        disk.make_dir(folder)
        disk.write_atomic(f"{folder}/main.py", b"#" * int(size))

    def do_kill(self, name):
        self._hosts[name].kill()

    def do_power(self, name):
        self._hosts[name].power_off()

    def do_leave(self, name):
        self._hosts[name].leave()

    def do_pause(self, name):
        self._hosts[name].disturbed = self._world.now
        self._hosts[name].loop.stop()

    def do_resume(self, name):
        self._hosts[name].disturbed = self._world.now
        self._hosts[name].loop.resume()

    def do_lie(self, name):
        host = self._hosts[name]
        store = host.node.offers.store
        honest = store.read_block
        store.read_block = lambda *asked: bytes(len(honest(*asked)))

    def do_honest(self, name):
        vars(self._hosts[name].node.offers.store).pop("read_block", None)

    def do_cut(self, name, other):
        for channel in list(self._hosts[name].loop.channels):
            if channel.state == "open" and channel.other.loop.host is self._hosts[other]:
                self._network.reset_stream(channel)

    def do_part(self, *words):
        parts = " ".join(words).split("|")
        for group, part in enumerate(parts):
            for name in part.split():
                self._hosts[name].group = group
        self._network.disturbed = self._world.now

    def do_heal(self):
        self._network.heal()
        self._network.disturbed = self._world.now

    def do_mute(self):
        self._network.broadcasts = False


def play(path):
    """(the story as it is written, as it goes)."""
    text = path.read_text("utf-8")
    return text, Story().play(text)


def main():
    """Write all anew."""
    for path in sorted(FOLDER.glob("*.txt")):
        before, after = play(path)
        path.write_text(after, "utf-8")
        print(f"{path.name}: {'as before' if before == after else 'changed'}")


if __name__ == "__main__":
    sys.exit(main())
