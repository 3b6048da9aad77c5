"""The package's rooms: imports run one way, no circle, and the audit's rooms need no torch."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from cxrlib.evaluation.results import project_root

#: From the ground up; a room imports from rooms before it, the first three from nothing but each other.
ROOMS = (
    "errors", "cohort", "parallel", "io", "phantom", "images", "datasets", "evaluation", "training", "lungs",
    "studies", "plots", "audit", "report", "cli",
)  # fmt: skip
WITHOUT_TORCH = ("audit", "cli.main", "datasets", "images", "io", "lungs")
PACKAGE = project_root() / "cxrlib"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path, *, types: bool) -> set[str]:
    """Modules of ours that a file imports, in functions too; ``types``: those for type checkers besides."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in names if name in MODULES} - {"cxrlib"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"cxrlib"}))
def test_a_room_imports_only_from_rooms_below_it(module):
    room = module.split(".")[1]
    reached = {name.split(".")[1] for name in imports(MODULES[module], types=True)}
    above = [name for name in reached if ROOMS.index(name) > ROOMS.index(room)]
    assert not above
    if room in ROOMS[:3]:
        assert reached <= set(ROOMS[:3])


def test_every_room_is_listed():
    assert {name.split(".")[1] for name in MODULES if name != "cxrlib"} == set(ROOMS)


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: imports(path, types=False) - {name} for name, path in MODULES.items()}
    for name in graph:  # a room's __init__ hands on what its modules hold; they do not go through it
        graph[name] -= {name.rpartition(".")[0]}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_a_room_of_the_audit_is_imported_without_torch(room):
    program = f"import sys; sys.modules['torch'] = None; import cxrlib.{room}"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)


def test_a_room_says_what_it_is_for():
    import importlib

    for room in ROOMS[3:]:
        said = importlib.import_module(f"cxrlib.{room}").__doc__ or ""
        assert len(said) > 60, room
