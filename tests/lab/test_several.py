"""Several networks at a time on several computers, through the command line: who sees what, where."""

import pytest

from tests.lab import Lab
from tests.lab.test_framework import meet
from tests.waiting import wait_until

pytestmark = pytest.mark.lab


def names(host, network):
    """Who is alive in a network, as this host sees it."""
    return {row["name"] for row in host.json("nodes", "--network", network) if row["state"] == "alive"}


def sees(host, network, *others, timeout=10.0):
    wanted = {other.name for other in others}
    wait_until(lambda: names(host, network) == wanted, timeout, f"{host.name} to see {sorted(wanted)} in {network}",
               lambda: str(names(host, network)))


def share(host, name, network):
    folder = host.folder / name
    folder.mkdir()
    (folder / "main.py").write_text(f"print({name!r})\n")
    return host.json("share", str(folder), "--network", network)


def offered(host, *words):
    return {row["name"] for row in host.json("apps", *words)}


def test_two_managed_networks_and_the_open_one_keep_apart_what_is_theirs():
    with Lab(3) as lab:
        ann, bob, eve = lab.hosts
        meet(lab)
        for host, network, other in ((ann, "red", bob), (eve, "blue", bob)):
            host.json("network", "create", network)
            other.json("network", "join", host.json("network", "invite", network)["code"])
            sees(host, network, host, other, timeout=1.5)                 # a new member is greeted within a second
        assert [row["name"] for row in bob.json("networks")] == ["lan", "red", "blue"]
        for host, network in ((ann, "blue"), (eve, "red")):               # who is not in it does not know that it is there
            done = host.p2p("nodes", "--network", network)
            assert done.returncode == 1 and done.stderr.count("\n") == 1 and network in done.stderr
            assert [row["name"] for row in host.json("networks")] == ["lan", "red" if host is ann else "blue"]
            assert all(network not in row["networks"] for row in host.json("nodes"))
        share(ann, "reds", "red"), share(eve, "blues", "blue"), share(bob, "everybodys", "lan")
        wait_until(lambda: {"reds", "blues", "everybodys"} <= offered(bob), 10.0, "all offers at bob", lambda: str(offered(bob)))
        wait_until(lambda: "everybodys" in offered(ann) & offered(eve), 10.0, "what lan offers")
        assert "blues" not in offered(ann) and "reds" not in offered(eve)
        assert {"reds"} == {"reds", "blues", "everybodys"} & offered(bob, "--network", "red")


def test_a_session_in_a_network_takes_place_among_its_members_and_leaving_or_removal_ends_their_part():
    with Lab(3) as lab:
        ann, bob, eve = lab.hosts
        meet(lab)
        ann.json("network", "create", "red")
        for host in (bob, eve):
            host.json("network", "join", ann.json("network", "invite", "red")["code"])
        for host in lab.hosts:
            sees(host, "red", ann, bob, eve)
        ann.json("network", "admin", "red", bob.name)
        wait_until(lambda: any(row["admin"] for row in bob.json("networks")), 10.0, "bob to be an admin")
        assert bob.json("network", "remove", "red", eve.name)
        wait_until(lambda: [row["name"] for row in eve.json("networks")] == ["lan"], 5.0, "eve to hear that she is out")
        for host in (ann, bob):
            sees(host, "red", ann, bob)
        share(ann, "reds", "red")
        done = ann.p2p("run", "reds", eve.name)
        assert done.returncode != 0 and done.stderr.count("\n") == 1, done.stderr
        done = eve.p2p("network", "join", ann.json("network", "invite", "red")["code"])
        assert done.returncode != 0 and done.stderr.count("\n") == 1, (done.stdout, done.stderr)
        assert "admin of red" in bob.p2p("network", "leave", "red").stderr
        bob.json("network", "leave", "red", "--yes")
        sees(ann, "red", ann)
        assert [row["name"] for row in bob.json("networks")] == ["lan"]
        assert {row["name"] for row in ann.json("nodes") if row["state"] == "alive"} == {ann.name, bob.name, eve.name}
