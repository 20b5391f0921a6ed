"""Sends data to itself through a real server and client, checks every byte, and says what it checked.

    python apps/testapp/main.py        stand-alone (with p2p on the path), or bin/testapp
    run testapp                        under a root

The server and the client are the framework's own, over real mutual TLS on loopback, with keys made in a temporary
home. Exit code 0 if everything was as it should be, 1 otherwise. A problem of one check does not hide the next.
"""

import hashlib
import os
import shutil
import sys
import tempfile

if __package__ in (None, "") and not any(os.path.isdir(os.path.join(path, "p2p")) for path in sys.path):
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from p2p import limits, proto
from p2p.client import Client
from p2p.codec import HEADER_SIZE, Message, frame
from p2p.connection import Dispatch
from p2p.errors import LinkDown, PeerError, Refusal
from p2p.loop import Loop
from p2p.server import Server
from p2p.text import plural
from p2p.trust.identity import Identity
from p2p.trust.networks import Networks

SIZES = (0, 1, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 1, 64, 1200, 4096, 16383, 16384, 16385, 65535, 65536, 65537,
         (1 << 20) - 1, 1 << 20, limits.MAX_BODY - 8)
SMALL_MESSAGES = 20_000
BULK = 64 << 20             # bytes for the throughput row
DEADLINE = 60.0             # s for all of it


class End:
    """Either end of the connection: both dispatch DATA, one answers it."""

    def __init__(self, answers):
        self.dispatch = Dispatch()
        self.ready = []
        self.lost = []
        self.received = 0
        self.digest = hashlib.sha256()
        self.messages = 0
        self._answers = answers
        self.dispatch.raw(proto.DATA, self._on_data)

    def _on_data(self, connection, request, body):
        data = proto.DATA.unpack(body)
        self.messages += 1
        self.received += len(data.fields)
        self.digest.update(data.fields)
        if request and self._answers:
            connection.reply(proto.DATA, request, schema=data.schema, fields=data.fields)

    def greeting(self, connection):
        """The HELLO of both."""
        return {"role": proto.INSTANCE, "name": "testapp", "version": "", "nonce": 1, "port": 0, "abilities": 0,
                "networks": [], "addresses": [], "view": 0}

    def connection_ready(self, connection):
        """The handshake and both HELLOs are done."""
        self.ready.append(connection)

    def connection_lost(self, connection, error):
        """It ended."""
        self.lost.append(error)

    connection_refused = connection_lost


class Report:
    """What was checked."""

    def __init__(self):
        self.failed = 0

    def check(self, what, is_right, more=""):
        """One line."""
        self.failed += not is_right
        print(f"{'ok    ' if is_right else 'FAILED'} {what}{': ' + more if more else ''}", flush=True)


def pattern(size):
    """Bytes in which a shift, a swap or a repetition shows."""
    seed = b"".join(hashlib.sha256(number.to_bytes(4, "little")).digest() for number in range(2048))
    return (seed * (size // len(seed) + 1))[:size]


class Checks:
    """All checks, over one connection to ourselves."""

    def __init__(self, loop, home, report):
        identity = Identity.load_or_create(loop.disk, home, loop.entropy)
        self.loop = loop
        self.report = report
        self.networks = Networks(home, identity, loop.disk, loop.entropy)
        self.me = identity.node_id
        self.near, self.far = End(answers=False), End(answers=True)
        self.server = Server(loop, self.networks, self.far)
        self.client = Client(loop, self.networks, self.near)

    async def run(self):
        """One after the other; a check that raises has failed."""
        self.connection = await self.client.dial([("127.0.0.1", self.server.port)], self.networks.tags[0], self.me)
        for check in (self.handshake, self.sizes, self.many, self.bulk, self.slow_reader, self.unknown, self.stranger, self.goodbye):
            try:
                await check()
            except (LinkDown, PeerError, Refusal, AssertionError) as error:
                self.report.check(check.__name__.replace("_", " "), False, str(error))
        self.server.close()
        self.client.close()

    async def handshake(self):
        """Who is there."""
        self.report.check("mutual TLS 1.3 to ourselves, the right identity on both ends",
                          self.connection.peer_id == self.me and await self._until(lambda: self.far.ready)
                          and self.far.ready[0].peer_id == self.me)

    async def sizes(self):
        """Each size there and back."""
        right = 0
        for number, size in enumerate(SIZES):
            data = pattern(size)
            answer = await self.connection.request(proto.DATA, DEADLINE, schema=number, fields=data)
            right += answer.fields == data and answer.schema == number
        self.report.check(f"{len(SIZES)} sizes from 0 to {SIZES[-1]:,} bytes came back byte for byte", right == len(SIZES),
                          f"{right} of {len(SIZES)}")

    async def many(self):
        """Small messages, in order and none missing."""
        before, expected = self.far.messages, hashlib.sha256()
        self.far.digest = hashlib.sha256()
        began = self.loop.now()
        for number in range(SMALL_MESSAGES):
            data = number.to_bytes(8, "little") * 8
            expected.update(data)
            self.connection.write(frame(proto.DATA.number, 0, proto.DATA.pack(schema=1, fields=data)))
            if not number % 500:
                await self.connection.room()
                await self.loop.sleep(0)
        arrived = await self._until(lambda: self.far.messages - before == SMALL_MESSAGES)
        rate = SMALL_MESSAGES / (self.loop.now() - began)
        self.report.check(f"{SMALL_MESSAGES:,} messages of 64 bytes arrived once each and in order",
                          arrived and self.far.digest.digest() == expected.digest(), f"{rate:,.0f} a second")

    async def bulk(self):
        """Throughput with every byte checked."""
        block = pattern(1 << 18)
        before, expected = self.far.received, hashlib.sha256()
        self.far.digest = hashlib.sha256()
        began = self.loop.now()
        for _ in range(BULK // len(block)):
            await self.connection.room()
            expected.update(block)
            self.connection.write(frame(proto.DATA.number, 0, proto.DATA.pack(schema=2, fields=block)))
        arrived = await self._until(lambda: self.far.received - before == BULK)
        rate = BULK / (self.loop.now() - began) / 1e6
        self.report.check(f"{BULK >> 20} MiB in blocks of {len(block) >> 10} KiB, SHA-256 the same at the other end",
                          arrived and self.far.digest.digest() == expected.digest(), f"{rate:.0f} MB/s with both ends in this process")

    async def slow_reader(self):
        """A peer that does not read makes the sender wait, in bounded memory, and nothing is lost."""
        channel, data = self.far.ready[0].channel, pattern(1 << 16)
        before, sent = self.far.received, 0
        channel.pause(True)
        while self.connection.has_room and sent < 4 * limits.MAX_BUFFERED:
            self.connection.write(frame(proto.DATA.number, 0, proto.DATA.pack(schema=3, fields=data)))
            sent += len(data)
            await self.loop.sleep(0)
        waits = not self.connection.has_room
        channel.pause(False)
        arrived = await self._until(lambda: self.far.received - before == sent)
        self.report.check("a reader that stops makes the sender wait, and loses nothing when it goes on", waits and arrived,
                          f"{sent / 1e6:.1f} MB were under way")

    async def unknown(self):
        """A request of an unknown type is answered, and the connection goes on."""
        try:
            await self.connection.request(Message(0x7FFF, "NONE", (), (), "A type that nobody declared.", "tcp"))
            code = None
        except Refusal as refusal:
            code = refusal.code
        await self.connection.request(proto.PING)
        self.report.check("a request of an unknown type is answered UNSUPPORTED, and the connection goes on", code == proto.UNSUPPORTED)

    async def stranger(self):
        """Garbage on the port is refused; the connection beside it does not notice."""
        import socket
        before = len(self.far.lost)
        with socket.create_connection(("127.0.0.1", self.server.port)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(200))
            refused = await self._until(lambda: len(self.far.lost) > before)
        await self.connection.request(proto.PING)
        self.report.check("plaintext on the port is refused, and the connection beside it goes on", refused)

    async def goodbye(self):
        """What was sent before the end arrives before it."""
        before = self.far.messages
        for _ in range(1000):
            self.connection.write(frame(proto.DATA.number, 0, proto.DATA.pack(schema=4, fields=b"last words")))
        self.connection.finish("done", leaving=True)
        ended = await self._until(lambda: any(isinstance(error, LinkDown) and error.kind == "goodbye" for error in self.far.lost))
        self.report.check("everything that was sent before a goodbye arrives before it", ended and self.far.messages - before == 1000)

    async def _until(self, condition):
        deadline = self.loop.now() + DEADLINE
        while not condition():
            if self.loop.now() > deadline:
                return False
            await self.loop.sleep(0.001)
        return True


def main():
    """Run all checks; the exit code."""
    if sys.argv[1:]:
        print(__doc__.strip() + "\n\nIt takes no arguments.")
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    report = Report()
    home = tempfile.mkdtemp(prefix="p2p-testapp-")
    loop = Loop()
    try:
        checks = loop.start(Checks(loop, os.path.join(home, "home"), report).run())
        checks.add_callback(lambda done: loop.stop())
        loop.call_later(DEADLINE, loop.stop)
        loop.run()
        if not checks.done:
            report.check(f"all of it within {DEADLINE:g} s", False)
        elif checks.error is not None:
            report.check("the checks themselves", False, repr(checks.error))
    finally:
        loop.close()
        shutil.rmtree(home, ignore_errors=True)
    print("all is well" if not report.failed else f"{plural(report.failed, 'check')} failed", flush=True)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
