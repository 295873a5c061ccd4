"""Shopfloor runs a crew of coding agents like a good factory."""

__version__ = "0.1.0"
