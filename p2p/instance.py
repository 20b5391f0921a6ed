"""One instance of an application: its server, its links with the other instances, its link with the root.

It stands on the same loop, server, client, connection and links as a root; the root is an application with no parent.
Whatever happens becomes an event in one inbox; app.py hands them to the author's code, in whichever form that likes.
Nothing here calls the author's code.

Who is there is the roster's word, and the roster is the root's, because a program that is busy for a minute looks dead
to its peers and is not. So these connections have no deadlines. A peer is gone when it says so, when the roster says
so and its last words are read, or when its connection ends and its port refuses. Who has ended is gone for good: a
connection that it still makes is told goodbye. Who could only not be reached is back with the next connection.

Both ends may dial, since one may be behind a firewall, so there may be two connections for a moment. What is sent on
one that the other end has given up already would be lost. Therefore one end chooses, the one with the lower ID: the
connection on which it says its SCHEMAS is the link, and nobody sends anything on another.
"""

import hmac
import sys

from . import proto
from .client import Client
from .dispatch import Dispatch
from .errors import LinkDown, PeerError
from .farming import Farming
from .inbox import Inbox
from .links import TOGETHER, Links
from .loop import Loop
from .message import Join, Leave, Message, decode, encode, message_class, schemas
from .server import Server
from .shared import Shared
from .text import clean
from .trust.identity import Identity
from .trust.networks import Networks

OPEN = (proto.ASKED, proto.ALLOWED, proto.RUNNING)
SECOND_DIALLER = 1.0      # s after which the one who should be dialled dials, too: the other may be behind a firewall
LAST_WORDS = 1.0          # s of quiet on the connection of a peer that has exited, after which nothing more will come
UNREAD = 128 << 20        # bytes of messages that may wait for a program that does not look; then peers are not read
ROOT_TRIES = 20           # dials of the own root; where nothing listens any more, one is enough
ROOT_PAUSE = 0.1          # s between them
MAX_COMPLAINTS = 64       # different lines about peers' classes


class Peer:
    """Another instance, or (as `app.me`) this one. `name` is cleaned and, where two nodes share one, carries some of the ID."""

    def __init__(self, node_id, name):
        self.id = node_id
        self.name = name
        self.status = proto.ASKED
        self.place = None             # (host, port) where it listens
        self.was_joined = False
        self.has_left = False
        self.has_ended = False        # it has left and will not come back

    def __repr__(self):
        return f"<peer {self.name}>"


class Instance:
    """`told` is the bootstrap that the root wrote. `events` is the queue; `ended` tells that the session is over."""

    def __init__(self, told):
        self.loop = Loop()
        self.events = Inbox()
        self.ended = self.is_closed = False
        self._looks_away = False
        self.is_full = False          # more waits to be looked at than may: peers are not read
        self.dispatch = Dispatch()
        self.session = told["session"]
        self.me = Peer(bytes.fromhex(told["me"]), told["name"])
        self.joined = []              # peers in the order in which they came; those who left are out
        self._members = {self.me.id: self.me}
        self._token = bytes.fromhex(told["token"])
        self._tag = bytes.fromhex(told["network"])
        self._nonce = int.from_bytes(self.loop.entropy(8), "little")
        self._complaints = []
        self._offered = {}            # (peer ID, who dialled) -> connection that the other end may choose, or not
        self.dispatch.raw(proto.DATA, self._on_data)
        self.dispatch.notice(proto.SCHEMAS, self._on_schemas)
        self.shared = Shared(self)
        self.farming = Farming(self, told)
        identity = Identity.load_or_create(self.loop.disk, told["home"], self.loop.entropy)
        self._networks = Networks(told["home"], identity, self.loop.disk, self.loop.entropy)
        self.server = self._listen(told["port"])
        self.client = Client(self.loop, self._networks, self, on_failure=self._dial_failed)
        self.links = Links(self.loop, self.me.id, lambda connection: None, self._down)
        self.root = RootLink(self, told["root_port"], self._networks, self._networks.tags[0])
        for row in told["roster"]:
            self._learn(bytes.fromhex(row["id"]), row["name"], row["status"], row["address"], row["port"])
        self.host = self._members.get(bytes.fromhex(told["host"]), self.me)
        self.shared.begin()

    def _listen(self, port):
        try:
            return Server(self.loop, self._networks, self, port)
        except OSError:
            return Server(self.loop, self._networks, self, 0)       # taken since the root looked; LISTENING tells which counts

    # -- the roster

    def rostered(self, rows):
        """What the root says about who takes part."""
        for row in rows:
            self._learn(row.id, row.name, row.status, row.address, row.port)

    def _learn(self, node_id, name, status, address, port):
        if node_id == self.me.id:
            return
        peer = self._members.get(node_id)
        if peer is None:
            peer = self._members[node_id] = Peer(node_id, name)
        before, peer.status = peer.status, status
        if status not in OPEN:
            if status != before:
                self.loop.call_soon(self._exited if status == proto.EXITED else self._is_gone, peer)
        elif address and port and (peer.place != (address, port) or before == proto.UNREACHABLE):
            peer.place = (address, port)
            if self.link(peer) is None:
                self.loop.call_later(0 if self.me.id < node_id else SECOND_DIALLER, self._dial, peer)

    def _dial(self, peer):
        if self.link(peer) is None and peer.place and peer.status in OPEN and not peer.has_ended and not self.ended:
            self.client.keep(peer.id, [peer.place], self._tag)

    def everybody_answered(self):
        """Is each member of the roster here, or known not to come? What is shared must be here, too."""
        return (all(peer.was_joined or peer.has_left for peer in self._members.values() if peer is not self.me)
                and self.shared.is_level)

    # -- peers come and go

    def greeting(self, connection):
        """This instance's HELLO."""
        return {"role": proto.INSTANCE, "name": self.me.name, "version": "", "nonce": self._nonce, "port": self.server.port,
                "abilities": 0, "networks": [self._tag], "addresses": [], "view": 0, "session": self.session, "token": self._token}

    def connection_ready(self, connection):
        """Only participants get in; of several connections with one of them the lower ID chooses."""
        hello, peer = connection.hello, self._members.get(connection.peer_id)
        if hello.role != proto.INSTANCE or hello.session != self.session or not hmac.compare_digest(hello.token, self._token):
            raise PeerError("is no instance of this session", "token")
        if peer is None or peer is self.me:
            raise PeerError("takes no part in this session", "token")
        connection.be_patient()
        if peer.has_ended or self.is_closed:
            connection.finish("it has ended" if peer.has_ended else "the instance ends", leaving=True)
        elif self.me.id > peer.id:
            self._offer(connection)
        elif self._is_second(connection):
            connection.finish("another connection serves")
        else:
            self._choose(connection)

    def _is_second(self, connection):
        """Did both ends dial at the same time, and has the other connection been chosen? A later one means that it broke."""
        known = self.links.get(connection.peer_id)
        return known is not None and known.is_open and connection.opened_at - known.opened_at < TOGETHER

    def _offer(self, connection):
        key = (connection.peer_id, connection.channel.outgoing)
        before = self._offered.get(key)
        self._offered[key] = connection
        if before is not None:
            before.abort()              # whoever dials again has given the first one up

    def _choose(self, connection):
        """This connection is the link from now on."""
        peer = self._members[connection.peer_id]
        known = self.links.get(connection.peer_id)
        if known is not None:
            known.abort()
        self.links.adopt(connection)
        self.client.connected(connection.peer_id)
        self.is_here(peer)
        connection.pause(self.is_full)
        connection.send(proto.SCHEMAS, schemas=[{"id": number, "text": text} for number, text in schemas()[:1024]])
        self.shared.linked(peer, connection)
        self.farming.linked(peer, connection)

    def connection_refused(self, connection, error):
        """A stranger at the port."""

    def connection_lost(self, connection, error):
        """A ready connection ended."""
        key = (connection.peer_id, connection.channel.outgoing)
        if self._offered.get(key) is not connection:
            self.links.lost(connection, error)
            return
        del self._offered[key]
        peer = self._members[connection.peer_id]
        if isinstance(error, LinkDown) and error.kind == "goodbye":
            self._ended(peer)
        else:
            self.loop.call_later(SECOND_DIALLER, self._dial, peer)

    def member(self, node_id):
        """The Peer with this ID. PeerError for a stranger's."""
        peer = self._members.get(node_id)
        if peer is None:
            raise PeerError("speaks of somebody who takes no part in this session", "order")
        return peer

    def is_here(self, peer):
        """It takes part: its Join, if that has not come yet."""
        peer.has_left, peer.was_joined = False, True
        if peer not in self.joined:
            self.joined.append(peer)
            self.events.put(Join(peer))

    def _down(self, node_id, connection, error):
        peer = self._members[node_id]
        if not isinstance(error, LinkDown) or error.kind == "goodbye":
            self._ended(peer)
        elif peer.status not in OPEN:
            self._is_gone(peer)
        else:
            self._dial(peer)            # a wire that broke, or its end: the port tells

    def _dial_failed(self, node_id, error):
        peer = self._members[node_id]
        if peer.was_joined and isinstance(error, LinkDown) and error.kind == "refused":
            self.left(peer)

    def _exited(self, peer, since=None):
        """Its process has ended. So will its connection, behind its last words; at the latest when nothing more comes."""
        connection, now = self._any_connection(peer), self.loop.now()
        since = since or now
        if connection is None or now - max(connection.last_in, since) > LAST_WORDS and not self.is_full:
            self._ended(peer)
        elif not peer.has_ended:
            self.loop.call_later(LAST_WORDS / 4, self._exited, peer, since)

    def _any_connection(self, peer):
        return self.links.get(peer.id) or self._offered.get((peer.id, True)) or self._offered.get((peer.id, False))

    def _is_gone(self, peer):
        """As the roster says."""
        if peer.status == proto.UNREACHABLE:
            self.left(peer)
        elif peer.status not in OPEN:
            self._ended(peer)

    def _ended(self, peer):
        peer.has_ended = True
        self.left(peer)

    def left(self, peer):
        """It is not here (any more): nothing comes from it, until it is back."""
        if peer.has_left:
            return
        peer.has_left = True
        self.client.release(peer.id)
        if peer in self.joined:
            self.joined.remove(peer)
            self.events.put(Leave(peer))
            self.shared.left(peer)
            self.farming.left(peer)
        connection = self.links.get(peer.id)
        if connection is not None:
            connection.finish("it has ended" if peer.has_ended else "it cannot be reached", leaving=peer.has_ended)

    # -- messages

    def _on_data(self, connection, request, body):
        if self.links.get(connection.peer_id) is not connection:
            raise PeerError("sends messages on a connection that was not chosen", "order")
        data = proto.DATA.unpack(body)
        message = message_of(data.schema, data.fields)
        if message is None:
            self.complain(self.member(connection.peer_id), "sends messages of a class that this program does not have: it runs another "
                          "version")
            connection.refuse(proto.DATA.number, request, proto.UNSUPPORTED, "the receiver has no such message class")
            return
        if request:
            message._asked = (connection, request)
        self.arrived(message, self._members[connection.peer_id], len(data.fields))

    def arrived(self, message, sender, size):
        """A message is there. Where too much waits already, no more is read until the program has looked at half of it."""
        if self._looks_away:
            return
        message.sender = sender
        self.events.put(message, size)
        if self.events.size >= UNREAD and not self.is_full:
            self._read_peers(False)

    def next_event(self, at=0):
        """Take the event that stands there in the queue."""
        event = self.events.take(at)
        if self.is_full and self.events.size < UNREAD // 2:
            self._read_peers(True)
        return event

    def look_away(self):
        """The program is about to end and takes no more events: read on, so that the others' buffers do not keep us."""
        self._looks_away = True
        self._read_peers(True)

    def _read_peers(self, is_wanted):
        self.is_full = not is_wanted
        for connection in self.links:
            connection.pause(not is_wanted)

    def _on_schemas(self, connection, told):
        key = (connection.peer_id, connection.channel.outgoing)
        if self._offered.get(key) is connection:
            del self._offered[key]
            self._choose(connection)
        mine = {text.split("(")[0]: (number, text) for number, text in schemas()}
        for row in told.schemas:
            known = mine.get(row.text.split("(")[0])
            if known and known[0] != row.id:
                self.complain(self.member(connection.peer_id), f"has another {known[1].split('(')[0]}: there {clean(row.text, 200)}, "
                              f"here {known[1]}; they run different versions")

    def complain(self, peer, text):
        """Say on this program's standard error what a peer does, each thing once."""
        name = peer.name
        if (name, text) not in self._complaints and len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.append((name, text))
            sys.stderr.write(f"p2pframe: {name} {text}\n")

    def link(self, peer):
        """The connection with a peer, or None."""
        connection = self.links.get(peer.id)
        return connection if connection is not None and connection.is_ready and not peer.has_left else None

    # -- the end

    def connections(self):
        """All that must have ended before this process may."""
        return self.links.everything() + list(self._offered.values())

    def close(self):
        """Say goodbye to the peers; the loop must turn a little for it to arrive."""
        self.ended = self.is_closed = True
        self.farming.close()
        self.client.close()
        self.server.close()
        for connection in self._offered.values():
            connection.finish("the instance ends", leaving=True)
        self.links.close("the instance ends")


class RootLink:
    """The connection with the own root: it hears the roster and the end."""

    def __init__(self, instance, port, networks, tag):
        self.dispatch = Dispatch()
        self.is_told = False          # does it know where this instance listens?
        self._instance = instance
        self._connection = None
        self.dispatch.notice(proto.ROSTER, lambda connection, told: instance.rostered(told.members))
        self.dispatch.notice(proto.END, lambda connection, told: self._end())
        self._client = Client(instance.loop, networks, self)
        self._where = [("127.0.0.1", port)], tag, instance.me.id
        self._tries_left = ROOT_TRIES
        self._dial()

    def _dial(self):
        self._client.dial(*self._where).add_callback(self._dialled)

    def _dialled(self, future):
        if future.error is None or self._instance.ended:
            return
        self._tries_left -= 1
        if self._tries_left and getattr(future.error, "kind", "") != "refused":
            self._instance.loop.call_later(ROOT_PAUSE, self._dial)      # idle strangers may have taken this address's places
        else:
            sys.stderr.write(f"p2pframe: the root does not answer, so there is no session: {future.error}\n")
            self._end()

    def _end(self):
        self._instance.ended = True

    def greeting(self, connection):
        """The instance's."""
        return self._instance.greeting(connection)

    def connection_ready(self, connection):
        """The root has let us in: tell it where we listen."""
        self._connection = connection
        connection.be_patient()
        self._instance.links.watch(connection)
        connection.send(proto.LISTENING, port=self._instance.server.port)
        self.is_told = True

    def connection_lost(self, connection, error):
        """The root is gone, and the session with it, here."""
        self._instance.links.lost(connection, error)
        self._end()

    def ask_for_end(self):
        """Ask that the session end for all."""
        if self._connection is not None:
            self._connection.send(proto.END, session=self._instance.session)


def fields_of(message) -> dict:
    """The fields of a DATA message. TypeError for what is no message."""
    if not isinstance(message, Message):
        what = f"the class {message.__name__}: make one, {message.__name__}(...)" if isinstance(message, type) else repr(message)[:80]
        raise TypeError(f"a message is an object of a class of yours that derives from p2p.Message, not {what}")
    return {"schema": message.schema_id, "fields": encode(message)}


def message_of(schema, fields):
    """The message in the fields of a DATA message; None where its class is unknown here. Raises PeerError."""
    kind = message_class(schema)
    return decode(kind, fields) if kind else None
