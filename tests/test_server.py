"""p2pserver under strangers: what proves nothing costs little, and friends get in meanwhile. Real sockets, real TLS."""

import os
import socket
from types import SimpleNamespace

import pytest

from p2p import limits
from p2p.errors import PeerError
from p2p.server import _least
from tests.ends import Bed, ping


@pytest.fixture
def bed(tmp_path):
    bed = Bed(tmp_path)
    bed.sockets = []
    yield bed
    for sock in bed.sockets:
        sock.close()
    bed.loop.close()


def stranger(bed, port, data=b"", host="127.0.0.1", source=None):
    """A plain TCP connection that says `data` and then nothing."""
    sock = socket.create_connection((host, port), 5, source_address=(source, 0) if source else None)
    sock.sendall(data)
    sock.setblocking(False)
    bed.sockets.append(sock)
    return sock


def is_closed(sock):
    try:
        return sock.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_a_member_is_accepted_over_ipv4_and_ipv6(bed):
    ann, bob = bed.end("ann"), bed.end("bob")
    server, client = ann.server(), bob.client()
    hosts = ["127.0.0.1", "::1"] if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6") else ["127.0.0.1"]
    for host in hosts:
        connection = bed.wait(client.dial([(host, server.port)], bob.tag, ann.identity.node_id))
        ping(bed, connection)
        assert ann.ready[-1].peer_id == bob.identity.node_id and connection.peer_id == ann.identity.node_id
        assert connection.channel.is_loopback and ann.ready[-1].channel.is_loopback
    server.close()


def test_nobody_stays_longer_than_the_deadline_without_a_hello(bed, monkeypatch):
    monkeypatch.setattr(limits, "HANDSHAKE_DEADLINE", 0.3)
    ann = bed.end("ann")
    server = ann.server()
    silent, slow = stranger(bed, server.port), stranger(bed, server.port, b"\x16\x03\x01\x02\x00\x01")
    bed.until(lambda: is_closed(silent) and is_closed(slow))
    assert [error.reason for error in ann.refused] == ["deadline", "deadline"] and server.pending == 0
    server.close()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 600, b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x00\x05hello"])
def test_plaintext_and_garbage_are_refused_counted_and_harmless(bed, data):
    ann, bob = bed.end("ann"), bed.end("bob")
    server = ann.server()
    sock = stranger(bed, server.port, data)
    bed.until(lambda: is_closed(sock))
    assert isinstance(ann.refused[0], PeerError) and ann.refused[0].reason == "tls"
    ping(bed, bed.wait(bob.client().dial([("127.0.0.1", server.port)], bob.tag)))
    server.close()


def test_one_address_has_few_places_and_its_own_oldest_makes_room(bed):
    ann = bed.end("ann")
    server = ann.server()
    first = stranger(bed, server.port, source="127.0.0.2")
    bed.until(lambda: server.pending == 1)
    others = [stranger(bed, server.port, source="127.0.0.3") for _ in range(limits.MAX_PENDING_ADDRESS + 3)]
    bed.until(lambda: server.evicted == 3)
    assert server.pending == 1 + limits.MAX_PENDING_ADDRESS
    bed.until(lambda: all(is_closed(sock) for sock in others[:3]))
    assert not is_closed(first) and not is_closed(others[3])
    server.close()


def test_who_has_shown_a_key_is_not_pushed_out_by_those_who_have_not():
    friend, strangers = SimpleNamespace(peer_id=b"key"), [SimpleNamespace(peer_id=b"") for _ in range(2)]
    assert _least([friend, *strangers]) is strangers[0] and _least([friend, friend]) is friend


def test_while_strangers_hold_all_places_twenty_of_twenty_friends_get_in(bed):
    ann = bed.end("ann")
    server = ann.server()
    for number in range(3 * limits.MAX_PENDING):
        stranger(bed, server.port, source=f"127.0.{number % 12}.9")
        bed.loop.turn(0)
    bed.until(lambda: server.evicted)
    assert server.pending <= limits.MAX_PENDING
    friends = [bed.end(f"friend{number}") for number in range(20)]
    for friend in friends:       # all of one address, so eight at a time; the others redial, as nodes do
        client = friend.client()
        friend.connection_lost = lambda connection, error, client=client: client.lost(ann.identity.node_id)
        client.keep(ann.identity.node_id, [("127.0.0.1", server.port)], friend.tag)
    more = iter(range(10000))
    wanted = {friend.identity.node_id for friend in friends}

    def all_in():
        for _ in range(3):       # and strangers go on coming
            stranger(bed, server.port, source=f"127.1.{next(more) % 12}.9")
        return wanted == {connection.peer_id for connection in ann.ready}
    bed.until(all_in)
    assert server.pending <= limits.MAX_PENDING
    server.close()


def test_a_closed_server_drops_what_is_under_way(bed):
    ann = bed.end("ann")
    server = ann.server()
    sock = stranger(bed, server.port)
    bed.until(lambda: server.pending == 1)
    server.close()
    bed.until(lambda: is_closed(sock))
    with pytest.raises(OSError):
        stranger(bed, server.port)
