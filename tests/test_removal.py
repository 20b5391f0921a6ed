"""Removing nodes from a managed network, between real roots on real TLS links: it holds at once, everywhere, and for good."""

import pytest

from p2p import limits, proto
from p2p.errors import UserError
from p2p.trust import denial
from p2p.trust.denial import DenyList
from p2p.trust.ecc import PrivateKey
from p2p.trust.networks import Networks
from tests.test_asking import Roots
from tests.test_joining import found, id_of, joined


@pytest.fixture
def bed(tmp_path):
    bed = Roots(tmp_path, ("ann", "bob", "eve"))
    yield bed
    bed.close()


@pytest.fixture
def studio(bed):
    """A network of all three; ann is its admin."""
    ann = bed.nodes[0]
    network = found(ann)
    for node in bed.nodes[1:]:
        joined(bed, node, bed.do(ann.inviting.invite(ann.networks.by_tag(network.tag))).code)
    bed.until(lambda: all(is_member(network, one, other) for one in bed.nodes for other in bed.nodes if one is not other),
              "all to meet there")
    return network


def is_member(network, one, other):
    """Does one take the other for a member, on their link?"""
    link = one.link(id_of(other))
    return link is not None and network.tag in link.networks


def removed(bed, by, network, node):
    return bed.do(by.removal.remove(by.networks.by_tag(network.tag), id_of(node)))


def knows(node, network):
    return [other for other in node.members() if network.tag in other.networks]


def test_who_was_removed_is_out_everywhere_within_a_second_and_hears_it(bed, studio):
    ann, bob, eve = bed.nodes
    before = studio.udp_key
    assert removed(bed, ann, studio, eve) == 1
    bed.until(lambda: id_of(eve) in bob.networks.by_tag(studio.tag).denied, "bob to hear", 1.0)
    for node in (ann, bob):
        assert not is_member(studio, node, eve) and id_of(eve) not in [member.id for member in knows(node, studio)]
        assert node.link(id_of(eve)) is not None             # they are in lan all the same
    bed.until(lambda: eve.networks.by_tag(studio.tag) is None, "eve to leave", 1.0)
    assert any("this node was removed from studio" in line for line in bed.said["eve"])
    assert any("eve" in line and "was removed from studio" in line for line in bed.said["bob"])
    keys = {node.networks.by_tag(studio.tag).udp_key for node in (ann, bob)}
    assert len(keys) == 1 and keys != {before}


def test_who_was_removed_does_not_come_back_by_its_certificate_its_key_or_what_others_remember(bed, studio):
    ann, bob, eve = bed.nodes
    kept, leaf = eve.networks.by_tag(studio.tag), eve.networks.leaf(studio.tag)
    removed(bed, ann, studio, eve)
    bed.until(lambda: eve.networks.by_tag(studio.tag) is None and id_of(eve) in bob.networks.by_tag(studio.tag).denied, "all to hear")
    eve.networks.add(kept.changed(lists=(), denied=()), leaf)               # it pretends that nothing happened
    for node in (ann, bob):
        bed.until(lambda node=node: node.refused.get("removed"), "it to be refused")
        future = eve.client.dial([("127.0.0.1", node.port)], studio.tag)
        bed.until(lambda future=future: future.done, "the dial to end")
        assert future.error is not None
        assert not is_member(studio, node, eve) and id_of(eve) not in [member.id for member in knows(node, studio)]
    bed.until(lambda: eve.networks.by_tag(studio.tag) is None, "it to hear once more")


def test_a_member_that_was_away_hears_it_from_any_other_and_passes_it_on(bed, studio):
    ann, bob, eve = bed.nodes
    for node in (ann, eve):
        bob.link(id_of(node)).abort() if bob.link(id_of(node)) else None
        bob.client.release(id_of(node))
    network = ann.networks.by_tag(studio.tag)
    removed(bed, ann, network, eve)
    bed.until(lambda: id_of(eve) in bob.networks.by_tag(studio.tag).denied, "bob to hear", 20.0)
    bed.until(lambda: is_member(studio, bob, ann), "bob to be a member still", 20.0)
    assert bob.networks.by_tag(studio.tag).udp_key == ann.networks.by_tag(studio.tag).udp_key


def test_it_is_written_down(bed, studio):
    ann, bob, eve = bed.nodes
    removed(bed, ann, studio, eve)
    bed.until(lambda: id_of(eve) in bob.networks.by_tag(studio.tag).denied, "bob to hear")
    again = Networks(bob.home, bob.identity, bob.disk, bob.loop.entropy)
    known = again.by_tag(studio.tag)
    assert known.denied == {id_of(eve)} and known.lists and again.is_denied(studio.tag, id_of(eve))
    assert known.udp_key == ann.networks.by_tag(studio.tag).udp_key


def test_two_admins_who_remove_different_nodes_at_once_end_with_one_list(bed, studio):
    ann, bob, eve = bed.nodes
    bed.do(ann.removal.make_admin(ann.networks.by_tag(studio.tag), id_of(bob)))
    assert bob.networks.by_tag(studio.tag).is_admin and any("an admin of studio" in line for line in bed.said["bob"])
    one, two = b"\1" * 32, b"\2" * 32
    tasks = [bed.loop.start(node.removal.remove(node.networks.by_tag(studio.tag), who)) for node, who in ((ann, one), (bob, two))]
    bed.until(lambda: all(task.done for task in tasks), "both to be done")

    def agree():
        known = [node.networks.by_tag(studio.tag) for node in bed.nodes]
        return (all(network.denied == {one, two} and len(network.lists) == 1 for network in known)
                and len({network.udp_key for network in known}) == 1)
    bed.until(agree, "all to agree")
    assert all(denial.key_hash(node.networks.by_tag(studio.tag).udp_key) == denial.state_of(node.networks.by_tag(studio.tag).lists).key_hash
               for node in bed.nodes)


def test_only_an_admin_removes_and_nobody_removes_himself(bed, studio):
    ann, bob, eve = bed.nodes
    for node, target, code in ((bob, eve, "not-admin"), (ann, ann, "self")):
        with pytest.raises(UserError) as error:
            removed(bed, node, studio, target)
        assert error.value.code == code and "\n" not in str(error.value)
    removed(bed, ann, studio, eve)
    with pytest.raises(UserError, match="before"):
        removed(bed, ann, studio, eve)
    with pytest.raises(UserError, match="nobody can be removed"):
        bed.do(ann.removal.remove(ann.networks.by_name("lan"), id_of(bob)))


def test_a_list_that_no_admin_signed_changes_nothing_and_ends_the_link(bed, studio):
    ann, bob, eve = bed.nodes
    forged = DenyList.signed(PrivateKey.generate(bed.loop.entropy), studio.tag, 9, [id_of(ann)], bytes(32))
    link = eve.link(id_of(bob))
    link.send(proto.DENY, network=studio.tag, lists=[forged.data], udp_key=bytes(32))
    bed.until(lambda: bob.refused.get("deny-list"), "it to be refused")
    assert not bob.networks.by_tag(studio.tag).denied and bob.networks.by_tag(studio.tag).epoch == 0


def test_a_flood_of_lists_costs_no_more_than_its_budget(bed, studio):
    ann, bob, eve = bed.nodes
    looked = []
    check = DenyList.is_authentic
    ca_key = ann.networks.by_tag(studio.tag).ca_key
    lists = [DenyList.signed(ca_key, studio.tag, epoch, [b"\5" * 32], bytes(32)).data for epoch in range(1, 60)]
    try:
        DenyList.is_authentic = lambda self, ca: looked.append(1) or check(self, ca)
        link = eve.link(id_of(bob))
        for data in lists:
            link.send(proto.DENY, network=studio.tag, lists=[data], udp_key=bytes(32))
        bed.until(lambda: bob.refused.get("deny-list"), "the flood to be refused")
    finally:
        DenyList.is_authentic = check
    assert len(looked) <= 40 and len(bob.networks.by_tag(studio.tag).lists) <= limits.MAX_DENY_LISTS
