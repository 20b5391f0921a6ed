"""Who is attacked: a root in a namespace of the lab, what it costs, and what must be true of it after each attack."""
import contextlib
import os
import time

from tests.attacks.hostile import Member, Wire
from tests.lab import Lab

MEMORY = 64 << 20          # bytes that an attack may add: the largest bounds (4 MiB a peer, 1,000 links) and some room
DESCRIPTORS = 250          # that a root may hold while it is attacked, links apart
SOURCES = 40               # addresses of the attacker
FRIENDS = 20               # addresses of friends: as many computers


@contextlib.contextmanager
def three_hosts():
    """The lab of all attacks: the root's computer, the attacker's with many addresses, the friends'."""
    with Lab(3) as lab:
        for host, network, count in ((lab.hosts[1], "10.77.9", SOURCES), (lab.hosts[2], "10.77.8", FRIENDS)):
            lab.ip("ip", "-n", host.namespace, "-batch", "-",
                   input="".join(f"addr add {network}.{number + 1}/16 dev eth0\n" for number in range(count)))
        yield lab


class Target:
    """The root under attack, `wire` for the attacker and `friends` for whoever must be served meanwhile."""

    def __init__(self, lab):
        self.lab = lab
        self.host, self.attacker, self.other = lab.hosts
        self.root = self.host.root(home=f"home{time.monotonic_ns()}")
        self.home = max(self.host.folder.glob("home*"), key=lambda path: path.stat().st_mtime_ns)
        self.sources = [f"10.77.9.{number + 1}" for number in range(SOURCES)]
        self.wire = Wire(self.attacker.namespace, self.host.address, sources=self.sources)
        self.friends = Wire(self.other.namespace, self.host.address, sources=[f"10.77.8.{number + 1}" for number in range(FRIENDS)])
        self.memory = self.rss()
        self.most_memory = self.most_descriptors = 0

    def only(self, source):
        """The attacker's wire from one address alone (or from the one with this number)."""
        source = self.sources[source] if isinstance(source, int) else source
        return Wire(self.attacker.namespace, self.host.address, sources=[source])

    def friend(self, number):
        """The wire of one friend's computer alone."""
        return Wire(self.other.namespace, self.host.address, sources=[f"10.77.8.{number + 1}"])

    def json(self, *words, **how):
        """What the owner's command prints."""
        return self.host.json(*words, home=self.home.name, **how)

    def p2p(self, *words, **how):
        """The owner's command line."""
        return self.host.p2p(*words, home=self.home.name, **how)

    def nodes(self):
        """{id: row} of the peer table."""
        return {row["id"]: row for row in self.json("nodes")}

    def refused(self):
        """{reason: count} so far."""
        return self.json("stats")["refused"]

    def log(self):
        """All lines so far."""
        return (self.home / "log").read_text("utf-8").splitlines()

    def rss(self):
        """Bytes of memory of the root now."""
        with open(f"/proc/{self.root.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def look(self):
        """Notes the most of memory and descriptors; called again and again during an attack."""
        self.most_memory = max(self.most_memory, self.rss() - self.memory)
        self.most_descriptors = max(self.most_descriptors, len(os.listdir(f"/proc/{self.root.pid}/fd")))

    def cpu(self):
        """Seconds of CPU that the root has had."""
        with open(f"/proc/{self.root.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def card(self):
        """(bytes received, bytes sent) by the root's host, beacons and TCP and all."""
        text = self.lab.ip("ip", "netns", "exec", self.host.namespace, "cat", "/proc/net/dev")
        fields = next(line for line in text.splitlines() if "eth0" in line).split(":")[1].split()
        return int(fields[0]), int(fields[8])

    def check(self, descriptors=DESCRIPTORS):
        """What must be true after each attack."""
        assert self.root.poll() is None, f"the root ended: {self.root.output()}"
        self.look()
        assert self.most_memory < MEMORY and self.most_descriptors < descriptors, (self.most_memory, self.most_descriptors)
        assert "Traceback" not in self.root.output() and not [line for line in self.log() if " error: " in line], self.log()[-20:]
        Member("friend").join(self.friends).close()
