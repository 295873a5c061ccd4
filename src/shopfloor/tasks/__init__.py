"""Executable units: dependencies, priority, timeout, retry; each is run as a work order."""
