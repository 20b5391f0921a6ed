"""X.509 certificates of one fixed shape, written and read in DER without a library (RFC 5280, X.690).

Two kinds: a network's CA, and a node's leaf under it. All names are constants: a certificate is shown to
strangers before they have proved anything, so it says nothing about computer or user. Validity is 1970 to 9999,
since many boards have no clock; leaving a network is a matter of the network, not of a date. What is certified is
the key, and the node ID is its hash.

The reader takes from a certificate the one thing that is needed, its SubjectPublicKeyInfo. OpenSSL has verified
the certificate before; the reader is strict all the same, and bounded, because it reads a peer's bytes.
"""

import hashlib

from ..errors import PeerError
from .ecc import SPKI_HEAD, PrivateKey, PublicKey, pem

MAX_CERTIFICATE = 4096      # bytes; ours have about 480
CA_NAME, LEAF_NAME = "p2pframe network", "p2pframe node"
SAN = "node.p2pframe.invalid"
SPKI_SIZE = len(SPKI_HEAD) + 65

_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_VALIDITY = b"\x17\x0d700101000000Z" + b"\x18\x0f99991231235959Z"
_KEY_CERT_SIGN_CRL_SIGN, _DIGITAL_SIGNATURE = bytes.fromhex("03020106"), bytes.fromhex("03020780")
_SERVER_AND_CLIENT = bytes.fromhex("06082b06010505070301" "06082b06010505070302")
_BASIC, _USAGE, _SKI, _AKI, _EKU, _ALT = (bytes([0x55, 0x1D, number]) for number in (19, 15, 14, 35, 37, 17))


class BadCertificate(PeerError):
    """Bytes that are no certificate of the shape we take."""

    def __init__(self, message):
        super().__init__(message, "certificate")


def _der(tag, *parts):
    body = b"".join(parts)
    size = len(body)
    if size < 128:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _sequence(*parts):
    return _der(0x30, *parts)


def _integer(value):
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _name(text):
    return _sequence(_der(0x31, _sequence(_der(0x06, b"\x55\x04\x03"), _der(0x0C, text.encode("ascii")))))


def _extension(oid, body, critical=False):
    return _sequence(_der(0x06, oid), b"\x01\x01\xff" if critical else b"", _der(0x04, body))


def _key_id(key: PublicKey):
    return hashlib.sha256(key.spki[-65:]).digest()[:20]      # RFC 7093, method 1


def _body(issuer_name, subject_key, subject_name, serial, extensions):
    """What is signed."""
    return _sequence(
        _der(0xA0, _integer(2)), _integer(serial), _ECDSA_SHA256, _name(issuer_name), _sequence(_VALIDITY), _name(subject_name),
        subject_key.spki, _der(0xA3, _sequence(*extensions)))


def _with_signature(body, signature):
    pair = _sequence(_integer(int.from_bytes(signature[:32], "big")), _integer(int.from_bytes(signature[32:], "big")))
    return _sequence(body, _ECDSA_SHA256, _der(0x03, b"\0" + pair))


def _serial(random_bytes):
    # 127 bits: positive in DER, at most 20 octets (RFC 5280, 4.1.2.2), and never 0
    return int.from_bytes(random_bytes[:16], "big") >> 1 | 1


def _ca_body(public: PublicKey) -> bytes:
    return _body(CA_NAME, public, CA_NAME, _serial(hashlib.sha256(b"ca" + public.spki).digest()), [
        _extension(_BASIC, _sequence(b"\x01\x01\xff", _integer(0)), critical=True),
        _extension(_USAGE, _KEY_CERT_SIGN_CRL_SIGN, critical=True),
        _extension(_SKI, _der(0x04, _key_id(public)))])


def _leaf_body(ca_key: PublicKey, public: PublicKey, serial: int) -> bytes:
    return _body(CA_NAME, public, LEAF_NAME, serial, [
        _extension(_BASIC, _sequence(), critical=True),
        _extension(_USAGE, _DIGITAL_SIGNATURE, critical=True),
        _extension(_SKI, _der(0x04, _key_id(public))),
        _extension(_AKI, _sequence(_der(0x80, _key_id(ca_key)))),
        _extension(_EKU, _sequence(_SERVER_AND_CLIENT)),
        _extension(_ALT, _sequence(_der(0x82, SAN.encode("ascii"))))])


def make_ca(key: PrivateKey) -> bytes:
    """The self-signed CA certificate of a key, the same bytes wherever it is made."""
    body = _ca_body(key.public)
    return _with_signature(body, key.sign(body))


def make_leaf(ca_key: PrivateKey, public_key: PublicKey, serial: bytes) -> bytes:
    """A node's certificate under a CA. `serial`: 16 random bytes."""
    body = _leaf_body(ca_key.public, public_key, _serial(serial))
    return _with_signature(body, ca_key.sign(body))


def to_pem(certificate: bytes) -> str:
    """PEM of a certificate."""
    return pem("CERTIFICATE", certificate)


def _read(data, at, end, tag):
    """(start of the contents, their end) of the element at `at`, which must have this tag and lie before `end`."""
    if at + 2 > end or data[at] != tag:
        raise BadCertificate("a certificate of another shape")
    size, start = data[at + 1], at + 2
    if size >= 0x80:
        count = size & 0x7F
        if not 1 <= count <= 2:
            raise BadCertificate("a length that a certificate of this size cannot have")
        size, start = int.from_bytes(data[start:start + count], "big"), start + count
        if size < 128 or count == 2 and size < 256:
            raise BadCertificate("a length that is not in its shortest form")
    if start + size > end:
        raise BadCertificate("a certificate that is cut off")
    return start, start + size


def spki_of(certificate: bytes) -> bytes:
    """The 91 bytes of its SubjectPublicKeyInfo. Raises BadCertificate, also for keys that are not P-256."""
    if len(certificate) > MAX_CERTIFICATE:
        raise BadCertificate(f"a certificate of {len(certificate)} bytes")
    start, end = _read(certificate, 0, len(certificate), 0x30)
    if end != len(certificate):
        raise BadCertificate("bytes behind the certificate")
    at, end = _read(certificate, start, end, 0x30)
    for tag in (0xA0, 0x02, 0x30, 0x30, 0x30, 0x30):      # version, serial, algorithm, issuer, validity, subject
        at = _read(certificate, at, end, tag)[1]
    after = _read(certificate, at, end, 0x30)[1]
    if after - at != SPKI_SIZE:
        raise BadCertificate("a key that is not P-256")
    return certificate[at:after]


def is_ca(certificate: bytes) -> bool:
    """Is this, byte for byte, a CA certificate as `make_ca` writes it? Takes about 5 ms. Raises BadCertificate, BadKey.

    For certificates that others hand over and OpenSSL has not seen: what it cannot read would stop all that this node accepts.
    """
    public = PublicKey.from_spki(spki_of(certificate))
    return _is_signed(certificate, _ca_body(public), public)


def is_leaf(certificate: bytes, ca: bytes) -> bool:
    """As `is_ca`, of a member's certificate under this CA."""
    public, ca_key = PublicKey.from_spki(spki_of(certificate)), PublicKey.from_spki(spki_of(ca))
    body = _read(certificate, 0, len(certificate), 0x30)
    inside = _read(certificate, body[0], body[1], 0x30)
    start, end = _read(certificate, _read(certificate, inside[0], inside[1], 0xA0)[1], inside[1], 0x02)
    return _is_signed(certificate, _leaf_body(ca_key, public, int.from_bytes(certificate[start:end], "big")), ca_key)


def _is_signed(certificate, body, key):
    whole, end = _read(certificate, 0, len(certificate), 0x30)
    at = whole + len(body) + len(_ECDSA_SHA256)
    pair = _read(certificate, _read(certificate, at, end, 0x03)[0] + 1, end, 0x30)
    r = _read(certificate, pair[0], pair[1], 0x02)
    s = _read(certificate, r[1], pair[1], 0x02)
    if max(r[1] - r[0], s[1] - s[0]) > 33:
        raise BadCertificate("a signature of another shape")
    numbers = [int.from_bytes(certificate[start:stop], "big") for start, stop in (r, s)]
    if max(numbers) >> 256:
        raise BadCertificate("a signature of another shape")
    signature = b"".join(number.to_bytes(32, "big") for number in numbers)
    return certificate == _with_signature(body, signature) and key.verify(body, signature)
