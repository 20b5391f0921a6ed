"""Whoever has no business here is refused, in one line of the log, and the root goes on."""
import contextlib
import os
import re
import ssl

import pytest

from p2p import limits
from p2p.log import BURST
from tests import test_networks as people
from tests.attacks.hostile import LAN, Member, careless, is_closed
from tests.waiting import wait_until

pytestmark = pytest.mark.lab

NAME = LAN.tag.hex()
PLAIN = {"plaintext": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "garbage": bytes(range(1, 256)) * 4,
         "a record that is no handshake": b"\x16\x03\x01\x00\x05hello"}
HALF = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def shows(pem, name=NAME, **how):
    """An attempt to get in with this certificate; True if the root said anything inside TLS."""
    def attempt(wire):
        with contextlib.closing(wire.tcp()) as plain:
            try:
                with careless(pem() if callable(pem) else pem, **how).wrap_socket(plain, server_hostname=name) as tls:
                    return tls.recv(100) != b""
            except (OSError, ValueError):
                return False
    return attempt


ATTEMPTS = {case: shows(pem, name) for case, (pem, name, _) in people.STRANGERS.items()}
ATTEMPTS["TLS 1.2"] = shows(lambda: people.certified(LAN), most=ssl.TLSVersion.TLSv1_2)
ATTEMPTS["another protocol over TLS"] = shows(lambda: people.certified(LAN), alpn="h2")
ATTEMPTS["no protocol over TLS"] = shows(lambda: people.certified(LAN), alpn=None)


def lines(target, source):
    """What the log has about one address."""
    return [line for line in target.log() if re.search(rf" refused: {re.escape(source)}\b", line)]


def one_line(target, source, before):
    """Exactly one more line, whose end names the fault."""
    wait_until(lambda: len(lines(target, source)) > before, 10.0, "a line in the log", lambda: "\n".join(target.log()[-5:]))
    [line] = lines(target, source)[before:]
    assert line.count(source) == 1 and len(line) < 200
    return line


def test_the_twin_of_all_strangers_is_let_in(target):
    assert shows(lambda: people.certified(LAN))(target.wire)


def test_each_stranger_is_refused_in_one_line(target):
    """Each comes from an address of its own, so that its line is known by it."""
    for number, attempt in enumerate(ATTEMPTS.values()):
        assert not attempt(target.only(number)), list(ATTEMPTS)[number]
    assert len(ATTEMPTS) <= BURST                  # within the budget of lines: none of them is suppressed
    for number, case in enumerate(ATTEMPTS):
        assert re.search(r"TLS refused: |no certificate|speaks |a key that is not P-256", one_line(target, target.sources[number], 0)), case


@pytest.mark.parametrize("case", PLAIN)
def test_what_is_not_tls_is_refused_in_one_line(target, case):
    source = target.sources[30 + list(PLAIN).index(case)]
    with contextlib.closing(target.only(source).tcp()) as sock:
        sock.sendall(PLAIN[case])
        wait_until(lambda: is_closed(sock), 5.0, "the end of the connection")
    assert "TLS refused" in one_line(target, source, 0)


def test_half_a_handshake_is_cut_off_at_its_deadline_or_noticed_when_it_hangs_up(target):
    waits, hangs_up, silent, keyed = target.sources[33:37]
    member = Member().dial(target.only(keyed), greet=False)         # it has shown its key, and says no HELLO
    with contextlib.closing(target.only(waits).tcp()) as one, contextlib.closing(target.only(silent).tcp()) as two:
        one.sendall(HALF)
        with contextlib.closing(target.only(hangs_up).tcp()) as sock:
            sock.sendall(HALF)
        assert "before it had proved" in one_line(target, hangs_up, 0)
        wait_until(lambda: is_closed(one) and is_closed(two), limits.HANDSHAKE_DEADLINE + 5.0, "the deadline")
    member.ended(5.0)
    for source in (waits, silent, keyed):
        assert "no handshake in 5 s" in one_line(target, source, 0)


def test_a_member_that_says_something_else_than_its_hello_is_refused(target):
    line = Member().dial(target.only(37), greet=False)
    line.raw(os.urandom(64))
    line.ended(5.0)
    assert "does not speak this protocol" in one_line(target, target.sources[37], 0)


def test_a_flood_of_one_kind_hides_no_line_of_another_and_is_counted(target):
    """Garbage on UDP, far beyond its budget of lines, while a stranger knocks."""
    sock = target.wire.udp()
    before = len(target.log())
    target.wire.throw(sock, [os.urandom(200) for _ in range(500)])
    with contextlib.closing(target.only(target.sources[38]).tcp()) as plain:
        plain.sendall(b"hello, is anybody there?\n" * 10)
        assert "TLS refused" in one_line(target, target.sources[38], 0)
    sock.close()
    counted = re.compile(r"\d+ more of these were not written down")
    wait_until(lambda: any(map(counted.search, target.log()[before:])), 15.0, "the count")
    assert len([line for line in target.log()[before:] if "a datagram from" in line]) <= 2 * BURST
