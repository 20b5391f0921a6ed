"""`id --rotate`: another identity, and what that costs is said before."""
import os

import pytest

from p2p.errors import UserError
from p2p.trust.network import managed_network
from tests.nodes import Nodes
from tests.test_node import Bed
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


def test_while_something_runs_there_is_no_other_identity(nodes, tmp_path):
    nodes.up("ann")
    app = tmp_path / "waits"
    app.mkdir()
    (app / "main.py").write_text("import time\ntime.sleep(60)\n")
    nodes.json("ann", "share", str(app))
    nodes.json("ann", "run", "waits")
    before = {path.name: path.read_bytes() for path in nodes.home("ann").glob("identity*")}
    refused = nodes.json("ann", "id", "--rotate", "--yes", code=1)["error"]
    assert refused["code"] == "busy" and "job 1 (waits)" in refused["message"]
    assert before == {path.name: path.read_bytes() for path in nodes.home("ann").glob("identity*")}
    assert nodes.json("ann", "apps")[0]["holders"]


@pytest.mark.parametrize("name", ["identity.key.new", "identity.key.old"])
def test_a_rotation_for_which_the_disk_has_no_room_gives_nothing_up(tmp_path, name):
    bed = Bed(tmp_path)
    try:
        bob, lab = bed.start("bob"), managed_network("lab", os.urandom)
        bob.networks.add(lab.changed(ca_key=None), lab.issue(bob.identity.spki, os.urandom(16)))
        (tmp_path / "app").mkdir()
        (tmp_path / "app" / "main.py").write_text("print(1)\n")
        bed.do(bob.offers.share(str(tmp_path / "app")))
        key, networks = (tmp_path / "bob" / "identity.key").read_bytes(), bob.networks.tags
        write = bob.disk.write_atomic

        def full(path, data, mode=0o600):
            if path.endswith(name):
                raise UserError("the disk is full")
            write(path, data, mode)
        bob.disk.write_atomic = full
        with pytest.raises(UserError, match="full"):
            bed.do(bob.rotate())
        assert (tmp_path / "bob" / "identity.key").read_bytes() == key and bob.networks.tags == networks
        assert bob.offers.catalogue.offered_in("app", bob.identity.node_id)
        bob.disk.write_atomic = write
        assert bed.do(bob.rotate()).node_id != bob.identity.node_id and len(bob.networks.tags) == 1
        assert (tmp_path / "bob" / "identity.key").read_bytes() != key == (tmp_path / "bob" / "identity.key.old").read_bytes()
    finally:
        bed.close()
