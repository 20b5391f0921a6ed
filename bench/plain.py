"""The product's channel without TLS: what stands above it is measured alone. It exists for the bench and the tests only.

Everything but the bytes' way in and out is the product's: dialling, accepting, watching, pausing, reading again.
"""
from itertools import islice

from p2p import loop
from p2p.channel import Listener, TlsChannel, dial
from p2p.errors import LinkDown

READ = 65536      # bytes; larger costs an allocation from the system each call, smaller a system call more
MANY = 64         # buffers of one sendmsg; every system takes so many


class PlainChannel(TlsChannel):
    """Bytes as they are; the other end is whoever the bench says."""

    def _begin_tls(self):
        self._state = "open"
        self.peer_id = b"client--" * 4 if self.outgoing else b"server--" * 4
        self._watch()
        self.owner.channel_open()

    def receive(self, budget):
        """One read a turn: an epoll that is level-triggered tells of the rest."""
        try:
            data = self._sock.recv(READ if budget > READ else budget)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise LinkDown(str(error), "reset")
        if not data:
            raise LinkDown("closed", "eof")
        return data

    def receive_into(self, place):
        """As TlsChannel.receive_into."""
        try:
            count = self._sock.recv_into(place)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LinkDown(str(error), "reset")
        if not count:
            raise LinkDown("closed", "eof")
        return count

    def send_many(self, views):
        """As TlsChannel.send_many."""
        try:
            return self._sock.sendmsg(list(islice(views, MANY)))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LinkDown(str(error), "reset")

    def send(self, data):
        """As TlsChannel.send."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LinkDown(str(error), "reset")

    def finish(self):
        """Nothing has to be said before the end."""
        self.abort()


class PlainLoop(loop.Loop):
    """A loop whose door to the network has no TLS."""

    def listen(self, port, credentials, accept, backlog=1024):
        """As Loop.listen."""
        return Listener(self, port, credentials, accept, backlog, PlainChannel)

    def dial(self, host, port, credentials, tag):
        """As Loop.dial."""
        return dial(self, host, port, credentials, tag, PlainChannel)
