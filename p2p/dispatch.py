"""Which handler gets which message: a table that a connection's owner fills, one for each role.

The key is the header's first word (magic, version, flags, type), compared as one integer: what is not in the table is
another version, an answer, or unknown, and none of these is the usual case.
"""

from . import proto
from .errors import LinkDown


class Dispatch:
    """The header's first word -> handler(connection, request id, body)."""

    def __init__(self):
        self.by_word = {}
        self.raw(proto.KEEPALIVE, lambda connection, request, body: None)
        self.raw(proto.PING, lambda connection, request, body: connection.reply(proto.PING, request))
        self.raw(proto.GOODBYE, _goodbye)

    def raw(self, message, handler):
        """handler(connection, request id, body bytes)."""
        self.by_word[message.word] = handler

    def notice(self, message, handler):
        """handler(connection, fields)."""
        self.raw(message, lambda connection, request, body: handler(connection, message.unpack(body)))

    def request(self, message, handler):
        """handler(connection, fields) is a coroutine function that returns the reply's fields, or None for none."""
        def serve(connection, request, body):
            connection.serve(message, request, handler(connection, message.unpack(body)))
        self.raw(message, serve)


def _goodbye(connection, _request, body):
    goodbye = proto.GOODBYE.unpack(body)
    connection.fail(LinkDown(goodbye.reason or "it said goodbye", "goodbye" if goodbye.leaving else "replaced"))
