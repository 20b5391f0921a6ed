"""Letting others into a managed network: what an admin's node answers to those who try a code (trust/invitations.py).

Anybody can try. That costs the admin some milliseconds of a worker and the code one of its tries, so never more than
MAX_INVITATIONS * JOIN_TRIES in ten minutes; a budget bounds how fast selectors can be looked for. Who joined holds a
certificate of its own and the network's UDP key, and nothing of it is ever sent before its proof was right.
"""

from . import limits, proto
from .budget import Budget
from .errors import PeerError, Refusal, UserError
from .trust import invitations
from .trust.ecc import PublicKey, node_id_text
from .trust.invitations import Expired, Invitations, Joined, Spent, Tried
from .trust.pake import Password, fresh_scalar

LOOKS = (16, 400, 10.0)      # looks for a selector by one node and by all, in so many s: one node needs longer for all than a code lives


class Inviting:
    """`node` gives loop, identity, networks, dispatch, label, log, notice, refuse."""

    def __init__(self, node):
        self._node = node
        self._loop = node.loop
        self._looks = Budget(*LOOKS)
        self._timer = None
        self.invitations = Invitations()
        node.dispatch.request(proto.JOIN_SEEK, self._on_seek)
        node.dispatch.request(proto.JOIN_TRY, self._on_try)
        node.dispatch.request(proto.JOIN_CONFIRM, self._on_confirm)
        node.networks.on_change.append(self._networks_changed)

    def close(self):
        """Stop the timer; the codes end with the process."""
        if self._timer:
            self._timer.cancel()

    async def invite(self, network):
        """A new Invitation into a network of which this node is an admin. Raises UserError."""
        if network.kind != "managed":
            said = "everybody on this wire is in it"
            if network.kind == "shared":
                said = f"its code lets others in; `network code {network.name}` shows it"
            raise UserError(f"{network.name} takes no invitations: {said}", code="not-managed")
        if not network.is_admin:
            raise UserError(f"this node is not an admin of {network.name}: whoever is can invite, or make it one with `network admin`",
                            code="not-admin")
        invitation = self.invitations.open(network.tag, self._loop.entropy, self._loop.now())
        invitation.password = await self._loop.work(Password.of, invitation.code)
        self._node.log.write("network", f"invited somebody into {network.name} with a code that begins with {invitation.selector}")
        self._act()
        return invitation

    # -- what peers ask

    def _look(self, connection):
        if not self._looks.take(self._loop.now(), connection.peer_id):
            raise Refusal(proto.BUSY, "too many questions for invitations: wait ten seconds")

    def _check_removed(self, tag, connection):
        if self._node.networks.is_denied(tag, connection.peer_id):
            raise Refusal(proto.FORBIDDEN, "this node was removed from that network; a new identity can be invited (`id --rotate`)")

    async def _on_seek(self, connection, asked):
        self._look(connection)
        return {"found": self.invitations.find(asked.selector, self._loop.now()) is not None}

    async def _on_try(self, connection, asked):
        self._look(connection)
        wanted = self.invitations.find(asked.selector, self._loop.now())
        if wanted is not None:
            self._check_removed(wanted.tag, connection)      # before it counts: who was removed cannot burn a code under the old ID
        try:
            begun = self.invitations.begin(asked.selector, connection.peer_id, self._loop.now())
        finally:
            self._act()
        share, confirmation = await self._loop.work(
            begun.answer, self._node.identity.node_id, connection.channel.tag, asked.share, fresh_scalar(self._loop.entropy(48)))
        return {"share": share, "confirmation": confirmation, "left": begun.left}

    async def _on_confirm(self, connection, said):
        key = PublicKey.from_spki(said.key)
        if key.node_id != connection.peer_id:
            raise PeerError("asks for a certificate of a key that is not its own", "key")
        try:
            begun = self.invitations.confirm(said.selector, connection.peer_id, said.confirmation, self._loop.now())
        finally:
            self._act()
        tag = begun.invitation.tag
        self._check_removed(tag, connection)
        network = self._node.networks.by_tag(tag)
        leaf = await self._loop.work(network.issue, said.key, self._loop.entropy(16))
        credentials = proto.Credentials.pack({
            "name": network.name, "ca": network.ca, "leaf": leaf, "udp_key": network.udp_key, "lists": network.lists})
        return {"credentials": credentials, "mac": invitations.seal(begun.keys.key, credentials)}

    # -- what came of it

    def _networks_changed(self):
        for invitation in self.invitations.all():
            network = self._node.networks.by_tag(invitation.tag)
            if network is None or not network.is_admin:
                self.invitations.withdraw(invitation.tag)
        self._act()

    def _act(self):
        for effect in self.invitations.effects():
            self._tell(effect)
        if self._timer:
            self._timer.cancel()
        deadline = self.invitations.deadline()
        self._timer = self._loop.call_at(deadline, self._due) if deadline is not None else None

    def _due(self):
        self._timer = None
        self.invitations.time(self._loop.now())
        self._act()

    def _tell(self, effect):
        network = self._node.networks.by_tag(effect.invitation.tag)
        name = network.name if network else "a network that was left"
        begins = f"the code {effect.invitation.selector}…"
        if isinstance(effect, (Tried, Joined)):
            who = f"{self._node.label(effect.peer)} ({node_id_text(effect.peer)[:10]})"
        if isinstance(effect, Tried):
            text = f"{who} tries {begins} to join {name} (try {effect.number} of {limits.JOIN_TRIES})"
        elif isinstance(effect, Joined):
            text = f"{who} joined {name} by {begins}"
        elif isinstance(effect, Spent):
            text = f"{begins} to join {name} is burned: {limits.JOIN_TRIES} tries, none right. `network invite {name}` makes another"
            self._node.refuse("code", text)
        else:
            assert isinstance(effect, Expired)
            text = f"{begins} to join {name} has expired"
        self._node.log.write("network", text)
        self._node.notice(f"* {text}")
