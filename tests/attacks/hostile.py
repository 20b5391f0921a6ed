"""A client that keeps no rule unless a test wants it to: sockets, TLS, frames and beacons, each of them by hand.

It runs inside the test's own process. A socket belongs to the network namespace in which it was made, so a thread
enters the namespace for the moment of making it (`inside`), and whoever holds the socket may then use it from anywhere.

In the open network everybody can have a certificate: `Member` is an attacker who is let in, or a friend, as it behaves.
"""
import contextlib
import ctypes
import itertools
import os
import socket
import ssl
import struct
import tempfile
import threading
import time

from p2p import proto
from p2p.codec import Decoder, frame
from p2p.datagram import seal
from p2p.trust import x509
from p2p.trust.ecc import PrivateKey, node_id_text
from p2p.trust.network import open_network
from p2p.trust.networks import ALPN
from tests.waiting import wait_until

LAN = open_network()
PORT = 47474
NEW_NETWORK = 0x40000000        # CLONE_NEWNET, for setns
PATIENCE = 15.0                 # s for one answer on two loaded cores
_libc = ctypes.CDLL(None, use_errno=True)
_sequence = itertools.count(1)
_here = threading.local()       # .namespace: where this thread is


@contextlib.contextmanager
def inside(namespace):
    """Sockets made in this block live in that network namespace; None is this process's own.

    Changing over takes the kernel milliseconds: whoever floods stays inside."""
    before = getattr(_here, "namespace", None)
    if namespace in (None, before):
        yield
        return
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(os.open(f"/run/netns/{namespace}", os.O_RDONLY))
        _here.namespace = namespace
        yield
    finally:
        _here.namespace = before
        enter(own)


def enter(descriptor):
    """Moves this thread to a namespace and closes the descriptor."""
    try:
        if _libc.setns(descriptor, NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


class Wire:
    """From where (a namespace and its addresses) to which root an attack goes."""

    def __init__(self, namespace, target, port=PORT, sources=("",)):
        self.namespace, self.target, self.port = namespace, target, port
        self._sources = itertools.cycle(sources)

    def tcp(self, timeout=PATIENCE):
        """A connected TCP socket, from the next of the addresses."""
        with inside(self.namespace):
            sock = socket.create_connection((self.target, self.port), timeout, source_address=(next(self._sources), 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def knock(self):
        """A TCP connection that is being made: whoever floods does not wait for the answer, nor for a queue that is full."""
        with inside(self.namespace):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind((next(self._sources), 0))
        sock.connect_ex((self.target, self.port))
        return sock

    def udp(self, source=None):
        """A bound UDP socket; `throw` sends from it."""
        with inside(self.namespace):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((next(self._sources) if source is None else source, 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setblocking(False)
        return sock

    def throw(self, sock, datagrams):
        """Sends them all, as fast as the kernel takes them."""
        for data in datagrams:
            while True:
                try:
                    sock.sendto(data, (self.target, self.port))
                    break
                except BlockingIOError:
                    continue


def is_closed(sock):
    """Has the other end hung up? Reads what is there."""
    sock.setblocking(False)
    try:
        while sock.recv(1 << 16):
            pass
        return True
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except (OSError, ValueError):
        return True


def careless(pem="", alpn=ALPN, most=None, server=False):
    """A TLS context of somebody who checks nothing and shows what is in `pem`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if pem:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(file.name)
    if alpn:
        context.set_alpn_protocols([alpn])
    if most:
        context.maximum_version = most
    return context


class Member:
    """A key with a certificate of the open network, and what one can do with it."""

    def __init__(self, name="eve", key=None):
        self.name = name
        self.key = key or PrivateKey.generate(os.urandom)
        self.id = self.key.public.node_id
        self.text = node_id_text(self.id)
        self.nonce = int.from_bytes(os.urandom(7), "big") + 1
        self._context = None

    @property
    def context(self):
        """For dialling; made once, since signing the certificate takes longer than a handshake."""
        if self._context is None:
            leaf = x509.make_leaf(LAN.ca_key, self.key.public, os.urandom(16))
            self._context = careless(self.key.to_pem() + x509.to_pem(leaf))
        return self._context

    def hello(self, **fields):
        """The own HELLO as a frame."""
        values = dict(role=proto.NODE, name=self.name, version="1", nonce=self.nonce, port=0, abilities=0, networks=[LAN.tag],
                      addresses=[], view=0)
        values.update(fields)
        return frame(proto.HELLO.number, 0, proto.HELLO.pack(**values))

    def dial(self, wire, greet=True, **fields):
        """A Line on which both HELLOs are said (without `greet`: the handshake alone). OSError where it is refused."""
        plain = wire.tcp()
        try:
            line = Line(self.context.wrap_socket(plain, server_hostname=LAN.tag.hex()), self)
        except (OSError, ValueError):
            plain.close()
            raise
        if greet:
            try:
                line.hello = proto.HELLO.unpack(line.wait_for(proto.HELLO))
                line.raw(self.hello(**fields))
            except OSError:
                line.close()
                raise
        return line

    def join(self, wire, tries=40, **fields):
        """As `dial`, again and again, as a node does that wants to be in: a Line that has answered a PING."""
        for _ in range(tries):
            try:
                line = self.dial(wire, **fields)
                line.request(proto.PING)
                return line
            except OSError as error:
                failure = error
                time.sleep(0.05)
        raise AssertionError(f"{self.name} did not get in with {tries} tries: {failure!r}")

    def beacon(self, sequence=None, incarnation=1, sender=None, **fields):
        """A beacon with a right MAC, in any name."""
        values = dict(name=self.name, port=PORT, nonce=self.nonce, view=0, answer=False)
        values.update(fields)
        return seal(LAN, sender or self.id, incarnation, next(_sequence) if sequence is None else sequence, proto.BEACON, **values)


class Line:
    """A TLS connection with frames on it. Reads wait for PATIENCE at most and then raise OSError."""

    def __init__(self, sock, member):
        self.sock, self.member = sock, member
        self.hello = None
        self._decoder = Decoder(1 << 24)
        self._frames = []
        self._numbers = itertools.count(1)

    def raw(self, data):
        """These bytes, inside TLS."""
        self.sock.sendall(data)

    def send(self, message, request=0, **fields):
        """One frame."""
        self.raw(frame(message.number, request, message.pack(**fields)))

    def next(self):
        """(number, flags, request, body) of the next frame."""
        while not self._frames:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionResetError("closed by the other end")
            self._frames = self._decoder.feed(data)
        word, request, body = self._frames.pop(0)
        return word >> 32 & 0xFFFF, word >> 24 & 0xFF, request, body

    def wait_for(self, message):
        """The body of the next frame of this kind that is no answer."""
        while True:
            number, flags, _, body = self.next()
            if number == message.number and not flags:
                return body

    def request(self, message, **fields):
        """(flags, body) of the answer."""
        wanted = next(self._numbers)
        self.send(message, wanted, **fields)
        while True:
            number, flags, request, body = self.next()
            if number == message.number and flags and request == wanted:
                return flags, body

    def ended(self, timeout=PATIENCE):
        """Waits until the other end has hung up."""
        wait_until(lambda: is_closed(self.sock), timeout, "the end of the connection")
        self.close()

    def close(self):
        """Without a goodbye."""
        self.sock.close()

    def reset(self):
        """By a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
