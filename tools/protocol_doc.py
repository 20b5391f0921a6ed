"""Writes docs/protocol.md from the declarations in p2p/proto.py.

    python tools/protocol_doc.py            write it
    python tools/protocol_doc.py --check    exit 1 if it is not current

The document is generated because a hand-written one would be wrong after the second change.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from p2p import codec, datagram, limits, proto  # noqa: E402

PATH = os.path.join(ROOT, "docs", "protocol.md")

HEAD = f"""# The protocol

Generated from `p2p/proto.py` by `python tools/protocol_doc.py`; a test fails when it is not current.

Every byte between two nodes, on TCP and UDP, is a message of this page. On TCP it travels inside mutual TLS 1.3
(see [security.md](security.md)); there is no form without it.

## Frame

{codec.HEADER_SIZE} bytes of header, little-endian, then the body. The first eight bytes are one machine word, by which a message is dispatched.

| bytes | field | value |
|---|---|---|
| 0-1 | magic | `{codec.MAGIC:#06x}` (the bytes `p2`) |
| 2 | protocol version | {codec.VERSION} |
| 3 | flags | {codec.RESPONSE}: answers the request with this id. {codec.ERROR}: with it, the body is an ERROR |
| 4-5 | type | the message's number |
| 6-7 | spare | 0 |
| 8-11 | request id | 0: a notice, nobody answers. Otherwise the answer carries the same id and type |
| 12-15 | body length | at most {limits.MAX_BODY:,} bytes |

A header of another magic or version, or with a longer body, ends the connection. A request of an unknown type is
answered with the ERROR UNSUPPORTED; an unknown notice or response is dropped, so that two nodes can never answer each other for ever.

## Conversation

The server sends its HELLO as soon as TLS is up; the client answers with its own. Anything else before that ends the connection.
After {limits.KEEPALIVE:g} s without sending, a KEEPALIVE goes out; after {limits.SILENCE:g} s without a byte from the other root the connection counts as lost.
A frame must be complete {limits.FRAME_DEADLINE:g} s after it began. Between the instances of a session, which may be busy for as long as they like, neither deadline holds.

## Datagrams

Header, envelope ({proto.ENVELOPE_SIZE} bytes), body, {proto.MAC_SIZE} bytes of HMAC-SHA256 (truncated) with the network's UDP key over all before;
at least {datagram.MIN_SIZE} and at most {limits.MAX_DATAGRAM} bytes. Only messages marked UDP are heard there.

## Types of fields

`u8` to `u64` unsigned, `i32` `i64` signed, `f64` IEEE 754; `bool` one byte; `node id`, `digest` 32 bytes; `network tag` 8 bytes.
`text(n)` and `bytes(n)`: a u16 length (u32 where n is 65,536 or more), then at most n bytes, text as UTF-8.
`list(x, n)`: a u16 count, then at most n items; an item that is a record has a u16 length before it.
A reader skips what follows the last field it knows. A body that ends before a field marked *default* has that default.

"""


def rows(record):
    """The table of a record's fields."""
    if not record.fields:
        return "No fields.\n"
    lines = ["| field | type |", "|---|---|"]
    for field in record.fields:
        default = f", default {field.default!r}" if field.has_default else ""
        lines.append(f"| {field.name} | {field.type.name}{default} |")
    return "\n".join(lines) + "\n"


def document():
    """The whole page."""
    parts = [HEAD, "## Messages\n"]
    for number, message in sorted(proto.MESSAGES.items()):
        where = "UDP" if message.transport == "udp" else "request" if message.reply else "notice"
        parts.append(f"### {message.name} `{number:#04x}` ({where})\n\n{message.doc}\n\n{rows(message.body)}")
        if message.reply:
            parts.append(f"Answer:\n\n{rows(message.reply)}" if message.reply.fields else "Answer: an empty body.\n")
    parts.append("## Records\n")
    for record in [proto.Error, proto.Envelope] + [record for record in proto.RECORDS if record not in (proto.Error, proto.Envelope)]:
        parts.append(f"### {record.name}\n\n{rows(record)}")
    codes = ["UNSUPPORTED", "MALFORMED", "FORBIDDEN", "NOT_FOUND", "BUSY", "FAILED"]
    parts.append("## Numbers\n\n" + "Error codes: " + ", ".join(f"{getattr(proto, code)} {code}" for code in codes) + ".  \n"
                 f"Roles in HELLO: {proto.NODE} node, {proto.OWNER} owner, {proto.INSTANCE} instance.  \n"
                 "Status of a member: " + ", ".join(f"{number} {word}" for number, word in enumerate(proto.STATUS)) + ".  \n"
                 f"Streams of OUTPUT: {proto.STDOUT} standard output, {proto.STDERR} standard error.\n")
    return "\n".join(parts)


def main():
    """See the module."""
    text = document()
    if "--check" in sys.argv:
        with open(PATH, encoding="utf-8") as file:
            return 0 if file.read() == text else 1
    with open(PATH, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
