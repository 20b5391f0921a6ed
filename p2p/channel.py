"""Byte streams between two authenticated nodes: mutual TLS 1.3 over TCP.

A channel knows sockets and TLS; a connection (connection.py) knows frames. The seam between them is small so
that another channel can stand in its place: the simulator's is in memory, the bench's has no TLS. It is
pulled, not pushed: the owner is told that there is something to read and takes as much as it wants, which is
the whole of backpressure on the reading side.

The owner offers channel_open(), channel_readable(), channel_writable(), channel_lost(error).

Two facts of TLS shape it. A record may lie decrypted in OpenSSL with no readiness event to follow, so
`receive` reads on until it would block or the budget is spent, and then asks to be called again. And a
client's handshake "completes" before the server has judged its certificate: only a frame from the server
proves that one is let in (the server speaks first).
"""

import errno
import os
import socket
import ssl

from . import limits, system
from .errors import LinkDown, PeerError

RECORD = 16384        # bytes; one TLS record, and so one SSL_read, carries no more
CHUNK = 4 * RECORD    # bytes joined for one look at what came; more is no faster, and what belongs to a large body is copied
ACCEPT_PAUSE = 0.2    # s without accepting when the process has no descriptor left

_WAITING = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, getattr(errno, "WSAEWOULDBLOCK", errno.EAGAIN))
_KINDS = {errno.ECONNREFUSED: "refused", errno.ETIMEDOUT: "timeout", errno.ECONNRESET: "reset", errno.EPIPE: "reset"}


class TlsChannel:
    """One TCP connection with TLS on it. `peer_id` and `tag` (the network's) are known once it is open."""

    def __init__(self, loop, sock, credentials, address, outgoing, tag=b""):
        self.loop = loop
        self.address = address
        self.outgoing = outgoing
        self.peer_id = b""
        self.tag = tag
        self.owner = None
        self._sock = sock
        self._fd = sock.fileno()
        self._credentials = credentials
        self._state = "connecting" if outgoing else "handshake"
        self._wants_write = False
        self._paused = False
        self._again = None

    @property
    def is_loopback(self):
        """Does the other end run on this computer?"""
        host = self.address[0]
        return host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1")

    @property
    def local_host(self):
        """This computer's own address on this connection."""
        try:
            return self._sock.getsockname()[0]
        except OSError:
            return ""

    def start(self, owner):
        """Begin; from now on `owner` is told what happens."""
        self.owner = owner
        if self._state == "connecting":
            self.loop.watch(self._fd, on_writable=self._connected)
        else:
            self.loop.call_soon(self._begin_tls)

    # -- opening

    def _connected(self):
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lose(_link_down(OSError(code, os.strerror(code)), self.address))
        else:
            self._begin_tls()

    def _begin_tls(self):
        if self._state == "closed":
            return
        self._state = "handshake"
        try:
            context = self._credentials.client_context(self.tag) if self.outgoing else self._credentials.server_context()
            self._sock = context.wrap_socket(
                self._sock, server_side=not self.outgoing, do_handshake_on_connect=False,
                suppress_ragged_eofs=False, server_hostname=self.tag.hex() if self.outgoing else None)
        except (OSError, ValueError) as error:  # the other end went away between accept and here
            self._lose(_link_down(error, self.address))
            return
        except KeyError:
            self._lose(LinkDown(f"{self.address[0]}: this node is not in that network any more", "unreachable"))
            return
        self._handshake()

    def _handshake(self):
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self.loop.watch(self._fd, on_readable=self._handshake)
        except ssl.SSLWantWriteError:
            self.loop.watch(self._fd, on_writable=self._handshake)
        except (OSError, ValueError) as error:
            self._lose(_link_down(error, self.address))
        else:
            self._opened()

    def _opened(self):
        try:
            self.peer_id, self.tag = self._credentials.peer_identity(self._sock)
        except PeerError as error:
            self._lose(error)
            return
        self._state = "open"
        self._watch()
        self.owner.channel_open()
        if self._state == "open":
            self.owner.channel_readable()   # data may have come with the last flight of the handshake

    # -- an open channel

    def receive(self, budget):
        """What has come: at most about `budget` bytes, b"" for nothing. Raises LinkDown at its end."""
        read = self._sock.read
        records = []
        room = min(budget, CHUNK)
        try:
            while room > 0:
                record = read(RECORD)
                if not record:
                    raise LinkDown(f"{self.address[0]} closed the connection", "eof")
                records.append(record)
                room -= len(record)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (OSError, ValueError, LinkDown) as error:
            if not records:
                raise error if isinstance(error, LinkDown) else _link_down(error, self.address)
            self._read_again()      # hand over what came before the end; the end itself shows at the next call
        return b"".join(records)    # each record was read whole, so of the rest the socket tells

    def receive_into(self, place):
        """What has come, straight to `place` (memoryview); how many bytes. Raises LinkDown at the end."""
        read = self._sock.read
        size, taken = min(len(place), limits.READ_BUDGET), 0
        try:
            while taken < size:
                count = read(size - taken, place[taken:])
                if not count:
                    raise LinkDown(f"{self.address[0]} closed the connection", "eof")
                taken += count
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return taken
        except (OSError, ValueError, LinkDown) as error:
            if not taken:
                raise error if isinstance(error, LinkDown) else _link_down(error, self.address)
            self._read_again()      # as in `receive`: a goodbye of TLS shows nowhere else
            return taken
        if self._sock.pending():         # also where the budget is spent
            self._read_again()      # the rest of a record lies in OpenSSL, of which the socket tells nothing
        return taken

    def _read_again(self):
        # Not call_soon: a flooding peer must let the others have their turn first.
        if self._again is None:
            self._again = self.loop.call_later(0, self._readable_again)

    def _readable_again(self):
        self._again = None
        if self._state == "open" and not self._paused:
            self.owner.channel_readable()

    def send(self, data):
        """Write from `data` (bytes or a memoryview); the number of bytes taken. The rest must be offered again, at least as much."""
        size, write = len(data), self._sock.write
        taken = 0
        try:
            if size <= CHUNK:
                return write(data)
            # OpenSSL takes all of a write or, as far as it tells, nothing: a peer that reads slowly is seen to read by the piece
            view = memoryview(data)
            while taken < size:
                taken += write(view[taken:taken + CHUNK])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except (OSError, ValueError) as error:
            raise _link_down(error, self.address)
        return taken

    def send_many(self, views):
        """As `send`, from several memoryviews."""
        taken = 0
        for view in views:
            count = self.send(view)
            taken += count
            if count < len(view):
                break
        return taken

    def want_write(self, wanted):
        """Ask for channel_writable, or no more."""
        if wanted != self._wants_write:
            self._wants_write = wanted
            self._watch()

    def pause(self, paused):
        """Stop reading, or go on: the kernel's buffer then fills and the sender waits."""
        if paused != self._paused:
            self._paused = paused
            self._watch()
            if not paused:
                self._read_again()

    def _watch(self):
        if self._state == "open":
            self.loop.watch(self._fd,
                            None if self._paused else self.owner.channel_readable,
                            self.owner.channel_writable if self._wants_write else None)

    # -- ending

    def finish(self):
        """Say that nothing follows, and wait a moment for the other's end, so that what was sent is not lost to a reset."""
        if self._state != "open":
            self.abort()
            return
        self._state = "closing"
        self.loop.unwatch(self._fd)
        if self._again is not None:
            self._again.cancel()
        try:
            self._sock.unwrap()
        except (OSError, ValueError):
            pass  # WANT_READ: the close_notify is out, which is all that is wanted
        if self._state != "closing":
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()
            return
        self.loop.watch(self._fd, on_readable=self._drain)
        self._again = self.loop.call_later(limits.LINGER, self.abort)

    def _drain(self):
        # What still comes is thrown away: closing on unread bytes would be a reset, and cost the other end our last words.
        # `shutdown` has taken the TLS off, so this reads the socket itself.
        try:
            for _ in range(limits.READ_BUDGET // RECORD):
                if not self._sock.recv(RECORD):
                    break
            else:
                return
        except BlockingIOError:
            return
        except (OSError, ValueError):
            pass
        self.abort()

    def abort(self):
        """Close now."""
        if self._state == "closed":
            return
        self._state = "closed"
        if self._again is not None:
            self._again.cancel()
        self.loop.unwatch(self._fd)
        self._sock.close()

    @property
    def is_closed(self):
        """Is its descriptor given back?"""
        return self._state == "closed"

    def _lose(self, error):
        self.abort()
        self.owner.channel_lost(error)


def _link_down(error, address):
    """What an OSError of a socket means for the link."""
    where = address[0]
    if isinstance(error, ssl.SSLError):
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return LinkDown(f"{where} closed the connection", "eof")
        reason = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
        return PeerError(f"{where}: TLS refused: {reason}", "tls")
    number = getattr(error, "errno", None)
    kind = _KINDS.get(number, "unreachable")
    words = {"refused": "nothing listens there", "timeout": "no answer", "reset": "the connection was reset"}
    return LinkDown(f"{where}: {words.get(kind) or getattr(error, 'strerror', None) or error}", kind)


def dial(loop, host, port, credentials, tag, kind_of_channel=TlsChannel):
    """A TlsChannel that is being opened to a numeric address. Raises LinkDown where that fails at once."""
    try:
        if not 0 < port < 65536:
            raise ValueError(f"there is no port {port}")
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
        sock = socket.socket(family, kind, proto)
    except (OSError, ValueError) as error:      # a host with a null byte is a ValueError, one that is no text a UnicodeError
        raise LinkDown(f"{host}: {error}", "unreachable")
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    code = sock.connect_ex(address)
    if code and code not in _WAITING:
        sock.close()
        raise _link_down(OSError(code, os.strerror(code)), (host, port))
    return kind_of_channel(loop, sock, credentials, (host, port), True, tag)


class Listener:
    """Accepts TCP on one port of every address, IPv4 and IPv6, and hands over channels that have not begun."""

    def __init__(self, loop, port, credentials, accept, backlog, kind_of_channel=TlsChannel):
        self._loop = loop
        self._credentials = credentials
        self._accept = accept
        self._kind_of_channel = kind_of_channel      # the bench's has no TLS
        self._sockets = _bind_both(port, backlog)
        self.port = self._sockets[0].getsockname()[1]
        self._watch()

    def _watch(self):
        for sock in self._sockets:
            self._loop.watch(sock.fileno(), on_readable=lambda sock=sock: self._readable(sock))

    def _readable(self, sock):
        for _ in range(limits.MAX_ACCEPTS):
            try:
                client, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError:
                self._rest()
                return
            client.setblocking(False)
            try:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                client.close()       # macOS: it is gone already
                continue
            host = address[0].split("%")[0]
            if len(address) == 4 and address[3]:
                host = f"{host}%{address[3]}"
            self._accept(self._kind_of_channel(self._loop, client, self._credentials, (host, address[1]), False))

    def _rest(self):
        # No descriptor left: a listening socket stays readable, so look away for a moment instead of spinning.
        for sock in self._sockets:
            self._loop.unwatch(sock.fileno())
        self._loop.call_later(ACCEPT_PAUSE, self._wake)

    def _wake(self):
        if self._sockets:
            self._watch()

    def close(self):
        """Stop accepting."""
        for sock in self._sockets:
            self._loop.unwatch(sock.fileno())
            sock.close()
        self._sockets = []


def _bind_both(port, backlog):
    """Listening sockets on one number for IPv4 and, where there is IPv6, for it too. Raises OSError if taken."""
    for attempt in range(16):
        first = _bind(socket.AF_INET, "0.0.0.0", port, backlog)
        number = first.getsockname()[1]
        try:
            return [first, _bind(socket.AF_INET6, "::", number, backlog)] if socket.has_ipv6 else [first]
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return [first]      # a kernel without IPv6
            first.close()
            if port or attempt == 15:
                raise
    raise AssertionError("unreachable")


def _bind(family, host, port, backlog):
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        system.set_exclusive(sock)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
