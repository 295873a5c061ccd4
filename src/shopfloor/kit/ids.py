"""Short readable ids: a prefix and random base32 letters without look-alikes."""

import secrets

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new(prefix: str, length: int = 8) -> str:
    """`new("wo")` -> `wo-4k9x2m7q`. Eight letters hold 40 bits: insert under a unique key and retry."""
    return f"{prefix}-" + "".join(secrets.choice(ALPHABET) for _ in range(length))


def secret(prefix: str) -> str:
    """An unguessable token of 256 bits, recognisable by its prefix in a leaked log."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"
