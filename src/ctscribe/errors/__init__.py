"""The one error the user sees: a code, and a sentence that says what to do; and all codes."""

from ctscribe.errors.error import CtscribeError
from ctscribe.errors.failures import CODES

__all__ = ["CODES", "CtscribeError"]
