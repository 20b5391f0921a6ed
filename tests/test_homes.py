"""The state folder of a node, damaged: the next start refuses with one clear line, or says what is lost."""
import os
import shutil

import pytest

from p2p.errors import UserError
from p2p.trust.network import managed_network
from tests.test_node import Bed

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes, owners, links and FIFOs")

RESTORE = "(Restore it from a backup|repair it), or remove it"
OPEN = "is open to other users .*chmod 600"
OTHERS = "belongs to another user"
WRONG_KIND = "not a file|is a link|open to other users"
PRIVATE = ("identity.key", "rules.json", "networks/TAG.json", "networks/TAG.pem")

REFUSED = [
    *((name, way, "cannot be read as" if name == "rules.json" else RESTORE) for name in PRIVATE[:3] for way in ("empty", "noise", "half")),
    *((name, "huge", "it is not what was expected here, move it away") for name in (*PRIVATE, "catalogue", "incarnation")),
    *((name, way, why) for name in PRIVATE for way, why in (("0644", OPEN), ("0620", OPEN), ("owner", OTHERS))),
    *((name, way, WRONG_KIND) for name in (*PRIVATE, "catalogue", "incarnation") for way in ("folder", "link", "fifo")),
    (".", "owner", OTHERS), (".", "0755", "chmod 700"),
]
STARTS = [
    *(("networks/TAG.pem", way, "") for way in ("empty", "noise", "half")),          # it is made anew from the other file
    *(("nodes.json", way, "any name is new") for way in ("empty", "noise", "half", "huge", "folder", "fifo", "link")),
    *(("catalogue", way, "must be shared again") for way in ("empty", "noise", "half")),
    *(("log", way, "not written down") for way in ("folder", "fifo", "link")),
    *(("log.runs", way, "") for way in ("empty", "huge", "folder")),
    *(("lock", way, "") for way in ("noise", "fifo")), ("incarnation", "empty", ""), ("identity.key.new", "noise", ""),
]


def swapped(make):
    def do(path):
        path.unlink()
        make(path)
    return do


WAYS = {
    "empty": lambda path: path.write_bytes(b""), "noise": lambda path: path.write_bytes(b"\x00\xff{\n" * 7),
    "half": lambda path: path.write_bytes(path.read_bytes()[:path.stat().st_size // 2]),
    "huge": lambda path: path.write_bytes(b"x" * (17 << 20)),
    "folder": swapped(os.mkdir), "fifo": swapped(os.mkfifo), "link": lambda path: os.symlink(path.rename(f"{path}.away"), path),
    "0644": lambda path: path.chmod(0o644), "0620": lambda path: path.chmod(0o620), "0755": lambda path: path.chmod(0o755),
    "owner": lambda path: os.chown(path, 12345, 12345)}


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A home with all that a home may hold, and the network's tag in it."""
    bed = Bed(tmp_path_factory.mktemp("homes"))
    node = bed.start("used")
    (bed.folder / "app").mkdir()
    (bed.folder / "app" / "main.py").write_text("print(1)\n")
    bed.do(node.offers.share(str(bed.folder / "app")))
    network = managed_network("lab", os.urandom)
    node.networks.add(network)
    bed.do(node.launcher.run("app", [], []))
    bed.until(lambda: all(job.state == "exited" for job in node.launcher.jobs))
    node.neighbours.known.save_later()
    node.asking._save()
    bed.close()
    (bed.folder / "used" / "identity.key.new").write_bytes(b"")
    return bed.folder / "used", network.tag.hex()


@pytest.fixture
def bed(used, tmp_path):
    home, _ = used
    shutil.copytree(str(home), str(tmp_path / "node"))
    bed = Bed(tmp_path)
    yield bed
    bed.close()


def test_all_of_a_home_is_closed_to_others(used):
    found = {path.relative_to(used[0]).as_posix(): path.stat() for path in used[0].rglob("*")}
    assert {"log", "log.runs", "nodes.json", "rules.json", "catalogue", "identity.key"} <= set(found)
    for name, status in found.items():
        if name.startswith("apps/app/") or name == "identity.key.new":       # what was shared keeps the modes that its author gave it
            continue
        assert status.st_mode & 0o077 == 0 and status.st_uid == os.geteuid(), (name, oct(status.st_mode))


@pytest.mark.parametrize("name, way, line", REFUSED)
def test_what_cannot_be_trusted_is_refused_in_one_line_that_says_what_to_do(used, bed, name, way, line):
    if way == "owner" and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = bed.folder / "node" / name.replace("TAG", used[1])
    WAYS[way](path)
    with pytest.raises(UserError, match=line) as caught:
        bed.start("node")
    said = str(caught.value)
    assert "\n" not in said and str(path if name != "." else path.parent) in said
    if way in ("empty", "noise"):
        assert path.stat().st_size in (0, 28), "what is damaged must not be written over"


@pytest.mark.parametrize("name, way, line", STARTS)
def test_what_can_be_had_anew_does_not_keep_a_node_from_starting_and_what_is_lost_is_said(used, bed, name, way, line):
    WAYS[way](bed.folder / "node" / name.replace("TAG", used[1]))
    node = bed.start("node")
    assert {network.name for network in node.networks.all()} == {"lan", "lab"}
    told = [text for _, text in bed.notices] + ([] if name == "log" else node.log.last(20))
    assert not line or any(line in text for text in told), told


@pytest.mark.parametrize("is_new", [True, False])
def test_a_full_disk_is_one_line_and_nothing_is_damaged(used, bed, is_new):
    if is_new:
        shutil.rmtree(str(bed.folder / "node"))
    node = bed.make("node")

    def full(path, *_):
        raise UserError(f"cannot write {path}: the disk is full; free some space and try again", code="no-space")
    write, node.disk.write_atomic = node.disk.write_atomic, full
    with pytest.raises(UserError, match="the disk is full; free some space"):
        bed.do(node.start())
    node.disk.write_atomic = write
    if not is_new:
        key = (used[0] / "identity.key").read_bytes()
        assert bed.start("node").identity.key.to_pem().encode() == key
