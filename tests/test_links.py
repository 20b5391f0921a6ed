"""Of several connections with one node one is kept, and what was said on the others is heard."""

import time

import pytest

from p2p import links, proto
from p2p.errors import LinkDown
from tests.nodes import free_port
from tests.test_node import Bed


@pytest.fixture
def bed(tmp_path):
    bed = Bed(tmp_path)
    yield bed
    bed.close()


def pair(bed):
    ann, bob = bed.start("ann"), bed.start("bob")
    bed.meet()
    bed.until(lambda: is_one_wire(ann.links.get(bob.identity.node_id), bob.links.get(ann.identity.node_id)))
    return ann, bob, ann.identity.node_id, bob.identity.node_id


def is_one_wire(one, other):
    dialled, accepted = (one, other) if one.channel.outgoing else (other, one)
    return dialled.channel.outgoing and dialled.channel._sock.getsockname()[1] == accepted.channel.address[1]


def dial_again(bed, ann, bob):
    """A second connection between two nodes that have one, which is old."""
    for node, other in ((ann, bob), (bob, ann)):
        node.links.get(other.identity.node_id).opened_at -= 60.0
    return ann.client.dial([("127.0.0.1", bob.port)], ann.networks.tags[0], bob.identity.node_id)


def test_what_the_other_end_said_on_a_connection_before_it_knew_of_a_newer_one_is_heard_and_answered(bed):
    ann, bob, ann_id, bob_id = pair(bed)
    old = bob.links.get(ann_id)
    asked = []
    adopt = ann.links.adopt

    def adopts(connection):
        kept = adopt(connection)               # bob has heard nothing of the new connection yet
        old.send(proto.VIEW, view=4711)
        asked.append(old.request(proto.SAY, text="hello"))
        return kept
    ann.links.adopt = adopts
    dial_again(bed, ann, bob)
    bed.until(lambda: asked and asked[0].done)
    assert asked[0].error is None and any("hello" in text for name, text in bed.notices if name == "ann")
    bed.until(lambda: bob.links.get(ann_id) is not old)


def test_a_connection_that_was_not_kept_is_closed_after_a_moment_and_its_bytes_still_count(bed, monkeypatch):
    monkeypatch.setattr(links, "HEAR_OUT", 0.2)
    ann, bob, ann_id, bob_id = pair(bed)
    before = ann.traffic().in_bytes
    dials = []
    for _ in range(5):
        dials.append(dial_again(bed, ann, bob))
        bed.until(lambda: dials[-1].done)
        assert len(ann.links._others) <= 1     # whoever dials again and again has one of them
    bed.until(lambda: not ann.links._others and not bob.links._others and not ann.links._unkept and not bob.links._unkept)
    assert ann.link(bob_id) and bob.link(ann_id) and ann.traffic().in_bytes > before
    assert bed.states(ann) == bed.states(bob) == {"ann": "alive", "bob": "alive"}


def test_a_process_that_was_started_anew_is_not_spoken_for_by_the_old_one(bed):
    ann, bob, ann_id, bob_id = pair(bed)
    old = bob.links.get(ann_id)
    ann.links.get(bob_id).hello.nonce -= 1     # as if this had been another process
    dial = dial_again(bed, ann, bob)
    bed.until(lambda: dial.done)
    answer = old.request(proto.SAY, text="from the old one")
    bed.until(lambda: answer.done)
    assert isinstance(answer.error, LinkDown) and not any("old one" in text for _, text in bed.notices)


def test_a_process_that_stood_still_does_not_take_the_others_for_silent(bed):
    kept = links.Links(bed.loop, b"m" * 32, None, None)
    swept = []

    class Silent:
        def sweep(self, now):
            swept.append(now)
    kept.watch(Silent())
    bed.until(lambda: swept)
    swept.clear()
    bed.loop.call_soon(time.sleep, links.STOOD_STILL + 0.3)        # a handler, a debugger, a laptop's lid
    bed.loop.turn(0)
    bed.loop.turn(0)
    assert not swept
    bed.until(lambda: swept)
    kept._timer.cancel()


def test_an_effect_that_fails_costs_the_others_nothing(bed):
    ann = bed.start("ann")

    def breaks(member, what):
        raise ValueError("a bug")
    ann.neighbours._tell = breaks
    bob = bed.start("bob")
    bed.meet()
    assert ann.link(bob.identity.node_id) and bed.events
    bed.events.clear()


def test_what_one_holds_is_told_only_in_the_network_where_it_is_offered(bed):
    ann, bob, ann_id, bob_id = pair(bed)
    for name in ("one", "two"):
        folder = bed.folder / name
        folder.mkdir()
        (folder / "main.py").write_text("pass\n")
        bed.do(ann.offers.share(str(folder), name))
    bed.until(lambda: len(bob.offers.catalogue.held_by(ann_id)) == 2)
    bed.do(ann.offers.unshare("two"))
    assert [row["name"] for row in ann.offers._everything(ann.networks.tags)["holdings"]] == ["one"]
    bed.until(lambda: [name for name, _ in bob.offers.catalogue.held_by(ann_id)] == ["one"])
    assert len(ann.offers.catalogue.held_by(ann_id)) == 2


def test_whoever_is_dialled_does_not_dial_back(bed):
    ann, far = bed.start("ann"), bed.start("far", port=free_port())          # another UDP port: no beacon passes between them
    dialled = []
    dial = bed.loop.dial
    bed.loop.dial = lambda *what: dialled.append(what) or dial(*what)
    bed.do(ann.connect("127.0.0.1", far.port))
    bed.meet()
    end = bed.loop.now() + 0.5
    bed.until(lambda: bed.loop.now() > end)
    assert len(dialled) == 1
    dialled.clear()
    link = far.links.get(ann.identity.node_id)
    link.channel.abort()
    link.fail(LinkDown("the wire broke", "reset"))
    bed.until(lambda: dialled)                                               # but both keep the link
