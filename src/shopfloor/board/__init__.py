"""Tickets: columns, gates, approval, blocking, duplicates; work that moves itself."""
