"""The errors that QFX raises on purpose."""


class QfxError(Exception):
    """Something that the user gave cannot be used as it is.

    The message names the place (module path, operator or file), what was found, what is supported and what to
    do.
    """


class UnsupportedError(QfxError):
    """A model holds operators that cannot be quantized; the message lists all of them."""


class GraphFileError(QfxError):
    """A graph file is damaged, altered, of an unknown version, or not a graph file at all."""


class MissingToolError(QfxError):
    """A program outside Python is needed and is not on PATH; the message says how to get it."""
