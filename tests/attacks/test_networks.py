"""Attacks on networks: a member of the open one wants to be in another, or at least to know what there is.

Each test has its twin: a member who was told the code, on a link of the same kind, gets what the attacker does not.
"""
import contextlib
import hashlib
import os

import pytest

from p2p import proto
from p2p.codec import ERROR, RESPONSE
from p2p.sync.catalogue import Offer
from p2p.sync.manifest import Manifest
from p2p.trust import x509
from p2p.trust.ecc import PrivateKey, parse_node_id
from p2p.trust.network import managed_network, read_shared_code, shared_network
from tests.attacks.hostile import LAN, Member
from tests.waiting import wait_until

pytestmark = pytest.mark.lab

SECRET = b"for members of home alone\n"
REFUSED = RESPONSE | ERROR


class Home:
    """A shared network of the target's, with an application in it."""

    def __init__(self, target):
        folder = target.host.folder / "private"
        folder.mkdir()
        (folder / "main.py").write_text("pass\n")
        (folder / "secret").write_bytes(SECRET)
        code = target.json("network", "create", "home", "--shared")["code"]
        self.network = shared_network(*read_shared_code(code))
        self.version = bytes.fromhex(target.json("share", str(folder), "--network", "home")["version"])
        self.file = hashlib.sha256(SECRET).digest()

    def certificate(self, member):
        """What proves that this member is in it."""
        return self.network.issue(member.key.public.spki, os.urandom(16))


@pytest.fixture(scope="module")
def home(own_target):
    return Home(own_target)


@contextlib.contextmanager
def joined(wire, home, name="eve"):
    """A line of a member of the open network that lists the other one, too."""
    member = Member(name)
    with contextlib.closing(member.join(wire, networks=[LAN.tag, home.network.tag])) as line:
        yield line


def heard(line, number):
    """Bodies of all messages of one kind that came until now."""
    wanted, bodies = 7_000_001, []
    line.send(proto.PING, wanted)
    while True:
        kind, flags, request, body = line.next()
        if kind == proto.PING.number and flags and request == wanted:
            return bodies
        if kind == number and not flags:
            bodies.append(body)


def prove(line, home, certificate=None):
    """As a member does: shows its certificate, and believes the other's."""
    line.send(proto.PROOF, network=home.network.tag, certificate=home.certificate(line.member) if certificate is None else certificate)
    line.send(proto.PROVEN, network=home.network.tag)


def offers(line):
    """Names of all that was offered on this line until now."""
    return {row.name for body in heard(line, proto.CATALOGUE.number) for row in proto.CATALOGUE.unpack(body).offers}


def answers(line, home):
    """[was it refused?] for whom it sees, the manifest, and the file in it."""
    asked = (proto.NODES, dict(network=home.network.tag)), (proto.MANIFEST, dict(version=home.version)), \
        (proto.BLOCK, dict(digest=home.file, offset=0, length=100))
    return [line.request(message, **fields) for message, fields in asked]


def sees_nothing(line, home):
    return offers(line) == set() and all(flags == REFUSED for flags, _ in answers(line, home))


def test_a_member_sees_and_gets_what_a_stranger_does_not(target, home):
    with joined(target.wire, home) as eve, joined(target.friends, home, "bob") as bob:
        assert sees_nothing(eve, home)
        seen = set()
        prove(bob, home)
        wait_until(lambda: seen.update(offers(bob)) or seen == {"private"}, 10.0, "the offer")
        (nodes, _), (manifest, body), (block, data) = answers(bob, home)
        assert (nodes, manifest, block) == (RESPONSE, RESPONSE, RESPONSE)
        assert Manifest.decode(proto.MANIFEST.reply.unpack_all(body).manifest).version == home.version
        assert proto.BLOCK.reply.unpack_all(data).data == SECRET
        assert sees_nothing(eve, home)
        bob.send(proto.WITHDRAW, network=home.network.tag)
        assert all(flags == REFUSED for flags, _ in answers(bob, home))        # who has left is out at once


def forgeries(home, eve):
    """{what: a certificate that proves nothing about eve}."""
    own = home.certificate(eve)
    other = managed_network("home", os.urandom)
    return {
        "another network's": other.issue(eve.key.public.spki, os.urandom(16)), "the open network's": x509.make_leaf(
            LAN.ca_key, eve.key.public, os.urandom(16)),
        "another node's": home.network.issue(PrivateKey.generate(os.urandom).public.spki, os.urandom(16)),
        "its CA's": home.network.ca, "cut off": own[:-1], "longer": own + b"\0", "empty": b"", "noise": os.urandom(500),
        "a wrong signature": own[:-1] + bytes([own[-1] ^ 1]), "self-signed": x509.make_leaf(eve.key, eve.key.public, os.urandom(16)),
        "its key exchanged": own.replace(eve.key.public.spki, PrivateKey.generate(os.urandom).public.spki)}


def test_a_certificate_that_proves_nothing_ends_the_connection(target, home, count):
    kinds = forgeries(home, Member())
    for number, what in enumerate(kinds):
        with joined(target.only(number), home) as eve:
            prove(eve, home, forgeries(home, eve.member)[what])
            eve.ended()
    count("proof", len(kinds))
    assert home.network.name not in {name for row in target.json("nodes") if not row["self"] for name in row["networks"]}


def test_nobody_is_in_a_network_by_saying_so(target, home):
    with joined(target.wire, home) as eve:
        for number in range(1000):
            tag = home.network.tag if number % 2 else os.urandom(8)
            eve.send(proto.PROVEN, network=tag)
            eve.send(proto.WITHDRAW, network=tag)
            eve.send(proto.PROOF, network=os.urandom(8), certificate=b"x" * 2000)
            eve.send(proto.VIEW, view=number, network=tag)
        assert sees_nothing(eve, home)
        [row] = [row for row in target.json("nodes") if row["id"] == eve.member.text]
        assert row["networks"] == ["lan"]


def test_a_proof_that_is_repeated_costs_one_look(target, home):
    with joined(target.wire, home) as eve:
        prove(eve, home)
        wait_until(lambda: answers(eve, home)[1][0] == RESPONSE, 10.0, "being in")
        before = target.cpu()
        for _ in range(2000):
            eve.send(proto.PROOF, network=home.network.tag, certificate=home.network.ca)
        heard(eve, proto.PROVEN.number)
        assert target.cpu() - before < 1.0          # 2,000 signatures are 10 s


def test_what_a_stranger_offers_or_invites_to_in_a_network_is_not_believed(target, home):
    with joined(target.wire, home) as eve, joined(target.friends, home, "carl") as bob:
        prove(bob, home)
        wait_until(lambda: answers(bob, home)[1][0] == RESPONSE, 10.0, "being in")
        for line, name in ((eve, "of-eve"), (bob, "of-bob")):
            offer = Offer.signed(line.member.key, name, os.urandom(32), 1, home.network.tag, 1, 1)
            line.send(proto.CATALOGUE, offers=[offer.row()], holdings=[])
        wait_until(lambda: "of-bob" in [row["name"] for row in target.json("apps")], 10.0, "bob's offer")
        assert "of-eve" not in [row["name"] for row in target.json("apps")]
        me = parse_node_id(target.json("id")["id"])
        for line in (eve, bob):
            ends = [dict(id=node, name="x", status=0, address="10.77.9.1", port=1, exit=0) for node in (line.member.id, me)]
            line.send(proto.INVITE, session=int.from_bytes(os.urandom(7), "big"), app="private", version=home.version, arguments=[],
                      publisher=me, network=home.network.tag, files=1, bytes=1, roster=ends, port=1, token=bytes(32), expires_s=60)
        answer = proto.ANSWER.unpack(eve.wait_for(proto.ANSWER))
        assert answer.status == proto.BROKEN and "network" in answer.text
        wait_until(lambda: [row["name"] for row in target.json("requests")] == ["carl"], 10.0, "bob's request alone")

