"""Keeps p2pstate current: gathers what the services know into rows, and writes them at most every tenth of a second.

The segment's name is a secret of this user's processes: children get it through their bootstrap pipe. It is also
written into the home, so that the next start can remove what a killed root left behind.
"""

import os

from . import limits
from .errors import P2PError
from .layout import Counters, Me, Network, Node, Snapshot
from .state import remove_stale

NAME_FILE = "state-name"
RECOUNT = 1.0             # s; to sum up the traffic of a hundred links for each change costs more than the change


class Publisher:
    """`node` gives everything; this is the only place that knows the shape of p2pstate's rows."""

    def __init__(self, node):
        self._node = node
        self._loop = node.loop
        self._timer = None
        self._idle = None
        self._counted, self._counted_at = None, 0.0
        path = node.path(NAME_FILE)
        if node.disk.exists(path):
            remove_stale(node.disk.read_bytes(path, 256).decode("ascii", "replace").strip())
        self._writer = node.loop.state_writer()
        self.name = self._writer.name
        try:
            node.disk.write_atomic(path, self.name.encode("ascii") + b"\n")
        except P2PError:
            self._writer.close()        # nobody would know its name any more
            raise

    def start(self):
        """Write the first table, and from then on at least every few seconds."""
        self._publish()

    def due(self):
        """Something has changed."""
        if self._timer is None and self._writer:
            self._timer = self._loop.call_later(limits.PUBLISH_EVERY, self._publish)

    def catch_up(self):
        """Write now what is due: an application that starts finds at least what its root knew at that moment."""
        if self._timer is not None and self._writer:
            self._publish()

    def _publish(self):
        for timer in (self._timer, self._idle):
            if timer:
                timer.cancel()
        self._timer = None
        self._idle = self._loop.call_later(limits.COUNTERS_EVERY, self._publish)
        self._writer.publish(self.snapshot())

    def snapshot(self):
        """All that p2pstate shows, now."""
        node = self._node
        networks = node.networks.all()
        bits = {network.tag: 1 << place for place, network in enumerate(networks)}
        members = node.members()
        sessions, jobs = node.launcher.published()
        return Snapshot(
            Me(node.identity.node_id, node.name, node.version, node.port, os.getpid(),
               self._loop.wall() - (self._loop.now() - node.started_at)),
            self._counters(),
            tuple(Network(network.name, network.tag, sum(network.tag in member.networks and member.id not in network.denied
                                                        for member in members)) for network in networks),
            sessions, jobs,
            self._rows(members, bits))

    def _rows(self, members, bits):
        link, address_of, label, rows = self._node.links.get, self._node.address_of, self._node.label, []
        age = self._loop.wall() - self._loop.now()       # of the loop's clock
        for member in members:
            connection = link(member.id)
            host, port = address_of(member) or ("", 0)
            came, went = (connection.traffic.in_bytes, connection.traffic.out_bytes) if connection else (0, 0)
            networks = 0
            for tag in member.networks:
                networks += bits.get(tag, 0)
            # Whole seconds: a row that has not changed is not packed again.
            seen = 0.0 if member.is_self or connection else float(int(age + member.last_seen))
            rows.append(Node(member.id, label(member.id) if member.name else "", host, port, networks, member.state, member.verified,
                             int((member.rtt_s or 0) * 1e6), came, went, float(int(member.first_seen_wall)), seen))
        return tuple(rows)

    def _counters(self):
        loop = self._loop
        if self._counted is not None and loop.now() - self._counted_at < RECOUNT:
            return self._counted
        self._counted_at = loop.now()
        self._counted = self._count()
        return self._counted

    def _count(self):
        node, loop = self._node, self._loop
        tcp, udp = node.traffic(), node.broadcaster.traffic
        return Counters(loop.wall(), loop.turns, int(loop.busy_s * 1e6), int(loop.worst_s * 1e6), tcp.in_bytes, tcp.out_bytes,
                        tcp.in_messages, tcp.out_messages, udp["in_bytes"], udp["out_bytes"], udp["in_messages"], udp["out_messages"],
                        len(node.links.everything()), len(node.asking.consent.requests()), sum(node.refused.values()))

    def close(self):
        """Remove the segment."""
        for timer in (self._timer, self._idle):
            if timer:
                timer.cancel()
        try:
            self._writer.close()
            self._writer = None
            self._node.disk.remove_tree(self._node.path(NAME_FILE))
        except P2PError as error:
            self._node.log.write("state", str(error))
