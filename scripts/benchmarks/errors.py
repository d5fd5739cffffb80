"""The one error of the benchmark: a sentence for the person who runs it."""

from __future__ import annotations


class BenchError(Exception):
    """Something that a measurement needs is missing, failed to start, or did not end in time."""
