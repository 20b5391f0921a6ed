"""Which files of a shared folder stay behind: .git, __pycache__, and what a .p2pignore at its top lists.

A line is a pattern with * ? and [...]; empty lines and those that begin with # mean nothing.
A pattern without "/" fits a name at any depth ("*.pyc"); one with a "/" fits the path from the top ("docs/draft.md",
"/notes"); one that ends with "/" fits folders only ("build/"). * never crosses a "/".
That is the part of .gitignore's language which people use; its "!" and "**" are refused rather than misread, since
a file that was meant to stay behind would travel to other people's computers.

Pure: takes the text, not the file.
"""

from fnmatch import fnmatchcase

from ..errors import UserError

FILE = ".p2pignore"
ALWAYS = ".git\n__pycache__\n/" + FILE
LONGEST = 1 << 16        # bytes of a .p2pignore


class Ignore:
    """The patterns of one folder."""

    def __init__(self, text=""):
        self._rules = [rule for line in (ALWAYS + "\n" + text).splitlines() for rule in _parse(line.strip())]

    def fits(self, path: str, is_folder: bool) -> bool:
        """Does this path stay behind? The folders above it were asked about before."""
        parts = path.split("/")
        for pattern, is_from_top, is_for_folders in self._rules:
            if is_for_folders and not is_folder:
                continue
            if not is_from_top:
                if fnmatchcase(parts[-1], pattern[0]):
                    return True
            elif len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern)):
                return True
        return False


def _parse(line):
    """[(components, from the top?, folders only?)] of a line, or []."""
    if not line or line.startswith("#"):
        return []
    if line.startswith("!") or "**" in line:
        raise UserError(f"{FILE}: {line}: ! and ** are not known here; list what stays behind, "
                        "a pattern without / fits at any depth", code="ignore")
    body = line.rstrip("/")
    return [(body.lstrip("/").split("/"), "/" in body, line.endswith("/"))] if body else []
