"""Documents that can be checked are checked."""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def test_the_protocol_document_is_what_the_declarations_say():
    done = subprocess.run([sys.executable, os.path.join("tools", "protocol_doc.py"), "--check"], cwd=ROOT)
    assert done.returncode == 0, "run python tools/protocol_doc.py"


def test_the_architecture_document_names_every_module():
    """A newcomer finds each file on its floor; a module that was renamed or added is missed here."""
    with open(os.path.join(ROOT, "docs", "architecture.md"), encoding="utf-8") as file:
        text = file.read()
    missing = []
    for folder, _, names in os.walk(os.path.join(ROOT, "p2p")):
        inside = os.path.relpath(folder, os.path.join(ROOT, "p2p")).replace(os.sep, "/")
        for name in sorted(names):
            if not name.endswith(".py") or name == "__init__.py":
                continue
            wanted = name[:-3] if inside == "." else f"{inside}/{name[:-3]}"
            if f"`{wanted}`" not in text and f"`{inside}/`" not in text:
                missing.append(wanted)
    assert not missing, f"docs/architecture.md does not name {', '.join(missing)}"


def test_every_link_between_documents_leads_somewhere():
    broken = []
    for folder in (ROOT, os.path.join(ROOT, "docs")):
        for name in sorted(os.listdir(folder)):
            if name.endswith(".md"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    links = re.findall(r"\]\(([^)#:]+)\)", file.read())
                broken += [f"{name}: {link}" for link in links if not os.path.exists(os.path.join(folder, link))]
    assert not broken


def test_every_test_that_a_document_cites_exists():
    cited = {}
    for name in ["README.md"] + sorted(os.path.join("docs", name) for name in os.listdir(os.path.join(ROOT, "docs"))):
        with open(os.path.join(ROOT, name), encoding="utf-8") as file:
            cited.update({path: name for path in re.findall(r"\b(?:tests|p2p|apps|tools|bench)/[a-z0-9_/]+\.py\b", file.read())})
    missing = [f"{name}: {path}" for path, name in sorted(cited.items()) if not os.path.exists(os.path.join(ROOT, path))]
    assert cited and not missing


def test_every_verb_named_in_the_readme_exists():

    from p2p.verbs.table import VERBS
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        text = file.read()
    named = re.findall(r"(?:p2pframe\.py|\w+>) +([a-z]+)", text)
    assert named and not [verb for verb in named if verb not in {v if isinstance(v, str) else v.name for v in VERBS}]
