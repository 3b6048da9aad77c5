"""The explorer in Chromium: how long an answer takes, and the picture of it that README shows.

python -m benchmarks.explorer        # writes figures/phantom/explorer.gif
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from PIL import Image

from cxrlib.evaluation.results import project_root
from cxrlib.report import explorer

ONE = "document.querySelector('.cxr-explorer').cxrExplorer"
ANSWER = f"k => {ONE}.answers({{ letter: [0.1 + k / 300, 0.1], pneumonia: k % 12 }}).naive"
SIZE, SHOWN, COLOURS = (900, 690), (720, 552), 128


def page() -> str:
    """A page that holds nothing but the explorer."""
    style = "body{font-family:sans-serif;margin:0.5rem;background:#fff;color:#111}"
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Explorer</title><style>{style}</style>'
        f"{explorer.embed()}</html>"
    )


def processor_seconds(tab: Any, count: int = 100) -> list[float]:
    """What each of so many answers takes of the processor, whatever else the machine does."""
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    found = []
    for k in range(count + 20):
        before = spent()
        tab.evaluate(ANSWER, k)
        found.append(spent() - before)
    return found[20:]  # the first ones are compiled


def frames(tab: Any) -> list[tuple[Image.Image, int]]:
    """The letter dragged onto the film and off again, then a pneumonia that grows: pictures, milliseconds."""
    found: list[tuple[Image.Image, int]] = []

    def show(milliseconds: int) -> None:
        tab.wait_for_timeout(250)
        found.append((Image.open(io.BytesIO(tab.screenshot())).convert("RGB"), milliseconds))

    film = tab.locator(".cxr-film").bounding_box()
    letter = tab.locator(".cxr-letter").bounding_box()
    start = (letter["x"] + letter["width"] / 2, letter["y"] + letter["height"] / 2)
    x, y = explorer.index()["patients"][0]["letter"]["home"]
    end = (film["x"] + x * film["width"], film["y"] + y * film["height"])
    show(1500)
    tab.mouse.move(*start)
    tab.mouse.down()
    for share in (0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1):
        tab.mouse.move(*(a + share * (b - a) for a, b in zip(start, end, strict=True)))
        show(120 if share < 1 else 3000)
    tab.mouse.up()
    tab.get_by_label("Lead letter on the film").uncheck()
    show(1500)
    for step in range(2, explorer.index()["steps"] + 1, 2):
        tab.get_by_label("Pneumonia").fill(str(step))
        show(250)
    show(3000)
    return found


def main() -> None:
    from playwright.sync_api import sync_playwright

    target = (project_root() or Path()) / "figures" / "phantom" / "explorer.gif"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "explorer.html"
        path.write_text(page(), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, reduced_motion="reduce")
        tab.goto(path.as_uri())
        tab.wait_for_selector(".cxr-hint:not(:empty)")
        times = [1000 * one for one in processor_seconds(tab)]
        print(
            f"an answer: median {median(times):.1f} ms, 95th {quantiles(times, n=20)[-1]:.1f} ms of processor"
        )
        pictures, durations = zip(*frames(tab), strict=True)
        browser.close()
    kept: Any = {"method": Image.Quantize.MAXCOVERAGE, "dither": Image.Dither.NONE}
    small = [one.resize(SHOWN, Image.Resampling.LANCZOS).quantize(COLOURS, **kept) for one in pictures]
    small[0].save(target, save_all=True, append_images=small[1:], duration=durations, loop=0, optimize=True)
    print(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB, {len(small)} frames")


if __name__ == "__main__":
    main()
