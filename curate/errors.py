"""The errors a user can meet. Every message says where, what was found, what was expected, and how to fix it."""

from __future__ import annotations


class CurateError(Exception):
    """Base of all errors curate raises on purpose.

    Args:
        where: file, row, field, or `file.yaml:line: key` that the error is about.
        found: what is there.
        expected: what should be there.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, where: str, found: str, expected: str, fix: str) -> None:
        super().__init__(where, found, expected, fix)  # args survive pickling between workers
        self.where, self.found, self.expected, self.fix = where, found, expected, fix

    def __str__(self) -> str:
        return f"{type(self).__name__}: {self.where}: found {self.found}; expected {self.expected}. {self.fix}"


class ConfigError(CurateError):
    """The pipeline file or the command line is wrong, or contradicts the run directory."""

    exit_code = 2


class DataError(CurateError):
    """An input file or row cannot be used."""

    exit_code = 3


class ModelError(CurateError):
    """The model or its tokenizer cannot be used, or a computation on it diverged."""

    exit_code = 4


class IntegrityError(CurateError):
    """Committed bytes are not what their record says."""

    exit_code = 5


class ResourceError(CurateError):
    """Disk, memory, workers or the run directory itself are not available."""

    exit_code = 6


class PublishError(CurateError):
    """A dataset could not be published as a whole."""

    exit_code = 7
