"""The conformance suite over every adapter of this tree."""

from tests.sandboxes import conformance


class TestConformance(conformance.Conformance):
    """Found by its name; the claims are in conformance.py."""


class TestCommands(conformance.Commands):
    """Found by its name; the claims are in conformance.py."""


class TestLimits(conformance.Limits):
    """Found by its name; the claims are in conformance.py."""
