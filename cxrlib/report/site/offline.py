"""A Sphinx extension that forbids every page to load anything from elsewhere, by a Content-Security-Policy.

The theme sets light or dark by scripts in the page and styles elements one by one, so both may be inline.
``file:`` stands beside ``'self'`` because not every browser counts a file's neighbours as its own origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = "'self' file: data:"
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {HERE} 'unsafe-inline'",
        f"style-src {HERE} 'unsafe-inline'",
        f"img-src {HERE}",
        f"font-src {HERE}",
        "base-uri 'none'",
        "form-action 'self' file:",
    )
)
"""For the pages of the site."""
SEALED = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
)
"""For a page that brings everything along."""


def tag(policy: str) -> str:
    """The policy as an element of a page's head."""
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}">'


def setup(app: Sphinx) -> dict[str, object]:
    """Put the policy at the head of every page, before anything that it governs."""

    def add(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
        context["metatags"] = tag(POLICY) + context.get("metatags", "")

    app.connect("html-page-context", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
