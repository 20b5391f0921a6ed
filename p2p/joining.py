"""Joining a managed network by a code: whom to ask for it, and taking what is handed over (trust/invitations.py).

The links are asked who has an invitation that begins like the code; whoever says yes is tried, one after the other,
until one proves that it has the code. Anybody can say yes: that costs this node a round trip and gives the liar one
guess. Nothing is believed of a peer before its proof, and nothing of what it hands over without the seal.

The new network is live as soon as it is kept: the networks tell their listeners, and those tell the links.
"""

from . import limits, proto
from .errors import Denied, LinkDown, PeerError, Refusal, TimedOut, UserError
from .tasks import within
from .text import clean, plural
from .trust import denial, invitations, x509
from .trust.denial import DenyList
from .trust.invitations import Attempt, WrongCode
from .trust.network import MANAGED, Network, check_name, managed_tag
from .trust.pake import Password, fresh_scalar


class Joining:
    """`node` gives loop, identity, networks, links, link, request, label, changed, started_at."""

    def __init__(self, node):
        self._node = node
        self._loop = node.loop
        self._me = node.identity.node_id

    async def join(self, code, label=None) -> Network:
        """The network that this code lets this node into, joined; called `label` here, or as there. Raises UserError, of which Denied
        says that the code is wrong."""
        self._node.networks.check_new(label or "")      # what stands against it is better known before the code is used up
        password = await self._loop.work(Password.of, code)
        seeking = Seeking(self._node, invitations.selector_of(code))
        failures: list = []
        for _ in range(limits.MAX_INVITERS):
            peer_id = await seeking.next(bool(failures))
            if peer_id is None:
                break
            try:
                return await self._take(await self._try(peer_id, code, password), label)
            except (WrongCode, LinkDown, Refusal, PeerError) as error:
                failures.append((peer_id, error))
                connection = self._node.link(peer_id)
                if isinstance(error, PeerError) and connection is not None:
                    connection.fail(error)
        raise self._failure(code, failures, seeking)

    async def _try(self, peer_id, code, password):
        connection = self._node.link(peer_id)
        if connection is None:
            raise LinkDown("is not connected any more", "unreachable")
        selector = invitations.selector_of(code)
        attempt = await self._loop.work(Attempt, code, password, self._me, peer_id, connection.channel.tag,
                                        fresh_scalar(self._loop.entropy(48)))
        answer = await connection.request(proto.JOIN_TRY, selector=selector, share=attempt.share)
        try:
            confirmation = await self._loop.work(attempt.finish, answer.share, answer.confirmation, answer.left)
        except WrongCode:
            await self._give_up(connection, selector)
            raise
        try:
            given = await connection.request(proto.JOIN_CONFIRM, selector=selector, confirmation=confirmation,
                                             key=self._node.identity.spki)
        except LinkDown as error:
            raise UserError(f"the code was right, but the answer of {self._node.label(peer_id)} was lost on the way ({error}): ask for a "
                            "new code", code="unreachable", exit=5 if error.kind == "timeout" else 1)
        return proto.Credentials.unpack_all(invitations.open_sealed(attempt.key, given.credentials, given.mac))

    async def _give_up(self, connection, selector):
        # So that the other's user hears of a burned code now; it says nothing that could be compared with a guess
        try:
            await connection.request(proto.JOIN_CONFIRM, selector=selector, confirmation=bytes(32), key=self._node.identity.spki)
        except (Refusal, LinkDown):
            pass

    async def _take(self, given, label):
        """Keep what an admin who has the code handed over. Raises PeerError for what is no membership of this node."""
        state = denial.state_of(given.lists)
        network = Network(label or given.name, MANAGED, managed_tag(given.ca), given.ca, None, given.udp_key, state.epoch, state.denied,
                          lists=given.lists)
        if not await self._loop.work(_is_whole, network, given.leaf, self._me):
            raise PeerError("hands over what is not of its network, or not for this node", "certificate")
        try:
            check_name(network.name)
            self._node.networks.add(network, given.leaf)
        except UserError as error:
            raise UserError(f"{error}. The code is used up: ask for a new one then", code=error.code, exit=error.exit)
        return network

    def _failure(self, code, failures, seeking):
        """The UserError that says most of what went wrong."""
        wrong = [(peer_id, error) for peer_id, error in failures if isinstance(error, WrongCode)]
        others = [(peer_id, error) for peer_id, error in failures if not isinstance(error, WrongCode)]
        if len(wrong) == 1:
            peer_id, error = wrong[0]
            left = (f"{plural(error.left, 'try', 'tries')} left" if error.left else
                    "it is burned now: ask for a new one")
            return Denied(f"{self._node.label(peer_id)} has an invitation that begins with {code[:2]}, but this is not its code ({left})")
        if wrong:
            return Denied(f"{len(wrong)} nodes say that they have an invitation that begins with {code[:2]}, and this is the code of none "
                          "of them: each took it for a wrong try")
        if others:
            peer_id, error = others[0]
            said = f"{self._node.label(peer_id)}: {clean(str(error), 300)}"
            if isinstance(error, Refusal) and error.code == proto.FORBIDDEN:
                return Denied(said)
            is_late = isinstance(error, LinkDown) and error.kind == "timeout"
            return TimedOut(f"{said}; try again") if is_late else UserError(said, code="refused")
        if seeking.mute:
            return TimedOut(f"{plural(len(seeking.mute), 'node')} did not say in time whether an invitation waits there, and nobody else "
                            "has one: try again")
        if seeking.busy:
            return UserError(f"{self._node.label(seeking.busy[0])} was asked too often: wait ten seconds and try again", code="busy")
        nobody = ("nobody else is here" if not seeking.asked else "the other node here has none" if len(seeking.asked) == 1 else
                  f"none of the {len(seeking.asked)} other nodes here has one")
        return UserError(f"no invitation that begins with {code[:2]}: {nobody}. Codes are good for {int(limits.JOIN_FOR / 60)} minutes; if "
                         "the node that invited is not in `nodes`, reach it with `connect HOST`", code="no-such-invitation")


def _is_whole(network, leaf, node_id):
    """Do the CA, this node's certificate and the deny lists belong together? Takes milliseconds. Raises PeerError."""
    lists = [DenyList.decode(data) for data in network.lists]
    return (x509.is_ca(network.ca) and network.certifies(leaf, node_id)
            and all(made.tag == network.tag and made.is_authentic(network.ca_public) for made in lists))


class Seeking:
    """Asks links who has an invitation with a selector, those too that come up meanwhile. IDs: `asked`, `mute` (no answer yet),
    `busy` (asked too often)."""

    def __init__(self, node, selector):
        self._node = node
        self._loop = node.loop
        self._selector = selector
        self._found = []
        self.asked = []
        self.mute = []
        self.busy = []
        self._deadline = self._loop.now() + limits.JOIN_SEEK_FOR
        # A root that has just started has not met everybody yet
        self._settled = min(self._deadline, node.started_at + limits.JOIN_MEET_FOR)

    async def next(self, is_urgent):
        """The ID of the next node that says yes, or None. `is_urgent`: newcomers are not waited for."""
        while True:
            for connection in self._node.links:
                if connection.peer_id not in self.asked and connection.is_ready:
                    self.asked.append(connection.peer_id)
                    self.mute.append(connection.peer_id)
                    self._loop.start(self._ask(connection))
            if self._found:
                return self._found.pop(0)
            now = self._loop.now()
            end = self._deadline if self.mute else now if is_urgent else self._settled
            if now >= end:
                return None
            try:
                await within(self._loop, self._node.changed.wait(), end - now)
            except TimedOut:
                continue

    async def _ask(self, connection):
        has_one = False
        try:
            has_one = (await connection.request(proto.JOIN_SEEK, limits.JOIN_SEEK_FOR, selector=self._selector)).found
        except LinkDown:
            return
        except Refusal as error:     # mostly by an older node, which does not know the question
            self.busy += [connection.peer_id] if error.code == proto.BUSY else []
        except PeerError:
            pass
        self.mute.remove(connection.peer_id)
        if has_one:
            self._found.append(connection.peer_id)
        self._node.changed.notify()
