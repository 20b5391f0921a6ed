"""The root: the one object that knows everybody else.

It makes the parts, hands each what arrives, and lets go of them in the reverse order. The parts know it only
as the place where they find each other; the deciding ones (membership, consent, sessions) not even that.

What a connection may ask depends on who it is, and that is decided here, once, when it becomes ready: another
node gets the peers' handlers; this node's own ID, from loopback only, gets the owner's or an instance's, by the
role that its HELLO claims and, for an instance, the token of its session. Each role has a dispatch table of its
own, so a peer cannot even name a command.
"""

import os

from . import __version__, limits, proto, system
from .belonging import Belonging
from .broadcaster import Broadcaster
from .client import Client
from .dispatch import Dispatch
from .errors import LinkDown, P2PError, PeerError, UserError
from .inviting import Inviting
from .jobs import EXITED
from .joining import Joining
from .launching import Launcher
from .links import Links
from .log import Log
from .neighbours import Neighbours, node_name
from .offers import Offers
from .owner import Owners
from .publishing import Publisher
from .removal import Removal
from .server import Server
from .tasks import Event, Turns
from .text import clean
from .traffic import Traffic
from .trust.ecc import node_id_text
from .trust.identity import Identity, prepare_rotation, rotate
from .trust.network import open_network
from .trust.networks import Networks, check_tls

INCARNATION = "incarnation"
MAX_REFUSED_KINDS = 64
SPARE_DESCRIPTORS = 200   # not for links: handshakes, dials, jobs, files
MAX_UNTOLD = 20           # notices kept for the first shell: a node is often found before its own prompt stands


class Node:
    """One running root. Make it, `await start()`, and `await stop()`."""

    def __init__(self, loop, home, name=None, port=limits.PORT, app_ports=None, entry=None):
        self.loop = loop
        self.home = os.path.abspath(home)
        self.name = node_name(name or system.host_name()) or "node"
        self.version = __version__
        self.entry = entry
        self.app_ports = app_ports
        self.wanted_port = port
        self.disk = loop.disk
        self.nonce = int.from_bytes(loop.entropy(8), "little") or 1
        self.started_at = loop.now()
        self.refused = {}                # reason -> count, for `stats`
        self.past_traffic = Traffic()    # of connections that are gone
        self.watchers = []               # callables(text): the shells
        self.untold = []                 # notices from before the first shell listened
        self.changed = Event(loop)       # something that people or verbs wait for has changed
        self.dispatch = Dispatch()       # what peers may ask
        self.owner_dispatch = Dispatch()
        self.instance_dispatch = Dispatch()
        self.stopped = loop.future()
        self._lock = None
        self._closing = self._is_rotating = False

    def path(self, *parts):
        """A path below the home."""
        return os.path.join(self.home, *parts)

    # -- life

    async def start(self):
        """Take the home, open the ports, speak. Raises UserError with nothing left behind."""
        check_tls()
        self._take_home()
        try:
            self._make_parts()
            self.neighbours.start()
        except BaseException:
            self._give_back()
            raise
        self.broadcaster.start()
        self.publisher.start()
        self.log.write("root", f"{self.name} {self.identity.text} started on port {self.port}, version {self.version}")
        try:
            await self.offers.start()      # it clears the store up: whoever shares before that would lose what is being written
        except P2PError as error:
            await self.stop(str(error))
            raise

    def _give_back(self):
        """A start that failed half-way: nobody must reach what is left of it."""
        if hasattr(self, "links"):
            self.links.close("")
        if hasattr(self, "publisher"):
            self.publisher.close()
        if hasattr(self, "server"):
            self.server.close()
        self._lock.release()

    def _take_home(self):
        self.identity_home_check()
        self._lock = self.loop.lock_home(self.path("lock"))
        if not self._lock.acquire():
            pid = self._lock.holder()
            raise UserError(f"a root already runs on {self.home}{f' (pid {pid})' if pid else ''}: "
                            "use it, end it with `down`, or take another --home", code="running")

    def identity_home_check(self):
        """The home must be a folder of this user's alone."""
        from .trust.identity import prepare_home
        prepare_home(self.disk, self.home)

    def _make_parts(self):
        loop = self.loop
        self.log = Log(loop, self.path("log"))
        self.log.on_failure = lambda error: self.notice(f"! what happens here, and what is run, is not written down: {error}")
        self.identity = Identity.load_or_create(self.disk, self.home, loop.entropy)
        self.networks = Networks(self.home, self.identity, self.disk, loop.entropy)
        me = self.identity.node_id
        self.client = Client(loop, self.networks, self, on_failure=lambda node_id, error: self.neighbours.dial_failed(node_id, error))
        self.incarnation = self._next_incarnation()
        self.server = self._listen()
        self.port = self.server.port
        self.turns = Turns(loop, limits.MAX_ANSWERING)
        self.neighbours = Neighbours(self)
        self.known = self.neighbours.known
        self.find, self.label, self.members = self.known.find, self.known.label, self.neighbours.sorted
        self.links = Links(loop, me, self.neighbours.up, self.neighbours.down,
                           min(limits.MAX_LINKS, system.descriptors() - SPARE_DESCRIPTORS))
        self.offers = Offers(self)
        self.belonging = Belonging(self)
        self.removal = Removal(self)
        self.inviting, self.joining = Inviting(self), Joining(self)
        self.launcher = Launcher(self)
        self.asking = self.launcher.asking
        self.neighbours.on_gone += [lambda member: self.launcher.node_gone(member.id), lambda member: self.offers.gone(member.id)]
        self.owners = Owners(self)
        self.publisher = Publisher(self)
        self.broadcaster = Broadcaster(
            loop, me, self.networks, self.incarnation, self.wanted_port or self.port, self._beacon,
            self.neighbours.heard, self._datagram_refused, self.neighbours.table.alive)
        self.networks.on_change += [lambda: self.broadcaster.beacon(True), self.touched]
        if not self.broadcaster.can_hear:
            text = (f"UDP port {self.wanted_port} is held by another program: others' beacons are not all heard here; "
                    "end it, or use `connect HOST`")
            self.log.write("root", text)
            self.notice(f"! {text}")

    def _listen(self):
        last = min(self.wanted_port + limits.PORTS_TRIED, 65536) if self.wanted_port else 1
        for port in range(self.wanted_port, last):
            try:
                return Server(self.loop, self.networks, self, port)
            except PermissionError:
                raise UserError(f"port {port}: this user may not listen there; take --port 1024 or above", code="port")
            except OSError:
                continue
        raise UserError(f"ports {self.wanted_port} to {last - 1} are all in use; choose another with --port", code="port")

    def _next_incarnation(self):
        path = self.path(INCARNATION)
        try:
            before = int(self.disk.read_bytes(path, 32)) if self.disk.exists(path) else 0
        except ValueError:
            before = 0
        # The clock too, so that a state folder restored from a backup is not stale to those who remember; and chance, so that two that
        # were copied from one and start in one second do not take each other's datagrams for their own.
        now = max((before >> 16) + 1, int(self.loop.wall())) << 16 | int.from_bytes(self.loop.entropy(2), "little")
        self.disk.write_atomic(path, b"%d\n" % now)
        return now

    async def rotate(self):
        """Write another identity for the next start; what the old one alone could do is given back first. Raises UserError."""
        running = [job for job in self.launcher.jobs if job.state != EXITED]
        if running or self._is_rotating or self._closing:
            what = f"job {running[0].number} ({running[0].session.app}) runs as the node of now" if running else "this root is about to end"
            raise UserError(f"{what}: end it first (`jobs`, `kill N`), then rotate", code="busy")
        self._is_rotating = True
        try:
            identity = await self.loop.work(prepare_rotation, self.disk, self.home, self.loop.entropy)
            await self._give_up_identity()
            await self.loop.work(rotate, self.disk, self.home)
        except BaseException:
            self._is_rotating = False
            raise
        self.log.write("root", f"the identity {self.identity.text} was given up; the next start is {identity.text}")
        return identity

    async def _give_up_identity(self):
        for name in sorted({offer.name for offer in self.offers.catalogue.offers() if offer.publisher_id == self.identity.node_id}):
            if self.offers.catalogue.offered_in(name, self.identity.node_id):
                await self.offers.unshare(name)
        for network in self.networks.all():
            if network.kind == "managed" and not network.is_admin:
                if len(self.networks.tags) == 1:
                    self.networks.add(await self.loop.work(open_network))
                self.networks.remove(network.tag)

    async def stop(self, reason="the root was stopped"):
        """Say goodbye, end the jobs, close everything."""
        if self._closing:
            return
        self._closing = True
        try:
            await self.launcher.stop()
        except Exception as error:  # whatever fails, the rest is given back
            self.loop.report("ending the jobs failed", error)
        for part in (self.inviting, self.offers, self.neighbours, self.broadcaster, self.client, self.server):
            self._close(part.close)
        self._close(self.links.close, reason)
        self._close(self.publisher.close)
        self.log.write("root", f"stopped: {reason}")
        await self.loop.sleep(0.05)      # a turn or two for the goodbyes
        self._close(self.owners.close)
        self._close(self._lock.release)
        self.stopped.set(None)

    def _close(self, close, *arguments):
        try:
            close(*arguments)
        except Exception as error:  # as above
            self.loop.report("closing a part of the root failed", error)

    # -- what people see

    def notice(self, text):
        """A line for every shell, cleaned here."""
        line = clean(text, 1000)
        if not self.watchers:
            self.untold = (self.untold + [line])[-MAX_UNTOLD:]
        for watcher in list(self.watchers):
            try:
                watcher(line)
            except Exception as error:  # a shell that cannot show it must not stop what it was about
                self.loop.report("a shell could not be told", error)

    def touched(self):
        """Something changed that verbs wait for or p2pstate shows."""
        self.changed.notify()
        self.publisher.due()

    # -- as the owner of connections

    def greeting(self, connection):
        """This node's HELLO."""
        local = connection.channel.is_loopback
        hosts = [address.host for interface in self.interfaces() for address in interface.addresses
                 if local or not interface.is_loopback]
        return {"role": proto.NODE, "name": self.name, "version": self.version, "nonce": self.nonce, "port": self.port,
                "abilities": 0, "networks": self.networks.tags, "addresses": hosts[:limits.MAX_ADDRESSES],
                "view": self.neighbours.table.view(connection.channel.tag), "incarnation": self.incarnation}

    def _beacon(self, tag):
        name = self.name.encode("utf-8")[:200].decode("utf-8", "ignore")
        return {"name": name, "port": self.port, "nonce": self.nonce, "view": self.neighbours.table.view(tag)}

    def connection_ready(self, connection):
        """Both HELLOs are heard: decide what this connection is."""
        role = connection.hello.role
        connection.on_finished = lambda: self._finished(connection)
        if connection.peer_id != self.identity.node_id:
            if role != proto.NODE:
                raise PeerError(f"{connection.channel.address[0]} claims a role that is not another node's", "role")
            self._check_membership(connection)
            if self.links.adopt(connection):
                self.belonging.greet(connection)
                self.removal.greet(connection)
                self.offers.greet(connection)
                self.launcher.met(connection.peer_id)
            return
        if not connection.channel.is_loopback:
            self.neighbours.table.heard(self.identity.node_id, "", connection.channel.address[0], 0, connection.hello.nonce,
                                        connection.channel.tag, self.loop.now())
            self.neighbours.act()
            raise PeerError(f"{connection.channel.address[0]} shows this node's own identity", "identity")
        connection.silence = None
        if role == proto.OWNER:
            connection.owner = OwnRole(self.owner_dispatch, self, self.owners.adopt, self.owners.lost)
        elif role == proto.INSTANCE:
            connection.owner = OwnRole(self.instance_dispatch, self, self.launcher.guardian.adopt, self.launcher.guardian.lost)
        else:
            raise PeerError("this node dialled itself", "self")
        self.links.watch(connection)
        connection.owner.adopt(connection)

    def _finished(self, connection):
        self.past_traffic.add(connection.traffic)
        self.belonging.lost(connection)

    def _check_membership(self, connection):
        """What TLS has found may be old by the time of the HELLO: whoever holds it back meanwhile was removed, or this node has left."""
        tag = connection.channel.tag
        if self.networks.by_tag(tag) is None:
            raise PeerError("came in a network that this node has just left", "network")
        if self.networks.is_denied(tag, connection.peer_id):
            raise PeerError(f"was removed from {self.networks.name_of(tag)}", "removed")

    def connection_lost(self, connection, error):
        """A ready connection with another node ended."""
        self.forget_connection(connection, error)

    def forget_connection(self, connection, error):
        """Keep its counts, say why it ended."""
        self._finished(connection)
        if isinstance(error, PeerError):
            host = connection.channel.address[0]
            self.refuse(error.reason, f"{host} {self.label(connection.peer_id)}: dropped: {_without(host, error)}")
        self.links.lost(connection, error)

    def connection_refused(self, connection, error):
        """A connection that never became ready."""
        self.past_traffic.add(connection.traffic)
        host = connection.channel.address[0]
        said = f"{host}: {_without(host, error)}"
        if isinstance(error, PeerError):
            self.refuse(error.reason, said)
        elif not connection.peer_id and all(link.channel.address[0] != host for link in self.links):
            self.refuse("half", f"{said} before it had proved who it is")     # of two nodes that dial each other one gives up in here

    def _datagram_refused(self, reason, host):
        if reason == "network":
            self.count_refused("udp-network")          # neighbours in networks of their own say so all day: no news
        else:
            self.refuse(f"udp-{reason}", f"a datagram from {host}: {reason}")

    def refuse(self, reason, text):
        """Count something that was refused, and write it down."""
        self.log.write("refused", text, self.count_refused(reason))

    def count_refused(self, reason):
        """The reason under which it was counted."""
        if reason not in self.refused and len(self.refused) >= MAX_REFUSED_KINDS:
            reason = "other"
        self.refused[reason] = self.refused.get(reason, 0) + 1
        return reason

    # -- what services and verbs ask

    def address_of(self, member):
        """(host, port) at which a member is best reached, or None."""
        connection = self.links.get(member.id)
        if connection is not None:
            port = connection.channel.address[1] if connection.channel.outgoing else connection.hello.port
            return connection.channel.address[0], port
        if member.is_self:
            hosts = [address.host for interface in self.interfaces() if not interface.is_loopback
                     for address in interface.addresses]
            return (hosts + ["127.0.0.1"])[0], self.port
        return member.addresses[0] if member.addresses else None

    async def answering(self, connection, make):
        """What the coroutine function `make` returns, in turn with the other large answers of this connection and when it reads them."""
        await self.turns.enter(connection)
        try:
            await connection.room()
            return await make()
        finally:
            # In the next turn: by then the answer is queued, so that `room` sees it, and all others had their turn. A thousand
            # questions whose answers wait for nothing were all answered in one turn of eight seconds.
            self.loop.call_later(0, self.turns.leave, connection)

    def interfaces(self):
        """The network interfaces of the last few seconds: each beacon is held against them, and to ask the system costs two calls."""
        return self.broadcaster.interfaces or self.loop.interfaces()

    def link(self, node_id):
        """The ready connection with a node, or None."""
        connection = self.links.get(node_id)
        return connection if connection is not None and connection.is_ready else None

    def send(self, node_id, message, **fields):
        """A notice to a node; False if there is no connection with it."""
        connection = self.link(node_id)
        if connection is None:
            return False
        connection.send(message, **fields)
        return True

    async def request(self, node_id, message, timeout=limits.REQUEST_TIMEOUT, **fields):
        """The answer's fields. Raises LinkDown or Refusal."""
        connection = self.link(node_id)
        if connection is None:
            raise LinkDown(f"{self.label(node_id)} is not connected", "unreachable")
        return await connection.request(message, timeout, **fields)

    async def ping(self, node_id):
        """One round trip, s."""
        began = self.loop.now()
        if node_id != self.identity.node_id:
            await self.request(node_id, proto.PING)
        return self.loop.now() - began

    def network(self, name=None):
        """The Network that a person means; without a name the first. Raises UserError."""
        return self.networks.all()[0] if name is None else self.networks.by_name(name)

    async def connect(self, host, port, network=None):
        """Dial an address or a name that a person gave, in the named network or in any; the Member behind it. Raises UserError."""
        tags = [self.network(network).tag] if network else self.networks.tags
        addresses = await self.loop.resolve(host, port)
        try:
            connection = await self._dial_in_one(addresses, tags)
        except LinkDown as error:
            raise UserError(f"cannot reach {clean(host)} port {port}: {error}. Is p2pframe running there, and does its firewall let "
                            f"TCP {port} in?", code="unreachable")
        except PeerError as error:
            if error.reason in ("self", "identity"):
                raise UserError(f"{clean(host)} port {port} is this very node, or a copy of it", code="self")
            raise UserError(f"{clean(host)} port {port} does not let this node in: {error}", code="refused")
        member = self.neighbours.table.get(connection.peer_id)
        if member is None:
            raise UserError(f"{clean(host)}: this node knows too many others already", code="crowded")
        self.loop.start(self.neighbours.ask_view(self.links.get(connection.peer_id) or connection))
        return member

    async def _dial_in_one(self, addresses, tags):
        """The other end may be in some of these networks only: it says so by ending the handshake."""
        for tag in tags[:-1]:
            try:
                return await self.client.dial(addresses, tag)
            except PeerError as error:
                if error.reason != "tls":
                    raise
        return await self.client.dial(addresses, tags[-1])

    def traffic(self):
        """All that went over TCP since the start."""
        total = Traffic()
        total.add(self.past_traffic)
        for connection in self.links.everything():
            total.add(connection.traffic)
        return total

    def statistics(self):
        """What `stats` prints."""
        loop, tcp, uptime = self.loop, self.traffic(), max(1e-9, self.loop.now() - self.started_at)
        per_node = []
        for connection in sorted(self.links, key=lambda link: link.peer_id):
            traffic = connection.traffic
            per_node.append({"id": node_id_text(connection.peer_id), "name": self.label(connection.peer_id),
                             "in_bytes": traffic.in_bytes, "out_bytes": traffic.out_bytes,
                             "rtt_ms": _milliseconds(connection.rtt_s)})
        return {
            "uptime_s": round(uptime, 3),
            "loop": {"turns": loop.turns, "busy_percent": round(100 * loop.busy_s / uptime, 3), "worst_ms": round(loop.worst_s * 1e3, 3)},
            "tcp": {"in_bytes": tcp.in_bytes, "out_bytes": tcp.out_bytes, "in_messages": tcp.in_messages,
                    "out_messages": tcp.out_messages, "connections": len(self.links.everything())},
            "udp": dict(self.broadcaster.traffic, connections=0),
            "nodes": per_node,
            "messages": {proto.describe(number): {"in": came, "out": went} for number, (came, went) in sorted(tcp.kinds.items())},
            "refused": dict(sorted(self.refused.items())),
        }


def _without(host, error):
    """The error's text; many name the address by themselves."""
    text = str(error)
    return text[len(host):].lstrip(": ") if text.startswith((f"{host}:", f"{host} ")) else text


class OwnRole:
    """The owner of a connection that this node's own identity opened: with the handlers of its role alone."""

    def __init__(self, dispatch, node, adopt, lost):
        self.dispatch = dispatch
        self.adopt = adopt
        self._node = node
        self._lost = lost

    def greeting(self, connection):
        """As the node's."""
        return self._node.greeting(connection)

    def connection_lost(self, connection, error):
        """Tell whose it was."""
        self._node.forget_connection(connection, error)
        self._lost(connection)


def _milliseconds(seconds):
    return None if seconds is None else round(seconds * 1e3, 3)
