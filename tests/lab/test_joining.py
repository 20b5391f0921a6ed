"""Joining a managed network by a code on several computers, through the command line alone."""

import json

import pytest

from p2p import limits
from tests.lab import Lab
from tests.lab.test_framework import meet, see
from tests.waiting import wait_until

pytestmark = pytest.mark.lab

STUDIO = "studio"


def invite(host):
    """A founded network (once) and a code for it."""
    if STUDIO not in names(host):
        host.json("network", "create", STUDIO)
    row = host.json("network", "invite", STUDIO)
    assert len(row["code"]) == 8 and limits.JOIN_FOR - 5 < row["expires_s"] <= limits.JOIN_FOR
    return row["code"]


def names(host):
    return [row["name"] for row in host.json("networks")]


def greeted(host, *others, timeout=5.0):
    """Wait until this host lists these as members of the network."""
    def seen():
        return {row["name"] for row in host.json("nodes") if STUDIO in row["networks"] and row["state"] == "alive"}
    wait_until(lambda: {other.name for other in others} <= seen(), timeout, f"{host.name} to greet the new member", lambda: str(seen()))


def refused(host, code):
    """(exit code, the one line on stderr) of a join."""
    done = host.p2p("network", "join", code)
    assert done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


def wrong(code):
    return code[:-1] + ("a" if code[-1] != "a" else "b")


def test_a_code_lets_one_node_in_which_all_members_greet_and_the_rest_does_not_hear_of():
    with Lab(3) as lab:
        ann, bob, eve = lab.hosts
        meet(lab)
        code = invite(ann)
        joined = bob.json("network", "join", code.upper()[:4] + "-" + code[4:])
        assert (joined["name"], joined["kind"]) == (STUDIO, "managed")
        [row] = [row for row in bob.json("networks") if row["name"] == STUDIO]
        assert (row["tag"], row["kind"], row["admin"]) == (joined["tag"], "managed", False)
        greeted(ann, bob)
        greeted(bob, ann)
        assert names(eve) == ["lan"] and refused(eve, code)[0] == 1
        eve.json("network", "join", invite(ann))
        for host in lab.hosts:
            greeted(host, *lab.hosts)


def test_where_broadcast_is_blocked_a_connect_before_is_enough():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        for host in lab.hosts:
            host.block_broadcast()
        lab.roots()
        code = invite(ann)
        exit_code, said = refused(bob, code)
        assert exit_code == 1 and "connect HOST" in said
        bob.json("connect", ann.address)
        assert bob.json("network", "join", code)["name"] == STUDIO
        greeted(ann, bob)
        see(bob, {ann.name: "alive", bob.name: "alive"})


def test_a_wrong_code_is_a_no_with_the_tries_that_are_left_and_three_burn_it():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        meet(lab)
        code = invite(ann)
        for left in ("2 tries left", "1 try left", "burned"):
            exit_code, said = refused(bob, wrong(code))
            assert exit_code == 4 and left in said, said
        exit_code, said = refused(bob, code)
        assert exit_code == 1 and "no invitation" in said and names(bob) == ["lan"]
        assert "none right" in ann.p2p("log").stdout
        document = json.loads(bob.p2p("--json", "network", "join", wrong(invite(ann))).stdout)
        assert document["error"]["code"] == "denied" and "2 tries left" in document["error"]["message"]


def test_who_may_not_invite_is_told_why_and_a_code_that_is_none_is_a_mistake_of_use():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        meet(lab)
        bob.json("network", "join", invite(ann))
        for host, network in ((ann, "lan"), (bob, STUDIO), (ann, "nothing")):
            done = host.p2p("network", "invite", network)
            assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        assert ann.p2p("network", "join", "kx1").returncode == 2
        assert ann.p2p("network", "invite", STUDIO).stdout.strip().isalnum()      # the code alone, for scripts


def test_an_invitation_ends_with_the_root_that_made_it_and_a_membership_does_not():
    with Lab(2) as lab:
        ann, bob = lab.hosts
        roots = meet(lab)
        unused, code = invite(ann), invite(ann)
        bob.json("network", "join", code)
        for root in roots:
            assert root.stop() == 0
        meet(lab)
        assert names(bob) == ["lan", STUDIO]
        greeted(ann, bob)
        assert refused(bob, unused)[0] == 1
