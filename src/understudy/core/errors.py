"""The project's exceptions.

Every message says what was given, what was expected and how to fix it, in one sentence or two, so
that the command line can print it alone and exit with status 2.
"""


class UnderstudyError(Exception):
    """Base of every error that a user can cause and mend."""


class ConfigError(UnderstudyError):
    """An option, a configuration key or a combination of them is wrong."""


class DataError(UnderstudyError):
    """A file, a row or a field is missing, malformed or of the wrong kind."""


class CardError(UnderstudyError):
    """A knowledge column was written by something else than what is asked for."""


class ModelError(UnderstudyError):
    """Weights, shapes or the folding state of a model do not fit."""


class MissingExtraError(UnderstudyError):
    """An optional dependency is missing or does not fit the others."""
