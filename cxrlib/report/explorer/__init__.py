"""The shortcut explorer: a phantom on which one moves a lead letter, and two networks that answer at once.

:func:`embed` is a piece of a page that needs nothing beside itself, :func:`explorer` the same as a widget for
JupyterLab. Both run ``model.js`` and ``page.js`` on the assets beside them, which
``python -m cxrlib.report.explorer.make`` writes. As a Sphinx extension it fills the slots that pages leave
(:data:`SLOT`).
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
SLOT = '<div class="cxr-explorer-slot"></div>'
"""What a page of the report has where the explorer is to be; see :func:`setup`."""
_WITHOUT = (
    "The shortcut explorer needs JavaScript, which runs in this page alone and asks nothing of a network."
)
_INLINE = """
const root = document.currentScript.closest(".cxr-embedded"), text = (name) =>
  (root.querySelector(name) ?? document.querySelector(name)).textContent;
const bytes = Uint8Array.from(atob(text(".cxr-data").trim()), (letter) => letter.charCodeAt(0));
const place = root.querySelector(".cxr-explorer");
place.cxrExplorer = mount(place, unpack(JSON.parse(text(".cxr-index")), bytes.buffer));
"""
_MODULE = """
export default { render({ model, el }) {
  const data = model.get("data"), start = data.byteOffset;
  const place = el.appendChild(document.createElement("div"));
  mount(place, unpack(JSON.parse(model.get("index")), data.buffer.slice(start, start + data.byteLength)));
} };
"""


def index() -> dict[str, Any]:
    """What the explorer shows: its phantoms, its networks, and where their arrays lie in :func:`data`."""
    return json.loads(_text("assets.json"))


def data() -> bytes:
    """The arrays of :func:`index`, one after the other, little-endian."""
    return (HERE / "assets.bin").read_bytes()


def arrays() -> dict[str, np.ndarray]:
    """The arrays by their names, each with one axis."""
    content, places = data(), index()["arrays"]
    return {name: np.frombuffer(content, f"<{kind}", *place) for name, (kind, *place) in places.items()}


def embed() -> str:
    """The explorer as a piece of HTML with style, scripts and data inside; it asks nothing of a network."""
    described = json.dumps(index(), ensure_ascii=False).replace("</", r"<\/")
    return (
        f'<div class="cxr-embedded"><style>{_text("page.css")}</style>'
        f'<div class="cxr-explorer"><noscript><p>{_WITHOUT}</p></noscript></div>'
        f'<script type="application/json" class="cxr-index">{described}</script>'
        f'<script type="text/plain" class="cxr-data">{base64.b64encode(data()).decode()}</script>'
        f"<script>(() => {{\n{_script()}\n{_INLINE}}})();</script></div>"
    )


def explorer() -> Any:
    """The explorer as a widget of JupyterLab."""
    import anywidget
    import traitlets

    class Explorer(anywidget.AnyWidget):
        _esm = _script() + _MODULE
        _css = _text("page.css")
        index = traitlets.Unicode().tag(sync=True)
        data = traitlets.Bytes().tag(sync=True)

    return Explorer(index=json.dumps(index()), data=data())


def setup(app: Sphinx) -> dict[str, object]:
    """Put the explorer where pages leave a slot for it: its data would only slow down Sphinx."""

    def fill(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
        if SLOT in context.get("body", ""):
            context["body"] = context["body"].replace(SLOT, embed())

    app.connect("html-page-context", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _script() -> str:
    return _text("model.js") + _text("page.js")


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
