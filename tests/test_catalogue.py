"""Who offers and who holds what: only what its publisher signed, the newest of it, and never more than there is room for."""

import random

import pytest

from p2p.codec import as_dict
from p2p import limits, proto
from p2p.sync.catalogue import WITHDRAWN, Catalogue, Offer
from p2p.trust.ecc import SPKI_HEAD, PrivateKey

ANN, BOB = PrivateKey(1001), PrivateKey(1002)
V1, V2, V3 = b"1" * 32, b"2" * 32, b"3" * 32
LAN, TEAM = b"an open.", b"the team"


def offered(publisher=1, name="chat", version=V1, serial=1, network=LAN, files=3, size=10):
    """An offer as the catalogue gets it: its signature was looked at elsewhere."""
    key = SPKI_HEAD + b"\x04" + publisher.to_bytes(64, "big")
    return Offer(name, key, version, serial, network, files, size, b"s" * 64)


def id_of(publisher):
    return offered(publisher).publisher_id


# -- signatures

def test_a_signed_offer_travels_and_is_authentic_elsewhere():
    offer = Offer.signed(ANN, "chat", V1, 7, LAN, 3, 1000)
    body = proto.CATALOGUE.pack(offers=[offer.row()], holdings=[])
    told = proto.CATALOGUE.unpack(body).offers[0]
    again = Offer(**as_dict(told))
    assert again.row() == offer.row() and again.is_authentic() and again.publisher_id == ANN.public.node_id
    assert Catalogue().add(again)


def test_any_change_to_a_signed_offer_is_noticed():
    row = Offer.signed(ANN, "chat", V1, 7, LAN, 3, 1000).row()
    others = {"name": "chas", "publisher": BOB.public.spki, "version": V2, "serial": 8, "network": b"an open ", "files": 4,
              "bytes": 1001, "signature": bytes(64)}
    for field, value in others.items():
        assert not Offer(**dict(row, **{field: value})).is_authentic(), field
    assert not Offer(**dict(row, name="chata", network=LAN[1:])).is_authentic()
    assert not Offer(**dict(row, publisher=bytes(91))).is_authentic()


def test_a_signature_for_something_else_is_no_offer():
    offer = Offer.signed(ANN, "chat", V1, 7, LAN, 3, 1000)
    assert offer.signed_bytes().startswith(b"p2pframe/1 offer\n")
    offer.signature = ANN.sign(offer.signed_bytes()[len(b"p2pframe/1 offer\n"):])
    assert not offer.is_authentic()


@pytest.mark.parametrize("fields", [
    {"name": "../x"}, {"name": ""}, {"name": "a\x1b[2J"}, {"name": "x" * 65}, {"network": b""}, {"network": b"n" * 9},
    {"version": b"1" * 31}, {"files": limits.MAX_FILES + 1}, {"size": limits.MAX_APP_BYTES + 1}])
def test_offers_that_nobody_could_take_are_no_news(fields):
    offer = offered(**fields)
    assert offer.fault() and not Catalogue().is_news(offer) and not Catalogue().add(offer)


def test_a_key_or_signature_of_a_wrong_length_is_no_news():
    row = offered().row()
    for field in ("publisher", "signature"):
        assert not Catalogue().is_news(Offer(**dict(row, **{field: row[field][:-1]})))


# -- newest

def test_the_highest_serial_counts_in_whatever_order_offers_come():
    offers = [offered(version=version, serial=serial) for serial, version in ((1, V1), (2, V2), (2, V3), (3, WITHDRAWN), (4, V1))]
    chance, ends = random.Random(5), set()
    for _ in range(30):
        catalogue = Catalogue()
        chance.shuffle(offers)
        for offer in offers:
            catalogue.add(offer)
            assert not catalogue.is_news(offer) and not catalogue.add(offer)
        ends.add(tuple((offer.serial, offer.version) for offer in catalogue.offers()))
    assert ends == {((4, V1),)}
    catalogue = Catalogue()
    assert catalogue.add(offered(serial=2, version=V2)) and catalogue.add(offered(serial=2, version=V3))
    assert not catalogue.add(offered(serial=2, version=V2))


def test_a_withdrawn_application_is_gone_and_stays_gone():
    catalogue = Catalogue()
    catalogue.add(offered(serial=5, version=V2))
    assert catalogue.add(offered(serial=6, version=WITHDRAWN, files=0, size=0))
    assert not catalogue.add(offered(serial=5, version=V2))
    assert catalogue.newest("chat") is None and catalogue.rows() == [] and catalogue.publishers("chat") == []
    assert catalogue.serial("chat", id_of(1)) == 6 and catalogue.serial("chat", id_of(2)) == 0
    assert [offer.is_withdrawn for offer in catalogue.offers()] == [True]
    assert catalogue.add(offered(serial=7, version=V1)) and catalogue.newest("chat").version == V1


def test_a_row_for_each_name_and_publisher_with_its_newest_version():
    catalogue = Catalogue()
    for offer in (offered(1, version=V1, serial=1, network=LAN), offered(1, version=V2, serial=2, network=TEAM),
                  offered(2, version=V3), offered(2, name="cards", version=V1), offered(3, name="cards", version=WITHDRAWN)):
        assert catalogue.add(offer)
    catalogue.holds(id_of(9), [("chat", V2)])
    rows = [(offer.name, offer.publisher_id, offer.version, holders) for offer, holders in catalogue.rows()]
    assert rows == sorted(rows) and rows[0] == ("cards", id_of(2), V1, [])
    assert sorted(rows[1:]) == sorted([("chat", id_of(1), V2, [id_of(9)]), ("chat", id_of(2), V3, [])])
    assert [offer.network for offer in catalogue.offers({TEAM})] == [TEAM]


def test_a_bare_name_never_means_a_strangers_application_by_surprise():
    me = id_of(8)
    catalogue = Catalogue(me)
    catalogue.add(offered(1, version=V1))
    assert catalogue.newest("chat").publisher_id == id_of(1)
    catalogue.add(offered(2, version=V1, serial=99))
    assert catalogue.newest("chat") is None and catalogue.newest("chat", id_of(2)).serial == 99
    assert catalogue.publishers("chat") == sorted([id_of(1), id_of(2)])
    catalogue.holds(me, [("chat", V1)])
    assert catalogue.newest("chat") is None                  # both offer these files: they do not tell whose they are
    catalogue.pin("chat", id_of(1))
    assert catalogue.newest("chat").publisher_id == id_of(1)
    catalogue.add(offered(1, version=WITHDRAWN, serial=2))
    assert catalogue.newest("chat") is None                  # and not the other's, although it is the only one left
    catalogue.add(offered(8, version=V3))
    assert catalogue.newest("chat").publisher_id == me
    catalogue.add(offered(8, version=WITHDRAWN, serial=2))
    catalogue.pin("chat", None)
    assert catalogue.newest("chat").publisher_id == id_of(2) and catalogue.newest("none") is None


# -- bounds

def test_one_publisher_cannot_fill_the_table():
    catalogue = Catalogue()
    most = limits.MAX_OFFERS_PUBLISHER
    assert all(catalogue.add(offered(1, name=f"a{n}", serial=n)) for n in range(most))
    late = offered(1, name="late")
    assert not catalogue.is_news(late) and not catalogue.add(late) and len(catalogue.offers()) == most
    assert catalogue.add(offered(1, name="a3", serial=99)) and catalogue.add(offered(2, name="late"))
    catalogue.add(offered(1, name="a7", version=WITHDRAWN, serial=100))
    assert catalogue.add(late) and catalogue.serial("a7", id_of(1)) == 0      # the oldest withdrawal made room
    assert len(catalogue.offers()) == most + 1


def test_a_thousand_invented_publishers_push_out_nobody_who_is_here():
    me, friend, far = id_of(5001), id_of(5002), 5003
    catalogue = Catalogue(me)
    assert catalogue.add(offered(7000, name="early"))
    for number in range(limits.MAX_OFFERS - 1):
        assert catalogue.add(offered(number, name="spam"))
    for number in range(8000, 8050):
        assert not catalogue.is_news(offered(number, name="spam"))
    assert catalogue.add(offered(5001, name="mine"))
    catalogue.holds(friend, [("passed-on", V1)])
    assert catalogue.add(offered(5002, name="theirs")) and catalogue.add(offered(far, name="passed-on"))
    assert len(catalogue.offers()) == limits.MAX_OFFERS
    for number in range(9000, 9400):                          # and spam that somebody says to hold
        catalogue.holds(id_of(6000), [("spam", V2)])
        catalogue.add(offered(number, name="spam", version=V2))
    assert len(catalogue.offers()) == limits.MAX_OFFERS
    assert {"mine", "theirs", "passed-on"} <= {offer.name for offer in catalogue.offers()}


def test_who_is_here_makes_room_only_as_long_as_somebody_ranks_lower():
    catalogue = Catalogue()
    catalogue.holds(id_of(9000), [("held", V1)])
    assert catalogue.add(offered(1, name="spam"))
    for number in range(2, limits.MAX_OFFERS + 1):
        assert catalogue.add(offered(number, name="held"))
    assert catalogue.add(offered(5000, name="held"))
    assert not catalogue.is_news(offered(5001, name="held")) and not catalogue.add(offered(5001, name="held"))
    catalogue.forget(id_of(9000))
    catalogue.holds(id_of(9001), [("late", V1)])
    assert catalogue.add(offered(5001, name="late")) and not catalogue.is_news(offered(5002, name="held"))


def test_holdings_are_bounded_and_follow_the_node():
    catalogue = Catalogue(id_of(0))
    many = [(f"a{n}", V1) for n in range(limits.MAX_HOLDINGS_NODE + 10)]
    catalogue.holds(id_of(0), many)
    assert len(catalogue.held_by(id_of(0))) == len(many)          # of itself a node knows all
    catalogue.holds(id_of(1), many)
    assert len(catalogue.held_by(id_of(1))) == limits.MAX_HOLDINGS_NODE
    for number in range(2, 40):
        catalogue.holds(id_of(number), many)
    total = sum(len(catalogue.held_by(id_of(number))) for number in range(40))
    assert total <= limits.MAX_HOLDINGS
    catalogue.holds(id_of(1), [("chat", V1), ("../x", V1), ("chat", V1)])
    assert catalogue.held_by(id_of(1)) == [("chat", V1)] and catalogue.holders("chat", V1) == [id_of(1)]
    catalogue.holds(id_of(2), [("chat", V1)])
    assert catalogue.holders("chat", V1) == sorted([id_of(1), id_of(2)])
    for number in range(40):
        catalogue.forget(id_of(number))
        catalogue.forget(id_of(number))
    assert catalogue.holders("chat", V1) == [] and catalogue.held_by(id_of(1)) == []
    catalogue.holds(id_of(3), many[:5])
    assert len(catalogue.held_by(id_of(3))) == 5                  # the room is back


def test_no_more_nodes_hold_something_than_there_are_members():
    catalogue = Catalogue(id_of(0))
    for number in range(1, limits.MAX_MEMBERS + 5):
        catalogue.holds(id_of(number), [("chat", V1)])
    catalogue.holds(id_of(0), [("chat", V1)])
    assert len(catalogue.holders("chat", V1)) == limits.MAX_MEMBERS + 1


def test_a_full_table_is_not_looked_through_for_each_offer_of_a_message(monkeypatch):
    catalogue = Catalogue()
    for number in range(limits.MAX_OFFERS):
        catalogue.add(offered(number, name="spam"))
    catalogue.holds(id_of(7000), [("spam", V1), ("more", V1)])
    looked_at, rank = [], Catalogue._rank
    monkeypatch.setattr(Catalogue, "_rank", lambda self, offer: looked_at.append(offer) or rank(self, offer))
    assert not any(catalogue.is_news(offered(number, name="more")) for number in range(2000, 2100))
    assert len(looked_at) == limits.MAX_OFFERS + 100


def test_the_very_same_offer_is_known_by_its_signature_until_another_takes_its_place():
    catalogue = Catalogue()
    first, second = (Offer.signed(ANN, "chat", V1, serial, LAN, 3, 10) for serial in (1, 2))
    assert not catalogue.is_known(first.signature)
    editions = [catalogue.edition]
    for known in (first, second):
        catalogue.add(known)
        editions.append(catalogue.edition)
    assert catalogue.is_known(second.signature) and not catalogue.is_known(first.signature)
    assert len(set(editions)) == 3 and not catalogue.add(first) and catalogue.edition == editions[-1]


def test_what_others_hold_is_not_told_again_and_what_this_node_holds_is():
    catalogue = Catalogue(bytes(32))
    catalogue.holds(b"b" * 32, [("chat", bytes(32))])
    assert catalogue.edition == 0
    catalogue.holds(bytes(32), [("chat", bytes(32))])
    assert catalogue.edition == 1
