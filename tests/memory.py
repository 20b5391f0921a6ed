"""A channel in memory: the same seam as TlsChannel, for tests of what stands above it.

`capacity` is what the "kernel" takes before it says it is full; `trickle` cuts what arrives into pieces.
"""

from p2p.errors import LinkDown


class MemoryChannel:
    """One end. `other` is the other one."""

    def __init__(self, loop, peer_id, outgoing, capacity=1 << 16, trickle=None, host="10.0.0.9"):
        self.loop = loop
        self.peer_id = peer_id
        self.outgoing = outgoing
        self.address = (host, 1)
        self.tag = b"lan-----"
        self.is_loopback = host.startswith("127.")
        self.owner = self.other = None
        self.capacity = capacity
        self.trickle = trickle
        self.inbox = bytearray()
        self.is_paused = self.wants_write = self.is_closed = self.ended = False

    def start(self, owner):
        self.owner = owner
        self.loop.call_soon(self._open)

    def _open(self):
        if not self.is_closed:
            self.owner.channel_open()

    def receive(self, budget):
        if not self.inbox:
            if self.ended:
                raise LinkDown("the other end closed", "eof")
            return b""
        data = bytes(self.inbox[:min(budget, self.trickle or budget)])
        del self.inbox[:len(data)]
        if self.other.wants_write:
            self.loop.call_soon(self.other._writable)
        if self.inbox or self.ended:
            self._wake()
        return data

    def _writable(self):
        if not self.is_closed and self.wants_write:
            self.owner.channel_writable()

    def _wake(self):
        self.loop.call_soon(self._readable)

    def _readable(self):
        if not self.is_closed and not self.is_paused and self.owner:
            self.owner.channel_readable()

    def send(self, data):
        if self.other.is_closed:
            raise LinkDown("reset", "reset")
        room = self.capacity - len(self.other.inbox)
        taken = bytes(data[:max(0, room)])
        self.other.inbox += taken
        if taken:
            self.other._wake()
        return len(taken)

    def receive_into(self, place):
        data = self.receive(len(place))
        place[:len(data)] = data
        return len(data)

    def send_many(self, views):
        return self.send(b"".join(views))

    def want_write(self, wanted):
        self.wants_write = wanted

    def pause(self, paused):
        if self.is_paused and not paused:
            self._wake()
        self.is_paused = paused

    def finish(self):
        self.abort()

    def abort(self):
        if not self.is_closed:
            self.is_closed = True
            self.other.ended = True
            self.other._wake()


def pair(loop, ids=(b"a" * 32, b"b" * 32), **how):
    """(client's end at ids[0], server's end at ids[1])."""
    client, server = MemoryChannel(loop, ids[1], True, **how), MemoryChannel(loop, ids[0], False, **how)
    client.other, server.other = server, client
    return client, server
