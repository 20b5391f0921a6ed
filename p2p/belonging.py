"""Which networks a peer is in, as it has proved on its link.

Two nodes have one connection, in whatever network they met first. TLS has proved there who holds which key. A certificate
of another network for the same key therefore proves membership in that one as well, without a second connection: whoever
copies it from the wire does not have the key. So a network that is joined is shown at once on all links (PROOF), and
whoever is in it, too, answers with its own. All that is told, believed and served asks `connection.networks`.

A network counts on a link when each end has believed the other, and knows that it was believed (PROVEN). Looking at a
signature takes a moment; what an end says about the network because of it would else arrive before the other believes it,
and be lost.

Who leaves a network says so (WITHDRAW); a connection on which no network is left in common ends.
"""

import hashlib
from collections import OrderedDict

from . import limits, proto
from .budget import Budget
from .errors import LinkDown, PeerError
from .text import clean

LOOKS = (64, 1024, 10.0)                # certificates of one peer and of all that are looked at in so many s
MAX_KNOWN = 4 * limits.MAX_MEMBERS      # certificates that were right; a link that comes again costs no signature


class Standing:
    """How far each further network is on one link: sets of tags."""

    def __init__(self, connection):
        self.connection = connection
        self.shown = set()         # our certificate was sent
        self.accepted = set()      # ...and was right
        self.looking = set()       # theirs is being looked at
        self.void = set()          # ...and counts no more
        self.believed = set()      # ...and was right

    def forget(self, tag):
        """One end has left it. A look that is under way ends before another one begins."""
        for known in (self.shown, self.accepted, self.believed):
            known.discard(tag)
        self.void |= self.looking & {tag}


class Belonging:
    """`node` gives loop, networks, links, dispatch, neighbours, offers, launcher, label, log and refuse."""

    def __init__(self, node):
        self._node = node
        self._networks = node.networks
        self._tags = set(node.networks.tags)
        self._known = OrderedDict()       # (tag, SHA-256 of the key's ID and a certificate) of those that are right
        self._looks = Budget(*LOOKS)
        self._standings = {}              # peer ID -> Standing on the link with it
        node.networks.on_change.append(self._changed)
        node.dispatch.notice(proto.PROOF, self._on_proof)
        node.dispatch.notice(proto.PROVEN, self._on_proven)
        node.dispatch.notice(proto.WITHDRAW, self._on_withdraw)

    # -- proving

    def greet(self, connection):
        """A new link: prove what the other may want to know."""
        standing = self._standings[connection.peer_id] = Standing(connection)
        self._node.neighbours.belongs(connection)
        for tag in self._networks.tags:
            if tag in connection.hello.networks:
                self._show(standing, tag)

    def lost(self, connection):
        """A connection ended."""
        if self._of(connection):
            del self._standings[connection.peer_id]

    def _of(self, connection):
        """The Standing, where this is the link with its peer."""
        standing = self._standings.get(connection.peer_id)
        return standing if standing is not None and standing.connection is connection else None

    def _show(self, standing, tag):
        if tag not in standing.shown and tag not in standing.connection.networks:
            standing.shown.add(tag)
            standing.connection.send(proto.PROOF, network=tag, certificate=self._networks.leaf(tag))

    def _on_proof(self, connection, proof):
        tag, standing = proof.network, self._of(connection)
        network = self._networks.by_tag(tag)
        if network is None or standing is None or tag in standing.believed | standing.looking | connection.networks:
            return
        if not self._looks.take(self._node.loop.now(), connection.peer_id):
            raise PeerError("shows certificates faster than they can be looked at", "proof")
        if self._networks.is_denied(tag, connection.peer_id):
            self._node.refuse("removed", f"{self._node.label(connection.peer_id)} was removed from {network.name}, and shows its "
                                         "certificate there")
            return
        standing.looking.add(tag)
        self._node.loop.start(self._look(standing, network, proof.certificate))

    async def _look(self, standing, network, certificate):
        connection, tag = standing.connection, network.tag
        key = tag, hashlib.sha256(connection.peer_id + certificate).digest()
        is_right = key in self._known or await self._node.loop.work(network.certifies, certificate, connection.peer_id)
        is_void = tag in standing.void
        standing.looking.discard(tag)
        standing.void.discard(tag)
        if is_void or self._of(connection) is not standing or not connection.is_ready:
            return                        # the link is another one now, or one end has left the network
        if not is_right:
            connection.fail(PeerError(f"shows a certificate that is not its own in {network.name}", "proof"))
            return
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        if self._networks.by_tag(tag) is not None and not self._networks.is_denied(tag, connection.peer_id):
            standing.believed.add(tag)
            connection.send(proto.PROVEN, network=tag)
            if tag not in connection.hello.networks and tag not in standing.accepted:
                standing.shown.discard(tag)      # it has joined since its HELLO: what it was shown before, it could not look at
            self._show(standing, tag)
            self._weigh(standing, tag)

    def _on_proven(self, connection, told):
        standing = self._of(connection)
        if standing is not None and told.network in standing.shown:
            standing.accepted.add(told.network)
            self._weigh(standing, told.network)

    def _weigh(self, standing, tag):
        connection = standing.connection
        if tag in standing.believed & standing.accepted and tag not in connection.networks:
            connection.networks |= {tag}
            self._node.log.write("network", f"{self._node.label(connection.peer_id)} is in {self._networks.name_of(tag)}")
            self._node.neighbours.belongs(connection)
            self._node.offers.greet(connection)
            self._node.removal.greet(connection)
            self._node.launcher.met(connection.peer_id)

    # -- leaving

    def _on_withdraw(self, connection, told):
        self.take(connection, told.network, "it has left the network")

    def take(self, connection, tag, reason):
        """The other is in this network no longer, or this node is not. Ends the connection if it was the last one in common."""
        standing = self._of(connection)
        if standing is not None:
            standing.forget(tag)
        if tag not in connection.networks:
            return
        connection.networks -= {tag}
        self._node.neighbours.belongs(connection)
        if not connection.networks:
            connection.finish(clean(reason), leaving=True)
            self._node.links.lost(connection, LinkDown(reason, "goodbye"))

    def _changed(self):
        """This node has joined or left networks, or somebody was removed from one."""
        before, self._tags = self._tags, set(self._networks.tags)
        standings = [standing for standing in self._standings.values() if standing.connection.is_ready]
        for tag in sorted(before - self._tags):
            self._node.neighbours.left_network(tag)      # first: whom it knew from there alone it forgets, and greets when it comes back
            for standing in standings:
                if standing.connection.is_ready:
                    standing.connection.send(proto.WITHDRAW, network=tag)
                    self.take(standing.connection, tag, "the network in which it was connected was left")
            self._node.launcher.left_network(tag)
        for standing in standings:
            connection = standing.connection
            for tag in sorted(self._tags - before):
                if connection.is_ready:
                    self._show(standing, tag)
            for tag in sorted(connection.networks):
                if self._networks.is_denied(tag, connection.peer_id):
                    self.take(connection, tag, f"it was removed from {self._networks.name_of(tag)}")
        for connection in self._node.links.everything():      # those, too, that are heard out because another one serves
            connection.networks = frozenset(tag for tag in connection.networks
                                            if tag in self._tags and not self._networks.is_denied(tag, connection.peer_id))
