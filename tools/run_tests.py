"""The program in a `bin/test_NAME`: runs that file of tests with the pytest of whichever Python starts it.

Test files import each other, start the product and look at its documents, so such an archive holds the repository, and
this finds which file is meant by the one whose name ends in `.test`. Words on the command line go on to pytest.
"""
import os
import runpy
import sys
from importlib.util import find_spec


def main(words):
    """Run the tests; pytest ends the process with its exit code."""
    folder = os.path.dirname(os.path.abspath(__file__))
    name = next(name for name in os.listdir(folder) if name.endswith(".test"))[:-len(".test")]
    if find_spec("pytest") is None:
        sys.exit(f"{name} is run by pytest, which this Python has not: `make test ARGS=tests/{name}.py` brings its own, "
                 "or `python -m pip install pytest`")
    sys.argv[1:] = ["-c", os.path.join(folder, "pyproject.toml"), "-p", "no:cacheprovider",
                    os.path.join(folder, "tests", name + ".py"), *words]
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
