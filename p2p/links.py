"""The connections that a process has with its peers: one for each node ID, whoever dialled.

Two nodes that hear of each other in the same instant both dial, and then there are two connections. Both ends
must keep the same one: the one that the lower ID dialled. That rule holds for connections of about the same
age only. A connection that comes later means that its dialler has lost the first, or has been started anew
(its HELLO carries another nonce), so the newer one wins.

The other end may have said something on the one that is not kept before it knew: it is heard out for a moment. Nothing
new is said on it from here.

Who can be any number of nodes must not take all places: an address has its share of them, and there is a bound for all.

All keepalives are swept by one timer. Roots and applications share this class.
"""

from . import limits
from .errors import LinkDown, PeerError

TOGETHER = 3.0       # s; two connections this close in age come from dialling at the same time
STOOD_STILL = 1.5    # s between two ticks, by which a process sees that it did not run; nobody else was silent then
HEAR_OUT = 2.0       # s in which a connection that was not kept is still read, and requests on it are answered


class Links:
    """`on_up(connection)`, `on_down(node_id, connection, error)`. `me`: the own node ID."""

    def __init__(self, loop, me, on_up, on_down, most=limits.MAX_LINKS):
        self._loop = loop
        self._me = me
        self._on_up = on_up
        self._on_down = on_down
        self._by_id = {}
        self._most = most
        self._others = []      # ready connections that are not links: owners, instances, those being heard out
        self._unkept = {}      # peer ID -> the one that is being heard out: no more than one each
        self._ticked = loop.now()
        self._timer = loop.call_later(limits.TICK, self._tick)

    def __iter__(self):
        return iter(list(self._by_id.values()))

    def __len__(self):
        return len(self._by_id)

    def get(self, node_id):
        """The connection with this node, or None."""
        return self._by_id.get(node_id)

    def adopt(self, connection):
        """A connection has become ready: keep it as the link with its peer, or close it. True if kept.

        Raises PeerError where there is no room for another peer."""
        known = self._by_id.get(connection.peer_id)
        if known is None:
            self._check_room(connection.channel.address[0])
        if known is not None:
            if not self._newer_wins(known, connection):
                self._hear_out(connection, "another connection serves")
                return False
            self._by_id[connection.peer_id] = connection
            if known.hello.nonce == connection.hello.nonce:
                self._hear_out(known, "replaced by a newer connection")
                return True            # the same peer on another wire: nobody needs to hear of it
            known.finish("replaced by a newer connection")
            self._on_down(connection.peer_id, known, LinkDown("it was started anew", "restart"))
        self._by_id[connection.peer_id] = connection
        self._on_up(connection)
        return True

    def _hear_out(self, connection, reason):
        before = self._unkept.get(connection.peer_id)
        if before is not None:
            self._let_go(before, reason)
        if connection.is_open:
            self._unkept[connection.peer_id] = connection
            self._others.append(connection)
            self._loop.call_later(HEAR_OUT, self._let_go, connection, reason)

    def _let_go(self, connection, reason):
        if connection in self._others:
            self._forget_other(connection)
            connection.finish(reason)

    def _forget_other(self, connection):
        self._others.remove(connection)
        if self._unkept.get(connection.peer_id) is connection:
            del self._unkept[connection.peer_id]

    def _check_room(self, host):
        if len(self._by_id) >= self._most:
            raise PeerError(f"{host}: there are {self._most} nodes connected, no more have room", "crowded")
        if sum(1 for link in self if link.channel.address[0] == host) >= limits.MAX_LINKS_ADDRESS:
            raise PeerError(f"{host}: {limits.MAX_LINKS_ADDRESS} nodes are connected from there, no more are let in", "crowded")

    def _newer_wins(self, old, new):
        if not old.is_open or old.hello.nonce != new.hello.nonce or new.opened_at - old.opened_at > TOGETHER:
            return True
        return self._dialler(new) <= self._dialler(old)

    def _dialler(self, connection):
        return self._me if connection.channel.outgoing else connection.peer_id

    def everything(self):
        """All ready connections, links or not."""
        return list(self._by_id.values()) + self._others

    def watch(self, connection):
        """Sweep this one too, though it is no link."""
        self._others.append(connection)

    def lost(self, connection, error):
        """A ready connection ended. True if it was a link."""
        if connection in self._others:
            self._forget_other(connection)
            return False
        if self._by_id.get(connection.peer_id) is not connection:
            return False
        del self._by_id[connection.peer_id]
        self._on_down(connection.peer_id, connection, error)
        return True

    def _tick(self):
        now, before = self._loop.now(), self._ticked
        self._ticked = now
        if now - before < STOOD_STILL:          # else it was this process: what came meanwhile waits, and is read before the next tick
            for connection in self.everything():
                connection.sweep(now)
        self._timer = self._loop.call_later(limits.TICK, self._tick)

    def close(self, reason):
        """Say goodbye to all."""
        self._timer.cancel()
        for connection in self.everything():
            connection.finish(reason, leaving=True)
        self._by_id.clear()
        self._others.clear()
        self._unkept.clear()
