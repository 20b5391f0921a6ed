"""One run: make the computers, let them live with their faults, look at the invariants, say what happened."""

from .host import Host
from .network import Network
from .world import Broken, World


class Simulation:
    """`nodes` computers, by `seed`."""

    def __init__(self, nodes, seed, out=print, trace=None):
        self.world = World(seed, out, trace)
        self.network = Network(self.world)
        chance = self.world.chance("start")
        for number in range(1, nodes + 1):
            host = Host(self.world, self.network, number)
            self.world.add(chance.random() * 5.0, host.boot)

    @property
    def hosts(self):
        return self.world.hosts

    def run(self, seconds):
        """Live for so long. Raises Broken."""
        self.world.run(seconds)


__all__ = ["Broken", "Simulation"]
