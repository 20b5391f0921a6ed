"""Several networks at one node: joined and left while it runs, on disk between its runs; and the codes of shared ones."""

import os

import pytest

from p2p import limits
from p2p.errors import PeerError, UsageError, UserError
from p2p.trust.ecc import PrivateKey
from p2p.trust.network import (Network, derived_network, is_shared_code, managed_network, managed_tag, open_network, read_shared_code,
                               shared_network)
from tests.test_networks import LAN, Server, careless, certified, credentials, greet

KEY = PrivateKey.generate(os.urandom)


@pytest.fixture(scope="module")
def bob(tmp_path_factory):
    return credentials(tmp_path_factory.mktemp("bob") / "home")


def fresh(home, *networks):
    """A home that has joined these."""
    mine, identity = credentials(home)
    for network in networks:
        mine.add(network)
    return mine, identity


def test_networks_that_were_joined_are_there_after_a_restart_in_their_order(tmp_path):
    managed, shared = managed_network("club", os.urandom), shared_network("home", bytes(range(16)))
    mine, identity = fresh(tmp_path, managed, shared)
    assert [network.name for network in mine.all()] == ["lan", "club", "home"] and mine.by_name("CLUB").is_admin
    mine.replace(managed.changed(epoch=3, denied={b"d" * 32}, udp_key=b"k" * 32))
    again, _ = credentials(tmp_path)
    assert again.tags == mine.tags == [LAN.tag, managed.tag, shared.tag]
    for tag in mine.tags[1:]:
        one, two = mine.by_tag(tag), again.by_tag(tag)
        assert [getattr(one, field) for field in Network.FIELDS if field != "ca_key"] == [getattr(two, field) for field in Network.FIELDS
                                                                                         if field != "ca_key"]
        assert one.ca_key.d == two.ca_key.d and mine.leaf(tag) == again.leaf(tag)
        assert two.certifies(again.leaf(tag), identity.node_id)
    assert again.is_denied(managed.tag, b"d" * 32) and not again.is_denied(shared.tag, b"d" * 32) and not again.by_name("home").is_admin


def test_a_network_is_live_when_it_is_joined_and_closed_when_it_is_left(tmp_path, bob):
    club = managed_network("club", os.urandom)
    mine, _ = credentials(tmp_path / "home")
    pem = certified(club)
    changes = []
    mine.on_change.append(lambda: changes.append(mine.tags))
    for is_in in (False, True, False):
        if is_in:
            mine.add(club)
        elif changes:
            mine.remove(club.tag)
        server = Server(mine)
        context = careless(pem, tmp_path)
        if is_in:
            assert greet(server.port, context, club.tag.hex()) == b"welcome" and server.outcome()[1] == club.tag
        else:
            with pytest.raises((OSError, AssertionError)):
                assert greet(server.port, context, club.tag.hex()) == b"welcome"
            assert isinstance(server.outcome(), Exception)
            with pytest.raises(KeyError):
                mine.client_context(club.tag)
    assert changes == [[LAN.tag, club.tag], [LAN.tag]]
    assert [path.name for path in (tmp_path / "home" / "networks").iterdir()] == [f"{LAN.tag.hex()}.pem"]


def test_lan_can_be_left_and_joined_again_and_is_the_first_then(tmp_path):
    club = managed_network("club", os.urandom)
    mine, _ = fresh(tmp_path)
    with pytest.raises(UserError, match="only network"):
        mine.remove(LAN.tag)
    mine.add(club)
    mine.remove(LAN.tag)
    assert credentials(tmp_path)[0].tags == [club.tag]
    mine.add(open_network())
    assert mine.tags == credentials(tmp_path)[0].tags == [LAN.tag, club.tag]


def test_a_taken_name_a_joined_network_and_one_too_many_are_refused_with_what_to_do(tmp_path):
    mine, _ = fresh(tmp_path, derived_network("home", "shared", b"first"))
    same_name, same = derived_network("HOME", "shared", b"second"), derived_network("other", "shared", b"first")
    for network, words in ((same_name, "--as NAME"), (same, "already, as home")):
        with pytest.raises(UserError, match=words) as caught:
            mine.add(network)
        assert caught.value.code == "in-network" and "\n" not in str(caught.value)
    for number in range(limits.MAX_NETWORKS - 2):
        mine.add(derived_network(f"n{number}", "shared", b"%d" % number))
    with pytest.raises(UserError, match="network leave") as caught:
        mine.add(derived_network("more", "shared", b"more"))
    assert caught.value.code == "too-many" and len(credentials(tmp_path)[0].all()) == limits.MAX_NETWORKS


@pytest.mark.parametrize("damage", ["cut off", "empty", "one digit", "not text", "another's", "open to others"])
def test_a_damaged_file_of_a_network_is_told_in_one_line_and_kept(tmp_path, damage):
    mine, _ = fresh(tmp_path, managed_network("club", os.urandom))
    [path] = (tmp_path / "networks").glob("*.json")
    whole = path.read_bytes()
    at = whole.index(b"udp_key") + 12
    path.write_bytes({"cut off": whole[:-30], "empty": b"", "not text": whole[:90] + b"\xff" + whole[91:],
                      "one digit": whole[:at] + (b"0" if whole[at:at + 1] != b"0" else b"1") + whole[at + 1:]}.get(damage, whole))
    if damage == "open to others":
        path.chmod(0o644)
    if damage == "another's":
        path = path.rename(path.with_name("00" * 8 + ".json"))
    after = path.read_bytes()
    with pytest.raises(UserError) as caught:
        credentials(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and path.read_bytes() == after


def test_a_certificate_that_was_lost_or_damaged_is_made_from_the_networks_file_without_an_admin(tmp_path):
    club = managed_network("club", os.urandom)
    identity = credentials(tmp_path)[1]
    mine, _ = credentials(tmp_path)
    mine.add(club.changed(ca_key=None), club.issue(identity.spki, os.urandom(16)))
    path = tmp_path / "networks" / f"{club.tag.hex()}.pem"
    whole = path.read_bytes()
    for damaged in (None, whole[:-40]):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        assert credentials(tmp_path)[0].leaf(club.tag) == mine.leaf(club.tag) and path.read_bytes() == whole


def test_a_member_of_a_managed_network_with_another_identity_must_be_invited_anew(tmp_path):
    club = managed_network("club", os.urandom)
    mine, identity = credentials(tmp_path)
    mine.add(club.changed(ca_key=None), club.issue(identity.spki, os.urandom(16)))
    (tmp_path / "identity.key").unlink()
    with pytest.raises(UserError, match="invited anew"):
        credentials(tmp_path)


def test_another_nodes_certificate_is_not_taken_for_ones_own(tmp_path, bob):
    club = managed_network("club", os.urandom)
    mine, _ = credentials(tmp_path)
    with pytest.raises(UserError, match="not this node's"):
        mine.add(club.changed(ca_key=None), club.issue(bob[1].spki, os.urandom(16)))
    assert mine.tags == credentials(tmp_path)[0].tags == [LAN.tag]


def test_a_removed_node_is_refused_before_it_is_heard(tmp_path, bob):
    mine, _ = credentials(tmp_path)
    mine.replace(mine.by_tag(LAN.tag).changed(denied={bob[1].node_id}))
    server = Server(mine)
    greet(server.port, bob[0].client_context(LAN.tag), LAN.tag.hex())
    outcome = server.outcome()
    assert isinstance(outcome, PeerError) and outcome.reason == "removed"


def test_a_certificate_proves_its_node_in_its_network_and_nothing_else():
    club, other = managed_network("club", os.urandom), managed_network("club", os.urandom)
    leaf, me = club.issue(KEY.public.spki, os.urandom(16)), KEY.public.node_id
    assert club.certifies(leaf, me) and not other.certifies(leaf, me) and not club.certifies(leaf, b"x" * 32)
    assert not club.certifies(other.issue(KEY.public.spki, os.urandom(16)), me)
    assert managed_tag(club.ca) == club.tag != other.tag
    for at in range(len(leaf)):
        for damaged in (leaf[:at], leaf[:at] + bytes([leaf[at] ^ 0x41]) + leaf[at + 1:] if at % 7 == 0 else b""):
            assert not club.certifies(damaged, me), at
    assert not club.certifies(leaf + b"\0", me) and not club.certifies(os.urandom(4097), me)


# -- shared codes

def test_a_shared_code_leads_to_the_same_network_however_it_is_typed():
    network = shared_network("home", os.urandom(16))
    name, _, code = network.code.partition(":")
    assert name == "home" and len(code) == 34 and code.count("-") == 6
    for typed in (network.code, f"home:{code.replace('-', '')}", f" home:{code.upper().replace('-', ' ')} "):
        assert read_shared_code(typed) == ("home", network.secret) and is_shared_code(typed)
    assert shared_network(*read_shared_code(network.code)).tag == network.tag


def test_a_mistake_in_a_shared_code_or_its_name_is_noticed():
    code = shared_network("home", bytes(range(16))).code
    assert not is_shared_code("k4x7q2mn") and is_shared_code(code.partition(":")[2])
    swapped = code[:7] + code[8] + code[7] + code[9:]
    for wrong in (code[:-1], code + "a", "hose" + code[4:], code[4:], swapped, code.replace(":", ""), code[:-3] + "1aa", "a b:" + code[5:]):
        with pytest.raises(UsageError):
            read_shared_code(wrong)
    noticed = sum(1 for at in range(5, len(code)) if code[at] != "-" for other in "ab234" if other != code[at]
                  if not accepted(code[:at] + other + code[at + 1:]))
    assert noticed >= 130         # of 140; 10 bits check


def accepted(code):
    try:
        return bool(read_shared_code(code))
    except UserError:
        return False
