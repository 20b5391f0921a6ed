"""The house rules, kept by a test: it reads the source, names the line, and says what to do instead.

Each rule is a function over one parsed file that yields (line, complaint); it sees only syntax, so it is fast
and sometimes blind, never wrong about what it names. `SAMPLES` shows every rule biting once, so that a rule that
has gone deaf is noticed. The floors of the house stand in `FLOORS` and nowhere else in the code: a new module
is entered there, on the lowest floor on which it can live.
"""
import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS = (
    # 0: pure: no I/O, no clock, no randomness
    "errors limits budget timers codec proto text record layout datagram lookalike names membership fields message ordering pieces "
    "trust.ecc trust.x509 trust.network trust.pake trust.invitations trust.denial sync.manifest sync.ignore",
    # 1: mechanisms
    "tasks system interfaces poller loop channel process disk traffic dispatch exchange fanout unsent connection server "
    "client links udp broadcaster segment state log",
    # 2: services
    "trust.identity trust.networks trust.consent sync.scan sync.staging sync.store sync.catalogue sync.transfer "
    "sessions jobs inviting joining",
    # 3: the kinds of process, what applications import, and the simulator
    "node neighbours acquaintances belonging removal asking launching guardian offers owner publishing app "
    "instance shared farming crew worker inbox child testing",
    # 4: faces
    "verbs rootlink shell script modes cli terminal",
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
PURE = set(FLOORS[0].split()) | {"trust.consent"}
MACHINES = {"membership", "sessions", "trust.consent"}       # only the node knows them all
FACES = 4                              # the floor from which on `print` is what a module is for

IMPURE = set("time socket os random secrets select selectors ssl signal threading subprocess multiprocessing asyncio "
             "shutil tempfile uuid pathlib getpass pwd fcntl mmap glob concurrent logging".split())
DANGEROUS = set("pickle marshal shelve dill".split())
NEW_NAMES = {"removeprefix": "3.9", "removesuffix": "3.9", "bit_count": "3.10", "pairwise": "3.10", "batched": "3.12"}
NEW_MODULES = {"zoneinfo": "3.9", "graphlib": "3.9", "tomllib": "3.11"}
UNORDERED_IS_FINE = {"sorted", "len", "sum", "min", "max", "any", "all", "set", "frozenset", "bool"}
LONGEST_FUNCTION = 60
LONGEST_FILE = 500


class File:
    """One source file: where it is, its floor, its text, its tree (None if it is not Python 3.8) and all its nodes."""

    def __init__(self, path, text):
        self.path, self.text = path, text
        self.lines = text.split("\n")
        self.error = None
        try:
            self.tree = ast.parse(text, feature_version=(3, 8))
        except SyntaxError as error:
            self.error, self.tree = error, ast.Module(body=[], type_ignores=[])
        self.nodes = list(ast.walk(self.tree))
        self.product = path.startswith("p2p/")
        parts = path[:-3].split("/")[1:]
        self.package = parts[:-1]
        self.module = ".".join(parts[:-1] if parts[-1:] == ["__init__"] else parts)

    def of(self, *kinds):
        return [node for node in self.nodes if isinstance(node, kinds)]

    @property
    def key(self):
        """The name under which FLOORS knows this module: its own, or that of a whole folder."""
        return known(self.module)


def known(module):
    return module if module in FLOOR else module.partition(".")[0]


def read(path):
    return File(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))


def sources():
    """Every Python file of the repository; what is built or fetched lies elsewhere."""
    paths = [path for folder in ("p2p", "apps", "tools", "tests") for path in (ROOT / folder).rglob("*.py")]
    return [read(path) for path in sorted(paths) + sorted(ROOT.glob("*.py"))]


RULES = {}


def rule(function):
    RULES[function.__name__] = function
    return function


# Imports

def imports(file):
    """(line, module) of each import inside p2p, as names below p2p; also those inside functions."""
    for node in file.of(ast.ImportFrom):
        if node.level:
            base = file.package[:len(file.package) - node.level + 1]
        elif (node.module or "").split(".")[0] == "p2p":
            base = []
        else:
            continue
        said = (node.module or "").split(".") if node.module else []
        base = base + (said if node.level else said[1:])
        for alias in node.names:
            whole = ".".join(base + [alias.name])
            name = whole if whole in MODULES or whole in FLOOR else ".".join(base)
            if name:                             # the package itself stands above and below all of its modules
                yield node.lineno, name
    for node in file.of(ast.Import):
        for alias in node.names:
            if alias.name.startswith("p2p."):
                yield node.lineno, alias.name[4:]


def outside(file):
    """(line, name) of each import from outside the repository."""
    for node in file.of(ast.Import):
        for alias in node.names:
            yield node.lineno, alias.name
    for node in file.of(ast.ImportFrom):
        if not node.level:
            yield node.lineno, node.module


@rule
def nothing_but_the_standard_library(file):
    if file.path.startswith("tests/"):
        return
    for line, name in outside(file):
        top = name.split(".")[0]
        if top in NEW_MODULES:
            yield line, f"{top} exists since Python {NEW_MODULES[top]} only: do without"
        elif top not in STANDARD and top != "p2p" and not (file.path.startswith("apps/") and beside(file, top)):
            yield line, f"imports {top}, which is not in the standard library: write the part that is needed"


def beside(file, name):
    folder = (ROOT / file.path).parent
    return (folder / f"{name}.py").exists() or (folder / name).is_dir()


@rule
def every_module_has_its_floor(file):
    if file.product and file.module and file.key not in FLOOR and not is_empty_package(file):
        yield 1, "on no floor: enter it in FLOORS of tests/test_tidy.py, on the lowest one on which it can live"


def is_empty_package(file):
    return file.path.endswith("__init__.py") and all(isinstance(node, ast.Expr) for node in file.tree.body)


@rule
def imports_go_down_only(file):
    if not file.product or file.key not in FLOOR:
        return
    for line, name in imports(file):
        target = known(name)
        if target in FLOOR and FLOOR[target] > FLOOR[file.key]:
            yield line, (f"floor {FLOOR[file.key]} imports {name} of floor {FLOOR[target]}: "
                         f"let the higher one hand it in, or move what is needed down")
        if {file.key, target} <= MACHINES and file.key != target:
            yield line, f"imports {name}: pure machines do not know each other; let the node carry it over"


@rule
def no_circles(file):
    """A module that reaches itself by its imports, also by those inside functions."""
    for line, name in imports(file) if file.product else ():
        way = path_between(name, file.module)
        if way:
            circle = " -> ".join([file.module, *way])
            yield line, f"circle {circle}: move what both need into a lower module, or hand it in"


def path_between(start, goal):
    """The shortest way of imports from one module to another, or None."""
    ways, seen = [[start]], {start}
    for way in ways:
        if way[-1] == goal:
            return way
        for name in GRAPH.get(way[-1], ()):
            if name not in seen:
                seen.add(name)
                ways.append(way + [name])
    return None


# Purity and order

@rule
def pure_modules_have_no_world(file):
    if not file.product or file.key not in PURE:
        return
    for line, name in outside(file):
        if name.split(".")[0] in IMPURE:
            yield line, f"imports {name} in a pure module: take the time, bytes or random value as an argument"
    for node in file.of(ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in ("open", "input", "print"):
            yield node.lineno, f"calls {node.func.id}() in a pure module: return what should happen"
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("utcnow", "today"):
            yield node.lineno, "reads the clock in a pure module: take the time as an argument"


def is_set(node, names):
    """Whether an expression is surely a set: by its form, or a name that is only ever bound to sets."""
    if isinstance(node, (ast.Set, ast.SetComp)):
        return True
    if isinstance(node, ast.Call):
        called = node.func
        return (isinstance(called, ast.Name) and called.id in ("set", "frozenset")
                or isinstance(called, ast.Attribute) and called.attr in SET_METHODS and is_set(called.value, names))
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)):
        return is_set(node.left, names) or is_keys(node.left) or is_keys(node.right)
    return ast.dump(node) in names if isinstance(node, (ast.Name, ast.Attribute)) else False


SET_METHODS = ("union", "intersection", "difference", "symmetric_difference", "copy")


def is_keys(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"


def set_names(scope):
    """Names and `self.` attributes that one function, class or module binds to sets and to nothing else."""
    sets, others = set(), set()
    for node in scope:
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.AnnAssign) and node.value:
            pairs = [(node.target, node.value)]
        elif isinstance(node, (ast.For, ast.comprehension)):
            pairs = [(node.target, None)]
        else:
            continue
        for target, value in pairs:
            for one in ast.walk(target):
                if isinstance(one, (ast.Name, ast.Attribute)):
                    name = ast.dump(one).replace("Store()", "Load()")
                    (sets if value is not None and is_set(value, ()) else others).add(name)
    return sets - others


@rule
def order_never_comes_from_a_set(file):
    if not file.product:
        return
    excused = {id(argument) for node in file.of(ast.Call)
               if isinstance(node.func, ast.Name) and node.func.id in UNORDERED_IS_FINE for argument in node.args}
    for scope in set_scopes(file):
        names = set_names(scope)
        for node in scope:
            for used in iterated(node, excused):
                if is_set(used, names):
                    yield used.lineno, ("iterates over a set, whose order differs between processes: "
                                        "sorted(...), or a dict, which keeps the order")


def set_scopes(file):
    """Nodes of each class whole (its attributes), and of each function that is in no class, and of the module."""
    scopes, seen = [], set()
    for node in file.of(ast.ClassDef):
        scopes += [list(ast.walk(node))]
        seen.update(map(id, scopes[-1]))
    for node in file.of(ast.FunctionDef, ast.AsyncFunctionDef):
        if id(node) not in seen:
            scopes += [list(ast.walk(node))]
            seen.update(map(id, scopes[-1]))
    return scopes + [[node for node in file.nodes if id(node) not in seen]]


def iterated(node, excused):
    """The expressions over which a node iterates in an order that can be seen."""
    if isinstance(node, (ast.For, ast.AsyncFor)):
        yield node.iter
    elif isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.DictComp)) and id(node) not in excused:
        for part in node.generators:
            yield part.iter
    elif isinstance(node, ast.Starred):
        yield node.value
    elif isinstance(node, ast.Call) and id(node) not in excused and node.args:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in ("list", "tuple", "enumerate", "iter", "map", "join", "extend", "fromkeys"):
            yield node.args[-1]


# Words, sizes, danger

@rule
def every_file_says_what_it_is_and_why(file):
    if is_empty_package(file) and file.path != "p2p/__init__.py" or file.path.startswith("tests/"):
        return
    text = ast.get_docstring(file.tree, clean=False) or ""
    if len([line for line in text.split("\n") if line.strip()]) < 3 and file.error is None:
        yield 1, "opens without an essay of 3 lines or more: what it is, why so, the rule that holds"


@rule
def public_names_are_explained(file):
    if not file.product and file.path not in ("p2pframe.py",) and not file.path.startswith("tools/"):
        return
    for node in file.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.lineno, f"{node.name} has no docstring: say what it promises, or begin its name with _"


@rule
def functions_and_files_stay_short(file):
    if len(file.lines) - 1 > LONGEST_FILE:
        yield LONGEST_FILE, f"{len(file.lines) - 1} lines: at most {LONGEST_FILE}; which second purpose can leave?"
    for node in file.of(ast.FunctionDef, ast.AsyncFunctionDef):
        length = node.end_lineno - node.lineno + 1
        if length > LONGEST_FUNCTION:
            yield node.lineno, f"{node.name} has {length} lines: at most {LONGEST_FUNCTION}; name its parts"


@rule
def only_faces_print(file):
    if not file.product or FLOOR.get(file.key, FACES) >= FACES:
        return
    for node in file.of(ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno, "prints: return it, log it, or let a face show it (foreign text cleaned)"


@rule
def nothing_foreign_is_executed(file):
    if not file.product:
        return
    for line, name in outside(file):
        if name.split(".")[0] in DANGEROUS:
            yield line, f"imports {name}: bytes of others must never build objects; use struct, or json with checks"
    for node in file.of(ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            yield node.lineno, f"calls {node.func.id}: use a table, or runpy for an application that the user allowed"


@rule
def runs_on_python_3_8(file):
    if file.error is not None:
        yield file.error.lineno or 1, f"not Python 3.8: {file.error.msg}"
    if file.path == "tests/test_tidy.py":
        return
    for node in file.of(ast.Attribute):
        if node.attr in NEW_NAMES:
            yield node.lineno, f".{node.attr} exists since Python {NEW_NAMES[node.attr]} only: do without"


@rule
def nothing_is_left_to_do(file):
    for number, line in enumerate(file.lines, 1):
        if re.search(r"#.*\b(TODO|FIXME|XXX|HACK)\b", line) and file.path != "tests/test_tidy.py":
            yield number, "a reminder in a comment: build it, or say in docs/ that it is missing"


@rule
def every_limit_is_explained_and_used(file):
    if file.path != "p2p/limits.py":
        return
    for node in file.tree.body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            above = file.lines[node.lineno - 2].lstrip()
            if "#" not in file.lines[node.end_lineno - 1] and not above.startswith("#"):
                yield node.lineno, f"{target.id} has no comment: unit, reason, source"
            if target.id not in LIMITS_USED:
                yield node.lineno, f"{target.id} is used nowhere: delete it, or use it instead of the number"


FILES = sources()
MODULES = {file.module for file in FILES if file.product}
GRAPH = {file.module: sorted({name for _, name in imports(file)}) for file in FILES if file.product}
STANDARD = getattr(sys, "stdlib_module_names", None)
LIMITS_USED = {name for file in FILES if file.path.startswith(("p2p/", "apps/")) and file.path != "p2p/limits.py"
               for node in file.of(ast.Attribute, ast.ImportFrom)
               for name in ([node.attr] if isinstance(node, ast.Attribute) else [alias.name for alias in node.names])}


@pytest.mark.parametrize("name", sorted(RULES))
def test_house_rule(name):
    if name == "nothing_but_the_standard_library" and STANDARD is None:
        pytest.skip("Python knows the names of its own modules since 3.10")
    found = [f"{file.path}:{line}: {complaint}" for file in FILES for line, complaint in RULES[name](file)]
    assert not found, "\n" + "\n".join(found)


ESSAY = '"""One.\n\nTwo.\nThree.\n"""\n'

SAMPLES = [
    ("nothing_but_the_standard_library", "p2p/loop.py", "import numpy"),
    ("nothing_but_the_standard_library", "apps/x/main.py", "def f():\n    from requests.api import get"),
    ("every_module_has_its_floor", "p2p/cellar.py", "X = 1"),
    ("imports_go_down_only", "p2p/loop.py", "def f():\n    from . import node"),
    ("imports_go_down_only", "p2p/sync/manifest.py", "from ..loop import Loop"),
    ("imports_go_down_only", "p2p/node.py", "import p2p.terminal.editor"),
    ("imports_go_down_only", "p2p/sessions.py", "from .trust import consent"),
    ("no_circles", "p2p/errors.py", "from . import limits, proto"),
    ("pure_modules_have_no_world", "p2p/membership.py", "def f():\n    import time"),
    ("pure_modules_have_no_world", "p2p/trust/consent.py", "from os.path import join"),
    ("pure_modules_have_no_world", "p2p/text.py", "print(1)"),
    ("pure_modules_have_no_world", "p2p/trust/x509.py", "import datetime\ndatetime.datetime.utcnow()"),
    ("order_never_comes_from_a_set", "p2p/node.py", "for x in {1, 2}:\n    f(x)"),
    ("order_never_comes_from_a_set", "p2p/node.py", "x = [y for y in set(z)]"),
    ("order_never_comes_from_a_set", "p2p/node.py", "x = ', '.join(set(z))"),
    ("order_never_comes_from_a_set", "p2p/node.py", "def f(a, b):\n    for x in a.keys() - b:\n        g(x)"),
    ("order_never_comes_from_a_set", "p2p/node.py", "def f():\n    x = set()\n    return list(x)"),
    ("order_never_comes_from_a_set", "p2p/node.py",
     "class A:\n  def __init__(self):\n    self.x = set()\n  def f(self):\n    for y in self.x:\n      g(y)"),
    ("every_file_says_what_it_is_and_why", "p2p/node.py", '"""The node."""\nX = 1'),
    ("public_names_are_explained", "p2p/node.py", "class Node:\n    pass"),
    ("functions_and_files_stay_short", "p2p/node.py", "def f():\n" + "    g()\n" * 60),
    ("functions_and_files_stay_short", "tests/test_x.py", "g()\n" * 501),
    ("only_faces_print", "p2p/node.py", "print('hello')"),
    ("nothing_foreign_is_executed", "p2p/state.py", "import pickle"),
    ("nothing_foreign_is_executed", "p2p/message.py", "eval('1')"),
    ("runs_on_python_3_8", "p2p/node.py", "match x:\n    case 1:\n        pass"),
    ("runs_on_python_3_8", "p2p/node.py", "'abc'.removeprefix('a')"),
    ("nothing_is_left_to_do", "p2p/node.py", "x = 1  # TO" "DO later"),
    ("every_limit_is_explained_and_used", "p2p/limits.py", "# reason\nNEVER_USED_BY_ANYONE = 1\n"),
    ("every_limit_is_explained_and_used", "p2p/limits.py", "\nMAX_BODY = 1\n"),
]

CLEAN = '''
from . import limits
def _f(a, b):
    x = set()
    for y in sorted(x):
        g(y)
    return any(z for z in x), len(set(a)), sorted(set(b)), {w for w in x}
'''


@pytest.mark.parametrize("name, path, source", SAMPLES)
def test_each_rule_bites(name, path, source):
    if name == "nothing_but_the_standard_library" and STANDARD is None:
        pytest.skip("Python knows the names of its own modules since 3.10")
    assert list(RULES[name](File(path, source)))


def test_clean_code_passes_every_rule():
    file = File("p2p/node.py", ESSAY + CLEAN)
    checks = [check for name, check in RULES.items() if STANDARD or name != "nothing_but_the_standard_library"]
    assert [found for check in checks for found in check(file)] == []
