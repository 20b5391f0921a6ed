"""Certificates: OpenSSL takes ours under its strictest rules, and hostile DER meets one kind of error."""

import hashlib
import os
import random
import shutil
import subprocess

import pytest

from p2p.trust import x509
from p2p.trust.ecc import BadKey, PrivateKey, derive_private_key
from p2p.trust.x509 import BadCertificate

CA_KEY = derive_private_key(b"a test", "ca-p256")
CA = x509.make_ca(CA_KEY)
KEY = derive_private_key(b"a test", "leaf")
LEAF = x509.make_leaf(CA_KEY, KEY.public, bytes(range(16)))

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


def openssl(folder, *words):
    return subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True)


@needs_openssl
@pytest.mark.parametrize("serial", [bytes(16), b"\xff" * 16, b"\x00\x80" * 8])
def test_openssl_verifies_ours_strictly_in_both_roles_and_no_others(tmp_path, serial):
    (tmp_path / "ca.pem").write_text(x509.to_pem(CA))
    (tmp_path / "leaf.pem").write_text(x509.to_pem(x509.make_leaf(CA_KEY, KEY.public, serial)))
    (tmp_path / "stranger.pem").write_text(x509.to_pem(x509.make_leaf(KEY, KEY.public, serial)))
    for purpose in ("sslserver", "sslclient"):
        verify = ("verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose, "-CAfile", "ca.pem")
        done = openssl(tmp_path, *verify, "leaf.pem")
        assert done.returncode == 0, done.stderr
        assert openssl(tmp_path, *verify, "stranger.pem").returncode != 0
        assert openssl(tmp_path, *verify, "ca.pem").returncode != 0      # a CA is not a node


@needs_openssl
def test_openssl_reads_in_them_what_was_meant(tmp_path):
    (tmp_path / "ca.pem").write_text(x509.to_pem(CA))
    (tmp_path / "leaf.pem").write_text(x509.to_pem(LEAF))

    def text(name):
        done = openssl(tmp_path, "x509", "-in", name, "-noout", "-text", "-nameopt", "RFC2253")
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.split())
    common = ("Version: 3 (0x2)", "Issuer: CN=p2pframe network", "Not Before: Jan 1 00:00:00 1970", "Not After : Dec 31 23:59:59 9999",
              "ASN1 OID: prime256v1", "Signature Algorithm: ecdsa-with-SHA256")
    for wanted in common + ("Subject: CN=p2pframe network", "Basic Constraints: critical CA:TRUE, pathlen:0",
                            "Key Usage: critical Certificate Sign, CRL Sign", "Subject Key Identifier"):
        assert wanted in text("ca.pem")
    for wanted in common + ("Subject: CN=p2pframe node", "Basic Constraints: critical CA:FALSE", "Key Usage: critical Digital Signature",
                            "Subject Key Identifier", "Authority Key Identifier", "DNS:node.p2pframe.invalid",
                            "Extended Key Usage: TLS Web Server Authentication, TLS Web Client Authentication"):
        assert wanted in text("leaf.pem")


def test_the_same_key_and_serial_make_the_same_bytes():
    assert x509.make_ca(CA_KEY) == CA and x509.make_leaf(CA_KEY, KEY.public, bytes(range(16))) == LEAF
    assert x509.make_leaf(CA_KEY, KEY.public, bytes(16)) != LEAF
    assert hashlib.sha256(CA).hexdigest() == "c8f50897c4cf7897b0108aa2d1bb94e473b884497a283ab68bb264b8c1076bf0"
    assert hashlib.sha256(LEAF).hexdigest() == "df43076f27fc8306d2a511fe472febb25b0c399a5b09f78928da48be074d582e"


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 2**126, 2**127, 2**255])
def test_integers_are_positive_and_in_their_shortest_form(value):
    der = x509._integer(value)
    body = der[2:]
    assert int.from_bytes(body, "big", signed=True) == value
    assert len(body) == 1 or body[0] or body[1] & 0x80


# -- hostile bytes

def test_the_key_of_a_certificate_is_found():
    assert x509.spki_of(LEAF) == KEY.public.spki and x509.spki_of(CA) == CA_KEY.public.spki


def test_a_certificate_that_is_cut_anywhere_or_has_bytes_behind_is_refused():
    for cut in range(len(LEAF)):
        with pytest.raises(BadCertificate):
            x509.spki_of(LEAF[:cut])
    for more in (b"\0", LEAF):
        with pytest.raises(BadCertificate, match="behind"):
            x509.spki_of(LEAF + more)


def wrapped(length):
    """The leaf's contents behind a length that is written as told."""
    return b"\x30" + length + LEAF[4:]


def test_lengths_are_read_in_their_shortest_form_alone():
    size = len(LEAF) - 4
    assert x509.spki_of(wrapped(b"\x82" + size.to_bytes(2, "big"))) == KEY.public.spki
    for bad in (b"\x80", b"\x83" + size.to_bytes(3, "big"), b"\x84" + size.to_bytes(4, "big"), b"\x82" + (size + 1).to_bytes(2, "big"),
                b"\x82" + (size - 1).to_bytes(2, "big"), b"\x84\xff\xff\xff\xff", b"\xff" + b"\xff" * 127, b"\x82\xff", b"\x00"):
        with pytest.raises(BadCertificate):
            x509.spki_of(wrapped(bad))
    short = x509._sequence(b"\x30\x81\x05" + bytes(5))
    for bad in (short, x509._sequence(b"\x30\x82\x00\xff" + bytes(255))):
        with pytest.raises(BadCertificate, match="shortest"):
            x509.spki_of(bad)


def test_an_element_does_not_reach_beyond_the_one_it_lies_in():
    start, end = x509._read(LEAF, 4, len(LEAF), 0x30)
    key_end = LEAF.index(KEY.public.spki) + 91

    def saying(size):
        """The certificate, its first part said to have `size` bytes, in the shortest form."""
        head = x509._sequence(bytes(size))
        return x509._sequence(head[:len(head) - size] + LEAF[start:])
    for size in range(key_end - start):
        with pytest.raises(BadCertificate):
            x509.spki_of(saying(size))
    for size in (key_end - start, end - start):
        assert x509.spki_of(saying(size)) == KEY.public.spki


def test_each_element_must_have_its_tag():
    at, end = x509._read(LEAF, 4, len(LEAF), 0x30)
    places = [0, 4]
    for tag in (0xA0, 0x02, 0x30, 0x30, 0x30, 0x30, 0x30):
        places.append(at)
        at = x509._read(LEAF, at, end, tag)[1]
    for place in places:
        with pytest.raises(BadCertificate):
            x509.spki_of(LEAF[:place] + bytes([LEAF[place] ^ 1]) + LEAF[place + 1:])


def test_a_certificate_larger_than_any_of_ours_is_not_looked_into():
    to_be_signed = LEAF[4:x509._read(LEAF, 4, len(LEAF), 0x30)[1]]
    largest = x509._sequence(to_be_signed, bytes(x509.MAX_CERTIFICATE - 4 - len(to_be_signed)))
    assert len(largest) == x509.MAX_CERTIFICATE and x509.spki_of(largest) == KEY.public.spki
    with pytest.raises(BadCertificate, match="4097 bytes"):
        x509.spki_of(x509._sequence(to_be_signed, bytes(x509.MAX_CERTIFICATE - 3 - len(to_be_signed))))


def test_other_keys_and_other_sizes_are_refused():
    class Other:
        spki = x509._sequence(bytes(42))
    with pytest.raises(BadCertificate, match="P-256"):
        x509.spki_of(x509.make_leaf(CA_KEY, Other, bytes(16)))
    for data in (b"", b"\x30", b"\x30\x00", b"\x30\x02\x30\x00", os.urandom(480), bytes(10_000), LEAF + bytes(x509.MAX_CERTIFICATE)):
        with pytest.raises(BadCertificate):
            x509.spki_of(data)


def test_mutated_certificates_give_a_key_or_the_one_error():
    dice = random.Random(5)
    for _ in range(3000):
        mutated = bytearray(LEAF)
        for _ in range(dice.choice([1, 2, 5])):
            at = dice.randrange(len(mutated))
            if dice.random() < 0.2:
                del mutated[at]
            elif dice.random() < 0.2:
                mutated.insert(at, dice.randrange(256))
            else:
                mutated[at] = dice.choice([0, 0x30, 0x7F, 0x80, 0x81, 0x82, 0x84, 0xFF, dice.randrange(256)])
        try:
            found = x509.spki_of(bytes(mutated))
        except BadCertificate as error:
            assert error.reason == "certificate"
        else:
            assert len(found) == 91 and found in mutated


def test_a_generated_key_gets_a_certificate_that_is_read_back():
    for _ in range(20):      # r, s and serial of every length
        key = PrivateKey.generate(os.urandom)
        assert x509.spki_of(x509.make_leaf(CA_KEY, key.public, os.urandom(16))) == key.public.spki


def is_taken(check, *certificates):
    try:
        return check(*certificates)
    except (BadCertificate, BadKey):
        return False


def test_what_others_hand_over_is_taken_only_as_this_project_writes_it_to_the_last_byte():
    assert x509.is_ca(CA) and x509.is_leaf(LEAF, CA)
    for serial in (bytes(16), b"\xff" * 16, b"\x00\x80" * 8):
        assert x509.is_leaf(x509.make_leaf(CA_KEY, KEY.public, serial), CA)
    for at in range(len(CA)):
        assert not is_taken(x509.is_ca, CA[:at] + bytes([CA[at] ^ 1 << at % 8]) + CA[at + 1:]), at
    for at in range(len(LEAF)):
        assert not is_taken(x509.is_leaf, LEAF[:at] + bytes([LEAF[at] ^ 1 << at % 8]) + LEAF[at + 1:], CA), at
    for length in (*range(0, len(CA), 7), len(CA) - 1):
        assert not is_taken(x509.is_ca, CA[:length]) and not is_taken(x509.is_leaf, LEAF[:length], CA)
    assert not is_taken(x509.is_ca, CA + b"\0") and not is_taken(x509.is_leaf, LEAF + b"\0", CA)
    other = derive_private_key(b"another test", "ca-p256")
    assert not is_taken(x509.is_ca, LEAF) and not is_taken(x509.is_leaf, CA, CA)
    assert not is_taken(x509.is_leaf, LEAF, x509.make_ca(other))
    assert not is_taken(x509.is_leaf, x509.make_leaf(KEY, KEY.public, bytes(16)), CA)
