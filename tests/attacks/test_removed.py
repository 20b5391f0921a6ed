"""Attacks by a member who was removed from a managed network and wants back: with all it was ever given, and by each way in.

It joined by a code as everybody does and kept its certificate, the CA, the key of the datagrams and the names of what was shared.
"""
import contextlib
import hashlib
import hmac
import os
import ssl

import pytest

from p2p import proto
from p2p.codec import ERROR, RESPONSE, frame
from p2p.datagram import seal
from p2p.sync.catalogue import Offer
from p2p.trust import x509
from p2p.trust.denial import DenyList
from p2p.trust.ecc import PrivateKey, parse_node_id
from p2p.trust.invitations import open_sealed
from tests.attacks.hostile import LAN, Line, Member, careless
from tests.attacks.test_codes import attempt, confirm, try_code
from tests.waiting import wait_until

pytestmark = pytest.mark.lab

GUILD = "guild"
SECRET = b"for members of the guild\n"
REFUSED = RESPONSE | ERROR


class Given:
    """A member of the guild: its key, the line on which it joined, and what it was given."""

    def __init__(self, target, name, wire, code):
        self.member = Member(name)
        line = self.member.join(wire)
        root = parse_node_id(target.json("id")["id"])
        joiner = attempt(code, self.member, root)
        _, answer = try_code(line, code, joiner)
        proof = joiner.finish(answer.share, answer.confirmation, answer.left)
        _, body = confirm(line, code, proof, self.member.key.public.spki)
        sealed = proto.JOIN_CONFIRM.reply.unpack_all(body)
        self.credentials = proto.Credentials.unpack_all(open_sealed(joiner.key, sealed.credentials, sealed.mac))
        line.close()

    def prove(self, line, tag):
        line.send(proto.PROOF, network=tag, certificate=self.credentials.leaf)
        line.send(proto.PROVEN, network=tag)


class Guild:
    """The target's managed network with an application in it; eve and bob have joined, and eve is removed."""

    def __init__(self, target):
        self.target = target
        row = target.json("network", "create", GUILD)
        self.tag = bytes.fromhex(row["tag"])
        folder = target.host.folder / "craft"
        folder.mkdir()
        (folder / "main.py").write_text("pass\n")
        (folder / "secret").write_bytes(SECRET)
        self.version = bytes.fromhex(target.json("share", str(folder), "--network", GUILD)["version"])
        self.eve, self.bob = [Given(target, name, wire, target.json("network", "invite", GUILD)["code"])
                              for name, wire in (("eve", target.wire), ("bob", target.friends))]
        with self.line(self.eve, target.wire) as line:
            assert self.gets(line), "a member does"
        target.json("network", "remove", GUILD, self.eve.member.text)

    @contextlib.contextmanager
    def line(self, given, wire, **fields):
        """A line over the open network, with the proof of membership shown on it."""
        with contextlib.closing(given.member.join(wire, networks=[LAN.tag, self.tag], **fields)) as line:
            given.prove(line, self.tag)
            yield line

    def asked(self, line):
        """[was it refused?] for its nodes, its manifest and its file."""
        asked = (proto.NODES, dict(network=self.tag)), (proto.MANIFEST, dict(version=self.version)), \
            (proto.BLOCK, dict(digest=hashlib.sha256(SECRET).digest(), offset=0, length=100))
        return [line.request(message, **fields)[0] for message, fields in asked]

    def gets(self, line):
        """Is it let in, within a moment?"""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.asked(line) == [RESPONSE] * 3, 5.0, "being in")
            return True
        return False

    def who(self):
        """Names of members that the target knows, itself apart."""
        return {row["name"] for row in self.target.json("nodes", "--network", GUILD) if not row["self"]}


@pytest.fixture(scope="module")
def guild(own_target):
    return Guild(own_target)


def is_out(guild, line):
    try:
        return guild.asked(line) == [REFUSED] * 3
    except OSError:
        return True


def test_its_certificate_opens_nothing_more_and_a_members_still_does(target, guild):
    with guild.line(guild.bob, target.friends) as line:
        assert guild.gets(line)
    for number in range(3):
        with contextlib.suppress(OSError), guild.line(guild.eve, target.only(number)) as line:
            assert is_out(guild, line)
    assert "eve" not in guild.who()


def test_a_link_that_it_dials_in_the_network_itself_ends_at_the_handshake(target, guild):
    context = careless(guild.eve.member.key.to_pem() + x509.to_pem(guild.eve.credentials.leaf))
    for _ in range(3):
        with contextlib.closing(target.wire.tcp()) as plain:
            with pytest.raises((OSError, ssl.SSLError)):
                line = Line(context.wrap_socket(plain, server_hostname=guild.tag.hex()), guild.eve.member)
                line.wait_for(proto.HELLO)
                line.raw(guild.eve.member.hello(networks=[guild.tag]))
                line.request(proto.PING)


def test_lists_that_leave_it_out_bring_it_back_no_more_than_old_or_forged_ones(target, guild):
    [list_now] = [row for row in target.json("networks") if row["name"] == GUILD]
    other = Member("mallory").id
    forged = [DenyList.signed(PrivateKey.generate(os.urandom), guild.tag, 99, [other], os.urandom(32)).data,
              DenyList.signed(guild.eve.member.key, guild.tag, 99, [other], os.urandom(32)).data,
              DenyList.signed(LAN.ca_key, guild.tag, 99, [other], os.urandom(32)).data]
    for number, data in enumerate(forged):
        with contextlib.closing(guild.eve.member.join(target.only(number))) as line:
            line.send(proto.DENY, network=guild.tag, lists=[data], udp_key=os.urandom(32))
            with contextlib.suppress(OSError):
                guild.eve.prove(line, guild.tag)
                assert is_out(guild, line)
    with guild.line(guild.eve, target.only(9)) as line:          # what it was given when it joined: no list, then
        line.send(proto.DENY, network=guild.tag, lists=guild.eve.credentials.lists, udp_key=guild.eve.credentials.udp_key)
        assert is_out(guild, line)
    assert [row for row in target.json("networks") if row["name"] == GUILD] == [list_now] and "eve" not in guild.who()


def test_the_datagrams_key_that_it_knows_is_not_believed_any_more(target, guild):
    class Old:
        tag = guild.tag

        @staticmethod
        def mac(data):
            return hmac.new(guild.eve.credentials.udp_key, data, "sha256").digest()[:proto.MAC_SIZE]
    before = target.refused().get("udp-mac", 0)
    ghost = Member("ghost")
    sock = target.wire.udp()
    with contextlib.closing(sock):
        target.wire.throw(sock, [seal(Old, ghost.id, 1, number, proto.BEACON, name="ghost", port=47474, nonce=ghost.nonce, view=0,
                                      answer=True) for number in range(20)])
        wait_until(lambda: target.refused().get("udp-mac", 0) >= before + 20, 10.0, "the refusals")
    assert "ghost" not in guild.who() | {row["name"] for row in target.json("nodes")}


def test_what_it_offers_or_invites_to_there_is_not_taken(target, guild):
    with contextlib.closing(guild.eve.member.join(target.only(30), networks=[LAN.tag, guild.tag])) as line:
        offer = Offer.signed(guild.eve.member.key, "of-eve", os.urandom(32), 1, guild.tag, 1, 1)
        line.send(proto.CATALOGUE, offers=[offer.row()], holdings=[])
        me = parse_node_id(target.json("id")["id"])
        ends = [dict(id=node, name="x", status=0, address="10.77.9.1", port=1, exit=0) for node in (guild.eve.member.id, me)]
        line.send(proto.INVITE, session=int.from_bytes(os.urandom(7), "big"), app="craft", version=guild.version, arguments=[],
                  publisher=me, network=guild.tag, files=1, bytes=1, roster=ends, port=1, token=bytes(32), expires_s=60)
        answer = proto.ANSWER.unpack(line.wait_for(proto.ANSWER))
        assert answer.status == proto.BROKEN
    assert "of-eve" not in [row["name"] for row in target.json("apps")] and target.json("requests") == []


def frame_of(request, rows):
    return frame(proto.NODES.number, request, proto.NODES.reply.pack({"nodes": rows}), RESPONSE)


def test_a_member_who_vouches_for_it_does_not_bring_it_back(target, guild):
    """bob, a member, answers whom he sees there with eve, and says VIEWs that make the root ask."""
    with guild.line(guild.bob, target.friends) as line:
        assert guild.gets(line)
        line.send(proto.VIEW, view=4242, network=guild.tag)
        while True:
            number, flags, request, body = line.next()
            if number == proto.NODES.number and not flags and proto.NODES.unpack(body).network == guild.tag:
                break
        line.raw(frame_of(request, [{"id": guild.eve.member.id, "name": "eve", "addresses": ["10.77.9.1"], "port": 47474, "state": 0,
                                     "age_s": 0}]))
        line.request(proto.PING)
        assert "eve" not in guild.who()


def test_with_a_new_key_it_is_a_stranger_and_its_old_certificate_does_not_fit(target, guild):
    again = Member("eve2")
    with contextlib.closing(again.join(target.wire, networks=[LAN.tag, guild.tag])) as line:
        line.send(proto.PROOF, network=guild.tag, certificate=guild.eve.credentials.leaf)
        line.ended()
    with contextlib.closing(again.join(target.only(20), networks=[LAN.tag, guild.tag])) as line:
        assert is_out(guild, line)
