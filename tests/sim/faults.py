"""What goes wrong, and when: drawn from the seed, told in one line each.

Storms and calms take turns. In a storm a fault strikes every few seconds, and most end by themselves after a while;
before a calm everything is put right, and then long enough nothing happens for every promise to fall due. Whatever a
fault does to a computer is noted in `Host.disturbed`, so that the invariants know whom to expect nothing of.
"""

from p2p import proto
from p2p.datagram import seal
from p2p.trust.network import OPEN_SECRET, derived_network

from .host import PORT
from .promises import AGREED

STORM = (60.0, 240.0)        # s
CALM = AGREED + 45.0         # s
EACH = 90.0                  # s between two faults of one computer, on the average


class Faults:
    """`names`: which kinds (keys of KINDS)."""

    def __init__(self, world, network, names):
        self.world = world
        self.network = network
        self.names = sorted(names)
        self.counts = {}
        self.is_calm = True
        self.before_storm = lambda: None
        self._chance = world.chance("faults")
        self._forger = None

    def start(self):
        """Begin with the first storm, when all have met."""
        if self.names:
            self.world.add(30.0, self._storm)

    def stop(self):
        """No more faults; what is broken is put right."""
        self.names = []
        self._put_right()

    def _storm(self):
        if not self.names:
            return
        self.before_storm()
        self.is_calm = False
        length = self._chance.uniform(*STORM)
        self.world.tell(f"storm for {length:.0f} s")
        self.world.add(length, self._calm)
        self._strike()

    def _calm(self):
        self._put_right()
        if self.names:
            self.world.add(CALM, self._storm)

    def _put_right(self):
        self.is_calm = True
        self.world.tell("calm")
        if not self.network.is_whole:
            self._heal()
        self.network.reset()
        for host in self.world.hosts:
            self._repair(host)

    def _repair(self, host):
        if host.node is not None:
            vars(host.node.offers.store).pop("read_block", None)      # an end of its lies
        host.disk.is_full = False
        host.disk.crash_in = None
        if host.node is None:
            host.boot()
        elif host.loop.is_stopped:
            self._resume(host, host.loop)

    def _strike(self):
        if self.is_calm or not self.names:
            return
        self.world.add(self._chance.expovariate(len(self.world.hosts) / EACH), self._strike)
        name = self._chance.choice(self.names)
        host = self._chance.choice(self.world.hosts)
        if host.node is None or host.loop.is_stopped:
            return
        self.counts[name] = self.counts.get(name, 0) + 1
        KINDS[name](self, host)

    def _later(self, low, high, call, *args):
        self.world.add(self._chance.uniform(low, high), call, *args)

    def _tell(self, host, text):
        host.disturbed = self.world.now
        self.world.tell(f"{host.name}: {text}")

    # -- processes and computers

    def kill(self, host):
        """SIGKILL, and a new start."""
        self._tell(host, "killed")
        host.kill()
        self._later(0.1, 60.0, self._boot, host)

    def power(self, host):
        """No power: nobody is told."""
        self._tell(host, "loses its power")
        host.power_off()
        self._later(5.0, 90.0, self._boot, host)

    def leave(self, host):
        """`down`, and a new start."""
        self._tell(host, "leaves")
        host.leave()
        self._later(8.0, 60.0, self._boot, host)

    def _boot(self, host):
        if host.node is None:
            self._tell(host, "starts")
            host.boot()

    def wipe(self, host):
        """Killed, and its disk is lost: another node at the same address and with the same name."""
        self._tell(host, "loses its disk")
        host.kill()
        host.lose_disk()
        self._later(0.5, 30.0, self._boot, host)

    def crash(self, host):
        """It dies in the middle of one of its next writes."""
        host.disturbed = self.world.now
        host.disk.crash_in = self._chance.randrange(60)
        self._later(60.0, 90.0, self._boot, host)

    def pause(self, host):
        """SIGSTOP for a while."""
        seconds = self._chance.choice((0.5, 3.0, 5.9, 6.5, 12.0, 60.0))
        self._tell(host, f"stopped for {seconds} s")
        host.loop.stop()
        self.world.add(seconds, self._resume, host, host.loop)

    def _resume(self, host, loop):
        if host.loop is loop and loop.is_stopped and not loop.is_dead:
            self._tell(host, "goes on")
            loop.resume()

    def clock(self, host):
        """Its wall clock jumps."""
        step = self._chance.choice((-1, 1)) * 10 ** self._chance.uniform(0, 7.5)
        self.world.tell(f"{host.name}: its clock jumps by {step:.1f} s")
        host.wall_offset += step

    def full(self, host):
        """Its disk is full for a while."""
        self._tell(host, "its disk is full")
        host.disk.is_full = True
        self._later(1.0, 30.0, self._empty, host)

    def _empty(self, host):
        host.disk.is_full = False
        host.disturbed = self.world.now

    def lie(self, host):
        """What it serves of files is wrong, too short or too long."""
        store, chance = host.node.offers.store, self.world.chance(f"lies of {host.name} at {self.world.now!r}")
        if "read_block" in vars(store):
            return
        honest = store.read_block

        def read_block(digest, offset, length, may_show):
            data = honest(digest, offset, length, may_show)
            if not data:
                return data
            at = chance.randrange(len(data))
            self.world.note(f"{host.name} serves a lie")
            return chance.choice((data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1:], (data + b"more")[:length]))
        store.read_block = read_block
        self._tell(host, "lies about its files")
        self._later(10.0, 120.0, vars(store).pop, "read_block", None)

    # -- the network

    def cut(self, host):
        """Streams of one computer are reset."""
        channels = self._streams(host)
        if channels:
            chosen = self._chance.sample(channels, self._chance.randrange(1, 1 + len(channels)))
            self._tell(host, f"{len(chosen)} of its streams are reset")
            for channel in chosen:
                self.network.reset_stream(channel)

    def halfopen(self, host):
        """Somewhere on the way its streams are forgotten: nothing arrives, nobody is told."""
        channels = self._streams(host)
        if channels:
            chosen = self._chance.sample(channels, self._chance.randrange(1, 1 + len(channels)))
            self._tell(host, f"{len(chosen)} of its streams hang")
            for channel in chosen:
                channel.is_lost = True
                if self._chance.random() < 0.7:
                    channel.other.is_lost = True
                channel.other.loop.host.disturbed = self.world.now

    def _streams(self, host):
        return [channel for channel in host.loop.channels if channel.state == "open" and not channel.is_loopback]

    def partition(self, host):
        """The network falls into parts."""
        parts = self._chance.randrange(2, 4)
        for other in self.world.hosts:
            other.group = self._chance.randrange(parts)
        self.network.disturbed = self.world.now
        self.world.tell(f"the network falls into {parts} parts: " + " | ".join(
            " ".join(other.name for other in self.world.hosts if other.group == part) for part in range(parts)))
        self._later(2.0, 90.0, self._heal)

    def oneway(self, host):
        """Some hear a computer no more, or it hears them no more."""
        others = [other for other in self.world.hosts if other is not host and self._chance.random() < 0.5]
        out = self._chance.random() < 0.5
        self._tell(host, f"{'is not heard by' if out else 'does not hear'} {' '.join(other.name for other in others)}")
        for other in others:
            self.network.block(*(host, other) if out else (other, host))
        self.network.disturbed = self.world.now
        self._later(2.0, 60.0, self._heal)

    def _heal(self):
        if not self.network.is_whole:
            self.world.tell("the network is whole")
            self.network.heal()
            self.network.disturbed = self.world.now

    def datagrams(self, host):
        """Datagrams are lost, doubled, late and damaged; streams are slow."""
        network = self.network
        network.loss, network.twice, network.late = self._chance.random() * 0.7, self._chance.random() * 0.5, self._chance.random() * 0.5
        network.corrupt, network.jitter = self._chance.random() * 0.2, 10 ** self._chance.uniform(-4, -0.5)
        network.disturbed = self.world.now
        self.world.tell(f"datagrams: {network.loss:.0%} lost, {network.twice:.0%} twice, {network.late:.0%} late, "
                        f"{network.corrupt:.0%} damaged; {network.jitter * 1000:.0f} ms of jitter")
        self._later(5.0, 60.0, self._clear)

    def _clear(self):
        self.network.reset()
        self.network.disturbed = self.world.now

    def forge(self, host):
        """A member of the network writes datagrams in the names of others."""
        chance = self._chance
        if self._forger is None:
            self._forger = derived_network("lan", "open", OPEN_SECRET)
        known = [other for other in self.world.hosts if other.identity]
        for _ in range(chance.randrange(1, 30)):
            victim = chance.choice(known)
            sender = victim.identity if chance.random() < 0.5 else chance.getrandbits(256).to_bytes(32, "little")
            data = seal(self._forger, sender, chance.getrandbits(chance.choice((8, 31, 64))), chance.getrandbits(16), proto.BEACON,
                        name=chance.choice(known).name, port=chance.choice((PORT, 9)), nonce=chance.getrandbits(64), view=0,
                        answer=chance.random() < 0.5)
            self.network.inject(host, data, chance.choice(known))
        self.world.tell(f"{host.name}: somebody there writes beacons in others' names")


KINDS = {name: getattr(Faults, name) for name in (
    "kill power leave wipe crash pause clock full lie cut halfopen partition oneway datagrams forge").split()}
