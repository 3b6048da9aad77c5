"""A Sphinx extension: its directive ``room`` documents the names that a room hands on."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class Room(SphinxDirective):
    """``{room} cxrlib.audit``: what the room is for, then what its ``__all__`` names, modules last."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        room = importlib.import_module(self.arguments[0])
        self.env.note_dependency(str(room.__file__))
        handed = [(name, getattr(room, name)) for name in sorted(room.__all__, key=str.casefold)]
        handed.sort(key=lambda pair: isinstance(pair[1], ModuleType))
        lines = [f".. automodule:: {room.__name__}", "", *(described(room, *pair) for pair in handed)]
        return self.parse_text_to_nodes("\n".join(["````{eval-rst}", *lines, "````"]))


def described(room: ModuleType, name: str, value: object) -> str:
    """The autodoc directive for a name that a room hands on, under the module that defines it."""
    if isinstance(value, ModuleType):
        own = [
            n for n, v in vars(value).items() if getattr(v, "__module__", "") == value.__name__ and v.__doc__
        ]
        # Named one by one: autodoc would first load all that the module imports.
        members = ", ".join(n for n in own if not n.startswith("_"))
        return f".. automodule:: {value.__name__}\n   :members: {members}\n"
    if inspect.isclass(value):
        return f".. autoclass:: {value.__module__}.{name}\n   :members:\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {value.__module__}.{name}\n"
    # A constant does not know its module: it is the one that explains it, in a comment that begins with "#:".
    inside = [module for module in sys.modules if f"{module}.".startswith(f"{room.__name__}.")]
    home = next(one for one in inside if ("", name) in ModuleAnalyzer.for_module(one).find_attr_docs())
    return f".. autodata:: {home}.{name}\n   :no-value:\n"


def setup(app: Sphinx) -> dict[str, object]:
    """Register the directive."""
    app.add_directive("room", Room)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
