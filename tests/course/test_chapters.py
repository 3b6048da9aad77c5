"""What every chapter keeps to: short open cells, prose by hand, numbers from records, exercises, links."""

import ast
import re
from statistics import median

import committed
import pytest

from cxrlib.evaluation.results import project_root, recorded
from cxrlib.report import course, quiz
from cxrlib.report.batch import find_notebooks

NAMES = committed.notebooks()
PARAMETERS = {"dataset", "data_dir", "image_size", "preset", "seed", "out_dir"}
FOLDS = {"hide-input", "hide-output", "hide-cell", "remove-input", "remove-output", "remove-cell"}
PLUMBING = re.compile(r"\b(preset|out_dir|data_dir|apply_style|tempfile|notebook=|limit)\b|\bif dataset\b")
INTERVAL = re.compile(r"\d\.?\d*%? \([+−\d.%]+(?:–| to )[+−\d.%]+\)")

every_chapter = pytest.mark.parametrize("name", NAMES)


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def code(name: str, *, without: tuple[str, ...] = ()) -> list:
    return [cell for cell in committed.code_cells(committed.read(name)) if not tags(cell) & set(without)]


def taught(name: str) -> list:
    """What a learner reads: neither parameters nor solutions."""
    return code(name, without=("parameters", "solution"))


def prose(name: str) -> str:
    return "\n\n".join(cell.source for cell in committed.read(name).cells if cell.cell_type == "markdown")


def lines(cell) -> list[str]:
    return [line for line in cell.source.splitlines() if line.strip()]


@every_chapter
def test_only_solutions_are_folded_and_they_with_their_output(name):
    for cell in code(name):
        hidden = cell.metadata.get("jupyter", {})
        if "solution" in tags(cell):
            assert hidden == {"source_hidden": True, "outputs_hidden": True}, cell.source
            assert "hide-cell" in tags(cell), cell.source
        else:
            assert not hidden and not FOLDS & tags(cell), cell.source


@every_chapter
def test_cells_are_short_and_few(name):
    lengths = [len(lines(cell)) for cell in taught(name)]
    assert len(code(name)) <= 35
    assert max(lengths) <= 25 and median(lengths) <= 7
    for cell in taught(name):
        imports = [line for line in lines(cell) if re.match(r"(from|import) ", line)]
        assert len(imports) <= 8, cell.source


@every_chapter
def test_a_chapter_has_at_most_1600_words(name):
    assert len(re.sub(r"<!--.*?-->", "", prose(name), flags=re.DOTALL).split()) <= 1600


@every_chapter
def test_at_most_twelve_lines_are_plumbing(name):
    own = [line for cell in taught(name) for line in lines(cell) if not re.match(r"(from|import) ", line)]
    plumbing = [line for line in own if PLUMBING.search(line)]
    assert len(plumbing) <= 12, plumbing


@every_chapter
def test_no_cell_writes_sentences(name):
    """Nothing is shown as Markdown from code, and nothing chooses between two sentences."""
    for cell in taught(name):
        assert not re.search(r"\bMarkdown\(|\b(say|keep|listed)\(", cell.source), cell.source
        if "check" in tags(cell):
            continue  # hints are chosen
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.IfExp):
                assert not any(is_sentence(branch) for branch in (node.body, node.orelse)), cell.source


def is_sentence(node: ast.expr) -> bool:
    texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return len(" ".join(texts).split()) > 3


@every_chapter
def test_numbers_in_prose_are_marked_and_are_the_recorded_ones(name):
    text = " ".join(prose(name).split())
    marks = committed.MARKED.findall(text)
    assert len(marks) == text.count("<!--")
    assert len(INTERVAL.findall(text)) == sum("(" in mark[0] for mark in marks)
    wrong = [
        (said, place, key, format(recorded(place).estimate(key), spec))
        for said, place, key, spec in marks
        if said.strip() != format(recorded(place).estimate(key), spec)
    ]
    assert wrong == []


def shown_in(name: str) -> set[str]:
    """The records whose figures a chapter shows."""
    sources = "\n".join(cell.source for cell in code(name))
    figures = re.findall(r"\.\./figures/([\w/-]+)\.png", prose(name))
    return {*re.findall(r'evidence\(\s*"([\w/-]+)"', sources), *figures}


@every_chapter
def test_evidence_that_is_spoken_of_is_on_the_page_or_in_a_chapter_that_it_links_to(name):
    shown = shown_in(name)
    assert [place for place in shown if recorded(place) is None] == []
    text = prose(name)
    for linked in set(re.findall(r"\]\((\d\d_\w+)\.ipynb", text)) & set(NAMES):
        shown |= shown_in(linked)
    spoken_of = {place for _, place, _, _ in committed.MARKED.findall(" ".join(text.split()))}
    assert {place for place in spoken_of if not place.startswith("phantom/")} - shown == set()


@every_chapter
def test_links_lead_to_chapters_headings_and_figures(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(name)) + re.findall(r'src="([^"]+)"', prose(name)):
        file, _, heading = target.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        assert not file or (project_root() / "notebooks" / file).is_file(), target
        if heading and (not file or file.endswith(".ipynb")):
            other = prose(file.removesuffix(".ipynb") or name)
            slugs = {
                re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
                for title in re.findall(r"^#+ +(.+)$", other, re.MULTILINE)
            }
            assert heading.lower() in slugs, target


@every_chapter
def test_a_chapter_is_introduced_and_answered(name):
    text = prose(name)
    for needed in ("**Questions**", "**Objectives.**", "**Time.**", "embedded cohort", "\n## Key points"):
        assert needed in text, needed
    assert text.startswith("# ") and "clinical use" in text
    (parameters,) = (cell for cell in code(name) if "parameters" in tags(cell))
    notebooks, _ = find_notebooks(project_root() / "notebooks")
    (given,) = (set(one.parameters) for one in notebooks if one.name == name)
    assert given >= PARAMETERS, parameters.source


@every_chapter
def test_exercises_have_dots_a_check_and_a_solution(name):
    cells = committed.code_cells(committed.read(name))
    kinds = [next(iter(tags(cell) & {"exercise", "check", "solution"}), "") for cell in cells]
    assert 2 <= kinds.count("solution") <= 3
    assert kinds.count("exercise") >= 1
    for number, kind in enumerate(kinds):
        if kind == "exercise":
            assert "..." in cells[number].source
            assert kinds[number + 1 : number + 3] == ["check", "solution"]
    tested = project_root() / "tests" / "course" / f"test_{name[:2]}.py"
    assert tested.is_file(), "its bank of wrong answers"


@every_chapter
def test_the_chapters_question_stands_before_its_key_points(name):
    assert name in quiz.questions()
    sources = [cell.source for cell in committed.read(name).cells]
    asked = next(i for i, source in enumerate(sources) if f'ask("{name}")' in source)
    key_points = next(i for i, source in enumerate(sources) if "## Key points" in source)
    assert asked < key_points


@every_chapter
def test_a_figure_that_a_cell_draws_has_an_alternative_text(name):
    for cell in code(name):
        if "plt.show()" in cell.source:
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 15, cell.source


@every_chapter
def test_what_a_run_measured_is_recorded_once(name):
    calls = [cell for cell in taught(name) if re.search(r"^record\(", cell.source, re.MULTILINE)]
    assert len(calls) <= 1
    assert not re.search(r"figures=|atomic_path|write_text", "\n".join(cell.source for cell in code(name)))


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    return {path.stem: course.read_notebook(path) for path in course.hand_out(folder)}


@every_chapter
def test_what_is_handed_out_keeps_exercises_and_holds_no_solution(name, handed_out):
    given = [cell.source for cell in handed_out[name].cells]
    solutions = [cell.source for cell in code(name) if "solution" in tags(cell)]
    assert solutions and not set(solutions) & set(given)
    assert {cell.source for cell in code(name) if "exercise" in tags(cell)} <= set(given)
    assert not [text for text in given if "<summary>Solution" in text]
    cells = committed.code_cells(handed_out[name])
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
