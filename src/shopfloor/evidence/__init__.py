"""Criteria, what checks them, and the ledger of what was proven on which commit."""
