"""Machines of sessions on several nodes, wired together without any I/O: what tests of conversations talk through."""

from p2p import proto
from p2p.sessions import Send, Session, Sessions
from tests.nodes import LAN

ANN, BOB, EVE, MALLORY = (bytes([number]) * 32 for number in (1, 2, 3, 4))
NAMES = {ANN: "ann", BOB: "bob", EVE: "eve", MALLORY: "mallory"}


class World:
    """Machines of some nodes. What they send is packed, unpacked and delivered; other effects are noted."""

    def __init__(self, *nodes):
        self.machines = {node: Sessions(node, NAMES[node]) for node in nodes}
        self.noted = {node: [] for node in nodes}
        self.lost = []           # (from, to) pairs between which nothing passes
        self.now = 0.0
        self.settle()

    def settle(self):
        while any(self.turn(node) for node in list(self.machines)):
            pass

    def turn(self, node):
        effects = self.machines[node].effects()
        for effect in effects:
            if isinstance(effect, Send):
                self.deliver(node, effect)
            else:
                self.noted[node].append(effect)
        return effects

    def deliver(self, sender, effect):
        machine = self.machines.get(effect.to)
        fields = effect.message.unpack(effect.message.pack(**effect.fields))
        if machine is None or (sender, effect.to) in self.lost:
            if effect.message is proto.INVITE:
                self.machines[sender].unreachable(self.machines[sender].get(fields.session), effect.to)
            return
        if effect.message is proto.INVITE:
            machine.invited(sender, fields, self.now)
        elif effect.message is proto.ANSWER:
            machine.answered(sender, fields.session, fields.status)
        elif effect.message is proto.READY:
            machine.ready(sender, fields.session, fields.port)
        elif effect.message is proto.FINISHED:
            machine.exited(sender, fields.session, fields.exit)
        elif effect.message is proto.ROSTER:
            machine.rostered(sender, fields.session, fields.members)
        elif effect.message is proto.END:
            machine.end(sender, fields.session)

    def host(self, *invited, number=7):
        session = Session(number, "chat", b"v" * 32, ANN, LAN, ["x"], ANN, b"t" * 32, 5000)
        self.machines[ANN].start(session, [(node, NAMES[node]) for node in invited], self.now)
        self.settle()
        return session

    def do(self, node, call, *what):
        getattr(self.machines[node], call)(self.session(node), *what)
        self.settle()

    def session(self, node, number=7):
        return self.machines[node].get(number)

    def statuses(self, node):
        return {NAMES[member.id]: member.status for member in self.session(node).members.values()}

    def took(self, node, kind):
        """Did this node get this effect since the last time it was asked?"""
        found = [effect for effect in self.noted[node] if isinstance(effect, kind)]
        self.noted[node] = [effect for effect in self.noted[node] if not isinstance(effect, kind)]
        return len(found)

    def at(self, now):
        self.now = now
        for machine in self.machines.values():
            machine.time(now)
        self.settle()

    def run(self, node, port):
        """A yes, the files, the process."""
        if node != ANN:
            self.do(node, "decided", True)
            self.do(node, "fetched")
        self.do(node, "listening", port)


def meet(world, one, other):
    """The link between two nodes is there again."""
    world.lost = []
    world.machines[one].met(other)
    world.machines[other].met(one)
    world.settle()


def cut(world, *pairs):
    """Nothing passes between these, and each root has noticed."""
    world.lost = [pair for one, other in pairs for pair in ((one, other), (other, one))]
    for one, other in pairs:
        world.machines[one].node_gone(other)
        world.machines[other].node_gone(one)
    world.settle()


def all_run(world):
    world.host(BOB, EVE)
    for node, port in ((ANN, 5000), (BOB, 5001), (EVE, 5002)):
        world.run(node, port)
    for node in (ANN, BOB, EVE):
        world.noted[node].clear()
