"""The site in a real browser, from file:// and with the network cut off."""

import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from cxrlib.evaluation.results import project_root
from cxrlib.report.site.build import MARKER, SINGLE_FILE, SLIDES

pytestmark = pytest.mark.browser

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = [390, 1280]


def _chromium() -> str | None:
    named = os.environ.get("CXRLIB_CHROMIUM")
    return named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


@pytest.fixture(scope="module")
def browser():
    path = _chromium()
    if path is None:
        reason = "no Chromium: install it (Debian: apt-get install chromium) or name it in CXRLIB_CHROMIUM"
        if os.environ.get("CXRLIB_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe():
    """axe-core, which looks for what keeps people from reading a page."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        reason = "axe-core is not installed: pip install axe-playwright-python"
        if os.environ.get("CXRLIB_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Axe()


@pytest.fixture(scope="module")
def serious(browser, axe) -> list[str]:
    """The rules that axe runs unasked and whose violations are serious or critical.

    A rule that has an impact gives it to all its violations, and every rule has one.
    """
    usual = """axe._audit.rules
        .filter(one => one.enabled && !one.tags.some(tag => axe._audit.tagExclude.includes(tag)))
        .map(one => [one.id, one.impact])"""
    with Watched(browser) as watched:
        axe.run(watched.page)  # brings axe into the page
        rules = dict(watched.page.evaluate(usual))
    assert set(rules.values()) == {"minor", "moderate", "serious", "critical"}
    return [name for name, impact in rules.items() if impact in ("serious", "critical")]


@pytest.fixture(scope="module", params=["toy", "committed", "report"])
def site(request) -> Path:
    """The toy report; the committed notebooks, rendered as they are; ``report/``, where it has been made."""
    if request.param == "toy":
        return request.getfixturevalue("toy_report")[0]
    if request.param == "committed":
        if not list((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
            pytest.skip("there are no notebooks yet")
        return request.getfixturevalue("committed_report")
    if not (project_root() / "report" / ".build" / MARKER).is_file():
        pytest.skip("report/ has not been made here, or is being made (make report)")
    return project_root() / "report"


def pages(site: Path) -> list[Path]:
    return sorted(site.glob("*.html"))


class Watched:
    """A page that remembers what went wrong on it."""

    def __init__(self, browser, width: int = 1280, scheme: str = "light"):
        self.context = browser.new_context(
            viewport={"width": width, "height": 850}, color_scheme=scheme, offline=True
        )
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        self.page.on("request", self._request)
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))

    def _console(self, message) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")

    def _request(self, request) -> None:
        if urlsplit(request.url).scheme not in ("file", "data", "blob"):
            self.problems.append(f"remote: {request.url}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


SEEN = """() => ({
    wide: document.documentElement.scrollWidth,
    links: [...document.querySelectorAll('[href], [src]')].map(e => e.href?.baseVal ?? e.href ?? e.src),
    ids: [...document.querySelectorAll('[id]')].map(e => e.id),
    nameless: [...document.querySelectorAll('article img')]
        .filter(i => !i.alt.trim() || /\\.png$/.test(i.alt)).map(i => i.src),
})"""
UNFOLDED = """() => {
    document.querySelectorAll('details').forEach(d => d.open = true);
    return document.documentElement.scrollWidth;
}"""


@pytest.fixture(scope="module")
def visits(browser, site) -> dict[int, dict[Path, dict]]:
    """What is seen on each page, by width; each page is opened once a width."""
    found: dict[int, dict[Path, dict]] = {}
    for width in WIDTHS:
        with Watched(browser, width) as watched:
            for path in pages(site):
                watched.page.goto(path.as_uri())
                watched.page.evaluate("document.fonts.ready.then(() => true)")
                seen = watched.page.evaluate(SEEN) | {"problems": list(watched.problems)}
                if width == 390:
                    seen["unfolded"] = watched.page.evaluate(UNFOLDED)
                found.setdefault(width, {})[path] = seen
                watched.problems.clear()
    return found


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_complains_asks_the_network_or_is_wider_than_the_screen(visits, width):
    assert visits[width]
    for path, seen in visits[width].items():
        wide = seen["wide"] - width
        assert wide <= 0, f"{path.name} is {wide} pixels too wide at {width}"
        assert not seen["problems"], path.name


def test_folded_code_and_solutions_fit_a_phone_too(visits):
    for path, seen in visits[390].items():
        assert seen["unfolded"] <= 390, path.name


def test_every_internal_link_and_anchor_resolves(visits):
    ids = {path: set(seen["ids"]) for path, seen in visits[1280].items()}
    broken = []
    for page, seen in visits[1280].items():
        for target in set(seen["links"]):
            url = urlsplit(target)
            if url.scheme != "file":
                continue
            path, fragment = Path(unquote(url.path)), unquote(url.fragment)
            if not path.is_file() or (fragment and path in ids and fragment not in ids[path]):
                broken.append(f"{page.name}: {target}")
    assert not broken


def test_every_picture_has_an_alternative_text(visits):
    for path, seen in visits[1280].items():
        assert seen["nameless"] == [], path.name


def test_search_finds_a_word_of_a_chapter(browser, site):
    word = "calibration" if "toy" in str(site) else "pneumonia"
    with Watched(browser) as watched:
        watched.page.goto((site / "search.html").as_uri() + f"?q={word}")
        watched.page.wait_for_selector("#search-results li a")
        found = watched.page.eval_on_selector_all("#search-results li a", "links => links.map(a => a.href)")
        assert any("/0" in urlsplit(link).path for link in found)
        assert not watched.problems


def test_it_is_dark_where_the_reader_wants_it_dark(browser, site):
    brightness = {}
    for scheme in ("light", "dark"):
        with Watched(browser, scheme=scheme) as watched:
            watched.page.goto((site / "index.html").as_uri())
            colour = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
            brightness[scheme] = sum(map(int, colour.strip("rgba()").split(",")[:3]))
    assert brightness["dark"] < 200 < 600 < brightness["light"]


def test_a_solution_unfolds_and_the_notebook_can_be_downloaded(browser, site):
    chapters = (path for path in pages(site) if path.stem[:2].isdigit())
    folded = re.compile(r'<details class="[^"]*\bhide\b')
    chapter = next(path for path in chapters if folded.search(path.read_text()))
    with Watched(browser) as watched:
        watched.page.goto(chapter.as_uri())
        fold = watched.page.locator("details.hide").first
        code = fold.locator("pre").first
        assert not code.is_visible()
        fold.locator("summary").click()
        assert code.is_visible()
        hrefs = watched.page.eval_on_selector_all(
            "a.btn-download-source-button", "all => all.map(a => a.href)"
        )
        assert [Path(unquote(urlsplit(href).path)).suffix for href in hrefs] == [".ipynb"]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_on_the_first_page_has_to_be_scrolled_sideways(browser, site, width):
    wider = """[...document.querySelectorAll('article *')].filter(one =>
        one.clientWidth && one.scrollWidth > one.clientWidth && getComputedStyle(one).overflowX !== 'visible'
    ).map(one => one.className + ' ' + one.textContent.slice(0, 60))"""
    with Watched(browser, width) as watched:
        watched.page.goto((site / "index.html").as_uri())
        assert watched.page.evaluate(wider) == []
        table = watched.page.locator(".scoreboard")
        if table.count():  # every number is on the screen, and beside it the data set
            for cell in table.locator("td:not(.empty)").all():
                box = cell.bounding_box()
                assert box["x"] >= 0 and box["x"] + box["width"] <= width
            named = "getComputedStyle(document.querySelector('.scoreboard td'), '::before').content"
            assert (watched.page.evaluate(named) != "none") == (width < 600)


def test_the_first_page_asks_shows_and_leads_on(browser, site):
    with Watched(browser) as watched:
        watched.page.goto((site / "index.html").as_uri())
        order = watched.page.eval_on_selector_all(
            "article h2", "all => all.map(h => h.firstChild.textContent)"
        )
        assert order[-4:] == ["What to do next", "Chapters", "All scores", "This run"]
        assert watched.page.locator(".cards.next a.go").count() >= 2
        chapters = [path for path in pages(site) if path.stem[:2].isdigit()]
        assert watched.page.locator(".cards:not(.next) > section").count() == len(chapters)
        if (site / SLIDES).is_file():  # the project's own report
            assert watched.page.locator(".finding .points li").count() == 11
            assert watched.page.locator(".asks").count() == len(chapters)


def test_slides_go_on_by_arrow_and_button_and_each_has_a_sheet_of_paper(browser, site):
    if not (site / SLIDES).is_file():
        pytest.skip("this report has no slides")
    with Watched(browser) as watched:
        page = watched.page
        page.goto((site / SLIDES).as_uri())
        shown = lambda: page.locator("section:visible").get_attribute("id")  # noqa: E731
        assert shown() == "slide-1"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("PageDown")
        assert shown() == "slide-3"
        page.get_by_role("button", name="Back").click()
        assert shown() == "slide-2"
        page.keyboard.press("End")
        page.keyboard.press("ArrowRight")
        assert shown() == "slide-10"
        for width, height in ((1280, 850), (390, 850), (1024, 600)):
            page.set_viewport_size({"width": width, "height": height})
            for number in range(1, 11):
                page.evaluate("number => show(number - 1)", number)
                seen = page.locator(f"#slide-{number} img").bounding_box()
                asked = page.locator(f"#slide-{number} footer").bounding_box()
                assert seen["height"] > 80, (width, number)
                assert asked["y"] + asked["height"] <= height, (width, number)
        assert page.pdf(landscape=True).count(b"/Type /Page\n") == 10
        assert not watched.problems


# A rule of colours looks at five texts of each kind, by all that decides on their colours: the one file has
# 37,000 texts, of a few hundred kinds. Of words of code that are alike the others become plain text, and of a
# folded table's rows that have the same tags and attributes, and text in the same places, five stay.
ALIKE = """() => {
    const known = new Map(), seen = new Map(), plain = [];
    const behind = element => {
        if (!element) return '';
        if (!known.has(element)) {
            const style = getComputedStyle(element);
            const own = [style.backgroundColor, style.backgroundImage, style.opacity, style.position];
            known.set(element, own.join() + ';' + behind(element.parentElement));
        }
        return known.get(element);
    };
    for (const one of document.body.querySelectorAll('*')) {
        const told = [...one.childNodes].some(node => node.nodeType == Node.TEXT_NODE && node.data.trim());
        if (!told || !one.checkVisibility()) continue;
        const style = getComputedStyle(one);
        const kind = [one.localName, one.className, style.color, style.fontSize, style.fontWeight,
            style.textShadow, getComputedStyle(one.parentElement).color, behind(one)].join();
        seen.set(kind, (seen.get(kind) ?? 0) + 1);
        if (seen.get(kind) <= 5) one.setAttribute('data-measured', '');
        else if (one.matches('.highlight pre span') && one.attributes.length == 1 && !one.children.length)
            plain.push(one);
    }
    plain.forEach(word => word.replaceWith(...word.childNodes));
    const built = new Map();
    for (const row of document.body.querySelectorAll('tr')) {
        if (row.checkVisibility()) continue;
        const how = row.outerHTML.replace(/>[^<]*[^<\\s][^<]*</g, '>text<');
        built.set(how, (built.get(how) ?? 0) + 1);
        if (built.get(how) > 5) row.remove();
    }
    return seen.size;
}"""
JUDGED = """async rules => {
    axe.configure({rules: [{id: 'color-contrast', selector: '[data-measured]'},
                           {id: 'link-in-text-block', selector: 'a[href][data-measured]'}]});
    const options = {resultTypes: ['violations'], runOnly: {type: 'rule', values: rules}};
    const found = await axe.run(document, options);
    const asked = [found.violations, found.passes, found.incomplete, found.inapplicable].flat();
    return {violations: found.violations, asked: [...new Set(asked.map(one => one.id))]};
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_no_serious_violation(browser, site, axe, serious, scheme, width):
    chapter = next(path for path in pages(site) if path.stem[:2].isdigit() and "<table" in path.read_text())
    more = (site / "findings.html", site / "commands.html", site / SLIDES)
    for path in filter(Path.is_file, (site / "index.html", chapter, site / SINGLE_FILE, *more)):
        with Watched(browser, width, scheme) as watched:
            watched.page.goto(path.as_uri())
            # Colours that are still fading into the dark would be measured on their way.
            while watched.page.evaluate("document.getAnimations().some(one => one.playState === 'running')"):
                watched.page.wait_for_timeout(50)
            assert watched.page.evaluate(ALIKE), path.name
            watched.page.evaluate(axe.axe_script)
            found = watched.page.evaluate(JUDGED, serious)
            assert sorted(found["asked"]) == sorted(serious)
            found = found["violations"]
            assert {v["impact"] for v in found} <= {"serious", "critical"}
            serious_ones = [(v["id"], v["help"], [n["html"] for n in v["nodes"][:3]]) for v in found]
            assert not serious_ones, path.name


def test_every_page_forbids_what_is_remote_and_means_it(browser, site):
    fetch = """new Promise(done => {
        document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
        const image = document.body.appendChild(new Image());
        image.onload = image.onerror = () => setTimeout(() => done("it was asked for"), 1000);
        image.src = "https://example.org/x.png";
    })"""
    for path in pages(site):
        policy = re.search(r'"Content-Security-Policy" content="([^"]+)"', path.read_text(encoding="utf-8"))
        assert "default-src 'none'" in policy[1], path.name
        assert not re.search(r"https?:|\*", policy[1]), path.name
    with Watched(browser) as watched:
        watched.page.goto((site / "index.html").as_uri())
        assert watched.page.evaluate(fetch) == "img-src"


def test_on_paper_a_dark_page_is_black_on_white(browser, site):
    with Watched(browser, scheme="dark") as watched:
        chapter = next(path for path in pages(site) if path.stem[:2].isdigit())
        watched.page.goto(chapter.as_uri())
        sums = """() => ["color", "backgroundColor"].map(name =>
            getComputedStyle(document.body)[name].match(/\\d+/g).slice(0, 3).reduce((a, b) => +a + +b, 0))"""
        screen = watched.page.evaluate(sums)
        watched.page.emulate_media(media="print")
        watched.page.wait_for_timeout(300)
        ink, paper = watched.page.evaluate(sums)
        assert ink < 200 < 600 < paper
        assert not watched.page.locator(".bd-sidebar-primary").is_visible()
        watched.page.emulate_media(media="screen")
        watched.page.wait_for_timeout(300)
        assert watched.page.evaluate(sums) == screen


def test_the_one_file_turns_dark_and_back_and_its_contents_lead_to_chapters(browser, site):
    if not (site / SINGLE_FILE).is_file():
        pytest.skip("this report was made without --single-file")
    with Watched(browser) as watched:
        watched.page.goto((site / SINGLE_FILE).as_uri())
        shade = "getComputedStyle(document.body).backgroundColor"
        light = watched.page.evaluate(shade)
        watched.page.click("#theme-switch")
        assert watched.page.evaluate(shade) != light
        link = watched.page.locator("nav a").nth(1)
        link.click()
        name = link.get_attribute("href").removeprefix("#")
        top = watched.page.evaluate("name => document.getElementById(name).getBoundingClientRect().top", name)
        assert abs(top) < 100
        assert not watched.problems
