"""The slow twin of a connection: a byte at a time, one obvious rule after the other, nothing shared with the fast one.

It takes what one end sends and says what a connection must make of it: which handlers are called with what, what is
answered, what becomes of the requests that were asked, and how it ends. What only reads the clock (deadlines, keepalives)
is not in it. The messages of `RULES` stand for the kinds of handler there are.

An error may come out of the fast one a little earlier than here, since it looks at the headers of a whole read before
it handles the first frame: then what it did is a beginning of what the twin did, and its error is one of `errors`.
"""
import struct

from p2p import limits, proto
from p2p.codec import ERROR, HEADER, HEADER_SIZE, MAGIC, RESPONSE, VERSION
from p2p.errors import PeerError

SAID_NO = "the disk is full; free some space"
# What the test's owner does with a message: note it, note its fields, answer, refuse, never answer, close, have a bug
RULES = {
    proto.DATA.number: "note", proto.VIEW.number: "fields", proto.NODES.number: "answer", proto.SAY.number: "refuse",
    proto.BLOCK.number: "never", proto.INTERRUPT.number: "finish", proto.RESIZE.number: "bug"}
RAW = ("note", "finish", "bug")      # these do not look at the body; nor do PING and KEEPALIVE, which have none


def slow_decode(stream, most=limits.MAX_BODY):
    """The decoder's obviously correct twin: a byte at a time. (frames, how it ended)"""
    frames, buffer = [], bytearray()
    for byte in stream:
        buffer.append(byte)
        if len(buffer) < HEADER_SIZE:
            continue
        magic, version, flags, number, spare, request, length = HEADER.unpack_from(buffer)
        if magic != MAGIC or version != VERSION or length > most:
            return frames, "error"
        if len(buffer) == HEADER_SIZE + length:
            frames.append(((flags, number, spare), request, bytes(buffer[HEADER_SIZE:])))
            buffer.clear()
    return frames, "inside" if buffer else "clean"


def reason_not(record, body):
    """Why these bytes are no such record; None if they are one."""
    try:
        record.unpack_all(body)
    except PeerError as error:
        return error.reason
    return None


class Twin:
    """`asked`: id -> Message of what this side has asked, all at the moment in which it was ready."""

    def __init__(self, outgoing, asked):
        self._outgoing = outgoing
        self._to_ask = asked
        self._asked = {}
        self._buffer = bytearray()
        self._wanted = HEADER_SIZE   # bytes of it, at which there is something to look at
        self._served = []            # ids of questions that are being worked on for ever
        self.state = "opening"
        self.calls = []              # (number, request, body or fields)
        self.sent = []               # (flags, number, request) in order
        self.late = []               # the same of those answers that take more than a turn
        self.settled = {}            # id -> what became of what was asked
        self.counts = {}             # number, 0 if nobody knows it -> how many came
        self.errors = []             # how it may end; the first one is the right one
        self.is_exact = True         # must the fast one have done just as much?
        self.bytes = 0
        if not outgoing:
            self._greet()

    @property
    def serving(self):
        """How many questions are being worked on."""
        return len(self._served)

    def feed(self, data):
        """Take these bytes, one by one."""
        for byte in data:
            self.bytes += 1
            self._buffer.append(byte)
            if len(self._buffer) == self._wanted:
                self._look()

    def end(self):
        """The stream is over."""
        if self.state != "closed":
            self._lose("down", "eof")

    def _look(self):
        magic, version, flags, number, spare, request, length = HEADER.unpack_from(self._buffer)
        if len(self._buffer) == HEADER_SIZE and (magic != MAGIC or version != VERSION):
            self._give_up("magic" if magic != MAGIC else "version")
        if length > limits.MAX_BODY:
            self._give_up("limit")
            self._wanted = None              # nothing can be found in this stream any more
            return
        self._wanted = HEADER_SIZE + length
        if len(self._buffer) == self._wanted:
            body = bytes(self._buffer[HEADER_SIZE:])
            self._buffer.clear()
            self._wanted = HEADER_SIZE
            if self.state != "closed":
                self._frame(flags, number, spare, request, body)

    def _give_up(self, why):
        self.is_exact = self.is_exact and self.state == "closed"        # what came in the same read was given up
        self._lose("peer", why)

    def _frame(self, flags, number, spare, request, body):
        known = number if number in proto.MESSAGES else 0
        if self.state == "opening":
            self._open(flags, number, spare, body)
            return
        self.counts[known] = self.counts.get(known, 0) + 1
        if flags & (RESPONSE | ERROR):
            self._answer(flags, request, body)
        elif flags or spare or number not in RULES and number not in (
                proto.KEEPALIVE.number, proto.PING.number, proto.GOODBYE.number):
            self._send(RESPONSE | ERROR, number, request)
        else:
            reason = reason_not(proto.MESSAGES[number].body, body) if RULES.get(number) not in RAW else None
            if reason:
                self._lose("peer", reason)
            else:
                self._handle(number, request, body)

    def _open(self, flags, number, spare, body):
        if (flags, number, spare) != (0, proto.HELLO.number, 0):
            self._lose("peer", "order")
            return
        self.counts[number] = 1
        if reason_not(proto.HELLO.body, body):
            self._lose("peer", reason_not(proto.HELLO.body, body))
        else:
            if self._outgoing:
                self._greet()
            self.state = "ready"
            self._asked = dict(self._to_ask)
            for request, message in self._asked.items():
                self.sent.append((0, message.number, request))

    def _greet(self):
        self.sent.append((0, proto.HELLO.number, 0))

    def _send(self, flags, number, request):
        if request:                          # a notice is never answered
            self.sent.append((flags, number, request))

    def _answer(self, flags, request, body):
        message = self._asked.pop(request, None)
        if message is None:
            return
        if flags & ERROR:
            self.settled[request] = "refused"
        elif reason_not(message.reply, body):
            self.settled[request] = "malformed"
            self._lose("peer", reason_not(message.reply, body))
        else:
            self.settled[request] = "answered"

    def _handle(self, number, request, body):
        rule = RULES.get(number)
        if number == proto.PING.number:
            self._send(RESPONSE, number, request)
        elif number == proto.GOODBYE.number:
            self._lose("down", "goodbye" if body[2 + struct.unpack_from("<H", body)[0]] else "replaced")
        elif rule == "note":
            self.calls.append((number, request, body))
        elif rule == "fields":
            self.calls.append((number, request, struct.unpack_from("<Q", body)[0]))
        elif rule in ("answer", "refuse"):
            self.calls.append((number, 0, None))
            if request:
                self.late.append((RESPONSE if rule == "answer" else RESPONSE | ERROR, number, request))
        elif rule == "never":
            self.calls.append((number, 0, None))
            if request in self._served or self.serving == limits.MAX_REQUESTS:
                self._send(RESPONSE | ERROR, number, request)
            else:
                self._served.append(request)
        elif rule == "finish":
            self.sent.append((0, proto.GOODBYE.number, 0))
            self._lose("own", "finished")
        elif rule == "bug":
            self._lose("down", "closed")

    def _lose(self, whose, why):
        if self.state == "closed":
            self.errors.append((whose, why))
            return
        self.state = "closed"
        self.errors.append((whose, why))
        for request in self._asked:
            self.settled[request] = "down"
        self._asked = {}
