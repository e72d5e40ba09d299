"""Errors that a person can act on."""

from __future__ import annotations


class ExplainedError(Exception):
    """Ends in a sentence that says what to do; the command line prints it in place of a traceback."""
