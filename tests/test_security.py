"""docs/security.md names a test for each threat: the threats are all there, and the tests exist and run."""
import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "security.md").read_text("utf-8")
NAME = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
THREATS = """forged replayed amplification gossip strangers plaintext flood slow-loris huge slow reads traversal symlinks bombs bytes update
    accident escape users memory copied""".split()


def rows():
    """The cells of each row of the table of threats and tests."""
    table = TEXT.partition("## Each threat and its tests")[2]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| ")][1:]


def functions_in(path):
    """The names of the test functions in one file."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_test_that_the_document_names_exists():
    named = NAME.findall(TEXT)
    assert len(named) > 60
    missing = [(path, name) for path, name in named if not (ROOT / path).is_file() or name and name not in functions_in(path)]
    assert missing == []


def test_every_threat_has_a_row_with_a_defence_and_a_test():
    threats = " ".join(row[0] for row in rows())
    assert [word for word in THREATS if word not in threats] == []
    for threat, defence, tests in rows():
        assert threat and defence and NAME.search(tests), threat
        assert all(name for _, name in NAME.findall(tests)), f"{threat}: which test of the file?"


def test_every_attack_stands_for_a_threat():
    """An attack that nobody reads about in the document is one whose defence nobody is promised."""
    named = set(NAME.findall(TEXT))
    attacks = [(path.relative_to(ROOT).as_posix(), name) for path in sorted((ROOT / "tests" / "attacks").glob("test_*.py"))
               for name in sorted(functions_in(path.relative_to(ROOT)))]
    twins = [attack for attack in attacks if "twin" in attack[1] or "honest" in attack[1]]
    assert [attack for attack in attacks if attack not in named and attack not in twins] == []
