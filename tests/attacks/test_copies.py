"""What is copied: the program's folder, which carries no identity, and the state folder, which should never have been."""
import shutil

import pytest

from tests.lab.host import REPOSITORY
from tests.waiting import wait_until

pytestmark = pytest.mark.lab


def log(host, home):
    """The diary of one node."""
    path = host.home(home) / "log"
    return path.read_text("utf-8") if path.exists() else ""


def test_a_program_that_was_used_and_then_copied_is_another_node_elsewhere(lab):
    """Its folder goes from computer to computer on a stick; nothing of a node may go along."""
    ids = []
    source = REPOSITORY
    for host in lab.hosts[1:]:
        folder = host.folder / "program"
        folder.mkdir()
        shutil.copy(str(source / "p2pframe.py"), str(folder))
        for name in ("p2p", "apps"):
            shutil.copytree(str(source / name), str(folder / name))
        host.lab.program, before = folder / "p2pframe.py", host.lab.program
        try:
            root = host.root(home="of-copy")
            ids.append(host.json("id", home="of-copy")["id"])
            root.stop()
        finally:
            host.lab.program = before
        source = folder
    assert len(set(ids)) == 2


def test_two_nodes_with_one_copied_state_folder_are_both_warned_with_the_others_address(lab):
    """Nobody knows which of the two is the copy."""
    one, two = lab.hosts[1:]
    first = one.root(home="cloned")
    own = one.json("id", home="cloned")["id"]
    first.stop()
    shutil.copytree(str(one.home("cloned")), str(two.home("cloned")))
    roots = [host.root(home="cloned") for host in (one, two)]
    assert {host.json("id", home="cloned")["id"] for host in (one, two)} == {own}
    for host, other in ((one, two), (two, one)):
        wait_until(lambda host=host, other=other: any(" clone: " in line and (other.address in line or other.link_local in line)
                                                      for line in log(host, "cloned").splitlines()),
                   15.0, f"the warning at {host.name}", lambda: log(one, "cloned") + log(two, "cloned"))
    for root in roots:
        root.stop()
