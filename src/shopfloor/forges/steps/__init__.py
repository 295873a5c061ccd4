"""The long parts: what talks to an origin while no transaction is open."""
