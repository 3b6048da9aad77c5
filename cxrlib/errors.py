"""Errors and warnings that tell the user what was found, where, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_LONGEST = 500  # characters of a message's part: a cell of a CSV can be a million long
_COLOURS = re.compile(r"\x1b\[[\d;]*m")  # of a terminal
# Control characters, marks that turn the direction of text, halves of characters (undecodable file names).
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """Text on one line that does nothing to a terminal: control characters become ``\\x1b`` and the like.

    Names of files, columns and values come from strangers; an escape sequence in one could recolour, move or
    retitle the terminal that it is shown on.
    """
    return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], str(text))


def one_line(error: Exception) -> str:
    """What a library's error says, with its kind, on one line of at most some 500 characters.

    Of TorchScript's errors, which begin with a traceback, it is the last line alone.
    """
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    name = type(error).__name__
    if not lines:
        return name
    said = lines[-1] if "TorchScript" in lines[0] else "; ".join(lines)
    said = said if len(said) <= _LONGEST else f"{said[: _LONGEST // 2]} … {said[-_LONGEST // 2 :]}"
    return said if said.startswith(f"{name}: ") else f"{name}: {said}"


class CxrWarning(UserWarning):
    """Something the user should know of and need not act on."""


class CxrError(Exception):
    """A problem that the user can mend.

    - ``message``: what is wrong, naming the file or column.
    - ``remedy``: what to do about it, as an instruction.
    - ``offenders``: the files, rows or columns concerned. The first ten are listed, the rest counted.
    """

    def __init__(self, message: str, *, remedy: str = "", offenders: Iterable[object] = ()) -> None:
        self.message = message
        self.remedy = remedy
        self.offenders = [str(offender) for offender in offenders]
        super().__init__(self._text())

    def _text(self) -> str:
        lines = [_shortened(self.message)]
        lines += [f"  - {_shortened(offender)}" for offender in self.offenders[:10]]
        if len(self.offenders) > 10:
            lines.append(f"  … and {len(self.offenders) - 10} more")
        if self.remedy:
            lines.append(f"What to do: {_shortened(self.remedy)}")
        return "\n".join(lines)

    def __reduce__(
        self,
    ) -> tuple[object, ...]:  # exceptions with keyword arguments do not survive a process pool without this
        return _rebuild, (type(self), self.message, self.remedy, self.offenders)


def _shortened(text: str) -> str:
    text = printable(text[: 4 * _LONGEST])
    return text if len(text) <= 2 * _LONGEST else f"{text[:_LONGEST]} … {text[-_LONGEST // 2 :]}"


def _rebuild(cls: type[CxrError], message: str, remedy: str, offenders: list[str]) -> CxrError:
    return cls(message, remedy=remedy, offenders=offenders)


class DataError(CxrError):
    """A file, table or folder that cannot be used as it is."""


class DecodeError(DataError):
    """One image file that cannot be read."""


class CacheError(CxrError):
    """The cache on disk cannot be written or read."""


class ConfigError(CxrError):
    """A setting, name or option that does not exist or does not fit the others."""


class CheckpointError(CxrError):
    """A checkpoint that is missing, damaged, or of another model."""


class TrainingError(CxrError):
    """Training cannot go on."""


class MissingPackage(CxrError):
    """A package of the extra ``course`` is needed, and not installed."""


@contextmanager
def course_packages(what: str) -> Iterator[None]:
    """Turn the lack of a package, in what runs in here or is decorated, into a MissingPackage."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("", "cxrlib"):
            raise
        raise MissingPackage(
            f'{what} needs {name}, which is not installed: pip install "cxrlib[course]"'
        ) from None
