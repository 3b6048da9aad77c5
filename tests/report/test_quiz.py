"""Every chapter's question: one right answer, feedback for all, and its number held to the record."""

import html
import re
import shutil
from importlib import resources

import pytest

from cxrlib.errors import ConfigError
from cxrlib.evaluation.results import project_root, recorded
from cxrlib.report import quiz
from cxrlib.report.site.offline import SEALED, tag
from cxrlib.report.site.safe import safe_html

QUESTIONS = quiz.questions()
CHAPTERS = [path.stem for path in sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
MARKED = re.compile(r"([+−]?\d[^\s<]*)<!-- ([\w-]+/[\w-]+):([\w.-]+?)(?::(\+?\.\d[f%]))? -->")


def shown(chapter, monkeypatch) -> str:
    outputs = []
    monkeypatch.setattr(quiz, "display", outputs.append)
    quiz.ask(chapter)
    (output,) = outputs
    return output.data


@pytest.mark.parametrize("chapter", QUESTIONS)
def test_a_question_has_one_right_answer_and_feedback_for_each(chapter):
    one = QUESTIONS[chapter]
    assert chapter in CHAPTERS
    assert 3 <= len(one.answers) <= 4
    assert sum(answer.right for answer in one.answers) == 1
    assert len({answer.text for answer in one.answers}) == len(one.answers)
    assert all(len(answer.why) > 20 for answer in one.answers)
    assert one.question.rstrip().endswith("?")


@pytest.mark.parametrize("chapter", [name for name, one in QUESTIONS.items() if one.record])
def test_the_right_answer_holds_the_recorded_number_and_no_wrong_one_does(chapter):
    """As the README prints it, with or without its interval."""
    one = QUESTIONS[chapter]
    place, key, *spec = one.record.split(":")
    number = format(recorded(place).estimate(key), "".join(spec)).split(" (")[0]
    alone = re.compile(rf"(?<![\d.]){re.escape(number)}(?![\d%]|\.\d)")
    for answer in one.answers:
        assert bool(alone.search(answer.text)) == answer.right, (number, answer.text)


@pytest.mark.parametrize("chapter", QUESTIONS)
def test_marked_numbers_in_a_question_are_the_recorded_ones(chapter):
    one = QUESTIONS[chapter]
    text = "\n".join([one.question, *(f"{answer.text}\n{answer.why}" for answer in one.answers)])
    marked = MARKED.findall(text)
    assert len(marked) == text.count("<!--")
    for number, place, key, spec in marked:
        assert format(recorded(place).estimate(key), spec).split(" (")[0] == number.split(" (")[0]


def test_what_is_shown_needs_no_script_and_passes_into_the_report_unchanged(monkeypatch):
    for chapter in QUESTIONS:
        text = shown(chapter, monkeypatch)
        assert "<script" not in text and "<!--" not in text and "://" not in text
        passed = safe_html(text)
        assert html.unescape(passed) == html.unescape(text)
        assert passed.count("&lt;") == text.count("&lt;")  # no tag became text


def test_the_right_answer_is_not_always_in_the_same_place(monkeypatch):
    places = {shown(chapter, monkeypatch).split("✓")[0].count("✗") for chapter in QUESTIONS}
    assert len(places) > 1 or len(QUESTIONS) < 4


def test_what_is_written_is_text(monkeypatch):
    answers = (quiz.Answer("<b>x</b> & 5<!-- a/b:c -->", "why"), quiz.Answer("y", "so", right=True))
    monkeypatch.setattr(quiz, "questions", lambda: {"00_a": quiz.Question("Is 1 < 2?", answers)})
    text = shown("00_a", monkeypatch)
    assert "&lt;b&gt;x&lt;/b&gt; &amp; 5</summary>" in text and "Is 1 &lt; 2?" in text


def test_a_chapter_without_a_question_is_named_with_those_that_have_one():
    with pytest.raises(ConfigError, match="99_nothing") as caught:
        quiz.ask("99_nothing")
    assert "03_training" in caught.value.remedy


def test_a_file_that_is_no_question_is_named(monkeypatch, tmp_path):
    (tmp_path / "01_x.toml").write_text('question = "?"\n[[answers]]\ntext = "no why"\n')
    monkeypatch.setattr(quiz, "HERE", tmp_path)
    with pytest.raises(ConfigError, match=r"01_x\.toml"):
        quiz.questions()


def test_the_questions_are_part_of_the_package():
    assert resources.files("cxrlib.report.quiz").joinpath("03_training.toml").is_file()
    assert "report/quiz/*.toml" in (project_root() / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_an_answer_opens_by_keyboard_alone_and_axe_is_content(monkeypatch, tmp_path, scheme):
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium")
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    file = tmp_path / "quiz.html"
    head = f"<title>x</title>{tag(SEALED)}<meta name=color-scheme content='light dark'>"
    body = safe_html(shown("03_training", monkeypatch))
    file.write_text(
        f"<!doctype html><html lang=en><head>{head}</head><body><main><h1>x</h1>{body}</main></body></html>",
        encoding="utf-8",
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(offline=True, color_scheme=scheme).new_page()
        page.goto(file.as_uri())
        answers = page.locator(".quiz details")
        opened = []
        for number in range(answers.count()):
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            said = answers.nth(number).locator("p")
            assert said.is_visible()
            opened.append(said.inner_text())
            assert page.locator(".quiz details[open]").count() == 1  # the one before has closed
        assert sum("Right" in text for text in opened) == 1
        found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
        browser.close()
