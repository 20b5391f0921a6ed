"""Removing nodes from a managed network, for good: deny lists (trust/denial.py) travel, and what they say is done here.

An admin signs a list, does what it says at once, and tells all links of that network; each member that learns something
from a list does the same and passes it on. A list is believed for its signature, whoever brings it. The new key of the
network's datagrams goes with it to members alone.

What a list does: the removed node's links end or lose that network, it is refused before its first byte (trust/networks.py),
its offers there are dropped, it takes part in no session there, and it is in no table of that network any more, so that no
member tells others of it. A node that reads its own ID leaves the network.
"""

from . import limits, proto
from .budget import Budget
from .errors import LinkDown, P2PError, PeerError, Refusal, UserError
from .text import clean
from .trust import denial
from .trust.denial import DenyList
from .trust.ecc import PrivateKey, node_id_text

LISTS = (16, 256, 10.0)       # lists looked at of one member and of all, in so many s: each costs a signature's check
STRANGERS = (4, 16, 10.0)     # of those who have not proved to be members (yet): what they bring may be true all the same


class Removal:
    """`node` gives loop, identity, networks, links, link, dispatch, neighbours, offers, launcher, label, log, notice, refuse."""

    def __init__(self, node):
        self._node = node
        self._loop = node.loop
        self._budget, self._strangers = Budget(*LISTS), Budget(*STRANGERS)
        self._later = set()           # IDs of members whose lists are looked at again when the budget is fresh
        node.dispatch.notice(proto.DENY, self._on_deny)
        node.dispatch.request(proto.ADMIN, self._on_admin)

    # -- telling

    def greet(self, connection):
        """A link has proved to be in networks: tell whom they have removed."""
        for tag in sorted(connection.networks):
            network = self._node.networks.by_tag(tag)
            if network is not None and network.lists:
                self._tell(connection, network)

    def _tell(self, connection, network):
        is_member = network.tag in connection.networks and connection.peer_id not in network.denied
        connection.send(proto.DENY, network=network.tag, lists=network.lists, udp_key=network.udp_key if is_member else bytes(32))

    def _on_deny(self, connection, told):
        network = self._node.networks.by_tag(told.network)
        if network is None or network.kind != "managed":
            return
        lists = [DenyList.decode(data) for data in told.lists]      # what is no list ends the connection
        if any(made.tag != network.tag for made in lists):
            raise PeerError("sends a deny list of another network", "deny-list")
        fresh = [made for made in lists if denial.merge(network.lists, made) != network.lists]      # others cost nothing
        is_member = network.tag in connection.networks
        budget = self._budget if is_member else self._strangers
        if not all([budget.take(self._loop.now(), connection.peer_id) for _ in fresh]):
            self._node.refuse("deny-list", f"{self._node.label(connection.peer_id)} sends deny lists faster than they can be looked at")
            if is_member and connection.peer_id not in self._later:      # a member's word about a removal must not be lost
                self._later.add(connection.peer_id)
                self._loop.call_later(LISTS[2], self._again, connection, told)
        elif fresh or self._lacks_key(network, told.udp_key):
            self._loop.start(self._look(connection, network.tag, fresh, told.udp_key))

    def _again(self, connection, told):
        self._later.discard(connection.peer_id)
        if connection.is_ready:
            self._on_deny(connection, told)

    @staticmethod
    def _lacks_key(network, udp_key):
        wanted = denial.state_of(network.lists).key_hash
        return denial.key_hash(udp_key) == wanted != denial.key_hash(network.udp_key)

    async def _look(self, connection, tag, fresh, udp_key):
        network = self._node.networks.by_tag(tag)
        for made in fresh:
            if not await self._loop.work(made.is_authentic, network.ca_public):
                connection.fail(PeerError(f"sends a deny list that no admin of {network.name} has signed", "deny-list"))
                return
            self._adopt(tag, made, udp_key, connection)
        self._adopt(tag, None, udp_key, connection)

    # -- doing what they say

    def _adopt(self, tag, made, udp_key, source=None):
        network = self._node.networks.by_tag(tag)
        if network is None:
            return           # left meanwhile
        lists = denial.merge(network.lists, made) if made is not None else network.lists
        state = denial.state_of(lists, network.denied)
        if denial.key_hash(udp_key) != state.key_hash:
            udp_key = network.udp_key         # whoever has the right one will tell
        if lists == network.lists and udp_key == network.udp_key:
            return
        after = network.changed(lists=lists, denied=state.denied, epoch=state.epoch, udp_key=udp_key)
        removed = sorted(state.denied - network.denied)
        for node_id in removed:
            connection = self._node.link(node_id)
            if connection is not None and connection is not source:
                self._tell(connection, after)         # it should not have to guess why nobody speaks with it
        try:
            self._node.networks.replace(after)
        except P2PError as error:        # done all the same; after a restart the other members tell of it again
            self._node.log.write("disk", f"whom {after.name} has removed could not be written down: {error}")
            self._node.notice(f"! whom {after.name} has removed could not be written down: {error}")
        for node_id in removed:
            self._expel(after, node_id)
        for connection in self._node.links:
            if tag in connection.networks and connection is not source:
                self._tell(connection, after)
        if after.is_admin and denial.wants_union(lists):
            self._loop.start(self._sign(after, after.denied))

    def _expel(self, network, node_id):
        if node_id == self._node.identity.node_id:
            self._loop.start(self._was_removed(network))
            return
        label = self._node.label(node_id)
        self._node.log.write("network", f"{label} {node_id_text(node_id)} was removed from {network.name}")
        self._node.notice(f"* {label} ({node_id_text(node_id)[:10]}) was removed from {network.name}")
        self._node.neighbours.expel(node_id, network.tag)         # of its links `belonging` took the network when it changed
        self._node.offers.expel(node_id, network.tag)
        self._node.launcher.expelled(node_id, network.tag)

    async def _was_removed(self, network):
        self._node.log.write("network", f"this node was removed from {network.name} by an admin")
        self._node.notice(f"! this node was removed from {network.name} by an admin; what was fetched there stays here")
        if self._node.networks.by_tag(network.tag) is not None and len(self._node.networks.tags) > 1:
            self._node.networks.remove(network.tag)

    async def _sign(self, network, denied):
        """A list of all these, in the next epoch and with a new key, adopted and told. Raises UserError."""
        if network.epoch >= denial.MAX_EPOCH or len(denied) > limits.MAX_DENIED:
            raise UserError(f"{network.name}: {limits.MAX_DENIED} nodes are removed from it, which is the most: found a new network",
                            code="too-many")
        udp_key = self._loop.entropy(32)
        made = await self._loop.work(DenyList.signed, network.ca_key, network.tag, network.epoch + 1, denied, udp_key)
        self._adopt(network.tag, made, udp_key)

    # -- what this node's user wants

    async def remove(self, network, node_id) -> int:
        """Remove a node; how many members were told at once. Raises UserError."""
        self._check_admin(network, "remove nodes from it")
        if node_id == self._node.identity.node_id:
            raise UserError(f"that is this node: `network leave {network.name}` leaves it", code="self")
        if node_id in network.denied:
            raise UserError(f"{self._node.label(node_id)} was removed from {network.name} before", code="removed")
        told = sum(network.tag in connection.networks and connection.peer_id != node_id for connection in self._node.links)
        await self._sign(network, network.denied | {node_id})
        return told

    async def make_admin(self, network, node_id):
        """Hand over the network's key. Raises UserError."""
        self._check_admin(network, "make another one")
        label, connection = self._node.label(node_id), self._node.link(node_id)
        if connection is None or network.tag not in connection.networks:
            raise UserError(f"{label} is not here as a member of {network.name}: the key goes only to a member that is connected; "
                            f"`nodes --network {network.name}` shows who is", code="unreachable")
        try:
            await connection.request(proto.ADMIN, network=network.tag, key=network.ca_key.d.to_bytes(32, "big"))
        except (LinkDown, Refusal) as error:
            raise UserError(f"{label} did not take the key: {clean(str(error))}", code="refused")
        self._node.log.write("network", f"{label} {node_id_text(node_id)} was made an admin of {network.name}")

    @staticmethod
    def _check_admin(network, what):
        if network.kind != "managed":
            raise UserError(f"{network.name} is {network.kind}: nobody is its admin, and nobody can be removed from it", code="kind")
        if not network.is_admin:
            raise UserError(f"only an admin of {network.name} can {what}, and this node is none", code="not-admin")

    async def _on_admin(self, connection, told):
        network = self._node.networks.by_tag(told.network)
        if network is None or network.kind != "managed" or told.network not in connection.networks:
            raise Refusal(proto.NOT_FOUND, "no such network here")
        if network.is_admin:
            return {}
        key = int.from_bytes(told.key, "big")
        try:
            ca_key = PrivateKey(key)
            is_right = (await self._loop.work(lambda: ca_key.public.spki)) == network.ca_public.spki
        except AssertionError:
            is_right = False
        if not is_right:
            raise PeerError(f"hands over a key that is not that of {network.name}", "key")
        network = self._node.networks.by_tag(told.network)
        if network is not None and not network.is_admin:
            self._node.networks.replace(network.changed(ca_key=ca_key))
            label = self._node.label(connection.peer_id)
            self._node.log.write("network", f"{label} made this node an admin of {network.name}")
            self._node.notice(f"* {label} made this node an admin of {network.name}: it can invite and remove others now")
        return {}
