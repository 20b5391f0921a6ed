"""Several networks between real roots: who is in one sees and gets what belongs to it, within a second; others get nothing."""

import contextlib
import json
import time

import pytest

from p2p import limits
from p2p.state import StateReader
from tests.nodes import Nodes
from tests.waiting import wait_until

PROGRAM = """import p2p
class Hello(p2p.Message):
    number: int
app = p2p.attach()
app.broadcast(Hello(1))
for event in app:
    if isinstance(event, Hello):
        break
"""
GREETED = 1.0          # s from `network join` to both ends listing each other there (the promise), on a machine that is idle
SLACK = 5.0            # s more for one that is not


@pytest.fixture
def nodes(tmp_path):
    nodes = Nodes(tmp_path)
    yield nodes
    nodes.close()


def members(nodes, name, network=None):
    """{name: networks} of whom this node sees alive, itself included."""
    rows = nodes.json(name, "nodes", *(["--network", network] if network else []))
    return {row["name"]: row["networks"] for row in rows if row["state"] == "alive"}


def application(nodes, name, text="print('hello')"):
    folder = nodes.folder / name
    folder.mkdir()
    (folder / "main.py").write_text(text)
    (folder / "secret.txt").write_text(f"of {name} and its members")
    return folder


def apps(nodes, name, *words):
    return {row["name"]: row["network"] for row in nodes.json(name, "apps", *words) if row["holders"]}


def test_a_new_member_is_greeted_on_both_sides_and_a_stranger_sees_nothing_of_the_network(nodes):
    nodes.meet("ann", "bob", "eve")
    made = nodes.json("ann", "network", "create", "home", "--shared")
    assert made["kind"] == "shared" and made["code"].startswith("home:") and len(made["tag"]) == 16
    nodes.json("ann", "share", application(nodes, "private"), "--network", "home")
    began = time.monotonic()
    assert nodes.json("bob", "network", "join", made["code"]) == {"name": "home", "tag": made["tag"], "kind": "shared"}
    wait_until(lambda: members(nodes, "ann", "home").keys() == members(nodes, "bob", "home").keys() == {"ann", "bob"}, 10.0)
    assert time.monotonic() - began < GREETED + SLACK      # the commands that look take most of it
    both = ["lan", "home"]
    assert members(nodes, "ann") == members(nodes, "bob") == {"ann": both, "bob": both, "eve": ["lan"]}
    assert members(nodes, "eve") == {"ann": ["lan"], "bob": ["lan"], "eve": ["lan"]}
    wait_until(lambda: apps(nodes, "bob") == {"private": "home"}, 10.0)
    [row] = nodes.json("bob", "sync", "private")
    assert row["fetched"] > 0 and row["peers"] == ["ann"]
    assert apps(nodes, "eve") == {} and nodes.json("eve", "sync", "private", code=1)["error"]["code"] == "no-such-app"
    rows = {name: nodes.json(name, "networks") for name in ("ann", "bob", "eve")}
    assert [(row["name"], row["kind"], row["members"], row["admin"], row["epoch"]) for row in rows["ann"]] == \
        [("lan", "open", 3, False, 0), ("home", "shared", 2, False, 0)]
    assert rows["bob"] == rows["ann"] and [row["name"] for row in rows["eve"]] == ["lan"]


def test_who_has_left_the_network_is_out_of_it_at_once_and_what_belongs_to_it_is_gone_there(nodes):
    nodes.meet("ann", "bob")
    code = nodes.json("ann", "network", "create", "home", "--shared")["code"]
    nodes.json("bob", "network", "join", code, "--as", "ours")
    nodes.json("ann", "share", application(nodes, "private"), "--network", "home")
    wait_until(lambda: apps(nodes, "bob") == {"private": "ours"}, 10.0)
    nodes.json("bob", "network", "leave", "ours")
    assert apps(nodes, "bob") == {} and [row["name"] for row in nodes.json("bob", "networks")] == ["lan"]
    wait_until(lambda: members(nodes, "ann") == {"ann": ["lan", "home"], "bob": ["lan"]}, 10.0)
    nodes.json("bob", "network", "join", code)
    wait_until(lambda: apps(nodes, "bob") == {"private": "home"}, 10.0)


def test_who_leaves_the_open_network_and_joins_it_again_is_in_it_again_on_the_link_that_another_network_kept(nodes):
    nodes.meet("ann", "bob")
    nodes.json("bob", "network", "join", nodes.json("ann", "network", "create", "home", "--shared")["code"])
    wait_until(lambda: members(nodes, "ann", "home").keys() == {"ann", "bob"}, 10.0)
    for _ in range(3):
        nodes.json("bob", "network", "leave", "lan")
        wait_until(lambda: members(nodes, "ann")["bob"] == ["home"] == members(nodes, "bob")["ann"], 10.0)
        nodes.json("bob", "network", "join", "lan")
        wait_until(lambda: set(members(nodes, "ann")["bob"]) == {"lan", "home"} == set(members(nodes, "bob")["ann"]), 10.0)


def test_two_who_leave_the_open_network_meet_again_in_the_other_also_after_a_restart(nodes):
    first, _, _ = nodes.meet("ann", "bob", "eve")
    code = nodes.json("ann", "network", "create", "home", "--shared")["code"]
    nodes.json("bob", "network", "join", code)
    wait_until(lambda: len(members(nodes, "ann", "home")) == 2, 10.0)
    nodes.json("ann", "network", "leave", "lan")
    wait_until(lambda: members(nodes, "ann") == {"ann": ["home"], "bob": ["home"]}, 10.0)
    wait_until(lambda: "ann" not in members(nodes, "eve"), 10.0)
    wait_until(lambda: members(nodes, "bob") == {"ann": ["home"], "bob": ["lan", "home"], "eve": ["lan"]}, 10.0)
    assert nodes.json("ann", "ping", "bob", "-c", "1")["received"] == 1
    assert nodes.json("ann", "network", "leave", "home", code=1)["error"]["code"] == "last-network"
    nodes.json("ann", "down")
    first.wait(10)
    nodes.up("ann")
    wait_until(lambda: members(nodes, "ann") == {"ann": ["home"], "bob": ["home"]}, 10.0)
    nodes.json("ann", "network", "join", "lan")
    wait_until(lambda: members(nodes, "ann").keys() == members(nodes, "eve").keys() == {"ann", "bob", "eve"}, 10.0)
    assert [row["name"] for row in nodes.json("ann", "networks")] == ["lan", "home"]


def test_a_program_runs_with_members_of_its_network_and_with_nobody_else(nodes):
    nodes.meet("ann", "bob", "eve")
    code = nodes.json("ann", "network", "create", "home", "--shared")["code"]
    nodes.json("bob", "network", "join", code)
    for name in ("ann", "bob"):
        nodes.json(name, "nodes", "--network", "home", "--wait", "2", "--timeout", "10")
    nodes.json("ann", "network", "leave", "lan")
    wait_until(lambda: members(nodes, "ann") == {"ann": ["home"], "bob": ["home"]}, 10.0)
    folder = application(nodes, "together", PROGRAM)
    nodes.json("ann", "share", folder)
    process = nodes.start(nodes.argv("ann", "--json", "run", "together", "bob", "--wait"))
    wait_until(lambda: nodes.json("bob", "requests"), 20.0)
    nodes.json("bob", "allow", nodes.json("bob", "requests")[0]["request"])
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, said + errors
    nodes.json("bob", "share", application(nodes, "other"), "--network", "home")
    refused = nodes.json("bob", "run", "other", "eve", code=1)["error"]
    assert refused["code"] == "other-network" and "in home" in refused["message"]
    assert [node["name"] for node in nodes.json("bob", "run", "other", "--all")["nodes"]] == ["bob", "ann"]


def test_a_managed_network_is_founded_and_what_is_wrong_is_told_in_one_line(nodes):
    nodes.up("ann")
    made = nodes.json("ann", "network", "create", "club")
    assert "code" not in made and made["kind"] == "managed"
    [_, row] = nodes.json("ann", "networks")
    assert row == {"name": "club", "tag": made["tag"], "kind": "managed", "members": 1, "admin": True, "epoch": 0}
    code = nodes.json("ann", "network", "create", "home", "--shared")["code"]
    assert nodes.json("ann", "network", "code", "home")["code"] == code
    for words, wanted, exit in (
            (("create", "Club"), "in-network", 1), (("create", "../x"), "name", 1), (("join", code), "in-network", 1),
            (("join", code, "--as", "again"), "in-network", 1), (("join", code[:-1]), "usage", 2), (("join", "lan"), "in-network", 1),
            (("leave", "nowhere"), "no-such-network", 1), (("leave", "club"), "admin", 1), (("code", "club"), "kind", 1)):
        done = nodes.run("ann", "--json", "network", *words)
        error = json.loads(done.stdout)["error"]
        assert (done.returncode, error["code"]) == (exit, wanted), (words, error)
        assert "\n" not in error["message"] and len(error["message"]) > 20
    nodes.json("ann", "--yes", "network", "leave", "club")
    assert [row["name"] for row in nodes.json("ann", "networks")] == ["lan", "home"]


def test_who_is_no_member_is_kept_out_for_good_only_where_that_is_meant_and_neighbours_beacons_are_no_news(nodes):
    nodes.meet("ann", "bob")
    nodes.json("ann", "network", "create", "studio")
    error = nodes.json("ann", "network", "remove", "studio", "bob", code=1)["error"]
    assert error["code"] == "not-member" and "`network remove studio bob --yes`" in error["message"]
    wait_until(lambda: nodes.json("bob", "stats")["refused"].get("udp-network", 0) > 0, 10.0)      # ann's beacons there
    assert "a datagram from" not in (nodes.home("bob") / "log").read_text("utf-8")
    assert nodes.json("ann", "network", "remove", "studio", "bob", "--yes")["told"] == 0
    code = nodes.json("ann", "network", "invite", "studio")["code"]
    said = nodes.json("bob", "network", "join", code, code=4)["error"]["message"]
    assert said == "ann: this node was removed from that network; a new identity can be invited (`id --rotate`)"


def test_two_nodes_share_as_many_networks_as_a_node_may_be_in_over_one_connection(nodes):
    nodes.meet("ann", "bob")
    names = [f"net{number}" for number in range(1, limits.MAX_NETWORKS)]
    made = nodes.run("ann", input="".join(f"network create {name} --shared\n" for name in names))
    codes = [line.strip() for line in made.stdout.splitlines() if line.startswith("  net")]
    assert len(codes) == len(names), made.stdout + made.stderr
    nodes.run("bob", input="".join(f"network join {code}\n" for code in codes))
    wait_until(lambda: members(nodes, "ann")["bob"] == members(nodes, "bob")["ann"] == ["lan"] + names, 15.0)
    assert nodes.json("ann", "network", "create", "more", code=1)["error"]["code"] == "too-many"
    assert len(nodes.json("ann", "stats")["nodes"]) == 1
    nodes.json("bob", "down")
    wait_until(lambda: members(nodes, "ann").keys() == {"ann"}, 15.0)
    nodes.up("bob")
    wait_until(lambda: members(nodes, "ann").get("bob") == ["lan"] + names, 15.0)


def test_one_name_in_two_networks_means_to_each_node_what_it_may_have(nodes):
    nodes.meet("ann", "bob", "eve")
    code = nodes.json("ann", "network", "create", "home", "--shared")["code"]
    nodes.json("bob", "network", "join", code)
    folder = application(nodes, "tool", "print('for everybody')")
    everybodys = nodes.json("ann", "share", folder)["version"]
    (folder / "main.py").write_text("print('for home')")
    homes = nodes.json("ann", "share", folder, "--network", "home")["version"]
    wait_until(lambda: {row["version"] for row in nodes.json("bob", "apps") if row["holders"]} == {homes}, 10.0)
    wait_until(lambda: {row["version"] for row in nodes.json("eve", "apps") if row["holders"]} == {everybodys}, 10.0)
    for network, version in (("lan", everybodys), ("home", homes)):
        assert nodes.json("bob", "sync", "tool", "--network", network)[0]["version"] == version
        assert nodes.json("ann", "run", "tool", "--network", network)["version"] == version
    assert nodes.json("ann", "run", "tool", "eve")["version"] == everybodys
    nodes.json("ann", "unshare", "tool")
    wait_until(lambda: apps(nodes, "bob") == apps(nodes, "eve") == {}, 10.0)


def test_connect_finds_the_network_that_both_are_in(nodes):
    nodes.meet("ann", "bob", "eve")
    code = nodes.json("ann", "network", "create", "home", "--shared")["code"]
    nodes.json("bob", "network", "join", code)
    nodes.json("ann", "network", "leave", "lan")
    [ann] = [row for row in nodes.json("ann", "nodes") if row["self"]]
    place = f"127.0.0.1:{ann['port']}"
    assert nodes.json("bob", "connect", place)["name"] == "ann"
    assert nodes.json("bob", "connect", place, "--network", "home")["name"] == "ann"
    for name, words in (("bob", ("--network", "lan")), ("eve", ())):
        assert nodes.json(name, "connect", place, *words, code=1)["error"]["code"] == "refused"


def test_p2pstate_shows_who_is_in_which_network(nodes):
    nodes.meet("ann", "bob", "eve")
    code = nodes.json("ann", "network", "create", "home", "--shared")["code"]
    nodes.json("bob", "network", "join", code)
    name = (nodes.home("ann") / "state-name").read_text().strip()

    def shown():
        with contextlib.closing(StateReader(name)) as reader:
            snapshot = reader.read()
        return ([(network.name, network.members) for network in snapshot.networks], {node.name: node.networks for node in snapshot.nodes})
    wait_until(lambda: shown() == ([("lan", 3), ("home", 2)], {"ann": 3, "bob": 3, "eve": 1}), 10.0, detail=shown)
