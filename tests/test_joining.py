"""Joining by a code between real roots, all in this process, on real TLS links: who gets in, who does not, and what each is told.

What the verbs print is in test_verbs_networks; what a hostile peer does at the doors is in tests/attacks.
"""

import time

import pytest

from p2p import limits, proto
from p2p.errors import Denied, LinkDown, Refusal, TimedOut, UserError
from p2p.trust import ecc, invitations, network, pake, x509
from p2p.trust.denial import DenyList
from p2p.trust.pake import Password
from tests.test_asking import Roots

STUDIO = "studio"


def found(node, name=STUDIO):
    """A managed network of which this node is the first admin."""
    made = network.managed_network(name, node.loop.entropy)
    node.networks.add(made)
    return made


def id_of(node):
    return node.identity.node_id


@pytest.fixture
def roots(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "JOIN_MEET_FOR", 0.0)      # they have met
    made = []

    def make(*names):
        made.append(Roots(tmp_path, names))
        return made[0]
    yield make
    for bed in made:
        bed.close()


@pytest.fixture
def two(roots):
    return roots("ann", "bob")


def other_code(code):
    """A code with the same selector that is not this one."""
    return code[:-1] + ("a" if code[-1] != "a" else "b")


def names(node):
    return [known.name for known in node.networks.all()]


def joined(bed, node, code):
    return bed.do(node.joining.join(code))


def ask(bed, node, peer, message, **fields):
    """What a peer answers to a request over the real link."""
    async def asking():
        return await node.link(id_of(peer)).request(message, **fields)
    return bed.do(asking())


def refused(bed, node, code):
    with pytest.raises(UserError) as error:
        joined(bed, node, code)
    return error.value


def test_who_was_told_the_code_is_a_member_and_nobody_else_is_by_it(two):
    ann, bob = two.nodes
    studio = found(ann)
    invitation = two.do(ann.inviting.invite(studio))
    made = joined(two, bob, invitation.code)
    assert (made.name, made.kind, made.tag, made.is_admin) == (STUDIO, "managed", studio.tag, False)
    for one, other in ((ann, bob), (bob, ann)):
        two.until(lambda one=one, other=other: studio.tag in one.link(id_of(other)).networks, "them to greet each other", 1.0)
    assert names(bob) == ["lan", STUDIO] and bob.networks.by_name(STUDIO).udp_key == studio.udp_key
    assert not ann.inviting.invitations.all()
    assert any("joined studio" in line for line in two.said["ann"])
    error = refused(two, bob, invitation.code)
    assert (error.code, error.exit) == ("no-such-invitation", 1) and "ask" not in str(error)


def test_a_wrong_code_says_how_many_tries_are_left_and_the_third_burns_it(two):
    ann, bob = two.nodes
    code = two.do(ann.inviting.invite(found(ann))).code
    for left in ("2 tries left", "1 try left", "burned now"):
        error = refused(two, bob, other_code(code))
        assert isinstance(error, Denied) and error.exit == 4 and left in str(error)
    assert refused(two, bob, code).exit == 1 and names(bob) == ["lan"]
    assert sum("tries the code" in line for line in two.said["ann"]) == 3
    assert any("is burned: 3 tries, none right" in line for line in two.said["ann"]) and not ann.inviting.invitations.all()


def test_the_right_code_still_counts_after_two_wrong_ones(two):
    ann, bob = two.nodes
    code = two.do(ann.inviting.invite(found(ann))).code
    for _ in range(2):
        refused(two, bob, other_code(code))
    assert joined(two, bob, code).name == STUDIO


def test_a_code_that_nobody_made_is_tried_nowhere(two):
    ann, bob = two.nodes
    code = two.do(ann.inviting.invite(found(ann))).code
    wrong = ("b" if code[0] == "a" else "a") + code[1:]
    error = refused(two, bob, wrong)
    assert (error.code, error.exit) == ("no-such-invitation", 1) and "connect HOST" in str(error)
    assert ann.inviting.invitations.all()[0].left == limits.JOIN_TRIES


def test_codes_end_after_ten_minutes(two, monkeypatch):
    ann, bob = two.nodes
    studio = found(ann)
    code = two.do(ann.inviting.invite(studio)).code
    ann.inviting.invitations.time(two.loop.now() + limits.JOIN_FOR - 1)
    assert ann.inviting.invitations.all()
    ann.inviting.invitations.time(two.loop.now() + limits.JOIN_FOR)
    assert refused(two, bob, code).exit == 1
    monkeypatch.setattr(limits, "JOIN_FOR", 0.2)
    code = two.do(ann.inviting.invite(studio)).code
    two.until(lambda: not ann.inviting.invitations.all(), "the timer to end it")
    assert any("has expired" in line for line in two.said["ann"]) and refused(two, bob, code).exit == 1


def test_the_one_who_invited_is_found_among_others_with_the_same_selector(roots, monkeypatch):
    bed = roots("ann", "bob", "eve")
    ann, bob, eve = bed.nodes
    monkeypatch.setattr(invitations, "draw_code", lambda data: "kx" + ecc.node_id_text(data.ljust(32))[:6])
    codes = [bed.do(node.inviting.invite(found(node, name))).code for node, name in ((ann, "one"), (eve, "two"))]
    assert codes[0][:2] == codes[1][:2] and codes[0] != codes[1]
    assert joined(bed, bob, codes[1]).name == "two" and joined(bed, bob, codes[0]).name == "one"
    bed.do(ann.inviting.invite(ann.networks.by_name("one"))), bed.do(eve.inviting.invite(eve.networks.by_name("two")))
    error = refused(bed, bob, "kx222222")
    assert error.exit == 4 and "2 nodes" in str(error)


def test_only_an_admin_of_a_managed_network_invites(two):
    ann, bob = two.nodes
    with pytest.raises(UserError) as error:
        two.do(ann.inviting.invite(ann.networks.by_name("lan")))
    assert error.value.code == "not-managed"
    code = two.do(ann.inviting.invite(found(ann))).code
    joined(two, bob, code)
    with pytest.raises(UserError) as error:
        two.do(bob.inviting.invite(bob.networks.by_name(STUDIO)))
    assert error.value.code == "not-admin"


def test_whoever_says_yes_to_every_selector_gets_one_guess_and_the_joiner_goes_on(roots):
    bed = roots("ann", "bob", "eve")
    ann, bob, eve = bed.nodes
    code = bed.do(ann.inviting.invite(found(ann))).code
    guessed = bed.loop.future()

    async def says_yes(connection, asked):
        return {"found": True}

    async def guesses(connection, said):
        guessed.set(said)
        ids = id_of(bob), id_of(eve)
        run = pake.Run(Password.of(other_code(code)), False, pake.fresh_scalar(eve.loop.entropy(48)), ids)
        return {"share": run.share, "confirmation": run.finish(said.share).confirmation, "left": 2}

    async def says_so_later(connection, asked):
        await guessed
        return {"found": True}
    eve.dispatch.request(proto.JOIN_SEEK, says_yes)
    eve.dispatch.request(proto.JOIN_TRY, guesses)
    ann.dispatch.request(proto.JOIN_SEEK, says_so_later)
    assert joined(bed, bob, code).name == STUDIO


def test_a_code_is_tried_at_a_few_nodes_at_most(roots, monkeypatch):
    bed = roots("ann", "bob")
    ann, bob = bed.nodes
    code = bed.do(ann.inviting.invite(found(ann))).code
    monkeypatch.setattr(limits, "MAX_INVITERS", 0)
    assert refused(bed, bob, code).code == "no-such-invitation" and ann.inviting.invitations.all()[0].left == limits.JOIN_TRIES
    monkeypatch.setattr(limits, "MAX_INVITERS", 1)
    assert joined(bed, bob, code).name == STUDIO


def test_a_root_that_has_just_started_meets_the_others_before_it_says_that_nobody_has_it(roots, monkeypatch):
    bed = roots("ann")
    code = bed.do(bed.nodes[0].inviting.invite(found(bed.nodes[0]))).code
    monkeypatch.setattr(limits, "JOIN_MEET_FOR", 5.0)
    bed.said["bob"] = []
    bob = bed.start("bob")
    assert not list(bob.links) and joined(bed, bob, code).name == STUDIO


def test_credentials_that_were_changed_on_the_way_are_not_taken(two):
    ann, bob = two.nodes
    code = two.do(ann.inviting.invite(found(ann))).code

    async def changes(connection, said):
        given = await ann.inviting._on_confirm(connection, said)
        return dict(given, credentials=given["credentials"][:-1] + b"\1")
    ann.dispatch.request(proto.JOIN_CONFIRM, changes)
    error = refused(two, bob, code)
    assert error.code == "refused" and "not sealed" in str(error) and names(bob) == ["lan"]


def test_an_answer_that_is_lost_after_the_code_was_right_is_told_as_what_it_is(two):
    ann, bob = two.nodes
    code = two.do(ann.inviting.invite(found(ann))).code

    async def hangs_up(connection, said):
        await ann.inviting._on_confirm(connection, said)
        connection.abort()
        await ann.loop.future()
    ann.dispatch.request(proto.JOIN_CONFIRM, hangs_up)
    error = refused(two, bob, code)
    assert error.code == "unreachable" and "code was right" in str(error) and "new code" in str(error)
    assert not ann.inviting.invitations.all() and names(bob) == ["lan"]


def test_a_name_that_is_taken_here_is_told_and_the_code_is_used_up(two):
    ann, bob = two.nodes
    code = two.do(ann.inviting.invite(found(ann))).code
    found(bob)
    error = refused(two, bob, code)
    assert error.code == "in-network" and "ask for a new one" in str(error)
    assert not ann.inviting.invitations.all() and len(names(bob)) == 2
    code = two.do(ann.inviting.invite(ann.networks.by_name(STUDIO))).code
    with pytest.raises(UserError, match="another network that is called"):
        two.do(bob.joining.join(code, STUDIO))
    assert ann.inviting.invitations.all()[0].left == limits.JOIN_TRIES      # that was known before the code was tried
    assert two.do(bob.joining.join(code, "studio2")).name == "studio2" and names(bob) == ["lan", STUDIO, "studio2"]


def test_a_removed_node_is_not_let_in_again_under_its_id(two, monkeypatch):
    ann, bob = two.nodes
    studio = found(ann)
    monkeypatch.setattr(ann.networks, "is_denied", lambda tag, node_id: (tag, node_id) == (studio.tag, id_of(bob)))
    error = refused(two, bob, two.do(ann.inviting.invite(studio)).code)
    assert error.exit == 4 and "removed" in str(error) and names(bob) == ["lan"]
    assert ann.inviting.invitations.all()[0].left == limits.JOIN_TRIES      # and cannot burn the code either


def test_a_removed_member_gets_no_second_code_and_who_comes_later_knows_of_it_by_a_list_that_can_be_passed_on(roots):
    bed = roots("ann", "bob", "eve")
    ann, bob, eve = bed.nodes
    tag = found(ann).tag

    def code():
        return bed.do(ann.inviting.invite(ann.networks.by_tag(tag))).code
    joined(bed, bob, code())
    bed.do(ann.removal.remove(ann.networks.by_tag(tag), id_of(bob)))
    bed.until(lambda: names(bob) == ["lan"], "bob to hear of it")
    again = code()
    assert "removed" in str(refused(bed, bob, again)) and names(bob) == ["lan"]
    made = joined(bed, eve, again)
    assert made.denied == {id_of(bob)} and made.udp_key == ann.networks.by_tag(tag).udp_key
    bed.until(lambda: eve.networks.by_tag(tag).lists == ann.networks.by_tag(tag).lists, "eve to have the list itself")


def test_a_member_learns_who_was_removed_however_many_they_are(two):
    ann, bob = two.nodes
    studio = found(ann)
    removed = frozenset(number.to_bytes(32, "big") for number in range(limits.MAX_DENIED))
    whole = DenyList.signed(studio.ca_key, studio.tag, 7, removed, studio.udp_key)
    ann.networks.replace(studio.changed(denied=removed, epoch=7, lists=[whole.data]))
    made = joined(two, bob, two.do(ann.inviting.invite(ann.networks.by_name(STUDIO))).code)
    assert (made.denied, made.epoch, made.lists) == (removed, 7, (whole.data,))


@pytest.mark.parametrize("what", ["a CA that OpenSSL cannot read", "a list of another network", "a list of another key", "no list"])
def test_what_an_inviter_hands_over_is_looked_at_before_it_counts(two, what):
    """Its code is right, and what follows would stop all that this node accepts, or bring somebody back."""
    ann, bob = two.nodes
    studio = found(ann)
    other_key, one = ecc.PrivateKey.generate(two.loop.entropy), b"\5" * 32
    spoilt = {
        "a CA that OpenSSL cannot read": dict(ca=x509._sequence(x509._body("x", studio.ca_public, "x", 5, []), b"garbage")),
        "a list of another network": dict(lists=[DenyList.signed(studio.ca_key, b"another-", 1, [one], bytes(32)).data]),
        "a list of another key": dict(lists=[DenyList.signed(other_key, studio.tag, 1, [one], bytes(32)).data]),
        "no list": dict(lists=[b"short"])}[what]
    invitation = two.do(ann.inviting.invite(studio))
    ann.networks._by_tag[studio.tag] = studio.changed(**spoilt)
    error = refused(two, bob, invitation.code)
    assert names(bob) == ["lan"] and "\n" not in str(error)
    bob.networks.server_context()


def test_a_network_that_was_left_meanwhile_takes_nobody_in(two):
    ann, bob = two.nodes
    studio = found(ann)
    code = two.do(ann.inviting.invite(studio)).code
    ann.networks.remove(studio.tag)
    assert refused(two, bob, code).code == "no-such-invitation" and not ann.inviting.invitations.all()


def test_a_certificate_of_another_network_or_node_is_not_kept(two, monkeypatch):
    ann, bob = two.nodes
    studio, other = found(ann), network.managed_network("other", two.loop.entropy)
    for leaf in (lambda spki, serial: other.issue(spki, serial), lambda spki, serial: studio.issue(ann.identity.spki, serial),
                 lambda spki, serial: b"\x30\x03abc"):
        code = two.do(ann.inviting.invite(studio)).code
        with monkeypatch.context() as patch:
            patch.setattr(ann.networks, "by_tag", lambda tag, leaf=leaf: _With(studio, leaf))
            error = refused(two, bob, code)
        assert error.code == "refused" and names(bob) == ["lan"]
        two.until(two.have_met, "them to meet again")


class _With:
    """A network that issues something else."""

    def __init__(self, network, issue):
        self._network, self.issue = network, issue

    def __getattr__(self, name):
        return getattr(self._network, name)


def test_a_certificate_is_made_for_the_joiners_own_key_only(two):
    ann, bob = two.nodes
    code = two.do(ann.inviting.invite(found(ann))).code
    stranger = ecc.PrivateKey.generate(two.loop.entropy).public.spki
    with pytest.raises(LinkDown):
        ask(two, bob, ann, proto.JOIN_CONFIRM, selector=code[:2], confirmation=bytes(32), key=stranger)


def test_a_try_that_is_no_point_costs_the_try_and_the_link(two):
    ann, bob = two.nodes
    code = two.do(ann.inviting.invite(found(ann))).code
    with pytest.raises(LinkDown):
        ask(two, bob, ann, proto.JOIN_TRY, selector=code[:2], share=b"\x04" + bytes(64))
    assert ann.inviting.invitations.all()[0].left == 2 and ann.refused == {"share": 1}
    two.until(two.have_met, "them to meet again")
    assert joined(two, bob, code).name == STUDIO


def test_selectors_cannot_be_tried_one_after_the_other(two):
    ann, bob = two.nodes
    two.do(ann.inviting.invite(found(ann)))
    answers = 0
    with pytest.raises(Refusal) as error:
        for first in invitations.ALPHABET:
            ask(two, bob, ann, proto.JOIN_SEEK, selector=first + "a")
            answers += 1
    assert error.value.code == proto.BUSY and 10 <= answers <= 20
    error = refused(two, bob, "kxabcdef")
    assert error.code == "busy" and "ten seconds" in str(error)


def test_joining_takes_well_under_a_second(two):
    ann, bob = two.nodes
    code = two.do(ann.inviting.invite(found(ann))).code
    began = time.monotonic()
    joined(two, bob, code)
    assert time.monotonic() - began < 1.0


def test_a_node_that_does_not_answer_is_a_timeout(two, monkeypatch):
    ann, bob = two.nodes
    monkeypatch.setattr(limits, "JOIN_SEEK_FOR", 0.2)

    async def never(connection, said):
        await two.loop.future()
    ann.dispatch.request(proto.JOIN_SEEK, never)
    error = refused(two, bob, "kxabcdef")
    assert isinstance(error, TimedOut) and error.exit == 5


def test_alone_it_says_that_nobody_is_here(roots, monkeypatch):
    bed = roots("ann")
    monkeypatch.setattr(limits, "JOIN_SEEK_FOR", 0.2)
    error = refused(bed, bed.nodes[0], "kxabcdef")
    assert error.exit == 1 and "nobody else is here" in str(error) and "connect HOST" in str(error)
