"""P-256 in pure Python: keys, ECDSA signatures, and names made from keys.

The cipher work of every connection is OpenSSL's; the standard library only cannot make keys and certificates, so
that is done here: a key once in a node's life, a signature for each certificate and each shared version. Points are
Jacobian (one inversion at the end), multiples of G come from a table of 64 windows made at the first use.

Signatures are deterministic (RFC 6979), so that the open network's CA is the same, bit for bit, everywhere, and no
weak random number can give a key away. Python's integers are not constant in time: signing happens on the owner's
own computer at moments he chooses, never in answer to a stranger, and no secret scalar is used in a handshake (pake.py
says how joining by a code keeps to that).

Sources: SEC 1 v2 (formats), FIPS 186-4 (the curve), RFC 5480 (SubjectPublicKeyInfo), RFC 5869 (HKDF), RFC 6979.
"""

import base64
import binascii
import hashlib
import hmac

from ..errors import PeerError

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
     0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)

SPKI_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")   # id-ecPublicKey, prime256v1
_PKCS8_HEAD = bytes.fromhex("308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420")
_PKCS8_MIDDLE = bytes.fromhex("a144034200")
INFINITY = None


class BadKey(PeerError):
    """Bytes that are no public key on P-256."""

    def __init__(self, message):
        super().__init__(message, "key")


# -- points: affine (x, y) or INFINITY outside, Jacobian (X, Y, Z) inside; Z = 0 is infinity

def _double(point):
    x, y, z = point
    if not z or not y:
        return 1, 1, 0
    yy = y * y % P
    s = 4 * x * yy % P
    zz = z * z % P
    m = 3 * (x - zz) * (x + zz) % P
    x3 = (m * m - 2 * s) % P
    return x3, (m * (s - x3) - 8 * yy * yy) % P, 2 * y * z % P


def _add(one, two):
    x1, y1, z1 = one
    x2, y2, z2 = two
    if not z1:
        return two
    if not z2:
        return one
    zz1, zz2 = z1 * z1 % P, z2 * z2 % P
    u1, u2 = x1 * zz2 % P, x2 * zz1 % P
    s1, s2 = y1 * zz2 * z2 % P, y2 * zz1 * z1 % P
    h, r = (u2 - u1) % P, (s2 - s1) % P
    if not h:
        return _double(one) if not r else (1, 1, 0)
    hh = h * h % P
    hhh, v = h * hh % P, u1 * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return x3, (r * (v - x3) - s1 * hhh) % P, z1 * z2 * h % P


def _affine(point):
    x, y, z = point
    if not z:
        return INFINITY
    inverse = pow(z, -1, P)
    square = inverse * inverse % P
    return x * square % P, y * square * inverse % P


def _jacobian(point):
    return (1, 1, 0) if point is INFINITY else (point[0], point[1], 1)


_windows = None        # _windows[i][d] = d * 16**i * G


def _make_windows():
    windows, step = [], _jacobian(G)
    for _ in range(64):
        row = [(1, 1, 0)]
        for _ in range(15):
            row.append(_add(row[-1], step))
        windows.append(row)
        step = _add(row[-1], step)
    return windows


def _base_multiple(scalar):
    global _windows
    if _windows is None:
        _windows = _make_windows()      # assigned when it is whole: two workers may be here at once
    total = (1, 1, 0)
    for row in _windows:
        if scalar & 15:
            total = _add(total, row[scalar & 15])
        scalar >>= 4
    return total


def _multiple(scalar, point):
    row = [(1, 1, 0), point]
    for _ in range(14):
        row.append(_add(row[-1], point))
    total = (1, 1, 0)
    for shift in range(252, -1, -4):
        for _ in range(4):
            total = _double(total)
        digit = scalar >> shift & 15
        if digit:
            total = _add(total, row[digit])
    return total


def add(one, two):
    """The sum of two affine points (INFINITY is None)."""
    return _affine(_add(_jacobian(one), _jacobian(two)))


def multiply(scalar, point=G):
    """scalar times an affine point."""
    scalar %= N
    return _affine(_base_multiple(scalar) if point == G else _multiple(scalar, _jacobian(point)))


def is_on_curve(point) -> bool:
    """Is this affine point on P-256? (Its cofactor is 1, so it is then in the group.)"""
    if point is INFINITY:
        return False
    x, y = point
    return 0 <= x < P and 0 <= y < P and (y * y - (x * x * x - 3 * x + B)) % P == 0


# -- keys

class PublicKey:
    """A point. `spki` is its DER SubjectPublicKeyInfo of 91 bytes, `node_id` the SHA-256 of that."""

    def __init__(self, point):
        self.point = point
        self.spki = SPKI_HEAD + b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")
        self.node_id = hashlib.sha256(self.spki).digest()

    @classmethod
    def from_spki(cls, spki: bytes) -> "PublicKey":
        """Raises BadKey unless it is a point on the curve in the one form we write."""
        if len(spki) != len(SPKI_HEAD) + 65 or not spki.startswith(SPKI_HEAD + b"\x04"):
            raise BadKey("not an uncompressed P-256 key")
        point = int.from_bytes(spki[-64:-32], "big"), int.from_bytes(spki[-32:], "big")
        if not is_on_curve(point):
            raise BadKey("a key that is not on the curve")
        return cls(point)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Is this the 64-byte signature (r, s) of `data` by ECDSA with SHA-256?"""
        if len(signature) != 64:
            return False
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        if not (0 < r < N and 0 < s < N):
            return False
        z = int.from_bytes(hashlib.sha256(data).digest(), "big")
        w = pow(s, -1, N)
        point = _affine(_add(_base_multiple(z * w % N), _multiple(r * w % N, _jacobian(self.point))))
        return point is not INFINITY and point[0] % N == r


class PrivateKey:
    """A scalar from 1 to N-1."""

    def __init__(self, d: int):
        assert 0 < d < N, "a private key out of range"
        self.d = d
        self._public: PublicKey = None

    @classmethod
    def generate(cls, entropy) -> "PrivateKey":
        """From `entropy(n)` bytes; 48 of them, so that the reduction leaves no bias (FIPS 186-4, B.4.1)."""
        return cls(1 + int.from_bytes(entropy(48), "big") % (N - 1))

    @property
    def public(self) -> PublicKey:
        """The public key."""
        if self._public is None:
            self._public = PublicKey(multiply(self.d))
        return self._public

    def sign(self, data: bytes) -> bytes:
        """64 bytes (r, s): ECDSA with SHA-256, the nonce by RFC 6979."""
        digest = hashlib.sha256(data).digest()
        z = int.from_bytes(digest, "big")
        for k in _nonces(self.d, digest):
            r = multiply(k)[0] % N
            s = pow(k, -1, N) * (z + r * self.d) % N
            if r and s:
                return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        raise AssertionError("unreachable")

    def to_pem(self) -> str:
        """PKCS #8, unencrypted (RFC 5958, RFC 5915)."""
        return pem("PRIVATE KEY", _PKCS8_HEAD + self.d.to_bytes(32, "big") + _PKCS8_MIDDLE + self.public.spki[-65:])

    @classmethod
    def from_pem(cls, text: str) -> "PrivateKey":
        """The key in the form that `to_pem` writes. Raises BadKey."""
        try:
            body = text.split("-----BEGIN PRIVATE KEY-----")[1].split("-----END PRIVATE KEY-----")[0]
            der = base64.b64decode("".join(body.split()), validate=True)
        except (IndexError, binascii.Error, ValueError):
            raise BadKey("not a private key in PEM")
        at = len(_PKCS8_HEAD)
        d = int.from_bytes(der[at:at + 32], "big")
        if not der.startswith(_PKCS8_HEAD) or len(der) != at + 32 + len(_PKCS8_MIDDLE) + 65 or not 0 < d < N:
            raise BadKey("not a P-256 private key")
        key = cls(d)
        if key.public.spki[-65:] != der[-65:]:
            raise BadKey("a private key whose halves do not belong together")
        return key


def _nonces(d, digest):
    """RFC 6979, section 3.2, for SHA-256 and a 256-bit order."""
    secret = d.to_bytes(32, "big") + (int.from_bytes(digest, "big") % N).to_bytes(32, "big")
    key, value = bytes(32), b"\1" * 32
    for mark in (b"\0", b"\1"):
        key = hmac.new(key, value + mark + secret, hashlib.sha256).digest()
        value = hmac.new(key, value, hashlib.sha256).digest()
    while True:
        value = hmac.new(key, value, hashlib.sha256).digest()
        k = int.from_bytes(value, "big")
        if 0 < k < N:
            yield k
        key = hmac.new(key, value + b"\0", hashlib.sha256).digest()
        value = hmac.new(key, value, hashlib.sha256).digest()


def pem(label: str, der: bytes) -> str:
    """RFC 7468."""
    text = base64.b64encode(der).decode("ascii")
    lines = "\n".join(text[at:at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


# -- derived secrets

def hkdf_sha256(secret: bytes, info: bytes, length: int, salt: bytes = b"") -> bytes:
    """RFC 5869."""
    key = hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()
    output = block = b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.new(key, block + info + bytes([counter]), hashlib.sha256).digest()
        output += block
    return output[:length]


def derive_private_key(secret: bytes, label: str) -> PrivateKey:
    """The key that everybody with `secret` has: 1 + HKDF(secret, "p2pframe/1 LABEL", 48 bytes) mod (N - 1)."""
    return PrivateKey(1 + int.from_bytes(hkdf_sha256(secret, f"p2pframe/1 {label}".encode(), 48), "big") % (N - 1))


# -- names

def node_id_text(node_id: bytes) -> str:
    """A node ID as people see it: 52 characters of lower-case base32."""
    return base64.b32encode(node_id).decode("ascii").rstrip("=").lower()


def parse_node_id(text: str) -> bytes:
    """The reverse. Raises BadKey."""
    try:
        node_id = base64.b32decode(text.upper() + "====")
    except (binascii.Error, ValueError):
        raise BadKey("not a node ID")
    if len(node_id) != 32 or node_id_text(node_id) != text.lower():
        raise BadKey("not a node ID")
    return node_id
