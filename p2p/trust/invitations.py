"""Invitations to a network: a code that is good once, for one who was told it, for a few minutes. Pure: no clock, no I/O.

A code has 8 characters. The first two, the selector, are public: they tell which of several open invitations is meant.
All eight make the secret of SPAKE2 (pake.py), in which a guess costs a try. There are three, each counted before it is
answered, whether or not the other ever says what it found; success or the third one burns the code. So a stranger who
tries is right once in 357,913,941 codes, and whoever is asked by the joiner and has not made the code gets one guess.

The joiner says nothing that its peer could keep: what it proves binds both node IDs, the network of the link and the
selector. What the admin hands over is sealed with the key that both came to, on top of TLS.

    joiner (A)                                   admin (B)
    JOIN_SEEK selector               ->          has it: yes or no
    JOIN_TRY selector, share of A    -> counted  share and confirmation of B, tries left
    the confirmation of B is right: the admin knows the code
    JOIN_CONFIRM confirmation of A   -> right:   burned; the credentials, sealed

An invitation lives in memory only: a restart of the node forgets it, and the code with it.
"""

import base64
import hmac
from collections import namedtuple

from .. import limits, proto
from ..errors import Denied, PeerError, Refusal, UsageError, UserError
from . import ecc
from .pake import Run

CODE_SIZE, SELECTOR_SIZE = 8, 2
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"

Tried = namedtuple("Tried", "invitation peer number")     # a try was begun
Joined = namedtuple("Joined", "invitation peer")          # and this one was right
Spent = namedtuple("Spent", "invitation")                 # none of the three was right
Expired = namedtuple("Expired", "invitation")


class WrongCode(Denied):
    """The other end does not have this code. `left`: tries that it will still take, as it says."""

    def __init__(self, left):
        super().__init__("that is not the code")
        self.left = left


# -- codes

def draw_code(random_bytes) -> str:
    """A code of 5 random bytes."""
    assert len(random_bytes) == 5, "a code wants 5 bytes"
    return base64.b32encode(random_bytes).decode("ascii").lower()


def read_code(word) -> str:
    """The code that a person typed: case, spaces and dashes do not count. Raises UsageError."""
    code = "".join(char for char in word.lower() if char not in " -")
    if len(code) != CODE_SIZE or any(char not in ALPHABET for char in code):
        raise UsageError(f"a code has {CODE_SIZE} letters and digits (a to z, 2 to 7), as `network invite` shows it")
    return code


def selector_of(code) -> str:
    """The public part of a code."""
    return code[:SELECTOR_SIZE]


def _context(tag, selector):
    return b"p2pframe/1 join" + tag + selector.encode("ascii", "replace")


# -- sealing what is handed over

def seal(key, data) -> bytes:
    """The MAC of what is handed over, under the key of a run."""
    return hmac.new(ecc.hkdf_sha256(key, b"p2pframe/1 join-seal", 32), data, "sha256").digest()


def open_sealed(key, data, mac) -> bytes:
    """`data` if it is what the other end of the run sealed. Raises PeerError."""
    if not hmac.compare_digest(seal(key, data), bytes(mac)):
        raise PeerError("hands over credentials that were not sealed with the code", "seal")
    return data


# -- the joiner's side

class Attempt:
    """One try of a code at one node. Making it and `finish` are work for another thread."""

    def __init__(self, code, password, me, peer, tag, scalar):
        assert me != peer, "a node does not invite itself"
        self._run = Run(password, True, scalar, (me, peer), _context(tag, selector_of(code)))
        self.share = self._run.share
        self.key = None

    def finish(self, share, confirmation, left) -> bytes:
        """What to confirm with, if the peer proved that it has the code. Raises WrongCode, or BadShare."""
        keys = self._run.finish(share)
        if not keys.is_confirmed_by(confirmation):
            raise WrongCode(left)
        self.key = keys.key
        return keys.confirmation


# -- the admin's side

class Invitation:
    """Into the network with this tag. Nobody can try before `password` is set: pake.Password.of(code), work for another thread."""

    def __init__(self, tag, code, expires):
        self.tag = tag
        self.code = code
        self.selector = selector_of(code)
        self.expires = expires
        self.password = None
        self.left = limits.JOIN_TRIES
        self.tries = {}          # peer -> Try, not confirmed yet

    @property
    def is_open(self):
        """Can a new try be begun?"""
        return self.left > 0 and self.password is not None


class Try:
    """One that was counted. `answer` is work for another thread; `keys` stay secret until they were confirmed."""

    def __init__(self, invitation, peer, expires):
        self.invitation = invitation
        self.peer = peer
        self.expires = expires
        self.left = invitation.left
        self.keys = None

    def answer(self, me, tag, share, scalar):
        """(share, confirmation) of this side. Raises BadShare; the try is spent all the same."""
        run = Run(self.invitation.password, False, scalar, (self.peer, me), _context(tag, self.invitation.selector))
        self.keys = run.finish(share)
        return run.share, self.keys.confirmation


class Invitations:
    """All that this node has open. `time` is due at `deadline()`; `effects()` tells what happened."""

    def __init__(self):
        self._by_selector = {}      # in the order in which they were opened
        self._effects = []

    def effects(self):
        """What happened, in order; each is given once."""
        effects, self._effects = self._effects, []
        return effects

    def all(self):
        """Those that are not over, the oldest first."""
        return list(self._by_selector.values())

    def open(self, tag, entropy, now) -> Invitation:
        """A new one, with a code of `entropy(n)` whose selector no other has. Raises UserError."""
        self.time(now)
        if len(self._by_selector) >= limits.MAX_INVITATIONS:
            raise UserError(f"{limits.MAX_INVITATIONS} invitations are open already: use them, or wait until they end by "
                            f"themselves ({int(limits.JOIN_FOR / 60)} minutes)", code="too-many")
        code = draw_code(entropy(5))
        while selector_of(code) in self._by_selector:
            code = draw_code(entropy(5))
        invitation = self._by_selector[selector_of(code)] = Invitation(tag, code, now + limits.JOIN_FOR)
        return invitation

    def withdraw(self, tag):
        """Invitations into this network are over: this node left it, or may not invite any more."""
        for invitation in self.all():
            if invitation.tag == tag:
                del self._by_selector[invitation.selector]

    def find(self, selector, now):
        """The one with this selector, if it could be tried now, or None."""
        self.time(now)
        invitation = self._by_selector.get(selector)
        return invitation if invitation is not None and invitation.is_open else None

    def begin(self, selector, peer, now) -> Try:
        """Count a try. Raises Refusal where there is nothing to try."""
        invitation = self.find(selector, now)
        if invitation is None:
            raise Refusal(proto.NOT_FOUND, "no such invitation is open here")
        invitation.left -= 1
        begun = invitation.tries[peer] = Try(invitation, peer, min(now + limits.JOIN_CONFIRM, invitation.expires))
        self._effects.append(Tried(invitation, peer, limits.JOIN_TRIES - invitation.left))
        return begun

    def confirm(self, selector, peer, confirmation, now) -> Try:
        """The try that this confirms; its invitation is burned. Raises Refusal."""
        self.time(now)
        invitation = self._by_selector.get(selector)
        begun = invitation.tries.pop(peer, None) if invitation else None      # right or wrong: once
        if begun is None or begun.keys is None:
            self._end_if_spent(invitation)
            raise Refusal(proto.NOT_FOUND, "no try waits to be confirmed here")
        if not begun.keys.is_confirmed_by(confirmation):
            self._end_if_spent(invitation)
            raise Refusal(proto.FORBIDDEN, "that is not the code")
        del self._by_selector[selector]
        self._effects.append(Joined(invitation, peer))
        return begun

    def _end_if_spent(self, invitation):
        if invitation is not None and not invitation.left and not invitation.tries:
            del self._by_selector[invitation.selector]
            self._effects.append(Spent(invitation))

    # -- time

    def deadline(self):
        """When `time` is to be called next, or None."""
        return min((moment for invitation in self._by_selector.values()
                    for moment in [invitation.expires] + [begun.expires for begun in invitation.tries.values()]), default=None)

    def time(self, now):
        """End what is over."""
        for invitation in self.all():
            if invitation.expires <= now:
                del self._by_selector[invitation.selector]
                self._effects.append(Expired(invitation) if invitation.left else Spent(invitation))
                continue
            late = [peer for peer, begun in invitation.tries.items() if begun.expires <= now]
            for peer in late:
                del invitation.tries[peer]
            if late:
                self._end_if_spent(invitation)
