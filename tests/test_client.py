"""p2pclient: the first address that answers, the right node or none, and a backoff that grows. Real sockets, real TLS."""

import socket

import pytest

from p2p import limits
from p2p.errors import PeerError
from tests.ends import Bed, ping


@pytest.fixture
def bed(tmp_path):
    bed = Bed(tmp_path)
    yield bed
    bed.loop.close()


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def failure(bed, future):
    bed.until(lambda: future.done)
    return future.error


def test_a_refused_address_costs_no_time_and_the_next_is_tried(bed):
    ann, bob = bed.end("ann"), bed.end("bob")
    server = ann.server()
    began = bed.loop.now()
    addresses = [("127.0.0.1", closed_port()), ("127.0.0.1", closed_port()), ("127.0.0.1", server.port)]
    ping(bed, bed.wait(bob.client().dial(addresses, bob.tag, ann.identity.node_id)))
    assert bed.loop.now() - began < 2.0
    server.close()


def test_an_address_that_does_not_answer_holds_the_next_up_for_a_moment_only(bed):
    ann, bob = bed.end("ann"), bed.end("bob")
    server = ann.server()
    with socket.socket() as deaf:            # accepts TCP by its backlog and never says a word
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(5)
        began = bed.loop.now()
        addresses = [("127.0.0.1", deaf.getsockname()[1]), ("127.0.0.1", server.port)]
        ping(bed, bed.wait(bob.client().dial(addresses, bob.tag)))
        assert bed.loop.now() - began < limits.DIAL_TIMEOUT
    server.close()


def test_why_a_dial_failed_is_told_by_its_kind(bed, monkeypatch):
    monkeypatch.setattr(limits, "DIAL_TIMEOUT", 0.3)
    bob = bed.end("bob")
    client = bob.client()
    assert failure(bed, client.dial([("127.0.0.1", closed_port())], bob.tag)).kind == "refused"
    assert failure(bed, client.dial([], bob.tag)).kind == "unreachable"
    assert failure(bed, client.dial([("not an address", 1)], bob.tag)).kind == "unreachable"
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(5)
        assert failure(bed, client.dial([("127.0.0.1", deaf.getsockname()[1])], bob.tag)).kind == "timeout"


def test_another_node_at_the_address_is_not_taken_for_the_one_dialled(bed):
    ann, bob = bed.end("ann"), bed.end("bob")
    server = ann.server()
    error = failure(bed, bob.client().dial([("127.0.0.1", server.port)], bob.tag, b"x" * 32))
    assert isinstance(error, PeerError) and error.reason == "identity" and not bob.ready
    server.close()


def test_a_kept_peer_is_dialled_ever_more_rarely_and_at_once_when_it_is_asked_for_again(bed, monkeypatch):
    monkeypatch.setattr(limits, "REDIAL_FIRST", 0.02)
    monkeypatch.setattr(limits, "REDIAL_LAST", 0.2)
    bob = bed.end("bob")
    client = bob.client()
    client.keep(b"x" * 32, [("127.0.0.1", closed_port())], bob.tag)
    bed.until(lambda: len(bob.failures) >= 8)
    times = [at for at, _ in bob.failures]
    pauses = [later - earlier for earlier, later in zip(times, times[1:])]
    assert all(error.kind == "refused" for _, error in bob.failures)
    assert min(pauses[-3:]) > max(pauses[0], 0.09) and pauses[0] < 0.2
    known = len(bob.failures)
    began = bed.loop.now()
    client.keep(b"x" * 32, [("127.0.0.1", closed_port())], bob.tag)
    bed.until(lambda: len(bob.failures) > known)
    assert bed.loop.now() - began < 0.09
    client.release(b"x" * 32)
    known = len(bob.failures)
    bed.idle(0.3)
    assert len(bob.failures) == known
    client.close()


def test_the_longest_pause_is_bounded_and_jittered(bed):
    client = bed.end("bob").client()
    pauses = [client._pause(50) for _ in range(200)]
    assert max(pauses) <= limits.REDIAL_LAST * 1.5 and min(pauses) >= limits.REDIAL_LAST * 0.5
    assert max(pauses) - min(pauses) > limits.REDIAL_LAST * 0.5
    assert client._pause(1) <= limits.REDIAL_FIRST * 1.5


def test_a_kept_peer_is_found_when_it_comes_and_again_when_it_comes_back(bed, monkeypatch):
    monkeypatch.setattr(limits, "REDIAL_LAST", 0.1)
    ann, bob = bed.end("ann"), bed.end("bob")
    port = closed_port()
    client = bob.client()
    client.keep(ann.identity.node_id, [("127.0.0.1", port)], bob.tag)
    for meeting in range(1, 4):
        bed.until(lambda: bob.failures)
        server = ann.server(port)
        bed.until(lambda: len(bob.ready) == meeting)
        client.connected(ann.identity.node_id)
        bob.failures.clear()
        server.close()
        bob.ready[-1].abort()
        client.lost(ann.identity.node_id)
    client.close()


def test_a_cancelled_dial_leaves_no_descriptor_behind(bed):
    import os
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("descriptors are counted in /proc")
    bob = bed.end("bob")
    client = bob.client()
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(50)
        for _ in range(20):
            client.dial([("127.0.0.1", deaf.getsockname()[1])], bob.tag)
        bed.idle(0.05)
        client.close()
        bed.idle(0.05)
        assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_of_many_peers_that_do_not_answer_a_few_are_dialled_at_a_time_and_hold_up_nobody(bed, monkeypatch):
    """In the open network anybody can invent a thousand nodes to be dialled."""
    monkeypatch.setattr(limits, "MAX_DIALS", 4)
    monkeypatch.setattr(limits, "DIAL_GIVES_WAY", 0.2)
    ann, bob = bed.end("ann"), bed.end("bob")
    server, client = ann.server(), bob.client()
    with socket.socket() as deaf:            # accepts TCP by its backlog and never says a word
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(100)
        for number in range(12):
            client.keep(bytes([number]) * 32, [("127.0.0.1", deaf.getsockname()[1])], bob.tag)
        client.keep(ann.identity.node_id, [("127.0.0.1", server.port)], bob.tag)
        began = bed.loop.now()

        def met():
            assert len(client._attempts) + sum(kept.attempt is not None for kept in client._kept.values()) <= 4
            return ann.ready
        bed.until(met)
        assert 0.5 < bed.loop.now() - began < limits.DIAL_TIMEOUT
        assert len(bob.failures) >= 12
        for number in range(12):
            client.release(bytes([number]) * 32)
        assert not client._dialling and not client._waiting
    server.close()


def test_a_peer_that_lets_in_only_to_drop_is_dialled_ever_more_rarely_and_one_that_lasted_at_once(bed):
    ann, bob = bed.end("ann"), bed.end("bob")
    server, client = ann.server(), bob.client()
    bob.connection_ready = lambda connection: (bob.ready.append(connection), client.connected(connection.peer_id))
    bob.connection_lost = lambda connection, error: client.lost(connection.peer_id)
    ann.connection_ready = lambda connection: connection.finish("go away")
    client.keep(ann.identity.node_id, [("127.0.0.1", server.port)], bob.tag)
    end = bed.loop.now() + 2.0
    bed.until(lambda: bed.loop.now() > end)
    assert 2 <= len(bob.ready) < 8
    ann.connection_ready = ann.ready.append
    client.keep(ann.identity.node_id, [("127.0.0.1", server.port)], bob.tag)
    bed.until(lambda: ann.ready and bob.ready[-1].is_ready)
    client._kept[ann.identity.node_id].connected_at -= 60.0
    known, began = len(bob.ready), bed.loop.now()
    ann.ready[-1].abort()
    bed.until(lambda: len(bob.ready) > known)
    assert bed.loop.now() - began < 0.5
    client.close()
    server.close()


def test_a_kept_peer_whose_connection_is_not_wanted_is_tried_elsewhere_and_again_later(bed, monkeypatch):
    monkeypatch.setattr(limits, "REDIAL_FIRST", 0.02)
    ann, bob = bed.end("ann"), bed.end("bob")
    servers, client = [ann.server(), ann.server()], bob.client()
    came = []

    def refuses(connection):
        came.append(connection.channel.address[1])
        raise PeerError("has a role that is not meant here", "role")
    bob.connection_ready = refuses
    client.keep(ann.identity.node_id, [("127.0.0.1", server.port) for server in servers], bob.tag)
    bed.until(lambda: len(came) >= 6)
    assert came[:2] == [server.port for server in servers] and bob.failures[0][1].reason == "role"
    client.close()
    for server in servers:
        server.close()


def test_a_new_address_is_tried_at_once_though_an_old_one_has_not_answered_yet(bed):
    ann, bob = bed.end("ann"), bed.end("bob")
    server, client = ann.server(), bob.client()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(5)
        client.keep(ann.identity.node_id, [("127.0.0.1", deaf.getsockname()[1])], bob.tag)
        bed.idle(0.1)
        began = bed.loop.now()
        client.keep(ann.identity.node_id, [("127.0.0.1", server.port)], bob.tag)
        bed.until(lambda: bob.ready)
        assert bed.loop.now() - began < 2.0
    client.close()
    server.close()


def test_nobody_waits_for_ever_for_a_dial_of_a_client_that_was_closed(bed):
    bob = bed.end("bob")
    client = bob.client()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(5)
        dial = client.dial([("127.0.0.1", deaf.getsockname()[1])], bob.tag)
        bed.idle(0.05)
        client.close()
        assert failure(bed, dial).kind == "closed"
