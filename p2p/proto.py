"""p2pproto: every message there is, each declared once, as data.

Packing, limits, docs/protocol.md and the fuzzers read these rows. TCP between roots, UDP, the command line on
loopback and the applications all speak this one protocol, so any server can answer any request it supports.

A row is message(number, NAME, doc, fields..., reply=...). With `reply` it is a request: the answer carries the
same type and id and the RESPONSE flag, or also the ERROR flag and an ERROR body. Without, it is a notice.
A request of an unknown type is answered UNSUPPORTED; notices, responses and datagrams never are, or two nodes
could answer each other for ever.

Rules: numbers are never used twice; a field is only ever added at the end, with a default.
"""

from . import limits
from .codec import Fixed, Flag, Message, Number, Record, Several, Sized
from .errors import PeerError

u8, u16, u32, u64 = Number("u8", "B"), Number("u16", "H"), Number("u32", "I"), Number("u64", "Q")
i32, i64, f64 = Number("i32", "i"), Number("i64", "q"), Number("f64", "d")
flag = Flag()
node_id = Fixed("node id", 32)
digest = Fixed("digest", 32)
tag = Fixed("network tag", 8)
mac = Fixed("mac", 16)
name = Sized(255, True)
line = Sized(limits.MAX_LINE, True)
address = Sized(64, True)


def text(most):
    """UTF-8 text of at most `most` bytes."""
    return Sized(most, True)


def blob(most):
    """At most `most` bytes."""
    return Sized(most, False)


def several(item, most):
    """A list of at most `most` items."""
    return Several(item, most)


MESSAGES = {}        # number -> Message
RECORDS = []         # for the documentation


def message(number, label, doc, *fields, reply=None, transport="tcp"):
    """Declare one message."""
    assert number not in MESSAGES, f"message number {number:#x} is taken"
    MESSAGES[number] = declared = Message(number, label, fields, reply, doc, transport)
    return declared


def record(label, *fields):
    """Declare an item of lists."""
    declared = Record(label, fields)
    RECORDS.append(declared)
    return declared


# Roles that a HELLO claims
NODE, OWNER, INSTANCE = 0, 1, 2

# Error codes
UNSUPPORTED, MALFORMED, FORBIDDEN, NOT_FOUND, BUSY, FAILED = range(1, 7)

# An instance's or an invitation's state, in rosters and answers
ASKED, ALLOWED, RUNNING, EXITED, DENIED, EXPIRED, UNREACHABLE, BROKEN = range(8)
STATUS = ("asked", "allowed", "running", "exited", "denied", "expired", "unreachable", "failed")

# Streams of OUTPUT
STDOUT, STDERR = 1, 2

Error = record("ERROR", ("code", u16), ("text", text(1024)))

NodeRow = record(
    "Node", ("id", node_id), ("name", name), ("addresses", several(address, limits.MAX_ADDRESSES)), ("port", u16),
    ("state", u8), ("age_s", u32))

Member = record(
    "Member", ("id", node_id), ("name", name), ("status", u8), ("address", address), ("port", u16), ("exit", i32, 0))

OfferRow = record(
    "Offer", ("name", name), ("publisher", Fixed("public key", 91)), ("version", digest), ("serial", u64),
    ("network", tag), ("files", u32), ("bytes", u64), ("signature", Fixed("signature", 64)))

Holding = record("Holding", ("name", name), ("version", digest))

# -- every connection

HELLO = message(
    0x01, "HELLO", "The first frame each way; the server speaks first. Who the other is stands in its certificate, not here. "
    "Datagrams with a lower incarnation are of its earlier runs.",
    ("role", u8), ("name", name), ("version", text(32)), ("nonce", u64), ("port", u16), ("abilities", u32),
    ("networks", several(tag, limits.MAX_NETWORKS)), ("addresses", several(address, limits.MAX_ADDRESSES)), ("view", u64),
    ("session", u64, 0), ("token", blob(32), b""), ("incarnation", u64, 0))
KEEPALIVE = message(0x02, "KEEPALIVE", "Sent when nothing else was for a while.")
GOODBYE = message(0x03, "GOODBYE", "This connection ends on purpose. `leaving`: its node (or instance) leaves, too.",
                  ("reason", text(255)), ("leaving", flag))
PING = message(0x04, "PING", "A round trip.", reply=())

# -- discovery and membership

BEACON = message(
    0x10, "BEACON", "Here I am. `nonce` changes at each start; `answer` asks who hears it to send a beacon back.",
    ("name", name), ("port", u16), ("nonce", u64), ("view", u64), ("answer", flag), transport="udp")
NODES = message(
    0x11, "NODES", "Whom do you know in this network (none: in that of the connection)? What comes back is a hint: addresses to dial.",
    ("network", tag, bytes(8)), reply=(("nodes", several(NodeRow, limits.MAX_MEMBERS)),))
VIEW = message(
    0x13, "VIEW", "The digest of whom the sender sees alive in a network; who sees others asks with NODES.", ("view", u64),
    ("network", tag, bytes(8)))
PROOF = message(
    0x14, "PROOF", "The sender is in this network, too: its certificate there, for the key that TLS has proved. It is told to whoever "
    "lists the network in HELLO, and to all when it is joined.", ("network", tag), ("certificate", blob(2048)))
WITHDRAW = message(0x15, "WITHDRAW", "The sender has left this network.", ("network", tag))
PROVEN = message(0x16, "PROVEN", "The PROOF for this network was right. It counts here from when both ends have said so.", ("network", tag))
SAY = message(0x12, "SAY", "A line for the screen of the other's user.", ("text", line), reply=())

# -- applications' files

CATALOGUE = message(
    0x20, "CATALOGUE", "All that the sender offers, passes on and holds. Replaces what it said before.",
    ("offers", several(OfferRow, 1024)), ("holdings", several(Holding, 4096)))
MANIFEST = message(
    0x21, "MANIFEST", "The manifest whose SHA-256 is `version`.", ("version", digest), reply=(("manifest", blob(1 << 20)),))
BLOCK = message(
    0x22, "BLOCK", "`length` bytes at `offset` of the file with this content hash.",
    ("digest", digest), ("offset", u64), ("length", u32), reply=(("data", blob(1 << 20)),))

# -- sessions

INVITE = message(
    0x30, "INVITE", "The host asks a node to run an application with it.",
    ("session", u64), ("app", name), ("version", digest), ("publisher", node_id), ("network", tag), ("files", u32),
    ("bytes", u64), ("arguments", several(text(1024), 64)), ("roster", several(Member, 256)), ("port", u16),
    ("token", blob(32)), ("expires_s", u32))
ANSWER = message(
    0x31, "ANSWER", "What the invited node says, as a status: asked, allowed, denied, expired or failed.",
    ("session", u64), ("status", u8), ("text", text(1024)))
READY = message(
    0x32, "READY", "The instance on the sender's node listens on this port.", ("session", u64), ("port", u16))
ROSTER = message(
    0x33, "ROSTER", "Who takes part, and how far each has come: all, or those of whom there is news. From the host to all, from a root to "
    "its instance.",
    ("session", u64), ("members", several(Member, 256)))
FINISHED = message(
    0x34, "FINISHED", "The instance on the sender's node has ended with this exit code (negative: a signal).",
    ("session", u64), ("exit", i32))
END = message(0x35, "END", "The session is over for everybody, or the invitation is withdrawn.", ("session", u64))

# -- an instance and its root, instances among themselves

LISTENING = message(0x40, "LISTENING", "From an instance to its root: the port it listens on.", ("port", u16))
SCHEMAS = message(
    0x41, "SCHEMAS", "The message classes the sender knows. Of several connections between two instances, the one on which the lower "
    "ID says this is their link; the other end answers with its own.",
    ("schemas", several(record("Schema", ("id", u32), ("text", text(1024))), 1024)))
DATA = message(
    0x42, "DATA", "An application's own message: schema id, then its fields. A request where the id is not 0.",
    ("schema", u32), ("fields", blob(limits.MAX_BODY)), reply=(("schema", u32), ("fields", blob(limits.MAX_BODY))))

# -- one order for all instances of a session (ordering.py); the host numbers

PROPOSE = message(
    0x43, "PROPOSE", "To the host: number this. `serial`: the proposer's own count. `kind`: 0 a message, as DATA; 1 a change of the shared "
    "state, a text and a value of any type.",
    ("serial", u64), ("kind", u8), ("schema", u32), ("fields", blob(limits.MAX_MESSAGE)))
ORDERED = message(
    0x44, "ORDERED", "From the host: the entry with this number, proposed by `sender`. All have everything up to `stable`.",
    ("number", u64), ("stable", u64), ("sender", node_id), ("serial", u64), ("kind", u8), ("schema", u32),
    ("fields", blob(limits.MAX_MESSAGE)))
FOLLOW = message(0x45, "FOLLOW", "To the host, on each new link: the sender has everything up to this number.", ("last", u64))
CONFIRM = message(
    0x46, "CONFIRM", "To the host: the sender has everything up to this number. From the host: all have.", ("last", u64))
SHARED = message(
    0x47, "SHARED", "From the host to whoever comes too late for single entries: the shared state as it is behind entry `number`, and the "
    "serial of the receiver's last numbered proposal.",
    ("number", u64), ("serial", u64), ("changes", several(blob(limits.MAX_MESSAGE), limits.MAX_SHARED_KEYS)))

# -- pieces of work among instances (pieces.py)

SLOTS = message(0x48, "SLOTS", "The sender's node works at so many tasks at once.", ("count", u16))
TASK = message(
    0x49, "TASK", "Work at this: the name of a task, and an item, a value of any type. Again on a new link: the answer may be lost.",
    ("number", u64), ("name", text(200)), ("item", blob(limits.MAX_MESSAGE)))
DONE = message(
    0x4A, "DONE", "What became of a task. `kind`: 2 its result, a value of any type; 3 why there is none, a text; 4 its process ended.",
    ("number", u64), ("kind", u8), ("value", blob(limits.MAX_MESSAGE)))

# -- the owner's command line on loopback

COMMAND = message(
    0x50, "COMMAND", "A command of this node's owner, numbered by its sender. OUTPUT follows, then the reply.",
    ("command", u32), ("words", several(text(4096), 256)), ("folder", text(4096)), ("as_json", flag), ("yes", flag), ("columns", u16),
    ("rows", u16), ("color", flag), ("is_terminal", flag), reply=(("exit", u8),))
OUTPUT = message(0x51, "OUTPUT", "What a command prints.", ("command", u32), ("stream", u8), ("data", blob(1 << 18)))
INPUT = message(0x52, "INPUT", "What is typed at a command.", ("command", u32), ("data", blob(1 << 16)))
RESIZE = message(0x53, "RESIZE", "The command's terminal has another size.", ("command", u32), ("rows", u16), ("columns", u16))
RAW = message(0x54, "RAW", "The command wants each key as it is typed, or lines again.", ("command", u32), ("raw", flag))
INTERRUPT = message(0x55, "INTERRUPT", "The person gave the command up.", ("command", u32))
WATCH = message(0x56, "WATCH", "A shell that wants the notices from now on.", reply=())
NOTICE = message(0x57, "NOTICE", "Something for the person at the shell.", ("text", text(8192)))

deny_lists = several(blob(128 + 32 * limits.MAX_DENIED), limits.MAX_DENY_LISTS)
DENY = message(
    0x18, "DENY", "Who was removed from a managed network: lists as an admin signed them (trust/denial.py), and the key of its datagrams "
    "now, for members (else zeros).",
    ("network", tag), ("lists", deny_lists),
    ("udp_key", Fixed("UDP key", 32)))
ADMIN = message(
    0x19, "ADMIN", "The key of a managed network's CA, from an admin to a member who is to be another one.", ("network", tag),
    ("key", Fixed("private key", 32)), reply=())

# -- joining a managed network by a code (trust/invitations.py)

Credentials = record(
    "Credentials", ("name", name), ("ca", blob(4096)), ("leaf", blob(4096)), ("udp_key", Fixed("UDP key", 32)),
    ("lists", deny_lists))

JOIN_SEEK = message(
    0x70, "JOIN_SEEK", "Does an invitation wait there whose code begins with these two characters?", ("selector", text(2)),
    reply=(("found", flag),))
JOIN_TRY = message(
    0x71, "JOIN_TRY", "One try of a code by SPAKE2: the joiner's point, and back the admin's with its confirmation. `left`: tries after "
    "this one.",
    ("selector", text(2)), ("share", blob(65)), reply=(("share", blob(65)), ("confirmation", digest), ("left", u8)))
JOIN_CONFIRM = message(
    0x72, "JOIN_CONFIRM", "The joiner's confirmation (zeros: it gives up), and its public key (a SubjectPublicKeyInfo). Back come "
    "Credentials and their MAC under the agreed key.",
    ("selector", text(2)), ("confirmation", digest), ("key", Fixed("public key", 91)),
    reply=(("credentials", blob(1 << 19)), ("mac", digest)))

# -- datagrams: common header, this envelope, body, 16 bytes of HMAC over all before

Envelope = record("Datagram envelope", ("tag", tag), ("sender", node_id), ("incarnation", u64), ("sequence", u64))
ENVELOPE_SIZE = 8 + 32 + 8 + 8
MAC_SIZE = 16


def describe(number):
    """A message's name, for logs and counters; foreign numbers included."""
    known = MESSAGES.get(number)
    return known.name if known else f"{number:#06x}"


def unpack_error(body):
    """(code, text) of an ERROR body, whatever a peer put into it."""
    try:
        error = Error.unpack_all(body)
        return error.code, error.text
    except PeerError:
        return FAILED, "the peer refused without a reason that can be read"
