"""Errors and warnings that tell the user what was found, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable


class CxrWarning(UserWarning):
    """Something the user should know of and need not act on."""


class CxrError(Exception):
    """A problem that the user can mend.

    Parameters
    ----------
    message
        What is wrong, naming the file or column.
    remedy
        What to do about it, as an instruction.
    offenders
        The files, rows or columns concerned. The first ten are listed, the rest counted.
    """

    def __init__(self, message: str, *, remedy: str = "", offenders: Iterable[object] = ()):
        self.message = message
        self.remedy = remedy
        self.offenders = [str(offender) for offender in offenders]
        super().__init__(self._text())

    def _text(self) -> str:
        lines = [self.message]
        lines += [f"  - {offender}" for offender in self.offenders[:10]]
        if len(self.offenders) > 10:
            lines.append(f"  … and {len(self.offenders) - 10} more")
        if self.remedy:
            lines.append(f"What to do: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self):  # exceptions with keyword arguments do not survive a process pool without this
        return _rebuild, (type(self), self.message, self.remedy, self.offenders)


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
