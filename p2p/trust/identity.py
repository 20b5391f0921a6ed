"""This node's identity: one private key in one file that nobody else can read.

The home is the user's own folder (0700) and the key's file is 0600. A key that others can read is refused, not
repaired in silence: whoever could read it may have it already. The home never lies in the program's folder, because
that folder is copied from computer to computer and an identity must not be.
"""

import os

from .. import system
from ..errors import UserError
from .ecc import BadKey, PrivateKey, node_id_text

KEY_FILE = "identity.key"
OLD_KEY_FILE = "identity.key.old"
NEW_KEY_FILE = "identity.key.new"     # of a rotation that is under way, or was cut off
MAX_KEY_FILE = 4096
PROGRAM = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Identity:
    """`key`, `node_id` (32 bytes), `text` (52 characters), `short` (10), `spki` (91 bytes)."""

    def __init__(self, key):
        self.key = key
        self.spki = key.public.spki
        self.node_id = key.public.node_id
        self.text = node_id_text(self.node_id)
        self.short = self.text[:10]

    @classmethod
    def load_or_create(cls, disk, home, entropy) -> "Identity":
        """The identity of this home, made at the first time. Raises UserError.

        Who may be the first here holds the home's lock: of two keys made at once, one would be lost.
        """
        prepare_home(disk, home)
        path = os.path.join(home, KEY_FILE)
        if not disk.exists(path):
            key = PrivateKey.generate(entropy)
            disk.write_atomic(path, key.to_pem().encode("ascii"))
            return cls(key)
        check_private(disk, path)
        try:
            return cls(PrivateKey.from_pem(disk.read_bytes(path, MAX_KEY_FILE).decode("ascii", "replace")))
        except BadKey as error:
            raise UserError(f"{path}: {error}. Restore it from a backup, or remove it to become a new node "
                            "(the others will not know this one again)", code="key")


def prepare_rotation(disk, home, entropy) -> Identity:
    """Another key for this home, beside the one that counts, and a copy of that one. Raises UserError; then nothing has changed.

    What a full disk refuses, it refuses here, before anything is given up. The copy is so that a change of mind is possible by hand.
    """
    key = PrivateKey.generate(entropy)
    disk.write_atomic(os.path.join(home, NEW_KEY_FILE), key.to_pem().encode("ascii"))
    disk.write_atomic(os.path.join(home, OLD_KEY_FILE), disk.read_bytes(os.path.join(home, KEY_FILE), MAX_KEY_FILE))
    return Identity(key)


def rotate(disk, home):
    """From now on the prepared key counts. Certificates are made anew at the next start, where the CA's key is here."""
    disk.rename(os.path.join(home, NEW_KEY_FILE), os.path.join(home, KEY_FILE))
    disk.sync(home)


def prepare_home(disk, home):
    """Make the home, or see that it is fit for keys. Raises UserError."""
    real, program = (os.path.normcase(os.path.realpath(path)) for path in (home, PROGRAM))
    if real == program or real.startswith(program + os.sep):
        raise UserError(f"{home} lies in the program's folder {program}: a copied folder would copy this node's identity. "
                        "Choose another with --home", code="home")
    disk.make_dir(home)
    check_private(disk, home)


def check_private(disk, path):
    """Raise UserError unless `path` is this user's and nobody else's."""
    status = disk.status(path)
    if system.WINDOWS or status is None:
        return
    if status.kind == "l":
        status = disk.status(os.path.realpath(path))
    if status.owner != os.geteuid():
        raise UserError(f"{path} belongs to another user: take a folder of your own with --home", code="owner")
    if status.mode & 0o077:
        mode = "700" if status.kind == "d" else "600"
        raise UserError(f"{path} is open to other users (mode {status.mode:o}): close it with `chmod {mode} {path}`; "
                        "if others use this computer, they may know or have changed what is in it", code="mode")
