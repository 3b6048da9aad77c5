"""Words of the glossary become links where a chapter first sets them in italics."""

import nbformat
import pytest

from cxrlib.report.batch import Outcome
from cxrlib.report.site.chapters import decorate
from cxrlib.report.site.glossary import linked, terms
from tests import committed


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("the *AUC* and", "the {term}`AUC <AUC>` and"),
        ("*Counterfactual twins* of", "{term}`Counterfactual twins <counterfactual twin>` of"),
        ("*Youden's* index", "{term}`Youden's <Youden's index>` index"),
        ("**AUC**, *a word of no glossary*, 2*AUC*3", "**AUC**, *a word of no glossary*, 2*AUC*3"),
        ("## The *AUC*", "## The *AUC*"),
    ],
)
def test_a_word_of_the_glossary_becomes_a_link(text, wanted):
    assert linked(text, set()) == wanted


def test_only_the_first_of_a_chapter_is_a_link():
    cells = [nbformat.v4.new_markdown_cell(text) for text in ("# T\n\n*AUC*, *AUC*", "*AUC* and *shortcut*")]
    notebook = decorate(nbformat.v4.new_notebook(cells=cells), Outcome("01", "done", 1.0), "cxr")
    assert [cell.source for cell in notebook.cells] == [
        "# T\n\n{term}`AUC <AUC>`, *AUC*",
        "*AUC* and {term}`shortcut <shortcut>`",
    ]


def test_every_spelling_leads_to_a_term():
    listed = [term for term in terms().values()]
    own = {term for spelling, term in terms().items() if spelling in (term.lower(), term.lower().rstrip("s"))}
    assert set(listed) <= own


@pytest.mark.parametrize("chapter", committed.notebooks())
def test_every_chapter_leads_to_the_glossary(chapter):
    seen: set[str] = set()
    for cell in committed.read(chapter).cells:
        if cell.cell_type == "markdown":
            linked(cell.source, seen)
    assert len(seen) >= 2
