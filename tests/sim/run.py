"""One run: make the computers, let them live with their faults, look at the invariants, say what happened."""

from .faults import KINDS, Faults
from .host import Host
from .invariants import Invariants
from .network import Network
from .promises import OVER
from .world import Broken, World


class Simulation:
    """`nodes` computers, by `seed`; `faults`: names of faults.KINDS."""

    def __init__(self, nodes, seed, faults=(), out=print, trace=None):
        self.world = World(seed, out, trace)
        self.network = Network(self.world)
        self.faults = Faults(self.world, self.network, faults)
        self.invariants = Invariants(self.world, self.network)
        self.faults.before_storm = self.invariants.look_at_all
        chance = self.world.chance("start")
        for number in range(1, nodes + 1):
            host = Host(self.world, self.network, number)
            self.world.add(chance.random() * 5.0, host.boot)

    @property
    def hosts(self):
        """All computers."""
        return self.world.hosts

    def run(self, seconds):
        """Live for so long, the last part without faults, so that all that was begun comes to its end. Raises Broken."""
        self.faults.start()
        self.invariants.start()
        quiet = min(seconds / 2, OVER + 60.0)
        self.world.run(seconds - quiet)
        self.faults.stop()
        for host in self.hosts:
            host.is_eager = False
        self.world.run(quiet)
        self.invariants.look_at_all()

    def summary(self):
        """What it did, in lines."""
        world, invariants = self.world, self.invariants
        yield f"{len(self.hosts)} nodes lived for {world.clock / 60:.1f} minutes: {world.events} events, checksum {world.digest:08x}"
        yield "faults: " + (", ".join(f"{count} {name}" for name, count in sorted(self.faults.counts.items())) or "none")
        yield f"{invariants.ended} runs ended, {len(world.exits)} programs, {len(world.identities)} identities"
        yield "most at one node: " + ", ".join(f"{number} {what}" for what, number in sorted(invariants.most.items()))


def names_of(text):
    """The faults that `--faults` names. Raises ValueError."""
    if text == "all":
        return list(KINDS)
    names = [] if text == "none" else text.split(",")
    for name in names:
        if name not in KINDS:
            raise ValueError(f"{name}: no such fault; all, none, or some of {','.join(KINDS)}")
    return names


def report(simulation, error, command, out=print):
    """A broken invariant, so that it can be looked into."""
    out("")
    for line in simulation.world.last_events():
        out(line)
    out("")
    out(f"BROKEN after {simulation.world.clock:.3f} s, seed {simulation.world.seed}: {error}")
    out(f"again: {command}")


__all__ = ["Broken", "Simulation", "names_of", "report"]
