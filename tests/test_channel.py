"""Channels over real sockets and real TLS: what they hand over, when, and how they end."""

import gc
import os
import socket
import ssl
import struct

import pytest

from p2p import limits
from p2p.channel import RECORD, Listener, TlsChannel, dial
from p2p.errors import LinkDown, P2PError, PeerError
from p2p.interfaces import list_interfaces
from tests.ends import Bed


class Side:
    """An owner of one channel that takes what comes and notes it."""

    def __init__(self, budget=limits.READ_BUDGET):
        self.budget = budget
        self.is_open = False
        self.got = []              # the bytes of each call
        self.error = None
        self.on_writable = lambda: None

    def start(self, channel):
        self.channel = channel
        channel.start(self)
        return self

    def channel_open(self):
        self.is_open = True

    def channel_readable(self):
        try:
            data = self.channel.receive(self.budget)
            if data:
                self.got.append(data)
        except P2PError as error:
            self.error = error
            self.channel.abort()

    def channel_writable(self):
        self.on_writable()

    def channel_lost(self, error):
        self.error = error

    @property
    def data(self):
        return b"".join(self.got)

    def pour(self, data):
        """Send all of it, as fast as the channel takes it."""
        left = [memoryview(data)]

        def go_on():
            while left[0]:
                taken = self.channel.send(left[0])
                if not taken:
                    break
                left[0] = left[0][taken:]
            self.channel.want_write(bool(left[0]))
        self.on_writable = go_on
        go_on()
        return left


class Wire(Bed):
    """Two nodes; `pair` gives the two sides of a new channel."""

    def __init__(self, folder):
        super().__init__(folder)
        self.ann, self.bob = self.end("ann"), self.end("bob")
        self.accepted = []
        self.listener = Listener(self.loop, 0, self.ann.networks, self.accepted.append, 200)

    def dial(self, host="127.0.0.1", port=None, tag=None):
        return dial(self.loop, host, port or self.listener.port, self.bob.networks, tag or self.bob.tag)

    def pair(self, host="127.0.0.1", budget=limits.READ_BUDGET):
        known = len(self.accepted)
        client = Side(budget).start(self.dial(host))
        self.until(lambda: len(self.accepted) > known)
        server = Side(budget).start(self.accepted[-1])
        self.until(lambda: client.is_open and server.is_open)
        return client, server

    def plain(self):
        """A TCP connection to the listener that this side handles without TLS; (socket, Side of the server)."""
        known = len(self.accepted)
        sock = socket.create_connection(("127.0.0.1", self.listener.port), 5)
        self.until(lambda: len(self.accepted) > known)
        return sock, Side().start(self.accepted[-1])

    def close(self):
        self.listener.close()
        for channel in self.accepted:
            channel.abort()
        self.loop.close()


@pytest.fixture
def wire(tmp_path):
    wire = Wire(tmp_path)
    yield wire
    wire.close()
    assert wire.events == []


def descriptors():
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("descriptors are counted in /proc")
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_both_ends_know_who_the_other_is_and_in_which_network(wire):
    client, server = wire.pair()
    assert client.channel.peer_id == wire.ann.identity.node_id and server.channel.peer_id == wire.bob.identity.node_id
    assert client.channel.tag == server.channel.tag == wire.bob.tag
    assert client.channel.is_loopback and server.channel.is_loopback and server.channel.address[0] == "127.0.0.1"


@pytest.mark.parametrize("host, is_loopback", [
    ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False), ("128.0.0.1", False), ("fe80::1%1", False),
    ("::ffff:127.0.0.1", True), ("1270.0.0.1", False)])
def test_what_counts_as_loopback(wire, host, is_loopback):
    with socket.socket() as sock:
        assert TlsChannel(wire.loop, sock, None, (host, 1), True).is_loopback is is_loopback


def test_a_link_local_address_keeps_its_scope_on_both_ends(wire):
    scoped = [f"{address}%{interface.index}" for interface in list_interfaces() for address in interface.link_local6 if interface.is_up]
    if not scoped:
        pytest.skip("no IPv6 link-local address here")
    client, server = wire.pair(scoped[0])
    assert client.channel.address[0] == server.channel.address[0] == scoped[0]


def test_what_tls_has_decrypted_is_handed_over_though_no_readiness_follows(wire):
    client, server = wire.pair(budget=1)
    data = os.urandom(5 * RECORD + 7)
    client.pour(data)
    wire.until(lambda: len(server.data) == len(data))
    assert server.data == data and max(map(len, server.got)) <= RECORD


def test_a_flood_is_read_in_portions_and_others_have_their_turn_between(wire):
    (flooder, first), (quiet, second) = wire.pair(), wire.pair()
    flooder.pour(bytes(16 * limits.READ_BUDGET))
    wire.until(lambda: first.got)
    quiet.pour(b"hello")
    wire.until(lambda: second.data == b"hello")
    assert len(first.data) < 16 * limits.READ_BUDGET
    wire.until(lambda: len(first.data) == 16 * limits.READ_BUDGET)
    assert max(map(len, first.got)) < limits.READ_BUDGET + RECORD


def test_a_paused_channel_reads_nothing_and_goes_on_with_all_of_it(wire):
    client, server = wire.pair(budget=RECORD)
    server.channel.pause(True)
    data = os.urandom(4 * RECORD)
    client.pour(data)
    wire.until(wire.idle)
    assert server.got == []
    server.channel.pause(False)
    wire.until(lambda: server.got)              # and in the middle, when TLS holds some of it
    server.channel.pause(True)
    before = len(server.data)
    wire.until(wire.idle)
    assert len(server.data) == before < len(data)
    server.channel.pause(False)
    wire.until(lambda: server.data == data)


def test_who_does_not_read_makes_the_sender_wait_and_nothing_is_lost(wire):
    client, server = wire.pair()
    server.channel.pause(True)
    data = os.urandom(1 << 20) * 16
    left = client.pour(data)
    wire.until(lambda: left[0] and wire.idle())
    server.channel.pause(False)
    wire.until(lambda: len(server.data) == len(data))
    assert server.data == data and not left[0]


def test_what_was_sent_before_the_end_comes_before_the_end(wire):
    client, server = wire.pair()
    server.channel.pause(True)
    client.pour(b"last words")
    client.channel.finish()
    wire.until(wire.idle)
    server.channel.pause(False)
    wire.until(lambda: server.error)
    assert server.data == b"last words" and server.error.kind == "eof"
    wire.until(lambda: client.channel.is_closed)


@pytest.mark.parametrize("linger, kinds", [(0, {"eof"}), (1, {"reset", "eof"})])
def test_a_killed_peer_is_an_end_like_any_other(wire, linger, kinds):
    client, server = wire.pair()
    if linger:
        client.channel._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.channel.abort()
    wire.until(lambda: server.error)
    assert isinstance(server.error, LinkDown) and server.error.kind in kinds


def test_what_a_slow_reader_has_read_of_one_large_write_counts_as_taken_and_comes_whole(wire):
    client, server = wire.pair()
    for channel, option in ((client.channel, socket.SO_SNDBUF), (server.channel, socket.SO_RCVBUF)):
        channel._sock.setsockopt(socket.SOL_SOCKET, option, 8192)
    server.channel.pause(True)
    data = memoryview(os.urandom(1 << 20))
    steps, taken = [], client.channel.send(data)
    server.budget = 1 << 16

    def go_on():
        nonlocal taken
        count = client.channel.send(data[taken:])
        taken += count
        steps.append(count)
        return taken == len(data)
    server.channel.pause(False)
    wire.until(go_on)
    wire.until(lambda: len(server.data) == len(data))
    assert bytes(server.data) == bytes(data)
    assert sum(count > 0 for count in steps) > 4


def test_sending_to_a_peer_that_has_reset_raises_linkdown(wire):
    client, server = wire.pair()
    server.channel.pause(True)
    client.channel._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.channel.abort()
    with pytest.raises(LinkDown) as caught:
        for _ in range(100):
            server.channel.send(memoryview(b"x" * RECORD))
    assert caught.value.kind in ("reset", "eof")


def test_bytes_that_are_not_tls_in_the_middle_are_the_peers_fault(wire):
    client, server = wire.pair()
    raw = socket.socket(fileno=os.dup(client.channel._sock.fileno()))
    raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    raw.close()
    wire.until(lambda: server.error)
    assert isinstance(server.error, PeerError) and server.error.reason == "tls"


def test_a_finished_channel_waits_for_the_others_end_however_it_comes_in_pieces(wire):
    client, server = wire.pair()
    client.channel.finish()
    server.budget = 0                            # it does not react to the end
    server.channel.pause(True)
    for _ in range(5):
        server.pour(b"still talking")
        wire.until(wire.idle)
        assert not client.channel.is_closed
    server.channel.abort()
    wire.until(lambda: client.channel.is_closed)


def test_a_finished_channel_is_closed_after_a_while_whatever_the_other_does(wire, monkeypatch):
    monkeypatch.setattr(limits, "LINGER", 0.2)
    client, server = wire.pair()
    server.channel.pause(True)
    client.channel.finish()
    began = wire.loop.now()
    wire.until(lambda: client.channel.is_closed)
    assert 0.1 < wire.loop.now() - began < 5.0


def test_a_peer_that_floods_a_finished_channel_does_not_hold_the_loop(wire, monkeypatch):
    client, server = wire.pair()
    client.channel.finish()
    reads = []

    class Endless:
        def recv(self, size):
            reads.append(size)
            assert len(reads) < 10_000, "the loop is held"
            return bytes(size)

        def fileno(self):
            return client.channel._sock.fileno()

        def close(self):
            pass
    real, client.channel._sock = client.channel._sock, Endless()
    client.channel._drain()
    assert sum(reads) <= 2 * limits.READ_BUDGET
    client.channel._sock = real


def test_the_end_behind_what_was_read_to_its_place_is_heard_though_the_socket_tells_nothing(wire):
    client, server = wire.pair()
    client.channel.send(b"x" * 1000)
    with pytest.raises(ssl.SSLWantReadError):
        client.channel._sock.unwrap()          # TLS says goodbye; TCP stays open
    place, taken = memoryview(bytearray(4000)), 0
    while not taken:
        taken = server.channel.receive_into(place)
    assert taken == 1000 and place[:1000] == b"x" * 1000
    wire.until(lambda: server.error)
    assert server.error.kind == "eof"


@pytest.mark.parametrize("state", ["before", "handshake", "open", "closing"])
def test_a_channel_given_up_in_any_state_leaves_no_descriptor_and_says_nothing(wire, state):
    before = descriptors()
    if state in ("open", "closing"):
        sides = wire.pair()
        if state == "closing":
            sides[0].channel.finish()
        for side in sides:
            side.channel.abort()
            side.channel.abort()
    else:
        client = Side().start(wire.dial())
        if state == "handshake":
            wire.until(lambda: client.channel._state == "handshake")
        client.channel.abort()
        wire.until(lambda: wire.accepted)
        wire.accepted[0].abort()
        assert client.error is None
    wire.until(wire.idle)
    assert descriptors() == before


@pytest.mark.parametrize("data", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_a_stranger_that_speaks_no_tls_or_stops_half_way_is_an_error_and_no_descriptor(wire, data):
    before = descriptors()
    sock, server = wire.plain()
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    wire.until(lambda: server.error)
    assert isinstance(server.error, P2PError) and not server.is_open and server.channel.is_closed
    sock.close()
    assert descriptors() == before


@pytest.mark.parametrize("host, port", [("not.an.address", 1), ("fe80::1%nowhere", 1), ("127.0.0.1", 70000), ("127.0.0.1", -1), ("", 0),
                                        ("\x00", 1), ("1" * 300, 1), ("fe80::1", 1)])
def test_an_address_that_is_none_fails_as_a_link_and_leaves_no_descriptor(wire, host, port):
    before = descriptors()
    try:
        side = Side().start(dial(wire.loop, host, port, wire.bob.networks, wire.bob.tag))
    except LinkDown as error:
        assert error.kind in ("unreachable", "refused")
    else:
        wire.until(lambda: side.error)
        assert side.error.kind in ("unreachable", "refused")
    assert descriptors() == before


def test_a_network_that_this_node_is_not_in_any_more_cannot_be_dialled(wire):
    side = Side().start(wire.dial(tag=b"x" * 8))
    wire.until(lambda: side.error)
    assert isinstance(side.error, LinkDown) and side.channel.is_closed


def test_many_who_knock_at_once_are_accepted_over_several_turns(wire):
    socks = [socket.create_connection(("127.0.0.1", wire.listener.port), 5) for _ in range(limits.MAX_ACCEPTS + 20)]
    wire.loop.turn(1)
    assert len(wire.accepted) <= limits.MAX_ACCEPTS
    wire.until(lambda: len(wire.accepted) == limits.MAX_ACCEPTS + 20)
    for sock in socks:
        sock.close()


def test_a_process_without_descriptors_neither_spins_nor_forgets_to_accept(wire):
    resource = pytest.importorskip("resource")
    socks = [socket.create_connection(("127.0.0.1", wire.listener.port), 5) for _ in range(3)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 50, hard))
    fill = []
    try:
        with pytest.raises(OSError):
            while True:
                fill.append(os.dup(wire.listener._sockets[0].fileno()))
        turns = wire.loop.turns
        end = wire.loop.now() + 0.3
        while wire.loop.now() < end:
            wire.loop.turn(0.05)
        assert wire.loop.turns - turns < 30 and not wire.accepted
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fill:
            os.close(fd)
    wire.until(lambda: len(wire.accepted) == 3)
    for sock in socks:
        sock.close()


def test_a_listener_has_one_number_for_both_families_and_gives_it_back(wire):
    with pytest.raises(OSError):
        Listener(wire.loop, wire.listener.port, wire.ann.networks, None, 5)
    port = wire.listener.port
    wire.listener.close()
    wire.listener = Listener(wire.loop, port, wire.ann.networks, wire.accepted.append, 5)
    assert wire.listener.port == port
