"""SPAKE2 (RFC 9382): two who know the same short code agree on a key, and who guesses the code gets one guess a run.

Suite P256-SHA256-HKDF-HMAC. Each side sends one point; the code's scalar w hides in it, so that neither a listener nor
whoever stands in the middle gets anything against which codes could be tried later. A wrong code makes another key,
and the confirmations (section 4) tell. Both identities and both points stand in what the key is made of: a message
that was reflected, or carried over from another pair of nodes, makes another key too.

Pure: entropy comes in, nothing else does. A `Password` costs 2.2 ms, a `Run` 0.4 and its `finish` 1.1 (2 GHz, CPython
3.11; older ones and small boards take some times as long): call them on a worker. Python's integers are not constant
in time, so what lasts, the code's scalar, is multiplied when the code is made or typed in, once (`Password`), and
never in answer to a message; answering uses a fresh scalar that serves one run.

Rule: nobody believes the key before the other's confirmation was right (`Keys.is_confirmed_by`).
"""

import hashlib
import hmac
from collections import namedtuple

from ..errors import PeerError
from . import ecc

# Section 6: the points M and N for P-256; nobody knows their logarithms
M = (0x886E2F97ACE46E55BA9DD7242579F2993B64E16EF3DCAB95AFD497333D8FA12F,
     0x5FF355163E43CE224E0B0E65FF02AC8E5C7BE09419C785E0CA547D55A12E2D20)
N = (0xD8BBD6C639C62937B04D997F38C3770719C629D7014D49A24B4F98BAA1292B49,
     0x07D60AA6BFADE45008A636337F5168C64D9BD36034808CD564490B1E656EDBE7)
SHARE_SIZE, CONFIRMATION_SIZE = 65, 32


class BadShare(PeerError):
    """Bytes that are no message of SPAKE2."""

    def __init__(self, message):
        super().__init__(message, "share")


class Password:
    """The scalar w of a code, with w*M and w*N; both sides make one. Costs two multiplications."""

    def __init__(self, w: int):
        assert 0 < w < ecc.N, "a scalar out of range"
        self.w = w
        self.masks = ecc.multiply(w, M), ecc.multiply(w, N)

    @classmethod
    def of(cls, code: str) -> "Password":
        """Of a code (section 3.2). No slow hash: it is not to be guessed offline, and lives for minutes."""
        return cls(ecc.derive_private_key(code.encode("ascii"), "join-w").d)


class Keys(namedtuple("Keys", "key confirmation expected")):
    """What one run came to: Ke (16 bytes), what this side sends to prove it, and what the other must send (section 4)."""

    def is_confirmed_by(self, confirmation: bytes) -> bool:
        """Does the other end have the same key? In constant time."""
        return hmac.compare_digest(self.expected, bytes(confirmation))


class Run:
    """One run of one side (section 3.3). `is_a`: this side is A; `scalar`: fresh, of `fresh_scalar`; `context`: the AAD of section 4."""

    def __init__(self, password: Password, is_a: bool, scalar: int, identities, context: bytes = b""):
        assert 0 < scalar < ecc.N, "a scalar out of range"
        self._password = password
        self._is_a = is_a
        self._scalar = scalar
        self._identities = identities      # (of A, of B)
        self._context = context
        self.share = encode(ecc.add(ecc.multiply(scalar), password.masks[not is_a]))

    def finish(self, share: bytes) -> Keys:
        """The keys, of the other's point. Raises BadShare."""
        x, y = self._password.masks[self._is_a]
        point = ecc.add(decode(share), (x, ecc.P - y))
        if point is ecc.INFINITY:
            raise BadShare("a share that leaves nothing to agree on")
        common = encode(ecc.multiply(self._scalar, point))       # the cofactor h is 1
        shares = (self.share, share) if self._is_a else (share, self.share)
        transcript = b"".join(len(part).to_bytes(8, "little") + part
                              for part in (*self._identities, *shares, common, self._password.w.to_bytes(32, "big")))
        digest = hashlib.sha256(transcript).digest()
        confirming = ecc.hkdf_sha256(digest[16:], b"ConfirmationKeys" + self._context, 32)
        of_a, of_b = (hmac.new(half, transcript, hashlib.sha256).digest() for half in (confirming[:16], confirming[16:]))
        return Keys(digest[:16], of_a, of_b) if self._is_a else Keys(digest[:16], of_b, of_a)


def fresh_scalar(random_bytes: bytes) -> int:
    """A scalar of 48 random bytes, without bias (FIPS 186-4, B.4.1)."""
    assert len(random_bytes) == 48, "a scalar wants 48 bytes"
    return 1 + int.from_bytes(random_bytes, "big") % (ecc.N - 1)


def encode(point) -> bytes:
    """The 65 bytes of a point, uncompressed (SEC 1, 2.3.3)."""
    if point is ecc.INFINITY:
        raise BadShare("a point at infinity")
    return b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


def decode(share: bytes):
    """The point of a share; section 3.3 demands that it is on the curve, and section 7 says what happens else. Raises BadShare."""
    if len(share) != SHARE_SIZE or share[0] != 4:
        raise BadShare("a share that is not an uncompressed point")
    point = int.from_bytes(share[1:33], "big"), int.from_bytes(share[33:], "big")
    if not ecc.is_on_curve(point):
        raise BadShare("a share that is not on the curve")
    return point
