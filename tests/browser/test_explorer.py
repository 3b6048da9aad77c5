"""The shortcut explorer in a real browser: its answers are torch's on the phantom's own films, offline."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from browser.test_site import WIDTHS, Watched, axe, browser  # noqa: F401  (fixtures)
from cxrlib.evaluation.results import recorded
from cxrlib.phantom import phantom
from cxrlib.phantom.latents import OVERLAY, Confounder, Streams
from cxrlib.report import explorer
from cxrlib.report.explorer import make
from cxrlib.report.site.offline import SEALED, tag
from cxrlib.studies.explorer import NETWORKS, network_of
from cxrlib.studies.planting import PLAIN_WORLD, seen
from cxrlib.training.inference import predict

pytestmark = pytest.mark.browser

WORLD = replace(PLAIN_WORLD, marker=Confounder(0.0, 0.5))
INDEX = explorer.index()
SIZE = INDEX["size"]


ONE = "document.querySelector('.cxr-explorer').cxrExplorer"
SCORES = f"states => states.map(s => {ONE}.answers(s)).map(({{ naive, lungs }}) => [naive, lungs])"
FILMS = f"states => states.map(state => Array.from({ONE}.answers(state).image))"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A page that holds the explorer and may ask for nothing."""
    page = tmp_path_factory.mktemp("explorer") / "page.html"
    scheme = ":root{color-scheme:light dark;background:Canvas;color:CanvasText;font-family:sans-serif}"
    page.write_text(
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{tag(SEALED)}'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Explorer</title>'
        f"<style>{scheme}</style></head><body><main><h1>Explorer</h1>{explorer.embed()}</main></body></html>",
        encoding="utf-8",
    )
    return page.as_uri()


def opened(watched, address: str):
    watched.page.goto(address)
    watched.page.wait_for_selector(".cxr-hint:not(:empty)")
    return watched.page


@pytest.fixture
def page(browser, address):  # noqa: F811
    with Watched(browser) as watched:
        yield opened(watched, address)
        assert not watched.problems


def state_of(page) -> dict:
    return page.evaluate(f"{ONE}.state()")


def said(page) -> dict[str, str]:
    frame(page)
    words = "(row) => row.querySelector('.cxr-word strong').textContent"
    return {name: page.eval_on_selector(f"[data-network={name}]", words) for name in ("naive", "lungs")}


def until(page, expression: str) -> None:
    """Ask again and again: playwright's own waiting evaluates text, which the page's policy forbids."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(expression)


def frame(page) -> None:
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")


# ---- the same states in Python: the phantom's own renderer, the package's own pipeline, torch


class Drawn:
    """A stream that gives what it is told to."""

    def __init__(self, uniform: np.ndarray, normal: np.ndarray):
        self.uniform, self.normal = uniform, normal

    def random(self, n: int) -> np.ndarray:
        return self.uniform[:n]

    def standard_normal(self, n: int) -> np.ndarray:
        return self.normal[:n]


class Placed(Streams):
    """The phantom's streams, with the letter and the collimator's margins where a state has them."""

    def __init__(self, seed: int, index: int, state: dict):
        super().__init__(seed)
        self.index, self.given = index, state

    def __call__(self, group: int, number: int):
        rng = super().__call__(group, number)
        if group != OVERLAY or number - 8 * self.index not in (1, 3):
            return rng
        if number - 8 * self.index == 1:
            u, z = rng.random(6), rng.standard_normal(3)
            margin = self.given["collimation"]
            u[:4] = (margin - np.array([0.01, 0.01, 0.008, 0.008])) / np.array([0.05, 0.05, 0.045, 0.05])
        else:
            u, z = rng.random(8), rng.standard_normal(4)
            x, y = self.given["letter"]
            u[1], u[2] = ((1 - x if u[0] < 0.6 else x) - 0.07) / 0.06, (y - 0.06) / 0.1
        return Drawn(u, z)


def drawn(state: dict):
    """The film of a state, by the phantom's model: a Cohort of one image."""
    index = INDEX["patients"][state["patient"]]["index"]
    (latents,) = phantom.draw_latents(1, make.SEED, WORLD, start=index)
    exam, moved = latents.exam, state["exposure"]
    if moved != 1:  # as far along the way to the other hospital's exposure
        dark, bright = phantom.EXPOSURE
        grey = exam.grey + moved * dark / 0.34
        contrast = exam.contrast + moved * (bright - 0.28 * dark / 0.34) / 0.25
        exam = SimpleNamespace(**vars(exam) | {"grey": grey, "contrast": contrast})
    latents = replace(
        latents, exam=exam, exposure=moved == 1, marker=state["letter"] is not None,
        collimation=state["collimation"] > 0, label=int(state["pneumonia"] > 0), subtype="lobar",
        severity=make.SEVERITY * state["pneumonia"] / make.STEPS,
    )  # fmt: skip
    image, lungs, lesion = phantom._render_one(latents, SIZE, Placed(make.SEED, index, state))
    if state["box"]:
        left, top, right, bottom = state["box"]
        image[top:bottom, left:right] = 0
    made = phantom.Rendered(image[None], lungs[None], lesion[None], [latents])
    return phantom.cohort_of(made, make.SEED, WORLD)


def shipped(name: str):
    """A network as the page has it, with torch's layers."""
    facts, own = INDEX["networks"][name], f"{name}."
    arrays = explorer.arrays()
    weights = {key.removeprefix(own): array for key, array in arrays.items() if key.startswith(own)}
    return network_of(weights, facts["mean"], facts["std"], SIZE)


def some_states(count: int) -> list[dict]:
    rng, states = np.random.default_rng(7), []
    for number in range(count):
        box = np.sort(rng.integers(0, SIZE + 1, (2, 2)), axis=0)
        states.append(
            {
                "patient": number % len(INDEX["patients"]),
                "letter": rng.uniform(0.02, 0.98, 2).round(3).tolist() if rng.random() < 0.6 else None,
                "pneumonia": int(rng.integers(0, make.STEPS + 1)) if rng.random() < 0.6 else 0,
                "exposure": float(rng.choice([0, 1, round(rng.uniform(-1, 1), 2)])),
                "collimation": round(rng.uniform(0.005, 0.2), 3) if rng.random() < 0.4 else 0,
                "box": [*box[0].tolist(), *box[1].tolist()] if rng.random() < 0.3 else None,
            }
        )
    return states


def test_scores_are_torchs_on_200_phantoms_and_states(page):
    states = some_states(200)
    found = page.evaluate(SCORES, states)
    cohorts = [drawn(state) for state in states]
    for (name, steps), mine in zip(NETWORKS.items(), np.array(found).T, strict=True):
        torchs = predict(shipped(name), np.stack([seen(cohort, steps).images[0] for cohort in cohorts]))
        print(f"{name}: largest difference {np.abs(mine - torchs).max():.1e}")
        assert np.abs(mine - torchs).max() < 1e-3
        assert np.ptp(torchs) > 0.5


def test_the_films_greys_are_the_phantoms(page):
    states = some_states(40)
    found = page.evaluate(FILMS, states)
    for state, image in zip(states, found, strict=True):
        difference = np.abs(np.reshape(image, (SIZE, SIZE)) - drawn(state).images[0].astype(int))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.005, state


# ---- what it comes with


def test_the_assets_are_small():
    files = {path.name: path.stat().st_size for path in explorer.HERE.iterdir() if path.is_file()}
    print(files, len(explorer.embed()))
    assert sum(files.values()) <= 4 * 2**20 and len(explorer.embed()) <= 4 * 2**20


def test_the_patients_are_what_the_phantom_draws_now():
    shipped_arrays = explorer.arrays()
    cohort = phantom.cohort_of(phantom.render(1, image_size=SIZE, seed=make.SEED, config=WORLD), 0, WORLD)
    for number, there in enumerate(INDEX["patients"]):
        arrays: dict[str, np.ndarray] = {}
        name = f"phantom-{make.SEED}-{there['index']:07d}"
        made = phantom.render(1, image_size=SIZE, seed=make.SEED, config=WORLD, start=there["index"])
        one = replace(
            cohort, images=made.images, lung_masks=made.lung_masks, lesion_masks=made.lesion_masks,
            table=cohort.table.assign(image_id=name, marker=False, label=0),
        )  # fmt: skip
        assert json.loads(json.dumps(make._patient(one, number, arrays))) == there
        for key, array in arrays.items():
            assert np.array_equal(array.ravel(), shipped_arrays[key]), key


def test_the_networks_are_those_that_were_recorded():
    """150 new patients, with the letter and without it: as many change as the record says."""
    plain = phantom.load(150, SIZE, make.SEED + 1, config=PLAIN_WORLD)
    record = recorded("phantom/explorer")
    for name, steps in NETWORKS.items():
        answers = [
            predict(shipped(name), seen(phantom.twin(plain, marker=letter), steps).images) >= 0.5
            for letter in (False, True)
        ]
        rate = record.estimate(f"{name}.flip_rate").value
        chance = 3 * np.sqrt(max(rate * (1 - rate), 0.01) / len(plain))
        assert abs((answers[0] != answers[1]).mean() - rate) <= chance, name


def test_the_note_says_what_is_recorded():
    assert INDEX["note"] == make.note()


# ---- as somebody uses it


def test_it_begins_with_a_healthy_chest_and_the_letter_alone_turns_one_network(page):
    assert said(page) == {"naive": "healthy", "lungs": "healthy"}
    letter, film = page.locator(".cxr-letter").bounding_box(), page.locator(".cxr-film").bounding_box()
    x, y = INDEX["patients"][0]["letter"]["home"]
    page.mouse.move(letter["x"] + letter["width"] / 2, letter["y"] + letter["height"] / 2)
    page.mouse.down()
    page.mouse.move(film["x"] + x * film["width"], film["y"] + y * film["height"], steps=8)
    page.mouse.up()
    assert state_of(page)["letter"] == pytest.approx([x, y], abs=0.02)
    assert said(page) == {"naive": "ill", "lungs": "healthy"}
    assert "Only the letter is new" in page.text_content(".cxr-hint")
    page.mouse.down()
    page.mouse.move(film["x"] - 40, film["y"] + 100, steps=5)
    page.mouse.up()
    assert state_of(page)["letter"] is None
    assert said(page) == {"naive": "healthy", "lungs": "healthy"}


def test_the_keyboard_moves_the_letter_and_the_box_and_what_is_said_is_announced(page):
    page.focus(".cxr-letter")
    page.keyboard.press("Enter")
    home = INDEX["patients"][0]["letter"]["home"]
    assert state_of(page)["letter"] == pytest.approx(home)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    assert state_of(page)["letter"] == pytest.approx([home[0], home[1] + 0.12])
    until(page, "document.querySelector('.cxr-say').textContent.includes('Network A says')")
    page.get_by_role("checkbox", name="Black box").check()
    before = state_of(page)["box"]
    page.focus(".cxr-box")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    assert state_of(page)["box"] == [before[0] - 4, before[1], before[2] - 4, before[3] + 4]
    page.keyboard.press("Delete")
    assert state_of(page)["box"] is None
    page.get_by_role("button", name="Start again").click()
    assert state_of(page)["letter"] is None


def test_sliders_and_choices_change_the_film(page):
    page.get_by_label("Pneumonia").fill(str(make.STEPS))
    assert said(page)["lungs"] == "ill" and "ill" in page.text_content(".cxr-truth")
    page.get_by_label("Exposure").fill("0.5")
    page.get_by_label("Collimator").fill("0.1")
    state = state_of(page)
    assert (state["exposure"], state["collimation"]) == (0.5, 0.1)
    page.get_by_label("Chest", exact=True).select_option("1")
    assert state_of(page) == state | {"patient": 1, "pneumonia": 0, "exposure": 0, "collimation": 0}


def test_a_box_is_drawn_over_the_film(page):
    page.get_by_role("checkbox", name="Black box").check()
    film = page.locator(".cxr-film").bounding_box()
    page.mouse.move(film["x"] + 0.02 * film["width"], film["y"] + 0.5 * film["height"])
    page.mouse.down()
    page.mouse.move(film["x"] + 0.27 * film["width"], film["y"] + 0.75 * film["height"], steps=4)
    page.mouse.up()
    expected = [SIZE * share for share in (0.02, 0.5, 0.27, 0.75)]
    assert state_of(page)["box"] == pytest.approx(expected, abs=2)


def test_where_they_look_is_shown_and_the_page_stays_responsive(page):
    page.get_by_label("Lead letter on the film").check()
    page.get_by_label("Show where").check()
    coloured = """() => { const canvas = document.querySelector('[data-network=naive] canvas');
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        for (let i = 0; i < pixels.length; i += 4) if (pixels[i] !== pixels[i + 2]) return true;
        return false; }"""
    until(page, "document.querySelector('.cxr-key span').textContent.startsWith('Looking')")
    page.get_by_label("Exposure").fill("0.2")  # while they look
    frame(page)
    assert state_of(page)["exposure"] == 0.2
    until(page, coloured)


def test_a_finger_drags_the_letter(browser, address):  # noqa: F811
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(address)
    letter = page.locator(".cxr-letter").bounding_box()
    film = page.locator(".cxr-film").bounding_box()
    x, y = INDEX["patients"][0]["letter"]["home"]
    touch = context.new_cdp_session(page)
    points = [(letter["x"] + 20, letter["y"] + 20), (film["x"] + 200, film["y"] + 200)]
    points.append((film["x"] + x * film["width"], film["y"] + y * film["height"]))
    for kind, point in zip(("touchStart", "touchMove", "touchMove"), points, strict=True):
        where = [{"x": point[0], "y": point[1]}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": where})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert state_of(page)["letter"] == pytest.approx([x, y], abs=0.03)
    assert said(page) == {"naive": "ill", "lungs": "healthy"}
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_axe_finds_nothing(browser, address, axe, width, scheme):  # noqa: F811
    with Watched(browser, width, scheme) as watched:
        page = opened(watched, address)
        for label in ("Lead letter on the film", "Black box", "Show where"):
            page.get_by_role("checkbox", name=label).check()
        until(page, "!document.querySelector('.cxr-key span').textContent")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
        assert not watched.problems
