"""Names that look alike."""
import pytest

from p2p.lookalike import skeleton


@pytest.mark.parametrize("one, other", [
    ("bob", "BOB"), ("bob", "b0b"), ("bob", "b\u043eb"), ("alice", "\u0430lice"), ("bill", "biII"), ("paul", "pau1"), ("modern", "modem"),
    ("win", "vvin"), ("büro", "bu\u0308ro"), ("büro", "buro"), ("anton", "\u0430nt\u03bfn"), ("bob", "\uff42ob"), ("straße", "strasse"),
    ("x", "\u0445"),
    ("bob", "bob@k3f9ab"), ("bob", "bob (this node)"), ("bob", "B0B (NOT the known one)"), ("bob", "bob@")])
def test_names_that_look_alike_have_one_skeleton(one, other):
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize("one, other", [
    ("bob", "rob"), ("pc1", "pc2"), ("lab1-12", "lab11-2"), ("ann", "anna"), ("node5", "nodes"), ("bob", "bob.local"), ("a b", "ab"),
    ("(a)", "(b)"), ("@a", "@b")])
def test_others_do_not(one, other):
    assert skeleton(one) != skeleton(other)
