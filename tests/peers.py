"""Peers that behave badly, or are many: TLS by hand inside the test, and programs of their own processes.

`Speaker` is driven by the test's own loop: it decides which bytes of TLS leave when, and how the TCP connection ends.
`Program` is `python -m tests.peers PLAN` as a child: a server, a crowd of members, or one that floods. It takes
a word a line and answers with a line of JSON; its end is the end of its stdin.
"""
import json
import os
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from pathlib import Path

from p2p import limits, proto
from p2p.client import Client
from p2p.codec import frame
from p2p.links import Links
from p2p.loop import Loop
from p2p.node import Node
from tests.ends import Bed
from tests.nodes import LAN

ROOT = Path(__file__).resolve().parent.parent
HELLO = dict(role=0, name="peer", version="1", nonce=9, port=0, abilities=0, networks=[], addresses=[], view=0)
CHUNK = 1 << 16        # bytes that one who floods hands to OpenSSL at once


def hello(**fields):
    """A HELLO as bytes."""
    return frame(proto.HELLO.number, 0, proto.HELLO.pack(**dict(HELLO, **fields)))


class Speaker:
    """A member's end of a TLS connection to `port`, as slow and as rude as the test wants. `end`: an End of the bed."""

    def __init__(self, bed, end, port, receive_buffer=None):
        self._bed = bed
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = end.networks.client_context(end.tag)
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=end.tag.hex())
        self.got = bytearray()          # what came, decrypted
        self.is_in = False              # has the handshake ended?
        self.is_over = False            # the other end has hung up
        self.received = 0               # bytes of TLS

    # -- the handshake, a flight at a time

    def flight(self):
        """The bytes of TLS that this end has to say next; it heard those that came."""
        try:
            self.tls.do_handshake()
            self.is_in = True
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    def hear(self):
        """Take what TCP has; True if there was something."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.is_over = True
        self.received += len(data)
        self.incoming.write(data)
        return bool(data)

    def join(self):
        """The whole way in."""
        self.wire(self.flight())
        while not self.is_in:
            self._bed.until(self.hear)
            self.wire(self.flight())
        self.say(hello())
        return self

    # -- inside

    def sealed(self, data):
        """The bytes of TLS for these: one record of each 16 KiB."""
        self.tls.write(data)
        return self.outgoing.read()

    def say(self, data):
        """Send it, encrypted."""
        if data:
            self.wire(self.sealed(data))

    def wire(self, data):
        """Send bytes as they are, turning the loop while the kernel has no room."""
        view = memoryview(data)

        def go_on():
            nonlocal view
            try:
                view = view[self.sock.send(view):]
            except BlockingIOError:
                pass
            return not view
        self._bed.until(lambda: not view or go_on())

    def hurry(self):
        """Take as much at a time as others do."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def read(self):
        """Take what has come; all of it so far, decrypted."""
        while self.hear():
            pass
        try:
            while True:
                data = self.tls.read(1 << 16)
                if not data:
                    self.is_over = True
                    break
                self.got += data
        except ssl.SSLError as error:
            self.is_over = self.is_over or not isinstance(error, ssl.SSLWantReadError)
        return self.got

    # -- ways to go

    def leave(self, how):
        """fin: half of TCP closes; close: all of it; notify: TLS says goodbye first; reset: RST."""
        if how == "notify":
            try:
                self.tls.unwrap()
            except ssl.SSLError:
                pass
            self.wire(self.outgoing.read())
        if how in ("fin", "notify"):
            self.sock.shutdown(socket.SHUT_WR)
            return
        if how == "reset":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        """Whatever has happened."""
        self.sock.close()


# -- programs of their own

class Program:
    """A child that runs `role` (a function of this file, below) with the plan's fields."""

    def __init__(self, role, folder, **plan):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.peers", json.dumps(dict(plan, role=role, folder=str(folder)))], cwd=str(ROOT), env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._rest = b""

    def ask(self, word, seconds=60.0):
        """Say a word; the JSON of the answer."""
        self.say(word)
        return self.hear(seconds)

    def say(self, word):
        """Say a word, whose answer will be heard later."""
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, seconds=60.0):
        """Its next line, as JSON."""
        end = time.monotonic() + seconds
        fd = self.process.stdout.fileno()
        while b"\n" not in self._rest:
            assert select.select([fd], [], [], max(0.0, end - time.monotonic()))[0], "the program says nothing"
            data = os.read(fd, 1 << 16)
            assert data, "the program has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line.decode())

    def kill(self):
        """As a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self):
        """It ends with its stdin."""
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def figures():
    """Memory (bytes; of this process alone), descriptors and CPU time of this process."""
    text = Path("/proc/self/smaps_rollup").read_text()
    sizes = {name: int(size) << 10 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    return dict(rss=sizes["Rss"], pss=sizes["Pss"], private=sizes["Private_Dirty"] + sizes["Private_Clean"],
                descriptors=len(os.listdir("/proc/self/fd")), cpu=time.process_time())


def all_descriptors():
    """As many as this process may have; how many that are."""
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def tell(**answer):
    """A line for the parent."""
    print(json.dumps(answer), flush=True)


def on_words(loop, words):
    """Each line of stdin calls `words[line]()`; its end stops the loop, and fills the list that is given."""
    rest, over = bytearray(), []

    def readable():
        data = os.read(0, 4096)
        if not data:
            over.append(True)
            loop.stop()
            return
        rest.extend(data)
        while b"\n" in rest:
            line, _, left = bytes(rest).partition(b"\n")
            rest[:] = left
            words[line.decode()]()
    loop.watch(0, on_readable=readable)
    return over


def service(loop, events, words, report):
    """Turns the loop until stdin ends. `report` answers with what `report()` gives, figures, and the longest turn since the last time."""
    worst = {"turn": 0.0, "turn_cpu": 0.0}

    def tell_all():
        tell(**dict(figures(), **report()), events=[repr(event) for event in events],
             worst_turn=worst["turn"], worst_turn_cpu=worst["turn_cpu"])
        worst.update(turn=0.0, turn_cpu=0.0)
    is_over = on_words(loop, dict(words, report=tell_all))
    while not is_over:
        cpu, loop.worst_s = time.thread_time(), 0.0
        loop.turn()
        worst.update(turn=max(worst["turn"], loop.worst_s), turn_cpu=max(worst["turn_cpu"], time.thread_time() - cpu))


def server(plan):
    """The product's server, for more connections than a root has."""
    all_descriptors()
    limits.MAX_PENDING_ADDRESS = limits.MAX_PENDING      # all come from one address here
    bed = Bed(Path(plan["folder"]))
    end = bed.end("server")
    links = Links(bed.loop, end.identity.node_id, None, None)

    def ready(connection):
        end.ready.append(connection)
        links.watch(connection)

    def lost(connection, error):
        end.lost.append(error)
        end.ready.remove(connection)
        links.lost(connection, error)
    end.connection_ready, end.connection_lost = ready, lost
    listening = end.server()
    tell(port=listening.port)
    service(bed.loop, bed.events, {}, lambda: dict(
        connections=len(end.ready), lost=len(end.lost), refused=len(end.refused), pending=listening.pending))


def root(plan):
    """A whole node, which knows `plan["members"]` others that are not here now, each by all that fits."""
    events = []
    loop = Loop(report=lambda what, error: events.append(error))
    node = Node(loop, plan["folder"], "root", plan["port"], entry="")
    started = loop.start(node.start())
    while not started.done:
        loop.turn(0.1)
    started.result()
    table, tag = node.neighbours.table, node.networks.tags[0]
    for number in range(plan["members"]):
        member = number.to_bytes(32, "big")
        for host in range(1, limits.MAX_ADDRESSES + 1):
            address = f"fd00:7777:6666:5555:4444:3333:{number:x}:{host:x}"
            table.linked(member, "n" * 60 + f"{number:04}", "1", 1, address, 40000, tag, loop.now())
        table.unlinked(member, "goodbye", loop.now())
    node.neighbours.act()          # that so many came and went is no part of what is measured
    tell(port=node.port)
    service(loop, events, {}, lambda: dict(
        connections=len(node.links), queued=sum(connection.queued for connection in node.links.everything())))
    stopped = loop.start(node.stop())
    while not stopped.done:
        loop.turn(0.1)


class Crowd:
    """Many connections of one process, by the product's client."""

    def __init__(self, plan):
        self.plan = plan
        bed = Bed(Path(plan["folder"]))
        self.end, self.loop = bed.end("crowd"), bed.loop
        self.links = Links(self.loop, self.end.identity.node_id, None, None)
        self.client = Client(self.loop, self.end.networks, self.end)
        self.connections = []

    async def open(self, count):
        """So many in all. Some at a time: the server does not take more under way."""
        while len(self.connections) < count:
            wave = [self.client.dial([(self.plan["host"], self.plan["port"])], self.end.tag)
                    for _ in range(min(16, count - len(self.connections)))]
            for future in wave:
                self.connections.append(await future)
                self.links.watch(self.connections[-1])
        tell(**dict(figures(), connections=len(self.connections)))

    async def ping(self):
        """A round trip on each, all at once."""
        began, delays = self.loop.now(), []
        asked = [connection.request(proto.PING, timeout=30.0) for connection in self.connections]
        for future in asked:
            future.add_callback(lambda future: delays.append(self.loop.now() - began))
        answered = 0
        for future in asked:
            await future
            answered += 1
        tell(answered=answered, worst=max(delays))

    def close(self):
        """All at once."""
        for connection in self.connections:
            connection.finish("enough")
        self.connections = []
        tell(closed=True)


def crowd(plan):
    """See Crowd."""
    all_descriptors()
    one = Crowd(plan)
    on_words(one.loop, {"open": lambda: one.loop.start(one.open(plan["count"])), "one": lambda: one.loop.start(one.open(1)),
                        "ping": lambda: one.loop.start(one.ping()), "close": one.close})
    one.loop.run()


def chunk(number, body, ask=False):
    """As many equal frames as make about CHUNK bytes."""
    return b"".join(frame(number, request if ask else 0, body)
                    for request in range(1, max(2, CHUNK // (16 + len(body)))))


OFFER = dict(name="x" * 60, publisher=bytes(91), version=bytes(32), serial=1, network=LAN, files=1, bytes=1, signature=bytes(64))
FLOODS = {          # kind -> (what is said again and again, are the answers read?)
    "keepalives": (lambda: chunk(proto.KEEPALIVE.number, b""), True),
    "views": (lambda: chunk(proto.VIEW.number, bytes(8)), True),
    "mixed": (lambda: b"".join(frame(number, 0, body) for number, body in ((proto.VIEW.number, bytes(8)), (proto.DATA.number, b"x"))
                               for _ in range(1500)), True),
    "pings": (lambda: chunk(proto.PING.number, b"", True), True),
    "unknown": (lambda: b"".join(frame(0x7000 + request % 256, request, b"") for request in range(1, CHUNK // 16)), True),
    "lines": (lambda: chunk(proto.SAY.number, proto.SAY.pack(text="hello"), True), True),
    "nodes": (lambda: chunk(proto.NODES.number, b"", True), True),
    "manifests": (lambda: chunk(proto.MANIFEST.number, bytes(32), True), True),
    "catalogues": (lambda: frame(proto.CATALOGUE.number, 0, proto.CATALOGUE.pack(
        offers=[dict(OFFER, serial=serial) for serial in range(1024)], holdings=[dict(name="y" * 60, version=bytes(32))] * 4096)), True),
    "bodies": (lambda: frame(proto.DATA.number, 0, bytes(1 << 20)), True),
    "unread pings": (lambda: chunk(proto.PING.number, b"", True), False),
    "unread nodes": (lambda: chunk(proto.NODES.number, b"", True), False),
}


def flood(plan):
    """One connection that says what FLOODS says as fast as it is taken."""
    bed = Bed(Path(plan["folder"]))
    end = bed.end("flood")
    sock = socket.create_connection((plan["host"], plan["port"]), 20)
    tls = end.networks.client_context(end.tag).wrap_socket(sock, server_hostname=end.tag.hex())
    tls.sendall(hello())
    tls.setblocking(False)
    make, reads = FLOODS[plan["kind"]]
    data = memoryview(make())
    left, sent = data, 0
    tell(begun=True)
    while True:
        ready = select.select([0] + [tls] * reads, [tls], [])[0]
        if 0 in ready:
            if not os.read(0, 64):
                return
            tell(sent=sent, **figures())
        try:
            taken = tls.send(left)
            sent += taken
            left = left[taken:] or data
            if reads:
                while tls.recv(CHUNK):
                    pass
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            tell(dropped=repr(error), sent=sent)
            return


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    {"server": server, "root": root, "crowd": crowd, "flood": flood}[told["role"]](told)
