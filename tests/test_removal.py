"""Removing nodes from a managed network, between real roots on real TLS links: it holds at once, everywhere, and for good."""

from types import SimpleNamespace

import pytest

from p2p import limits, proto, removal
from p2p.budget import Budget
from p2p.connection import Connection
from p2p.errors import Refusal, UserError
from p2p.sync.catalogue import Offer
from p2p.trust import denial
from p2p.trust.denial import DenyList
from p2p.trust.ecc import PrivateKey
from p2p.trust.networks import Networks
from tests.test_asking import Roots
from tests.test_joining import ask, found, id_of, joined


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


# -- ways around it

def deaf(node, *messages):
    """It does not hear these, as one who does not want to."""
    for message in messages:
        node.dispatch.by_word[message.word] = lambda connection, request, body: None


def share(bed, node, network, name="tool", text="SECRET = 1\n"):
    folder = bed.folder / name
    folder.mkdir()
    (folder / "main.py").write_text(text)
    return bytes.fromhex(bed.do(node.offers.share(str(folder), name, network))["version"])


def is_refused(bed, asker, other, version):
    with pytest.raises(Refusal):
        ask(bed, asker, other, proto.MANIFEST, version=version)
    return True


class Late(Connection):
    """A client that holds its HELLO back."""

    __slots__ = ()

    def _greet(self):
        pass


def test_who_holds_his_hello_back_while_he_is_removed_does_not_get_in_by_it(bed, studio):
    ann, bob, eve = bed.nodes

    class Owner:
        dispatch = eve.dispatch
        lost = []

        def greeting(self, connection):
            return dict(eve.greeting(connection), nonce=12345)

        def connection_ready(self, connection):
            pass

        def connection_lost(self, connection, error):
            self.lost.append(error)
    late = Late(bed.loop, bed.loop.dial("127.0.0.1", ann.port, eve.networks, studio.tag), Owner())
    bed.until(lambda: late.is_ready, "ann's HELLO")
    fields = Owner().greeting(late)
    removed(bed, ann, studio, eve)
    late.send(proto.HELLO, **fields)
    bed.until(lambda: Owner.lost, "the end of it")
    assert not is_member(studio, ann, eve) and ann.refused["removed"]


def test_strangers_cannot_use_up_what_members_need_to_hear_of_a_removal(bed, studio):
    ann, bob, eve = bed.nodes
    deaf(eve, proto.DENY)
    for number in range(8):
        while bob.removal._strangers.take(bed.loop.now(), bytes([number]) * 32):
            pass
    removed(bed, ann, studio, eve)
    bed.until(lambda: id_of(eve) in bob.networks.by_tag(studio.tag).denied, "bob to hear", 1.0)


def test_a_members_word_that_came_too_fast_is_looked_at_later(bed, studio, monkeypatch):
    ann, bob, eve = bed.nodes
    monkeypatch.setattr(removal, "LISTS", (16, 256, 0.3))
    bob.removal._budget = Budget(16, 256, 0.3)
    while bob.removal._budget.take(bed.loop.now(), id_of(ann)):
        pass
    removed(bed, ann, studio, eve)
    bed.until(lambda: id_of(eve) in bob.networks.by_tag(studio.tag).denied, "bob to hear", 5.0)


def test_what_is_no_deny_list_ends_the_link(bed, studio):
    ann, bob, eve = bed.nodes
    link = bob.link(id_of(eve))
    eve.link(id_of(bob)).send(proto.DENY, network=studio.tag, lists=[b"x"], udp_key=bytes(32))
    bed.until(lambda: not link.is_ready, "the link to end")


def test_a_removed_participant_does_not_come_back_into_the_session_over_another_network(bed, studio):
    ann, bob, eve = bed.nodes
    share(bed, ann, "studio", "game", "import p2p\napp = p2p.attach()\nfor event in app:\n    print(type(event).__name__, flush=True)\n")
    bed.until(lambda: eve.offers.catalogue.newest("game", id_of(ann)), "the offer")
    session = bed.do(ann.launcher.run("game", [id_of(eve)], [], "studio"))
    bed.until(lambda: eve.asking.request_rows(), "the request")
    eve.asking.allow(eve.asking.request_rows()[0]["request"])
    bed.is_status(ann, session, ann="running", eve="running")
    port = session.members[id_of(eve)].port
    deaf(eve, proto.DENY, proto.END)
    removed(bed, ann, studio, eve)
    bed.is_status(ann, session, eve="failed")
    link = eve.link(id_of(ann))
    link.send(proto.READY, session=session.number, port=port)
    ask(bed, eve, ann, proto.PING)
    assert session.members[id_of(eve)].status == proto.BROKEN


def test_offers_of_the_removed_do_not_come_in_while_their_signatures_are_looked_at(bed, studio):
    ann, bob, eve = bed.nodes
    deaf(eve, proto.DENY)
    rows = [Offer.signed(eve.identity.key, f"app{number}", bytes([number + 1]) * 32, 5, studio.tag, 1, 1).row() for number in range(40)]
    eve.link(id_of(ann)).send(proto.CATALOGUE, offers=rows, holdings=[])
    bed.until(lambda: ann.offers._to_verify, "the catalogue")
    removed(bed, ann, studio, eve)
    bed.until(lambda: not ann.offers._to_verify, "all to be looked at")
    assert not [offer for offer in ann.offers.catalogue.offers([studio.tag]) if offer.publisher_id == id_of(eve)]


@pytest.mark.parametrize("trick", ["an offer in lan", "an invitation that nobody answered"])
def test_who_knows_a_version_of_another_network_is_not_served_it_on_his_own_word(bed, studio, trick):
    ann, bob, eve = bed.nodes
    version = share(bed, ann, "studio")
    deaf(eve, proto.DENY)
    removed(bed, ann, studio, eve)
    lan, me, you = ann.networks.tags[0], id_of(eve), id_of(ann)
    assert is_refused(bed, eve, ann, version)
    if trick == "an offer in lan":
        bed.do(eve.offers._publish("mine", version, lan, 1, 9))
        eve.offers._announce()
        bed.until(lambda: ann.offers.catalogue.newest("mine", me), "the offer")
    else:
        rows = [dict(id=node_id, name="x", status=0, address="", port=0, exit=0) for node_id in (me, you)]
        eve.link(you).send(proto.INVITE, session=77, app="tool", version=version, publisher=me, network=lan, files=1, bytes=1, arguments=[],
                           roster=rows, port=1, token=bytes(32), expires_s=60)
        bed.until(lambda: ann.asking.request_rows(), "the request")
    assert is_refused(bed, eve, ann, version)


def test_the_open_networks_key_makes_nobody_an_admin(bed):
    ann, bob, eve = bed.nodes
    lan = ann.networks.by_name("lan")
    with pytest.raises(Refusal):
        ask(bed, eve, ann, proto.ADMIN, network=lan.tag, key=lan.ca_key.d.to_bytes(32, "big"))
    assert not any("an admin" in line for line in bed.said["ann"])


def test_a_disk_that_is_full_does_not_undo_a_removal(bed, studio):
    ann, bob, eve = bed.nodes
    deaf(eve, proto.DENY)
    write = bob.networks._disk.write_atomic

    def full(path, data, *mode):
        if "networks" in str(path):
            raise UserError("no space left on the disk", code="disk")
        return write(path, data, *mode)
    bob.networks._disk = SimpleNamespace(write_atomic=full)
    removed(bed, ann, studio, eve)
    bed.until(lambda: id_of(eve) in bob.networks.by_tag(studio.tag).denied, "bob to hear")
    bed.until(lambda: not is_member(studio, bob, eve), "bob to do it")
    assert any("could not be written down" in line for line in bed.said["bob"])
