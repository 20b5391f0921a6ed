"""p2pclient: dials peers, and keeps the connections that are wanted.

`dial` tries a peer's addresses one after the other, the next as soon as one fails or has been silent for a
moment (RFC 8305, "Happy Eyeballs"), and gives the first connection that is ready. `keep` does that again
whenever there is no connection, with a pause that doubles up to a bound and is jittered, so that a whole room
that lost its switch does not come back in one instant.

Of kept peers at most MAX_DIALS are dialled at a time, the others wait in line; a dial that has brought nothing for a
moment gives way to them and comes again later. In the open network anybody can invent a thousand nodes to be dialled.

Who is to be kept is somebody else's decision (membership for roots, the roster for applications).
"""

from collections import OrderedDict

from . import limits
from .connection import Connection
from .errors import LinkDown, PeerError

BRIEF = 5.0              # s; a connection that ends sooner was no use
NEXT_ADDRESS = 0.25      # s before the next address is tried beside the one that has not answered


class Attempt:
    """One dial of one peer: connections to its addresses, until one of them is ready or all have failed."""

    def __init__(self, client, addresses, tag, expected, done):
        self.dispatch = client.owner.dispatch
        self._client = client
        self._loop = client.loop
        self._left = list(addresses)
        self._tried = []
        self._tag = tag
        self._expected = expected
        self._done = done
        self._open = []
        self._error = LinkDown("no address is known", "unreachable")
        self._timers = [self._loop.call_later(limits.DIAL_TIMEOUT, self._give_up)]
        self._loop.call_soon(self._next)

    def _next(self):
        if self._done is None:
            return
        if not self._left:
            if not self._open:
                self._finish(None, self._error)
            return
        host, port = self._left.pop(0)
        self._tried.append((host, port))
        try:
            channel = self._loop.dial(host, port, self._client.credentials, self._tag)
        except LinkDown as error:
            self._failed(error)
            return
        self._open.append(Connection(self._loop, channel, self))
        self._timers.append(self._loop.call_later(NEXT_ADDRESS, self._next))

    def _failed(self, error):
        self._error = error
        if self._left:
            self._next()
        elif not self._open:
            self._finish(None, self._error)

    def _give_up(self):
        self._finish(None, LinkDown(f"no answer in {limits.DIAL_TIMEOUT:g} s", "timeout"))

    def give_way(self):
        """Others wait for this place."""
        self._finish(None, LinkDown("no answer yet, and others are to be dialled", "timeout"))

    def _finish(self, connection, error):
        done, self._done = self._done, None
        for timer in self._timers:
            timer.cancel()
        for other in self._open:
            if other is not connection:
                other.abort()
        self._open = []
        if done:
            done(connection, error)

    def add(self, addresses):
        """It may be here, too: those that were not tried are, now."""
        fresh = [address for address in addresses if address not in self._tried]
        if fresh:
            self._left = fresh
            self._loop.call_soon(self._next)

    def give_up(self, error):
        """It is over; `done` is told."""
        self._finish(None, error)

    def cancel(self):
        """Forget it; `done` is not called."""
        self._done = None
        self._finish(None, None)

    # -- as the owner of connections that are under way

    def greeting(self, connection):
        """The client's HELLO."""
        return self._client.owner.greeting(connection)

    def connection_ready(self, connection):
        """Is it the one that was dialled? Then it is handed over."""
        if self._expected and connection.peer_id != self._expected:
            raise PeerError(f"{connection.channel.address[0]} is another node than the one dialled", "identity")
        self._open.remove(connection)         # from now on it is the owner's, who may end this attempt by itself
        connection.owner = self._client.owner
        try:
            self._client.owner.connection_ready(connection)
        except PeerError as error:
            self._failed(error)
            raise
        self._finish(connection, None)

    def connection_lost(self, connection, error):
        """One address failed."""
        if connection in self._open:
            self._open.remove(connection)
            self._failed(error)


class Kept:
    """A peer that is dialled again whenever it is not connected."""

    __slots__ = ("addresses", "tags", "failures", "timer", "attempt", "connected_at", "brief")

    def __init__(self, addresses, tags):
        self.addresses = list(addresses)
        self.tags = tags           # networks in which it may be met, one after the other
        self.failures = 0
        self.timer = None
        self.attempt = None
        self.connected_at = None
        self.brief = 0             # connections in a row that ended as soon as they were there


class Client:
    """`owner` is a connection's owner; `on_failure(node_id, error)` hears of each dial of a kept peer that failed."""

    def __init__(self, loop, credentials, owner, on_failure=None):
        self.loop = loop
        self.credentials = credentials
        self.owner = owner
        self._on_failure = on_failure
        self._kept = {}
        self._attempts = []
        self._dialling = OrderedDict()      # node ID of a kept peer -> since when it is dialled, oldest first
        self._waiting = OrderedDict()       # node IDs of kept peers that wait for a place
        self._place_timer = None

    def dial(self, addresses, tag, expected=None):
        """A Future of a ready connection. `addresses`: (numeric host, port) pairs. Fails with LinkDown or PeerError."""
        future = self.loop.future()

        def done(connection, error):
            self._attempts.remove(attempt)
            if connection is not None:
                future.set(connection)
            else:
                future.fail(error)
        attempt = Attempt(self, addresses, tag, expected, done)
        self._attempts.append(attempt)
        return future

    def keep(self, node_id, addresses, *tags):
        """Connect to this peer, in one of these networks, and stay so. Called again, it takes the new addresses and tries them at once."""
        kept = self._kept.get(node_id)
        if kept is None:
            kept = self._kept[node_id] = Kept(addresses, tags)
        kept.tags = tags
        if kept.attempt is not None:
            kept.addresses = list(addresses)
            kept.attempt.add(addresses)
            return
        kept.addresses = list(addresses)
        kept.failures = 0
        self._dial_kept(node_id)

    def share(self, node_id, tags):
        """If it is dialled again, then in one of these networks."""
        kept = self._kept.get(node_id)
        if kept and tags:
            kept.tags = tuple(tags)

    def connected(self, node_id):
        """A connection with it exists: stop dialling."""
        kept = self._kept.get(node_id)
        if kept:
            kept.failures = 0
            kept.connected_at = self.loop.now()
            self._stop(node_id, kept)

    def lost(self, node_id):
        """Its connection ended: dial again, at once. But a peer that lets us in only to drop us must not keep both ends busy."""
        kept = self._kept.get(node_id)
        if kept is None or kept.attempt is not None:
            return
        is_brief = kept.connected_at is not None and self.loop.now() - kept.connected_at < BRIEF
        kept.brief = kept.brief + 1 if is_brief else 0
        if kept.brief < 2:
            self._dial_kept(node_id)
        elif kept.timer is None:
            kept.timer = self.loop.call_later(self._pause(kept.brief - 1), self._dial_kept, node_id)

    def release(self, node_id):
        """Keep it no longer."""
        kept = self._kept.pop(node_id, None)
        if kept:
            self._stop(node_id, kept)

    def _stop(self, node_id, kept):
        self._waiting.pop(node_id, None)
        if kept.timer:
            kept.timer.cancel()
            kept.timer = None
        if kept.attempt:
            kept.attempt.cancel()
            kept.attempt = None
            self._place_is_free(node_id)

    def _dial_kept(self, node_id):
        kept = self._kept.get(node_id)
        if kept is None or kept.attempt is not None:
            return
        if kept.timer:
            kept.timer.cancel()
            kept.timer = None
        if len(self._dialling) >= limits.MAX_DIALS:
            self._waiting[node_id] = True
            self._watch_places()
            return
        self._dialling[node_id] = self.loop.now()

        def done(connection, error):
            kept.attempt = None
            self._place_is_free(node_id)
            if connection is None and self._kept.get(node_id) is kept:
                kept.failures += 1
                kept.timer = self.loop.call_later(self._pause(kept.failures), self._dial_kept, node_id)
                if self._on_failure:
                    self._on_failure(node_id, error)
        kept.attempt = Attempt(self, kept.addresses, kept.tags[kept.failures % len(kept.tags)], node_id, done)

    def _place_is_free(self, node_id):
        self._dialling.pop(node_id, None)
        if self._waiting:
            self.loop.call_soon(self._dial_waiting)

    def _dial_waiting(self):
        while self._waiting and len(self._dialling) < limits.MAX_DIALS:
            self._dial_kept(self._waiting.popitem(last=False)[0])
        self._watch_places()

    def _watch_places(self):
        if self._waiting and self._dialling and self._place_timer is None:
            since = next(iter(self._dialling.values()))
            self._place_timer = self.loop.call_at(since + limits.DIAL_GIVES_WAY, self._make_places)

    def _make_places(self):
        self._place_timer = None
        overdue = self.loop.now() - limits.DIAL_GIVES_WAY
        for node_id in [node_id for node_id, since in self._dialling.items() if since <= overdue][:len(self._waiting)]:
            if node_id in self._dialling:
                self._kept[node_id].attempt.give_way()
        self._watch_places()

    def _pause(self, failures):
        jitter = 0.5 + self.loop.entropy(1)[0] / 255
        return min(limits.REDIAL_FIRST * 2 ** min(failures - 1, 16), limits.REDIAL_LAST) * jitter

    def close(self):
        """Give up everything that is under way."""
        if self._place_timer:
            self._place_timer.cancel()
        for node_id in list(self._kept):
            self.release(node_id)
        for attempt in list(self._attempts):
            attempt.give_up(LinkDown("this side has closed", "closed"))
