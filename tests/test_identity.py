"""A node's key on disk: made once, closed to others, refused in every other state."""

import os
import stat
import subprocess
import sys
import tempfile

import pytest

from p2p import system
from p2p.disk import Disk
from p2p.errors import UserError
from p2p.trust import identity
from p2p.trust.identity import KEY_FILE, Identity, prepare_home

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
posix = pytest.mark.skipif(system.WINDOWS, reason="POSIX modes and owners")


def load(home):
    return Identity.load_or_create(Disk(), str(home), os.urandom)


def refusal(home):
    with pytest.raises(UserError) as caught:
        load(home)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_identity_is_made_once_and_stays(tmp_path):
    one = load(tmp_path / "home")
    two = load(tmp_path / "home")
    assert one.node_id == two.node_id and one.spki == two.spki and one.key.d == two.key.d
    assert len(one.node_id) == 32 and len(one.text) == 52 and one.short == one.text[:10]
    assert load(tmp_path / "other").node_id != one.node_id


@posix
def test_what_is_made_is_closed_to_others_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        load(tmp_path / "a" / "home")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*")}
    assert modes == {"home": 0o700, KEY_FILE: 0o600}


@posix
@pytest.mark.parametrize("name, mode", [(KEY_FILE, 0o640), (KEY_FILE, 0o604), (KEY_FILE, 0o620), (".", 0o755), (".", 0o710)])
def test_a_key_or_home_open_to_others_is_refused_with_the_command_that_closes_it(tmp_path, name, mode):
    load(tmp_path / "home")
    path = tmp_path / "home" / name
    path.chmod(mode)
    command = refusal(tmp_path / "home").split("`")[1].split()
    assert command[0] == "chmod"
    subprocess.run(command, check=True)
    assert load(tmp_path / "home")


@posix
def test_a_home_behind_a_link_is_checked_where_it_really_is(tmp_path):
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    real.chmod(0o700)
    (tmp_path / "link").symlink_to(real)
    assert load(tmp_path / "link").node_id == load(real).node_id
    real.chmod(0o755)
    assert "chmod 700" in refusal(tmp_path / "link")


@posix
def test_a_key_that_is_a_link_is_refused(tmp_path):
    load(tmp_path / "home")
    (tmp_path / "home" / KEY_FILE).rename(tmp_path / "elsewhere")
    (tmp_path / "home" / KEY_FILE).symlink_to(tmp_path / "elsewhere")
    assert "link" in refusal(tmp_path / "home")


@posix
def test_another_users_home_is_refused(tmp_path, monkeypatch):
    load(tmp_path / "home")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "another user" in refusal(tmp_path / "home") and "--home" in refusal(tmp_path / "home")


def test_on_windows_modes_and_owners_mean_nothing(tmp_path, monkeypatch):
    load(tmp_path / "home")
    (tmp_path / "home").chmod(0o755)
    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.delattr(os, "geteuid", raising=False)
    assert load(tmp_path / "home")


UNWRITABLE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from p2p.disk import Disk
from p2p.errors import UserError
from p2p.trust.identity import Identity
if os.geteuid() == 0:
    os.setuid(65534)
try:
    Identity.load_or_create(Disk(), sys.argv[2], os.urandom)
except UserError as error:
    print(error)
"""


@posix
def test_a_home_that_cannot_be_made_is_refused_in_one_line_that_says_what_to_do():
    with tempfile.TemporaryDirectory() as folder:      # pytest's own are closed to the user that root turns into
        os.chmod(folder, 0o555)
        done = subprocess.run([sys.executable, "-B", "-c", UNWRITABLE, ROOT, os.path.join(folder, "home")],
                              capture_output=True, text=True)
        assert done.stderr == "" and done.stdout.count("\n") == 1
        assert folder in done.stdout and "not permitted" in done.stdout and "check the owner and mode" in done.stdout
        assert os.listdir(folder) == []


def test_a_home_in_the_programs_folder_is_refused_also_by_a_detour_and_one_beside_it_is_fine(tmp_path, monkeypatch):
    assert identity.PROGRAM == ROOT
    program = tmp_path / "program"
    (program / "p2p").mkdir(parents=True)
    monkeypatch.setattr(identity, "PROGRAM", str(program))
    (tmp_path / "link").symlink_to(program, target_is_directory=True)
    for home in (program, program / "state", program / "p2p" / ".." / "state", tmp_path / "link" / "state"):
        with pytest.raises(UserError, match="--home"):
            prepare_home(Disk(), str(home))
    assert os.listdir(program) == ["p2p"]
    prepare_home(Disk(), str(tmp_path / "program-state"))


@pytest.mark.parametrize("contents", [b"", b"damaged", b"\xff" * 300, b"x" * 5000])
def test_a_damaged_key_is_refused_and_not_replaced(tmp_path, contents):
    load(tmp_path)
    path = tmp_path / KEY_FILE
    path.write_bytes(contents)
    assert str(path) in refusal(tmp_path)
    assert path.read_bytes() == contents


def test_a_key_that_could_not_be_written_is_no_identity(tmp_path):
    class Full(Disk):
        def write_atomic(self, path, data, mode=0o600):
            raise UserError(f"cannot write {path}: the disk is full; free some space and try again")
    with pytest.raises(UserError, match="full"):
        Identity.load_or_create(Full(), str(tmp_path), os.urandom)
    assert list(tmp_path.iterdir()) == []
