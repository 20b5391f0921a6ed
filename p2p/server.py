"""p2pserver: accepts connections and gives up early on those that bring nothing.

Anybody on the LAN can open TCP connections, so what has not yet proved who it is may cost little: a deadline
for TLS and HELLO together, a cap on how many may be under way, a smaller one for each address. At the cap
one is evicted and the newcomer let in: refusing newcomers would let 64 idle strangers lock every friend out, while a
friend's handshake takes milliseconds. Whoever holds the most places gives one up (`_crowd`), the oldest that has shown no
key first (`_least`): with the oldest of all, or the keyless alone, twenty of twenty friends stayed outside
(tests/attacks/test_floods.py).

The root and every application use this same class.
"""

from collections import OrderedDict

from . import limits
from .connection import Connection
from .errors import PeerError


class Server:
    """`owner` is a connection's owner (see Connection); it gets connections that are ready, and losses after that."""

    def __init__(self, loop, credentials, owner, port=0):
        self.dispatch = owner.dispatch
        self.evicted = 0
        self._loop = loop
        self._owner = owner
        self._pending = OrderedDict()       # Connection -> deadline Timer, oldest first
        self._listener = loop.listen(port, credentials, self._accept)
        self.port = self._listener.port

    def _accept(self, channel):
        host = channel.address[0]
        same = [pending for pending in self._pending if pending.channel.address[0] == host]
        if len(same) >= limits.MAX_PENDING_ADDRESS:
            self._evict(_least(same))
        elif len(self._pending) >= limits.MAX_PENDING:
            self._evict(_least(_crowd(self._pending)))
        connection = Connection(self._loop, channel, self)
        self._pending[connection] = self._loop.call_later(limits.HANDSHAKE_DEADLINE, self._too_late, connection)

    def _evict(self, connection):
        self.evicted += 1
        host = connection.channel.address[0]
        connection.fail(PeerError(f"{host}: gave way to newer connections before it had proved who it is", "evicted"))

    def _too_late(self, connection):
        connection.fail(PeerError(f"{connection.channel.address[0]}: no handshake in {limits.HANDSHAKE_DEADLINE:g} s", "deadline"))

    def _done(self, connection):
        timer = self._pending.pop(connection, None)
        if timer:
            timer.cancel()

    @property
    def pending(self):
        """Connections that have not proved themselves yet."""
        return len(self._pending)

    # -- as the owner of connections that are under way

    def greeting(self, connection):
        """The owner's HELLO."""
        return self._owner.greeting(connection)

    def connection_ready(self, connection):
        """Hand it over."""
        self._done(connection)
        connection.owner = self._owner
        self._owner.connection_ready(connection)

    def connection_lost(self, connection, error):
        """It never became ready: a stranger, a scanner, or the other end gave up."""
        self._done(connection)
        self._owner.connection_refused(connection, error)

    def close(self):
        """Stop accepting; drop what is under way. Ready connections are the owner's."""
        self._listener.close()
        for connection in list(self._pending):
            self._done(connection)
            connection.abort()


def _crowd(pending):
    """From where somebody has to go: the address that holds the most places; of several that do, all of them."""
    by_host = {}
    for connection in pending:
        by_host.setdefault(connection.channel.address[0], []).append(connection)
    most = max(map(len, by_host.values()))
    return [connection for connection in pending if len(by_host[connection.channel.address[0]]) == most]


def _least(pending):
    """Whom to drop: the oldest that has not shown a key yet, so that idle strangers do not push out who is half in.

    In the open network everybody has a key: those who show one and then nothing may hold half of the places, no more."""
    keyed = [connection for connection in pending if connection.peer_id]
    keyless = [connection for connection in pending if not connection.peer_id]
    return keyless[0] if keyless and len(keyed) <= len(keyless) else keyed[0]
