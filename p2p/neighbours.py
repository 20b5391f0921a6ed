"""The node's dealings with other nodes: hears them, dials them, keeps the table.

Between the pure membership and the mechanisms: beacons, connections and failed dials go in as evidence, the
effects that come out are carried out on the client. Nodes that see different sets of living nodes tell each
other so by a digest (VIEW), and the one that lacks somebody asks (NODES): thus a node that reached one peer by
`connect` finds the rest, also where no broadcast passes.
"""

from . import limits, membership, proto
from .acquaintances import Acquaintances, node_name
from .budget import Budget
from .errors import LinkDown, Refusal
from .interfaces import is_nearby
from .text import clean
from .trust.ecc import node_id_text

SAYINGS = (20, 100, 10.0)      # lines of one node and of all that reach the screen, in so many s
TIDINGS = (100, 100, 10.0)     # that nodes came or went; the log has more, `nodes` has all
UNKNOWN = (32, 256, 1.0)       # IDs never heard of, from one address and from all: each costs a row and a dial
CLONES = (1, 5, 60.0)          # warnings for one address and for all: a beacon in this node's name can be forged
_KINDS_BY_STATE = {state: number for number, state in enumerate(membership.STATES)}


class Neighbours:
    """`node` gives loop, name, port, nonce, identity, networks, client, links, broadcaster, answering, log, notice and changed."""

    def __init__(self, node):
        self._node = node
        self._loop = node.loop
        self._timer = None
        self._asked = {}                  # (network's tag, node ID) -> when its view was last asked for, and which one differed from which
        self._views = {}                  # (network's tag, node ID) -> the view it last told
        self._told_views = {}             # network's tag -> what was last told
        self._sayings, self._tidings = Budget(*SAYINGS), Budget(*TIDINGS)
        self._unknown, self._clones = Budget(*UNKNOWN), Budget(*CLONES)
        self._timers = []
        self.on_gone = []                 # callables(member): dead, departed, or started anew
        self.table = membership.Membership(node.identity.node_id, node.name, node.nonce, self._loop.now())
        self.known = Acquaintances(node, self.table)
        self._networks_changed()
        node.networks.on_change.append(self._networks_changed)
        node.dispatch.request(proto.NODES, self._on_nodes)
        node.dispatch.notice(proto.VIEW, self._on_view)
        node.dispatch.request(proto.SAY, self._on_say)

    def start(self):
        """Dial whom we knew, and begin to compare views."""
        self.known.load()
        self.act()
        self._timers = [self._loop.call_later(limits.VIEW_EVERY, self._compare),
                        self._loop.call_later(limits.VIEW_EVERY, self._measure)]

    def close(self):
        """Stop the timers and write down whom we know."""
        for timer in self._timers + ([self._timer] if self._timer else []):
            timer.cancel()
        self.known.save()

    # -- evidence

    def heard(self, sender, network, beacon, host):
        """A beacon with a right MAC."""
        if self.table.is_no_news(sender, beacon.nonce) or sender in network.denied:
            return
        now = self._loop.now()
        if self.table.get(sender) is None and not self._unknown.take(now, host):
            return                   # whoever is really there says so again
        if is_nearby(host, self._node.interfaces()):
            self.table.heard(sender, node_name(beacon.name), host, beacon.port, beacon.nonce, network.tag, now)
            self.act()

    def up(self, connection):
        """A link is ready."""
        hello = connection.hello
        host = connection.channel.address[0]
        port = connection.channel.address[1] if connection.channel.outgoing else hello.port
        member_id = connection.peer_id
        known = self.table.get(member_id)
        was_started_anew = known is not None and known.nonce not in (0, hello.nonce)
        self.table.linked(member_id, node_name(hello.name), clean(hello.version), hello.nonce, host, port,
                          connection.channel.tag, self._loop.now())
        member = self.table.get(member_id)
        if member is None:
            return
        interfaces = self._node.interfaces()
        for other in hello.addresses:
            if hello.port and is_nearby(other, interfaces):
                member.add_address(clean(other), hello.port, is_proven=False)
        self.table.met(member, self._loop.wall())
        self._views[connection.channel.tag, member_id] = hello.view
        self._node.broadcaster.prove(member_id, hello.incarnation)
        if was_started_anew:                 # it may be back before anybody missed it
            self._gone(member)
        self.act()
        self._node.client.connected(member_id)         # after `act`, which may have begun to keep it, and that is to dial
        self.known.save_later()
        self._loop.start(self._round_trip(connection))

    def down(self, member_id, connection, error):
        """A link ended."""
        kind = error.kind if isinstance(error, LinkDown) else "protocol"
        self._forget_views(member_id)
        self.table.unlinked(member_id, kind, self._loop.now())
        member = self.table.get(member_id)
        if member is not None:
            member.last_seen = connection.last_in     # a silent one ends long after its last word
        self.act()
        self._node.client.lost(member_id)

    def dial_failed(self, member_id, error):
        """A dial of a kept node failed."""
        kind = error.kind if isinstance(error, LinkDown) else "protocol"
        self.table.dial_failed(member_id, kind, self._loop.now())
        self.act()

    # -- effects

    def act(self):
        """Carry out what membership decided."""
        changed = False
        for effect in self.table.effects():
            changed |= isinstance(effect, membership.Changed)
            try:
                self._carry_out(effect)
            except Exception as error:  # one that fails costs the others nothing: each comes only once
                self._loop.report("an effect of the membership failed", error)
        if changed:
            self._node.touched()
        self._arm()

    def _carry_out(self, effect):
        if isinstance(effect, membership.Keep):
            self._node.client.keep(effect.id, effect.addresses, effect.tag, *effect.others)
        elif isinstance(effect, membership.Release):
            self._node.client.release(effect.id)
        elif isinstance(effect, membership.Clone):
            self._clone(effect.host)
        else:
            self._changed(effect)

    def _arm(self):
        if self._timer:
            self._timer.cancel()
        deadline = self.table.deadline()
        self._timer = self._loop.call_at(deadline, self._due) if deadline is not None else None

    def _due(self):
        self._timer = None
        self.table.time(self._loop.now())
        self.act()

    def _changed(self, effect):
        member, after = effect.member, effect.after
        if after is None:
            for key in [key for key in self._asked if key[1] == member.id]:      # in years many identities come and go
                del self._asked[key]
        if after == membership.ALIVE:
            if effect.before != membership.SUSPECT or not member.was_told:
                self._tell(member, "is here" if not member.was_told else "is back")
            member.was_told = True
        elif after in (membership.DEAD, membership.LEFT) and member.was_told:
            self._tell(member, "left" if after == membership.LEFT else "is gone: its computer or its network does not answer")
            member.was_told = False
            self._gone(member)

    def _gone(self, member):
        for callback in self.on_gone:
            callback(member)

    def _tell(self, member, what):
        label = self.known.label(member.id)
        host = member.addresses[0][0] if member.addresses else "?"
        self._node.log.write("node", f"{label} {node_id_text(member.id)} {what} ({host})")
        if self._tidings.take(self._loop.now()):
            self._node.notice(f"* {label} ({node_id_text(member.id)[:10]}) {what}")
        elif self._tidings.refused == 1:
            self._node.notice("* many nodes come and go: `nodes` lists them, `log` says what they did")

    def _clone(self, host):
        if self._clones.take(self._loop.now(), host):
            self._node.log.write("clone", f"another node runs with this node's identity at {host}")
            self._node.notice(f"! another node at {host} has this node's identity: its state folder was copied. "
                              "Remove the copy's state folder; each computer makes its own")

    # -- views

    def _compare(self):
        self._timers[0] = self._loop.call_later(limits.VIEW_EVERY, self._compare)
        for tag in self._node.networks.tags:
            view = self.table.view(tag)
            if view != self._told_views.get(tag):
                self._told_views[tag] = view
                for connection in self._node.links:
                    if tag in connection.networks:
                        connection.send(proto.VIEW, view=view, network=tag)
            self._ask_about(tag, view)

    def _ask_about(self, tag, view):
        now = self._loop.now()
        views = {peer_id: theirs for (known, peer_id), theirs in self._views.items() if known == tag}
        asked = {peer_id: last for (known, peer_id), last in self._asked.items() if known == tag}
        for peer_id in whom_to_ask(views, view, asked, now):
            connection = self._node.link(peer_id)
            if connection is not None:
                self._asked[tag, peer_id] = now, (views[peer_id], view)
                self._loop.start(self.ask_view(connection, tag))

    def _on_view(self, connection, view):
        tag = self._network_of(connection, view.network)
        if tag in connection.networks:
            self._views[tag, connection.peer_id] = view.view

    def _forget_views(self, node_id):
        for tag in self._node.networks.tags:
            self._views.pop((tag, node_id), None)

    @staticmethod
    def _network_of(connection, tag):
        return tag if any(tag) else connection.channel.tag

    # -- networks

    def belongs(self, connection):
        """What the other end of a link has proved to be in has changed: note it, and tell whom this node sees there."""
        self.table.belongs(connection.peer_id, connection.networks)
        self._node.client.share(connection.peer_id, [tag for tag in self._node.networks.tags if tag in connection.networks])
        for tag in sorted(connection.networks - {connection.channel.tag}):
            if self._node.networks.by_tag(tag) is not None:
                connection.send(proto.VIEW, view=self.table.view(tag), network=tag)
        self.act()
        self._node.touched()
        self.known.save_later()

    def _networks_changed(self):
        self.table.me.networks = self._node.networks.tags

    def expel(self, node_id, tag):
        """A node was removed from a network."""
        self._views.pop((tag, node_id), None)
        self.table.expel(node_id, tag)
        self.act()
        self._node.touched()
        self.known.save_later()

    def left_network(self, tag):
        """This node is not in it any more."""
        for known in (self._views, self._asked):
            for key in [key for key in known if key[0] == tag]:
                del known[key]
        self._told_views.pop(tag, None)
        for member in self.table.left_network(tag):
            self._gone(member)
        for member in self.table:
            self._node.client.share(member.id, member.networks)
        self.act()
        self._node.touched()
        self.known.save_later()

    async def ask_view(self, connection, tag=None):
        """Learn whom a peer knows in a network; what it says is a hint, to be dialled."""
        tag = tag or connection.channel.tag
        try:
            answer = await connection.request(proto.NODES, network=tag)
        except (LinkDown, Refusal):
            return
        if self._node.networks.by_tag(tag) is None:
            return
        interfaces = self._node.interfaces()
        for row in answer.nodes:
            if self._node.networks.is_denied(tag, row.id) or row.state != _KINDS_BY_STATE[membership.ALIVE]:
                continue
            for host in row.addresses:
                if is_nearby(host, interfaces):
                    self.table.heard(row.id, node_name(row.name), host, row.port, 0, tag, self._loop.now())
        self.act()

    async def _on_nodes(self, connection, asked):
        tag = self._network_of(connection, asked.network)
        return await self._node.answering(connection, lambda: self._rows(connection, tag))

    async def _rows(self, connection, tag):
        if tag not in connection.networks:
            raise Refusal(proto.NOT_FOUND, "no such network here")
        rows = []
        now = self._loop.now()
        local = connection.channel.is_loopback
        for member in self.table:
            if member.is_self or member.id == connection.peer_id or not (member.verified and tag in member.networks and member.addresses):
                continue
            hosts = [host for host, _ in member.addresses if "%" not in host and (local or not host.startswith(("127.", "::1")))]
            if hosts:
                rows.append({"id": member.id, "name": member.name, "addresses": hosts, "port": member.addresses[0][1],
                             "state": _KINDS_BY_STATE[member.state], "age_s": int(max(0, now - self.heard_at(member)))})
        return {"nodes": rows}

    async def _on_say(self, connection, said):
        if not self._sayings.take(self._loop.now(), connection.peer_id):
            raise Refusal(proto.BUSY, "too many lines at once: wait a few seconds")
        label = self.known.label(connection.peer_id)
        self._node.notice(f"<{label}> {clean(said.text, limits.MAX_LINE)}")
        self._node.log.write("say", f"{label}: {said.text}")
        return {}

    # -- round trips

    def _measure(self):
        self._timers[1] = self._loop.call_later(limits.PING_EVERY, self._measure)
        for connection in self._node.links:
            self._loop.start(self._round_trip(connection))

    async def _round_trip(self, connection):
        began = self._loop.now()
        try:
            await connection.request(proto.PING)
        except (LinkDown, Refusal):
            return
        connection.rtt_s = self._loop.now() - began
        member = self.table.get(connection.peer_id)
        if member:
            member.rtt_s = connection.rtt_s

    def heard_at(self, member):
        """When something last came from it, the loop's clock; what this node itself knows is always new."""
        if member.is_self:
            return self._loop.now()
        connection = self._node.link(member.id)
        return connection.last_in if connection is not None else member.last_seen

    def sorted(self):
        """All members, this node first, then by name and ID."""
        return sorted(self.table, key=lambda member: (not member.is_self, member.name, member.id))


def whom_to_ask(views, mine, asked, now):
    """IDs of peers that see others than we do and are to be asked whom. `views`: ID -> what it sees; `asked`: ID -> (when, the two views).

    Who sees the same is not asked at the same time: among fifty, each newcomer would cost each of them fifty tables of fifty rows.
    """
    busy = {difference for when, difference in asked.values() if now - when < limits.VIEW_PAUSE}
    found = {}
    for peer_id, theirs in views.items():
        if theirs == mine or (theirs, mine) in busy:
            continue
        when, difference = asked.get(peer_id, (-limits.VIEW_AGAIN, None))
        # Some see others than we do for hours, where not everybody reaches everybody: asking again brings nothing new
        if now - when >= (limits.VIEW_PAUSE if difference != (theirs, mine) else limits.VIEW_AGAIN):
            found[theirs] = min(found.get(theirs, (when, peer_id)), (when, peer_id))
    return [peer_id for _, peer_id in sorted(found.values())[:limits.VIEW_QUESTIONS]]
