"""Fuzzing of every decoder: what a peer or a damaged file may hand us, mutated and cut off.

    python -m tests.fuzz --inputs 10000000 --seed 1

The grammar comes from the declarations: each message of p2p/proto.py, request and reply, is packed with values that are
drawn, and then damaged. Beside them: the frame decoder under random cuts, datagrams (also with a right MAC around a wrong
body, since any member has the key), manifests, certificates and keys, the file of offers, the file of rules, application
messages, and p2pstate's segment.

Only the declared errors may come out, and memory stays bounded: a length that lies must not reserve what it claims.
"""

import argparse
import binascii
import random
import sys
import time
import types

import p2p.message
from p2p import codec, proto
from p2p.datagram import Opener, seal
from p2p.errors import PeerError
from p2p.layout import LAYOUT, MAGIC, Counters, Me, Node, Snapshot, StateError, layout
from p2p.offers import Remembered
from p2p.state import StateReader
from p2p.sync.manifest import EMPTY, Entry, Manifest
from p2p.trust import consent, x509
from p2p.trust.ecc import PrivateKey, PublicKey
from p2p.trust.network import OPEN_SECRET, derived_network

GROWTH = 64 << 20        # bytes by which the process may grow over a run
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


# -- valid inputs

def value_of(kind, rng):
    """A value of a declared type; small ones, since most bugs do not need large ones."""
    if isinstance(kind, codec.Number):
        size = kind._struct.size
        if kind.name == "f64":
            return rng.random()
        number = rng.choice((0, 1, rng.getrandbits(8 * size)))
        return number - (number >> 8 * size - 1 << 8 * size) if kind.name.startswith("i") else number & (1 << 8 * size) - 1
    if isinstance(kind, codec.Flag):
        return rng.random() < 0.5
    if isinstance(kind, codec.Fixed):
        return rng.getrandbits(8 * kind.size).to_bytes(kind.size, "little")
    if isinstance(kind, codec.Sized):
        data = bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 5, 40)) % (kind.most + 1)))
        return "".join(chr(byte & 127) for byte in data) if kind.is_text else data
    if isinstance(kind, codec.Several):
        return [value_of(kind.item, rng) for _ in range(rng.choice((0, 1, 2, 5)) % (kind.most + 1))]
    return {field.name: value_of(field.type, rng) for field in kind.fields}


def damaged(data, rng):
    """Some bytes changed, cut out, doubled; the end cut off; or nothing."""
    data = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        if not data:
            break
        at = rng.randrange(len(data))
        way = rng.randrange(7)
        if way == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[at] = rng.choice(INTERESTING)
        elif way == 2:
            data[at] = rng.randrange(256)
        elif way == 3:
            del data[at:]
        elif way == 4:
            del data[at:at + rng.randrange(1, 9)]
        elif way == 5:
            data[at:at] = data[at:at + rng.randrange(1, 9)]
        else:
            data[at:at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x00\x00\x10\x00"))
    return bytes(data)


# -- targets: (name, how to make a valid input, how to take it, errors that are declared)

class Sample(p2p.message.Message):
    """Each type that an application's message can have."""

    count: int
    share: float
    text: str
    data: bytes
    flag: bool = False


def records():
    """Each declared body and record."""
    found = {}
    for message in proto.MESSAGES.values():
        found[message.name] = message.body
        if message.reply is not None:
            found[message.name + " reply"] = message.reply
    found.update((record.name, record) for record in proto.RECORDS + [proto.Envelope])
    found["file of offers"] = Remembered
    return found


def record_target(name, record):
    """A body or record of proto.py."""
    return name, lambda rng: record.pack(value_of(record, rng)), record.unpack_all, PeerError


def frames(rng):
    """Some frames of random messages in one stream."""
    parts = []
    for _ in range(rng.randrange(1, 5)):
        message = rng.choice(list(proto.MESSAGES.values()))
        body = message.body.pack(value_of(message.body, rng))
        if rng.random() < 0.02:
            body += bytes(rng.randrange(200_000))
        parts.append(codec.frame(message.number, rng.choice((0, 1, rng.getrandbits(32))), body, rng.choice((0, codec.RESPONSE))))
    return b"".join(parts)


def take_frames(data):
    """Feed the stream cut at places that follow from its own bytes, so that an input is the whole of a case."""
    decoder, at, step = codec.Decoder(), 0, 1 + binascii.crc32(data) % 97
    while at < len(data):
        piece, at = data[at:at + step], at + step
        if decoder.place is not None:
            count = min(len(piece), len(decoder.place))
            decoder.place[:count] = piece[:count]
            decoder.placed(count)
            piece = piece[count:]
        decoder.feed(piece)


def datagram_targets():
    """Datagrams, and datagrams whose MAC is right whatever they say."""
    network = derived_network("lan", "open", OPEN_SECRET)
    beacon = proto.BEACON.body

    def make(rng):
        return seal(network, rng.getrandbits(256).to_bytes(32, "little"), rng.getrandbits(64), rng.getrandbits(64), proto.BEACON,
                    **value_of(beacon, rng))

    def take(data):
        Opener({network.tag: network}.get).open(data)       # a new one each time: else most would be refused as seen before

    def take_resealed(data):
        body = data[:-proto.MAC_SIZE]
        take(body + network.mac(body))
    return [("datagram", make, take, PeerError), ("datagram with a right MAC", make, take_resealed, PeerError)]


def manifest(rng):
    """A manifest of a few files."""
    entries = []
    for number in range(rng.randrange(0, 6)):
        size = rng.choice((0, 1, 1000, rng.getrandbits(40)))
        digest = EMPTY if not size else rng.getrandbits(256).to_bytes(32, "little")
        entries.append(Entry(f"{'d/' * rng.randrange(3)}file{number}", "f", rng.random() < 0.5, size, digest))
    return Manifest(entries).encode()


def state_target():
    """p2pstate as whoever has its name may have left it."""
    form = layout()
    empty = Snapshot(nodes=(Node(),) * 2)

    def make(rng):
        slot = form.Slot()
        slot.head.sequence = rng.getrandbits(64)
        slot.head.me = form.pack(Me())
        slot.head.counters = form.pack(Counters())
        for at, node in enumerate(empty.nodes):
            slot.nodes[at] = form.pack(node)
        slot.head.nodes_used = len(empty.nodes)
        return bytes(slot.head)

    # The memory is large and mostly empty, so an input is its head, and the checksum is made right half of the time
    memory = bytearray(form.size)
    header = bytes(form.Header(MAGIC, LAYOUT, 0, (0, 0, 0), form.size))
    memory[:len(header)] = header
    reader = StateReader.__new__(StateReader)
    reader._memory = types.SimpleNamespace(buf=memory)
    reader._layout = form

    def take(data):
        base, size = form.slots[0], form._head_size
        head = data[:size].ljust(size, b"\0")
        memory[base:base + size] = head
        if binascii.crc32(data) & 7:
            ranges = form.used(form.Head.from_buffer_copy(memory, base))
            parts = [bytes(memory[base + start:base + end]) for start, end in ranges]
            if parts:
                crc = binascii.crc32(parts[0][4:])
                for part in parts[1:]:
                    crc = binascii.crc32(part, crc)
                memory[base:base + 4] = crc.to_bytes(4, "little")
        reader.read()
    return "p2pstate", make, take, StateError


def rules(rng):
    """A file of rules."""
    kept = consent.Consent()
    for number in range(rng.randrange(3)):
        subject = object()
        kept.ask("run", bytes([number]) * 32, "bob", "chat", bytes(32), ["x"], subject, 0.0)
        kept.allow(kept.requests()[-1].number, always=True, any_args=rng.random() < 0.5)
    return kept.to_json()


def targets():
    """All of them."""
    key = PrivateKey(12345)
    leaf = x509.make_leaf(PrivateKey(54321), key.public, bytes(16))
    spki = key.public.spki
    text = p2p.message.encode(Sample(5, 0.5, "text", b"data"))
    found = [record_target(name, record) for name, record in sorted(records().items())]
    found += datagram_targets()
    found += [
        ("frames", frames, take_frames, PeerError),
        ("manifest", manifest, Manifest.decode, PeerError),
        ("certificate", lambda rng: leaf, x509.spki_of, PeerError),
        ("public key", lambda rng: spki, PublicKey.from_spki, PeerError),
        ("application message", lambda rng: text, lambda data: p2p.message.decode(Sample, data), PeerError),
        ("rules", rules, lambda data: consent.Consent().from_json(data), ValueError),
        state_target(),
    ]
    return found


COSTLY = {"p2pstate": 0.1, "frames": 0.5, "rules": 0.3, "datagram": 0.5}      # share of the turns
SEEDS = 40               # valid inputs kept of each target; a new one replaces an old one now and then


class Finding(Exception):
    """An error that nobody declared, or too much memory."""


def run(inputs, seed, out=print):
    """Feed so many; a Counter-like dict of how many each target took and refused. Raises Finding."""
    rng = random.Random(f"fuzz/{seed}")
    known = targets()
    pools = {name: [make(rng) for _ in range(SEEDS)] for name, make, _, _ in known}
    counts = {name: [0, 0] for name, _, _, _ in known}
    before = resident()
    done = 0
    while done < inputs:
        name, make, take, declared = known[rng.randrange(len(known))]
        if rng.random() >= COSTLY.get(name, 1.0):
            continue
        pool = pools[name]
        if rng.random() < 0.01:
            pool[rng.randrange(SEEDS)] = make(rng)
        data = damaged(pool[rng.randrange(SEEDS)], rng)
        done += 1
        try:
            take(data)
            counts[name][0] += 1
        except declared:
            counts[name][1] += 1
        except Exception as error:
            raise Finding(f"seed {seed}, input {done}: {name} raised {type(error).__name__}: {error}; input {data.hex()}") from error
        if done % 100_000 == 0 and resident() - before > GROWTH:
            raise Finding(f"seed {seed}: {resident() - before} bytes more after {done} inputs, the last to {name}")
    return counts


def resident():
    """The most memory this process ever had, bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(words=None):
    """The exit code: 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Damaged bytes for every decoder.")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(words)
    began, before = time.process_time(), resident()
    try:
        counts = run(given.inputs, given.seed)
    except Finding as finding:
        print(finding)
        return 1
    for name, (taken, refused) in sorted(counts.items()):
        print(f"{name:28} {taken:9} taken {refused:9} refused")
    print(f"{given.inputs} inputs, nothing found; {(resident() - before) >> 20} MiB more; {time.process_time() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
