"""Failures, named by whose fault they are, because that decides what happens next.

UserError: what was asked cannot be done. One line tells the person what, why and what to do; the node goes on.
PeerError: a peer broke the protocol. It is logged once, counted, and that peer alone is dropped.
LinkDown: a connection ended or could not be made. The client redials; a request in flight fails with it.

A broken invariant of our own is none of these: it is an assertion. Errors of the operating system are
translated at the edge where they occur, so nothing above the mechanisms catches OSError.
"""


class P2PError(Exception):
    """The root of every failure this framework raises on purpose."""


class UserError(P2PError):
    """A request that cannot be carried out; `str()` is one complete line for the person who made it.

    `code` is a stable word for scripts (CLI: {"error": {"code": ...}}); `exit` is the command's exit code.
    """

    def __init__(self, message, code="failed", exit=1):
        super().__init__(message)
        self.code = code
        self.exit = exit


class UsageError(UserError):
    """The words of a command do not fit its declaration (exit code 2)."""

    def __init__(self, message):
        super().__init__(message, code="usage", exit=2)


class Denied(UserError):
    """A person, a rule or the other node said no (exit code 4)."""

    def __init__(self, message):
        super().__init__(message, code="denied", exit=4)


class TimedOut(UserError):
    """A deadline passed before what was waited for came (exit code 5)."""

    def __init__(self, message):
        super().__init__(message, code="timeout", exit=5)


class PeerError(P2PError):
    """A peer sent what the protocol forbids. `reason` is a short stable word, counted in `stats`."""

    def __init__(self, message, reason="protocol"):
        super().__init__(message)
        self.reason = reason


class LinkDown(P2PError):
    """A connection is gone or was never made; what travelled on it may be tried again elsewhere.

    `kind`: refused, timeout, unreachable, tls (never made); eof, reset, silent, goodbye, replaced, closed (gone).
    """

    def __init__(self, message, kind="closed"):
        super().__init__(message)
        self.kind = kind


class Refusal(P2PError):
    """A peer answered a request with an ERROR; `code` is one of proto's error codes."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code
