"""A member offers applications that are not what they say: nothing of them is installed, and nothing lands elsewhere."""
import contextlib
import hashlib
import os
import socket
import struct
import threading

import pytest

from p2p import limits, proto
from p2p.codec import ERROR, RESPONSE, frame
from p2p.sync.catalogue import Offer
from p2p.sync.manifest import Entry, Manifest
from tests.attacks.hostile import LAN, Member, node_id_text
from tests.waiting import wait_until

pytestmark = pytest.mark.lab

DATA = b"print('escape')\n" * 40000          # three blocks
CONTENT = hashlib.sha256(DATA).digest()


def tree(*paths, size=None, digest=CONTENT):
    """The manifest of a main.py and these, whatever the rules say about them."""
    size = len(DATA) if size is None else size
    return Manifest([Entry("main.py", "f", False, len(DATA), CONTENT)] + [Entry(path, "f", False, size, digest) for path in paths]).encode()


PATHS = ["../escape", "../../../../tmp/escape", "/tmp/escape", "a/../../escape", "./escape", "a//escape", "a/./escape", "..", ".",
         "a\\..\\escape", "C:escape", "CON", "nul.txt", "escape.", "escape ", ".escape", "-escape", "~root", "esc\nape", "esc\0ape",
         "a/" * limits.MAX_DEPTH + "escape", "e" * 300, "MAIN.py", "main.py/escape", "main.py", "", "escape/"]
MANIFESTS = {f"path {path[:20]!r}": tree(path) for path in PATHS}
MANIFESTS.update({
    "a size beyond every disk": tree("x", size=1 << 62, digest=bytes(range(32))),
    "sizes that add up beyond the bound": tree("x", size=limits.MAX_APP_BYTES, digest=bytes(range(32))),
    "one content with two sizes": tree("x", size=1),
    "a count without entries": struct.pack("<4sBI", b"p2pm", 1, 0xFFFFFFFF),
    "cut off": tree("x")[:-1], "bytes behind": tree("x") + b"x", "nothing": b"", "another format": b"p2pm\x02" + tree()[5:],
    "not canonical": b"p2pm" + tree("b", "c")[4:9] + tree("b", "c")[9:][::-1],
})
BLOCKS = {f"a byte flipped in block {number}": lambda offset, data, at=number: flip(data) if offset >> 18 == at else data
          for number in range(3)}
BLOCKS.update({"short": lambda offset, data: data[:-1], "empty": lambda offset, data: b"", "long": lambda offset, data: data + b"x",
               "another block's": lambda offset, data: DATA[:len(data)], "a refusal": lambda offset, data: None})


def flip(data):
    """One byte changed."""
    return data[:-1] + bytes([data[-1] ^ 1])


class Publisher(threading.Thread):
    """Offers what it is told and answers for it until the line ends."""

    def __init__(self, wire):
        super().__init__(daemon=True)
        self.member = Member("publisher")
        self.line = self.member.join(wire)
        self.line.sock.settimeout(None)
        self.manifests, self.offers, self.signed, self.contents = {}, [], [], {CONTENT: DATA}
        self.block = lambda offset, data: data
        self.writing = threading.Lock()
        self.start()

    def offer(self, name, manifest, version=None):
        """One more."""
        version = version or hashlib.sha256(manifest).digest()
        self.manifests[version] = manifest
        self.offers.append((name, version))
        self.signed.append(Offer.signed(self.member.key, name, version, len(self.offers), LAN.tag, 1, len(DATA)))
        self.tell(self.signed)          # a catalogue replaces the one before

    def tell(self, offers):
        """A catalogue with these offers."""
        holdings = [dict(name=name, version=version) for name, version in self.offers[-1000:]]
        with self.writing:
            self.line.send(proto.CATALOGUE, offers=[offer.row() for offer in offers], holdings=holdings)

    def run(self):
        with contextlib.suppress(OSError, ValueError):
            while True:
                number, flags, request, body = self.line.next()
                answer = None if flags or not request else self.answer(number, body)
                if answer is not None:
                    with self.writing:
                        self.line.raw(frame(number, request, *answer))

    def answer(self, number, body):
        """(body, flags) of the answer to a question, or None."""
        if number == proto.MANIFEST.number:
            return proto.MANIFEST.reply.pack({"manifest": self.manifests[proto.MANIFEST.unpack(body).version]}), RESPONSE
        if number == proto.BLOCK.number:
            asked = proto.BLOCK.unpack(body)
            data = self.block(asked.offset, self.contents[asked.digest][asked.offset:asked.offset + asked.length])
            if data is None:
                return proto.Error.pack({"code": 6, "text": "\x1b[2Jno"}), RESPONSE | ERROR
            return proto.BLOCK.reply.pack({"data": data}), RESPONSE
        return (b"", RESPONSE) if number == proto.PING.number else None


@pytest.fixture
def publisher(target):
    """One that is in."""
    publisher = Publisher(target.wire)
    yield publisher
    with contextlib.suppress(OSError):
        publisher.line.sock.shutdown(socket.SHUT_RDWR)
    publisher.join(5.0)
    publisher.line.close()


def known(target, name):
    """Waits until the offer is known."""
    wait_until(lambda: name in {row["name"] for row in target.json("apps")}, 10.0, f"the offer of {name}")


def sync(target, name):
    """What `sync NAME` says and its exit code."""
    done = target.p2p("sync", name)
    assert "\x1b" not in done.stdout + done.stderr and len(done.stderr.splitlines()) <= 1, done.stderr
    return done.returncode, done.stderr


def everything(target):
    """Every path of the host's folder that could be this application's."""
    return [path for path in target.host.folder.rglob("*") if "escape" in path.name or path.name.startswith("bad")]


def test_an_honest_application_of_the_same_publisher_is_installed(target, publisher):
    """The twin of all that follow."""
    publisher.offer("good", tree("lib/x.py"))
    known(target, "good")
    assert sync(target, "good")[0] == 0
    assert (target.home / "apps" / "good").is_dir()


def test_no_hostile_manifest_is_taken_and_nothing_lands_outside(target, publisher):
    for number, case in enumerate(MANIFESTS):
        publisher.offer(f"bad{number}", MANIFESTS[case])
    publisher.offer("bad-hash", tree(), version=os.urandom(32))
    known(target, "bad-hash")                      # and with the last of them the others
    for number, case in enumerate(MANIFESTS):
        code, said = sync(target, f"bad{number}")
        assert code != 0 and said, case
    assert sync(target, "bad-hash")[0] != 0
    assert everything(target) == [] and not os.path.exists("/tmp/escape")


def test_wrong_bytes_in_any_block_are_noticed_and_not_installed(target, publisher):
    for number, case in enumerate(BLOCKS):
        data = DATA + b"%d" % number               # nothing that is here already, or it would not be asked for
        digest = hashlib.sha256(data).digest()
        publisher.contents[digest], publisher.block = data, BLOCKS[case]
        publisher.offer(f"bad{number}-blocks", tree(f"{number}.py", size=len(data), digest=digest))
        known(target, f"bad{number}-blocks")
        code, said = sync(target, f"bad{number}-blocks")
        assert code != 0 and said, case
    assert [path for path in (target.home / "apps").glob("bad*")] == []


@pytest.mark.parametrize("name", ["../escape", "CON", "a/b", "x" * 65, "\x1b[2J", ""])
def test_an_offer_whose_name_is_no_name_costs_the_link(target, publisher, count, name):
    with contextlib.suppress(OSError):
        publisher.tell([Offer.signed(publisher.member.key, name, bytes(32), 1, LAN.tag, 1, 1)])
    count("name", 1)
    assert target.nodes()[node_id_text(publisher.member.id)]["state"] != "alive"
