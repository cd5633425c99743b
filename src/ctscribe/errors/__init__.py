"""The one error the user sees: a code, and a sentence that says what to do; and all codes."""

from ctscribe.errors.error import CtscribeError
from ctscribe.errors.failures import FAILURES
from ctscribe.errors.notes import NOTES

CODES = FAILURES | NOTES
"""Every code that the package raises or notes."""

__all__ = ["CODES", "CtscribeError"]
