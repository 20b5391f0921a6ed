"""Which networks a peer is in, as it has proved on its link.

Two nodes have one connection, in whatever network they met first. TLS has proved there who holds which key. A certificate
of another network for the same key therefore proves membership in that one as well, without a second connection: whoever
copies it from the wire does not have the key. So a network that is joined is shown at once on all links (PROOF), and
whoever is in it, too, answers with its own. All that is told, believed and served asks `connection.networks`.

Who leaves a network says so (WITHDRAW); a connection on which no network is left in common ends.
"""

import hashlib
from collections import OrderedDict

from . import limits, proto
from .errors import PeerError
from .text import clean

MAX_KNOWN = 4096      # certificates that were looked at once; a link that comes again costs no signature


class Belonging:
    """`node` gives loop, networks, links, dispatch, neighbours, offers, label, log and refuse."""

    def __init__(self, node):
        self._node = node
        self._tags = set(node.networks.tags)
        self._known = OrderedDict()       # (tag, SHA-256 of a certificate and the key's ID) of those that are right
        self._looking = set()             # (connection, tag) of which a certificate is being looked at
        node.networks.on_change.append(self._changed)
        node.dispatch.notice(proto.PROOF, self._on_proof)
        node.dispatch.notice(proto.WITHDRAW, self._on_withdraw)

    # -- proving

    def greet(self, connection):
        """A new link: prove what the other may want to know."""
        self._node.neighbours.belongs(connection)
        for tag in self._node.networks.tags:
            if tag in connection.hello.networks and tag != connection.channel.tag:
                self._prove(connection, tag)

    def _prove(self, connection, tag):
        connection.send(proto.PROOF, network=tag, certificate=self._node.networks.leaf(tag))

    def _on_proof(self, connection, proof):
        tag = proof.network
        network = self._node.networks.by_tag(tag)
        if network is None or tag in connection.networks or self._node.link(connection.peer_id) is not connection:
            return
        if self._node.networks.is_denied(tag, connection.peer_id):
            self._node.refuse("removed", f"{self._node.label(connection.peer_id)} was removed from {network.name}, and shows its "
                                         "certificate there")
        elif (connection, tag) not in self._looking:
            self._looking.add((connection, tag))
            self._node.loop.start(self._look(connection, network, proof.certificate))

    async def _look(self, connection, network, certificate):
        key = network.tag, hashlib.sha256(connection.peer_id + certificate).digest()
        try:
            is_right = key in self._known or await self._node.loop.work(network.certifies, certificate, connection.peer_id)
        finally:
            self._looking.discard((connection, network.tag))
        if not is_right:
            connection.fail(PeerError(f"shows a certificate that is not its own in {network.name}", "proof"))
            return
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        networks = self._node.networks
        if connection.is_ready and networks.by_tag(network.tag) is not None and not networks.is_denied(network.tag, connection.peer_id):
            connection.networks |= {network.tag}
            self._node.log.write("network", f"{self._node.label(connection.peer_id)} is in {network.name}")
            if network.tag not in connection.hello.networks:
                self._prove(connection, network.tag)        # it has joined since it said HELLO, and waits for us
            self._node.neighbours.belongs(connection)
            self._node.offers.greet(connection)

    def _on_withdraw(self, connection, told):
        if told.network in connection.networks:
            self.take(connection, told.network, "it has left the network")

    def take(self, connection, tag, reason):
        """The other is in this network no longer, or this node is not. Ends the connection if it was the last one in common."""
        connection.networks -= {tag}
        if not connection.networks:
            connection.finish(clean(reason), leaving=True)
            self._node.links.lost(connection, PeerError(reason, "network"))
        else:
            self._node.neighbours.belongs(connection)

    def _changed(self):
        """This node has joined or left networks."""
        before, self._tags = self._tags, set(self._node.networks.tags)
        for tag in sorted(self._tags - before):
            for connection in self._node.links:
                self._prove(connection, tag)
        for tag in sorted(before - self._tags):
            for connection in self._node.links:
                if tag in connection.networks:
                    connection.send(proto.WITHDRAW, network=tag)
                    self.take(connection, tag, "left the network in which it was connected")
            self._node.neighbours.left_network(tag)
        assert len(self._tags) <= limits.MAX_NETWORKS
