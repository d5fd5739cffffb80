"""The one error of the crash test: a sentence for the person who runs it."""

from __future__ import annotations


class CrashtestError(Exception):
    """Something that the test needs is missing or does not work even without a crash."""
