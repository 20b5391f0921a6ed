"""This user's word: nothing is accepted by itself, and a rule is good for exactly what was answered."""

import json
import random

import pytest

from p2p import limits
from p2p.errors import UserError
from p2p.trust.consent import ALLOW, ASK, DENY, REFUSE, Consent, Expired, RulesChanged, prompt

ANN, EVE = b"\1" * 32, b"\3" * 32
V1, V2 = b"v" * 32, b"w" * 32


@pytest.fixture
def consent():
    return Consent()


def ask(consent, now=0.0, node=ANN, app="chat", version=V1, arguments=("a", "b"), name="ann"):
    return consent.ask("run", node, name, app, version, list(arguments), object(), now)


def test_a_request_waits_and_time_means_no(consent):
    answer, request = ask(consent)
    assert answer == ASK and consent.requests() == [request]
    assert request.row(10.0) == {"request": 1, "kind": "run", "node": request.row(0)["node"], "name": "ann", "app": "chat",
                                 "version": V1.hex(), "args": ["a", "b"], "expires_s": 50.0}
    assert consent.deadline() == limits.ASK_FOR
    consent.time(limits.ASK_FOR - 0.1)
    assert consent.effects() == []
    consent.time(limits.ASK_FOR)
    assert consent.effects() == [Expired(request)] and consent.requests() == []
    with pytest.raises(UserError, match="no request 1"):
        consent.allow(1)


def test_an_answer_closes_exactly_its_own_request(consent):
    _, first = ask(consent)
    _, second = ask(consent, app="other")
    assert consent.allow(2) is second and consent.requests() == [first]
    assert consent.deny(1) is first
    assert consent.rules() == [] and consent.effects() == []


def test_a_rule_binds_node_application_version_and_arguments(consent):
    ask(consent)
    consent.allow(1, always=True)
    assert consent.effects() == [RulesChanged()]
    assert ask(consent, 100.0)[0] == ALLOW
    for number, other in enumerate(({"node": EVE}, {"app": "chat2"}, {"version": V2}, {"arguments": ("a",)}, {"arguments": ("a b",)},
                                    {"arguments": ("b", "a")}, {"arguments": ()})):
        answer, request = ask(consent, 200.0 + 100 * number, **other)
        assert answer == ASK, other
        consent.deny(request.number)


def test_a_name_binds_nothing(consent):
    ask(consent)
    consent.allow(1, always=True)
    assert ask(consent, 100.0, node=EVE, name="ann")[0] == ASK
    assert ask(consent, 100.0, node=ANN, name="somebody else")[0] == ALLOW


def test_any_args_widens_the_rule_to_all_arguments_of_that_version_and_no_more(consent):
    ask(consent)
    consent.allow(1, always=True, any_args=True)
    assert ask(consent, 100.0, arguments=("--rm", "x"))[0] == ALLOW
    assert ask(consent, 200.0, version=V2)[0] == ASK


def test_never_denies_by_itself(consent):
    ask(consent)
    consent.deny(1, never=True)
    assert ask(consent, 100.0)[0] == DENY


def test_a_dropped_rule_asks_again(consent):
    ask(consent)
    consent.allow(1, always=True)
    consent.drop_rule(1)
    assert ask(consent, 100.0)[0] == ASK
    with pytest.raises(UserError, match="no rule 1"):
        consent.drop_rule(1)


def test_one_peer_has_three_open_requests_and_another_is_not_kept_out(consent):
    for _ in range(limits.MAX_REQUESTS_OPEN):
        assert ask(consent)[0] == ASK
    assert ask(consent, 1000.0)[0] == REFUSE
    assert ask(consent, node=EVE)[0] == ASK


def test_a_burst_and_then_one_in_ten_seconds(consent):
    def asked(now):
        answer, request = ask(consent, now)
        if answer == ASK:
            consent.deny(request.number)
        return answer
    assert [asked(0.0) for _ in range(4)] == [ASK] * limits.REQUEST_BURST + [REFUSE]
    assert asked(limits.REQUEST_REFILL - 0.1) == REFUSE
    assert asked(limits.REQUEST_REFILL) == ASK
    assert asked(limits.REQUEST_REFILL) == REFUSE
    assert sum(asked(20.0 + tenth / 10) == ASK for tenth in range(1000)) in (10, 11, 12)


def test_a_withdrawn_request_cannot_be_allowed_any_more(consent):
    _, request = ask(consent)
    consent.withdraw(request.subject)
    with pytest.raises(UserError):
        consent.allow(1)


def test_rules_survive_a_restart_exactly(consent):
    ask(consent, arguments=("ü", "a b", ""))
    consent.allow(1, always=True)
    ask(consent, app="other")
    consent.deny(2, never=True)
    ask(consent, app="third")
    consent.allow(3, always=True, any_args=True)
    again = Consent()
    again.from_json(consent.to_json())
    assert [rule.row() for rule in again.rules()] == [rule.row() for rule in consent.rules()]
    assert ask(again, 0.0, arguments=("ü", "a b", ""))[0] == ALLOW
    ask(again, 0.0, app="fourth")
    again.allow(again.requests()[0].number, always=True)
    assert [rule.number for rule in again.rules()] == [1, 2, 3, 4]


def test_a_damaged_file_of_rules_gives_its_error_and_no_rule(consent):
    ask(consent)
    consent.allow(1, always=True)
    good = consent.to_json()
    dice = random.Random(4)
    for _ in range(2000):
        mutated = bytearray(good)
        for _ in range(dice.choice([1, 3, 10])):
            mutated[dice.randrange(len(mutated))] = dice.randrange(256)
        fresh = Consent()
        try:
            fresh.from_json(bytes(mutated))
        except ValueError:
            assert fresh.rules() == []
    for bad in (b"", b"[", b"{}", b"[1]", b"[null]", b'[{"rule": 1}]', b"\xff"):
        with pytest.raises(ValueError):
            Consent().from_json(bad)


def test_rules_are_bounded(consent):
    for number in range(limits.MAX_RULES):
        ask(consent, 100.0 * number, app=f"app{number}")
        consent.allow(number + 1, always=True)
    ask(consent, 1e9)
    with pytest.raises(UserError, match="drop some"):
        consent.allow(limits.MAX_RULES + 1, always=True)


def test_the_prompt_says_who_what_which_and_how_and_lets_nothing_hostile_through(consent):
    _, request = ask(consent, name="b\x1b[2Job\n\u202e", app="chat", arguments=("--x", "two words", "\x1b]0;pwned\x07", "; rm -rf ~"))
    line = prompt(request, "first seen today")
    assert "\x1b" not in line and "\n" not in line and "\u202e" not in line and "\x07" not in line
    assert line.startswith("[1] b") and "(aeaqcaibae…, first seen today) wants to run chat 767676…" in line
    assert "--x 'two words'" in line and "'; rm -rf ~'" in line and line.endswith("— allow 1 | deny 1 (60 s)")


def test_an_answer_that_cannot_be_remembered_leaves_the_request_open(consent, monkeypatch):
    monkeypatch.setattr(limits, "MAX_RULES", 0)
    _, request = ask(consent)
    with pytest.raises(UserError, match="answer this once only"):
        consent.allow(1, always=True)
    assert consent.requests() == [request] and consent.effects() == []
    assert consent.allow(1) is request


def test_of_two_answers_to_the_same_thing_the_newest_counts_and_a_no_beats_a_wider_yes(consent):
    assert [ask(consent)[0] for _ in range(3)] == [ASK] * 3
    consent.allow(1, always=True)
    consent.deny(2, never=True)
    assert [(rule.number, rule.answer) for rule in consent.rules()] == [(2, DENY)]
    consent.drop_rule(2)
    ask(consent, 100.0)
    consent.allow(3, always=True, any_args=True)
    consent.deny(4, never=True)
    assert ask(consent, 200.0)[0] == DENY and ask(consent, 200.0, arguments=("other",))[0] == ALLOW


def test_rules_never_grow_beyond_what_the_next_start_reads(consent):
    """A peer chooses its arguments; with large ones a thousand rules were a file that no start would take."""
    with pytest.raises(UserError, match="drop some"):
        for number in range(1, limits.MAX_RULES):
            ask(consent, 100.0 * number, app=f"app{number}", arguments=["\u20ac" * 341] * 64)
            consent.allow(number, always=True)
    data = consent.to_json()
    assert limits.MAX_RULES_FILE // 2 < len(data) <= limits.MAX_RULES_FILE
    again = Consent()
    again.from_json(data)
    assert len(again.rules()) == len(consent.rules())


def test_a_file_of_rules_is_taken_literally_or_not_at_all(consent):
    """What has another type is not converted: "rm" is not the arguments r and m, and null alone means any."""
    ask(consent)
    consent.allow(1, always=True)
    row = json.loads(consent.to_json().decode())[0]
    for change in ({"args": "rm"}, {"args": [1]}, {"args": {"a": 1}}, {"args": False}, {"app": ["chat"]}, {"app": None}, {"rule": True},
                   {"rule": -7}, {"rule": 0}, {"rule": "1"}, {"rule": 1.0}, {"rule": float("inf")}, {"rule": float("nan")},
                   {"rule": 1 << 60}, {"answer": "ask"}, {"answer": None}, {"version": "00"}, {"node": "aaaa"}, {"node": None}):
        fresh = Consent()
        with pytest.raises(ValueError):
            fresh.from_json(json.dumps([dict(row, **change)]).encode())
        assert fresh.rules() == [], change
    for rows in ([row, row], [row, dict(row, answer="deny")]):
        with pytest.raises(ValueError):
            Consent().from_json(json.dumps(rows).encode())
    for deep in (b"[" * 100_000, b'[{"rule":' * 50_000):
        with pytest.raises(ValueError):
            Consent().from_json(deep)


def test_inventing_identities_gives_no_fresh_budget(consent, monkeypatch):
    monkeypatch.setattr(limits, "MAX_MEMBERS", 8)

    def asked(node, now):
        answer, request = ask(consent, now, node=node)
        if answer == ASK:
            consent.deny(request.number)
        return answer
    assert [asked(EVE, 0.0) for _ in range(4)][-1] == REFUSE
    for number in range(40, 80):
        asked(bytes([number]) * 32, 0.1)
        assert asked(EVE, 0.2) == REFUSE


PUBLISHER, ELSEWHERE = (b"studio--", b"\7" * 32), (b"others--", b"\7" * 32)


def offered(consent, version, publisher, now=0.0, node=ANN):
    return consent.ask("run", node, "ann", "chat", version, [], object(), now, publisher)


def test_a_publisher_can_be_trusted_with_all_versions_where_he_is_told_for_sure(consent):
    _, request = offered(consent, V1, PUBLISHER)
    consent.allow(request.number, always=True, any_version=True)
    assert consent.trusts(ANN, "chat", PUBLISHER) and not consent.trusts(ANN, "chat", ELSEWHERE)
    assert offered(consent, V2, PUBLISHER, 100.0)[0] == ALLOW
    again = Consent()
    again.from_json(consent.to_json())
    for known in (consent, again):
        assert offered(known, V2, PUBLISHER, 150.0)[0] == ALLOW
        for number, (version, publisher, node) in enumerate((
                (V2, (PUBLISHER[0], EVE), ANN), (V2, ELSEWHERE, ANN), (V2, None, ANN), (V1, None, ANN), (V2, PUBLISHER, EVE))):
            answer, request = offered(known, version, publisher, 200.0 + 100 * number, node)
            assert answer == ASK, number
            known.deny(request.number)


def test_no_publisher_is_trusted_with_all_versions_where_anybody_could_be_one(consent):
    _, request = offered(consent, V1, None)
    with pytest.raises(UserError, match="managed networks only"):
        consent.allow(request.number, always=True, any_version=True)
    assert consent.requests() == [request] and consent.rules() == []
