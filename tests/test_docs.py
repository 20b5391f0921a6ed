"""Documents that can be checked are checked."""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def test_the_protocol_document_is_what_the_declarations_say():
    done = subprocess.run([sys.executable, os.path.join("tools", "protocol_doc.py"), "--check"], cwd=ROOT)
    assert done.returncode == 0, "run python tools/protocol_doc.py"
