"""`id --rotate`: another identity, and what that costs is said before."""
import os

import pytest

from tests.nodes import Nodes
from tests.waiting import wait_until


@pytest.fixture
def nodes(tmp_path):
    nodes = Nodes(tmp_path)
    yield nodes
    nodes.close()


def row_of(nodes, looker, node_id):
    return next((row for row in nodes.json(looker, "nodes") if row["id"] == node_id), None)


def test_a_rotated_node_says_what_it_costs_and_is_another_one_to_the_others(nodes, tmp_path):
    ann, bob = nodes.meet("ann", "bob")
    app = tmp_path / "app"
    app.mkdir()
    (app / "main.py").write_text("print(1)\n")
    nodes.json("bob", "share", str(app), "--as", "tool")
    code = nodes.json("ann", "network", "create", "lab") and nodes.json("ann", "network", "invite", "lab")["code"]
    nodes.json("bob", "network", "join", code)
    nodes.json("bob", "network", "create", "mine")
    old = nodes.json("bob", "id")["id"]
    refused = nodes.json("bob", "id", "--rotate", code=1)["error"]
    assert refused["code"] == "confirm" and "lab" in refused["message"] and "mine" not in refused["message"]
    assert nodes.json("bob", "id")["id"] == old
    new = nodes.json("bob", "id", "--rotate", "--yes")["id"]
    assert new != old and bob.wait(10) == 0
    home = nodes.home("bob")
    if os.name == "posix":
        assert all((home / name).stat().st_mode & 0o077 == 0 for name in ("identity.key", "identity.key.old"))
    wait_until(lambda: row_of(nodes, "ann", old)["state"] == "left", 5.0, "the old one to leave")
    nodes.up("bob")
    nodes.json("ann", "nodes", "--wait", "2")
    assert nodes.json("bob", "id")["id"] == new
    assert {network["name"]: network["admin"] for network in nodes.json("bob", "networks")} == {"lan": False, "mine": True}
    assert row_of(nodes, "ann", new)["state"] == "alive"
    assert not [row for row in nodes.json("ann", "apps") if row["name"] == "tool"]
    assert "(NOT the known one)" in nodes.run("ann", "nodes").stdout
    assert ann.poll() is None
