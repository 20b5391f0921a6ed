"""p2pbroadcaster: says on every interface that this node is here, and hears who else is.

No default route is needed: IPv4 beacons go to each interface's directed broadcast address, IPv6 ones to a
link-local multicast group through each interface by its index (255.255.255.255 and unpinned multicast give
ENETUNREACH without a route). Loopback's broadcast reaches the other nodes of this computer.

The root port is shared by all nodes of a computer, so that broadcasts reach each of them; a unicast datagram
to a shared port reaches only one. Beacons therefore leave from a private port, which is where answers go.

An answer is never longer than its question, and a source gets at most one a second: nobody can use a node to
multiply traffic. Beacons come close together at the start and then about one a second in the whole network.
"""

from collections import deque

from . import limits, proto
from .datagram import Opener, seal
from .errors import PeerError

GROUP = "ff12::7032:7066"      # transient link-local group (RFC 4291, section 2.7), "p2pf" at its end
LOOPBACK_BROADCAST = "127.255.255.255"
ANSWER_PAUSE = 1.0             # s between two answers to one source
OWN = 256                      # of its own datagrams that it knows again; one round has as many as interfaces and networks
MAX_ANSWERED = 1024            # sources remembered for that


class Broadcaster:
    """`describe(tag)` gives the beacon's fields in a network; `on_heard(sender, network, fields, host)` hears each authentic one;
    `on_refused(reason, host)` counts the others; `peers()` is how many nodes share the rate."""

    def __init__(self, loop, me, networks, incarnation, port, describe, on_heard, on_refused, peers):
        self.traffic = {"in_bytes": 0, "out_bytes": 0, "in_messages": 0, "out_messages": 0}
        self._loop = loop
        self._me = me
        self._networks = networks
        self._incarnation = incarnation
        self._port = port
        self._describe = describe
        self._on_heard = on_heard
        self._on_refused = on_refused
        self._peers = peers
        self._sequence = 0
        self._answered = {}
        self._own = deque(maxlen=OWN)      # MACs of what was sent last
        self._opener = Opener(networks.by_tag)
        self.interfaces = []               # as the last look found them
        self._endpoints = []
        self._private4 = self._open("0.0.0.0", 0)
        self._shared4 = self._open("0.0.0.0", port, shared=True)
        self._private6 = self._open("::", 0)
        self._shared6 = self._open("::", port, shared=True)
        self._look_timer = self._beacon_timer = None

    def _open(self, host, port, shared=False):
        try:
            endpoint = self._loop.datagram(host, port, self._on_datagram, shared=shared)
        except OSError:
            return None        # no IPv6 here, or the port is held by a program that does not share it
        self._endpoints.append(endpoint)
        return endpoint

    @property
    def can_hear(self):
        """Is the shared port open, so that others' beacons arrive?"""
        return self._shared4 is not None

    def prove(self, sender, incarnation):
        """This node has told over its own TLS in which incarnation it runs."""
        self._opener.prove(sender, incarnation)

    def start(self):
        """Begin to speak."""
        self._look()
        for delay in limits.BEACON_START:
            self._loop.call_later(delay, self.beacon, True)
        self._beacon_timer = self._loop.call_later(limits.BEACON_START[-1], self._steadily)

    def _look(self):
        interfaces = self._loop.interfaces()
        if self.interfaces and interfaces != self.interfaces:
            self._loop.call_soon(self.beacon, True)       # a cable, an address: who is there now?
        self.interfaces = interfaces
        if self._shared6:
            self._shared6.forget({interface.index for interface in interfaces})
            self._shared6.join([(GROUP, interface.index) for interface in interfaces])
        self._look_timer = self._loop.call_later(limits.INTERFACES_EVERY, self._look)

    def _steadily(self):
        self.beacon(False)
        jitter = 0.75 + self._loop.entropy(1)[0] / 512
        pause = min(max(2, self._peers()) * limits.BEACON_EVERY, limits.BEACON_SLOWEST)
        self._beacon_timer = self._loop.call_later(pause * jitter, self._steadily)

    def beacon(self, answer):
        """Send one beacon of each network to everybody; `answer` asks them to send one back."""
        for network in self._networks.all():
            for endpoint, address in self._destinations():
                self._send(endpoint, address, self._seal(network, dict(self._describe(network.tag), answer=answer)))

    def _seal(self, network, fields):
        self._sequence += 1
        data = seal(network, self._me, self._incarnation, self._sequence, proto.BEACON, **fields)
        self._own.append(data[-proto.MAC_SIZE:])
        return data

    def _destinations(self):
        for interface in self.interfaces:
            if self._private4:
                if interface.is_loopback:
                    yield self._private4, (LOOPBACK_BROADCAST, self._port)
                for address in interface.addresses:
                    if address.broadcast and not interface.is_loopback:
                        yield self._private4, (address.broadcast, self._port)
            if self._private6 and interface.link_local6 and not interface.is_loopback:
                yield self._private6, (GROUP, self._port, 0, interface.index)

    def _send(self, endpoint, address, data):
        if endpoint.send(data, address):
            self.traffic["out_bytes"] += len(data)
            self.traffic["out_messages"] += 1

    def _on_datagram(self, data, address):
        self.traffic["in_bytes"] += len(data)
        self.traffic["in_messages"] += 1
        host = address[0]
        if len(address) == 4 and address[3]:
            host = f"{host.split('%')[0]}%{address[3]}"
        try:
            _, envelope, beacon, network = self._opener.open(data)
        except PeerError as error:
            # Its own, come back: stale since a copy of this node, started later, was heard. No news to anybody
            if data[-proto.MAC_SIZE:] not in self._own:
                self._on_refused(error.reason, host)
            return
        if beacon.answer and envelope.sender != self._me:
            self._answer(network, address, len(data))
        self._on_heard(envelope.sender, network, beacon, host)

    def _answer(self, network, address, most):
        now = self._loop.now()
        if now - self._answered.get(address[0], -ANSWER_PAUSE) < ANSWER_PAUSE:
            return
        if len(self._answered) >= MAX_ANSWERED:
            self._answered.clear()
        self._answered[address[0]] = now
        fields = dict(self._describe(network.tag), answer=False)
        data = self._seal(network, fields)
        if len(data) > most:
            fields["name"] = fields["name"].encode()[:max(0, len(fields["name"].encode()) - (len(data) - most))].decode("utf-8", "ignore")
            data = self._seal(network, fields)
        endpoint = self._private6 if len(address) == 4 else self._private4
        if endpoint and len(data) <= most:
            self._send(endpoint, address, data)

    def close(self):
        """Fall silent."""
        for timer in (self._look_timer, self._beacon_timer):
            if timer:
                timer.cancel()
        for endpoint in self._endpoints:
            endpoint.close()
        self._endpoints = []
        self._private4 = self._shared4 = self._private6 = self._shared6 = None
        self.interfaces = []
