"""Repositories on the host's own disk: nothing here is ever writable by an agent, and everything survives kill -9."""
