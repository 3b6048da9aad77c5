"""Exercises of the chapters, answered as a learner might: the cells that they need, theirs, and the check."""

import ast
import io
import json
import symtable
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from cxrlib.evaluation.results import project_root

NOTEBOOKS = project_root() / "notebooks"


def tags(cell) -> set[str]:
    return set(cell["metadata"].get("tags", ()))


def code_cells(path: Path) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]


def names(source: str) -> tuple[set[str], set[str]]:
    """The global names that a cell gives or changes in place (``x[…] =``, ``x.y =``), and those it reads."""
    top = symtable.symtable(source, "cell", "exec")
    gives = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}
    reads = {one.get_name() for one in top.get_symbols() if one.is_referenced()}
    inner = list(top.get_children())
    for table in inner:
        reads |= {one.get_name() for one in table.get_symbols() if one.is_global()}
        inner += table.get_children()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            base = node.value
            while isinstance(base, ast.Attribute | ast.Subscript):
                base = base.value
            gives |= {base.id} & reads if isinstance(base, ast.Name) else set()
    return gives, reads


class Exercises:
    """A chapter's exercises: cells tagged ``exercise``, each with its ``check`` and ``solution`` after it.

    Exercises are counted from 0. Before one is answered, the cells are run whose names it, its check or its
    solution needs, directly or through others, at preset smoke, each once.
    """

    def __init__(self, chapter: str, **parameters):
        self.cells = code_cells(NOTEBOOKS / f"{chapter}.ipynb")
        self.parameters = {"preset": "smoke"} | parameters
        self.space: dict = {"__name__": "__main__"}
        self.done: set[int] = set()
        self.places = [i for i, cell in enumerate(self.cells) if "exercise" in tags(cell)]

    def _after(self, number: int, tag: str) -> int:
        return next(i for i in range(self.places[number], len(self.cells)) if tag in tags(self.cells[i]))

    def _prepare(self, number: int, needed: set[str]) -> None:
        """Run what gives these names, from the top."""
        before = range(self.places[number])
        wanted = []
        for i in reversed(before):
            if tags(self.cells[i]) & {"exercise", "check", "solution"}:
                continue
            gives, reads = names(self.cells[i]["source"])
            if gives & needed or "parameters" in tags(self.cells[i]):
                needed = needed | reads
                wanted.append(i)
        for i in reversed(wanted):
            if i not in self.done:
                self._run(self.cells[i]["source"])
                self.done.add(i)
                if "parameters" in tags(self.cells[i]):
                    self.space |= self.parameters

    def _run(self, source: str) -> str:
        said = io.StringIO()
        with redirect_stdout(said):
            exec(compile(source, "cell", "exec"), self.space)
        plt.close("all")
        return said.getvalue()

    def _tried(self, *sources: str) -> str:
        """What the cells print, and the sentence of the error that ends them, if one does."""
        said = ""
        for source in sources:
            try:
                said += self._run(source)
            except Exception as error:
                return said + f"{type(error).__name__}: {error}"
        return said

    def answer(self, number: int, *dots: str, source: str | None = None) -> str:
        """What the check says of an answer.

        - ``dots``: what stands for each ``...`` of the exercise's cell, in turn; with none, the cell stays.
        - ``source``: the whole cell instead.
        """
        cell, check = (self.cells[i]["source"] for i in (self.places[number], self._after(number, "check")))
        source = source or cell
        for answer in dots:
            assert "..." in source, "more answers than dots"
            source = source.replace("...", answer, 1)
        self._prepare(number, names(source)[1] | names(check)[1])
        return self._tried(source, check)

    def solve(self, number: int) -> str:
        """What the chapter's own solution prints, run after the exercise left open and its check."""
        cells = [self.places[number], self._after(number, "check"), self._after(number, "solution")]
        exercise, check, solution = (self.cells[i]["source"] for i in cells)
        self._prepare(number, set().union(*(names(source)[1] for source in (exercise, check, solution))))
        self._tried(exercise, check)
        return self._tried(solution)


@pytest.fixture(scope="module")
def exercises():
    """``exercises("03_training")``: a chapter's exercises, its cells run once a test module."""
    made: dict[str, Exercises] = {}

    def of(chapter: str, **parameters) -> Exercises:
        return made.setdefault(f"{chapter}{parameters}", Exercises(chapter, **parameters))

    return of
