"""One instance of an application: its server, its links with the other instances, its link with the root.

It stands on the same loop, server, client, connection and links as a root; the root is an application with no parent.
Whatever happens becomes an event in one queue; app.py hands the queue to the author's code, in whichever form he
likes. Nothing here calls the author's code.

Who is there is the roster's word, and the roster is the root's, because a program that is busy for a minute looks dead
to its peers and is not. So these connections have no deadline for silence. A peer is gone when it says so, when the
roster says so, or when its connection ends and its port refuses.
"""

import hmac
import sys
from collections import deque

from . import proto
from .client import Client
from .codec import frame
from .connection import Dispatch
from .errors import LinkDown, PeerError
from .links import Links
from .loop import Loop
from .message import Gone, Join, Leave, decode, encode, message_class, schemas
from .server import Server
from .trust.identity import Identity
from .trust.networks import Networks

OPEN = (proto.ASKED, proto.ALLOWED, proto.RUNNING)
SECOND_DIALLER = 1.0      # s after which the one who should be dialled dials, too: the other may be behind a firewall
LAST_WORDS = 1.0          # s that an exited peer's connection may still deliver
MAX_QUEUED = 100_000      # events; a program that never looks at them must not fill the memory: then peers are not read


class Peer:
    """Another instance, or (as `app.me`) this one. `name` is cleaned and, where two nodes share one, carries some of the ID."""

    def __init__(self, node_id, name):
        self.id = node_id
        self.name = name
        self.status = proto.ASKED
        self.place = None             # (host, port) where it listens
        self.was_joined = False
        self.has_left = False

    def __repr__(self):
        return f"<peer {self.name}>"


class Instance:
    """`told` is the bootstrap that the root wrote. `events` is the queue; `ended` tells that the session is over."""

    def __init__(self, told):
        self.loop = Loop()
        self.events = deque()
        self.ended = self.is_closed = False
        self.dispatch = Dispatch()
        self.session = told["session"]
        self.me = Peer(bytes.fromhex(told["me"]), told["name"])
        self.joined = []              # peers in the order in which they came; those who left are out
        self._members = {self.me.id: self.me}
        self._token = bytes.fromhex(told["token"])
        self._tag = bytes.fromhex(told["network"])
        self._nonce = int.from_bytes(self.loop.entropy(8), "little")
        self._complaints = []
        self.dispatch.raw(proto.DATA, self._on_data)
        self.dispatch.notice(proto.SCHEMAS, self._on_schemas)
        identity = Identity.load_or_create(self.loop.disk, told["home"], self.loop.entropy)
        self._networks = Networks(told["home"], identity, self.loop.disk, self.loop.entropy)
        self.server = self._listen(told["port"])
        self.client = Client(self.loop, self._networks, self, on_failure=self._dial_failed)
        self.links = Links(self.loop, self.me.id, self._up, self._down)
        self.root = RootLink(self, told["root_port"], self._networks, self._tag)
        for row in told["roster"]:
            self._learn(bytes.fromhex(row["id"]), row["name"], row["status"], row["address"], row["port"])
        self.host = self._members.get(bytes.fromhex(told["host"]), self.me)

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
        peer.status = status
        if status not in OPEN:
            # Its last words may still be on the wire: the connection's own end comes after them.
            waits = status == proto.EXITED and self.links.get(node_id) is not None
            self.loop.call_later(LAST_WORDS if waits else 0, self._left, peer)
        elif address and port and peer.place != (address, port) and not peer.has_left:
            peer.place = (address, port)
            if self.links.get(node_id) is None:
                self.loop.call_later(0 if self.me.id < node_id else SECOND_DIALLER, self._dial, peer)

    def _dial(self, peer):
        if self.links.get(peer.id) is None and not peer.has_left and not self.ended:
            self.client.keep(peer.id, [peer.place], self._tag)

    def everybody_answered(self):
        """Is each member of the roster here, or known not to come?"""
        return all(peer.was_joined or peer.has_left for peer in self._members.values() if peer is not self.me)

    # -- peers come and go

    def greeting(self, connection):
        """This instance's HELLO."""
        return {"role": proto.INSTANCE, "name": self.me.name, "version": "", "nonce": self._nonce, "port": self.server.port,
                "abilities": 0, "networks": [self._tag], "addresses": [], "view": 0, "session": self.session, "token": self._token}

    def connection_ready(self, connection):
        """Only participants get in, each once."""
        hello, peer = connection.hello, self._members.get(connection.peer_id)
        if hello.role != proto.INSTANCE or hello.session != self.session or not hmac.compare_digest(hello.token, self._token):
            raise PeerError("is no instance of this session", "token")
        if peer is None or peer is self.me or peer.has_left:
            raise PeerError("takes no part in this session", "token")
        connection.silence = None
        self.links.adopt(connection)

    def connection_refused(self, connection, error):
        """A stranger at the port."""

    def connection_lost(self, connection, error):
        """A ready connection ended."""
        self.links.lost(connection, error)

    def _up(self, connection):
        peer = self._members[connection.peer_id]
        self.client.connected(peer.id)
        connection.send(proto.SCHEMAS, schemas=[{"id": number, "text": text} for number, text in schemas()[:1024]])
        if not peer.was_joined:
            peer.was_joined = True
            self.joined.append(peer)
            self.events.append(Join(peer))

    def _down(self, node_id, connection, error):
        peer = self._members[node_id]
        if not isinstance(error, LinkDown) or error.kind == "goodbye" or peer.status not in OPEN:
            self._left(peer)
        elif not self.ended and peer.place:
            self.client.keep(node_id, [peer.place], self._tag)      # a wire that broke, or its end: the port tells

    def _dial_failed(self, node_id, error):
        peer = self._members[node_id]
        if peer.was_joined and isinstance(error, LinkDown) and error.kind == "refused":
            self._left(peer)

    def _left(self, peer):
        if peer.has_left:
            return
        peer.has_left = True
        self.client.release(peer.id)
        if peer.was_joined:
            self.joined.remove(peer)
            self.events.append(Leave(peer))
        connection = self.links.get(peer.id)
        if connection is not None:
            connection.finish("it has left")

    # -- messages

    def _on_data(self, connection, request, body):
        data = proto.DATA.unpack(body)
        kind = message_class(data.schema)
        if kind is None:
            self._complain(connection, "sends messages of a class that this program does not have: it runs another version")
            connection.refuse(proto.DATA.number, request, proto.UNSUPPORTED, "the receiver has no such message class")
            return
        message = decode(kind, data.fields)
        message.sender = self._members[connection.peer_id]
        if request:
            message.request = (connection, request)
        self.events.append(message)
        if len(self.events) >= MAX_QUEUED:
            connection.channel.pause(True)

    def drained(self):
        """The queue is short again: read on."""
        for connection in self.links:
            connection.channel.pause(False)

    def _on_schemas(self, connection, told):
        mine = {text.split("(")[0]: (number, text) for number, text in schemas()}
        for row in told.schemas:
            known = mine.get(row.text.split("(")[0])
            if known and known[0] != row.id:
                self._complain(connection, f"has another {known[1].split('(')[0]}: there {row.text[:200]}, here {known[1]}; "
                                           "they run different versions")

    def _complain(self, connection, text):
        name = self._members[connection.peer_id].name
        if (name, text) not in self._complaints and len(self._complaints) < 64:
            self._complaints.append((name, text))
            sys.stderr.write(f"p2pframe: {name} {text}\n")

    def link(self, peer):
        """The connection with a peer. Raises Gone."""
        connection = self.links.get(peer.id)
        if connection is None or not connection.is_ready:
            raise Gone(f"{peer.name} is gone")
        return connection

    def send(self, peer, message):
        """Queue a message; the caller sees to it that there is room."""
        connection = self.link(peer)
        connection.write(frame(proto.DATA.number, 0, pack(message)))
        return connection

    def request(self, peer, message, timeout):
        """A Future of the answer's fields."""
        packed = proto.DATA.unpack(pack(message))
        return self.link(peer).request(proto.DATA, timeout, schema=packed.schema, fields=packed.fields)

    # -- the end

    def close(self):
        """Say goodbye to the peers; the loop must turn a little for it to arrive."""
        self.ended = self.is_closed = True
        self.client.close()
        self.server.close()
        self.links.close("the instance ends")


class RootLink:
    """The connection with the own root: it hears the roster and the end."""

    def __init__(self, instance, port, networks, tag):
        self.dispatch = Dispatch()
        self._instance = instance
        self._connection = None
        self.dispatch.notice(proto.ROSTER, lambda connection, told: instance.rostered(told.members))
        self.dispatch.notice(proto.END, lambda connection, told: self._end())
        client = Client(instance.loop, networks, self)
        client.dial([("127.0.0.1", port)], tag, instance.me.id).add_callback(self._dialled)

    def _dialled(self, future):
        if future.error is not None:
            self._end()

    def _end(self):
        self._instance.ended = True

    def greeting(self, connection):
        """The instance's."""
        return self._instance.greeting(connection)

    def connection_ready(self, connection):
        """The root has let us in: tell it where we listen."""
        self._connection = connection
        connection.silence = None
        self._instance.links.watch(connection)
        connection.send(proto.LISTENING, port=self._instance.server.port)

    def connection_lost(self, connection, error):
        """The root is gone, and the session with it, here."""
        self._instance.links.lost(connection, error)
        self._end()

    def ask_for_end(self):
        """Ask that the session end for all."""
        if self._connection is not None:
            self._connection.send(proto.END, session=self._instance.session)


def pack(message) -> bytes:
    """A DATA body."""
    return proto.DATA.pack(schema=message.schema_id, fields=encode(message))


def unpack(fields):
    """The message in an answer to a request; None where its class is unknown here."""
    kind = message_class(fields.schema)
    return decode(kind, fields.fields) if kind else None
