"""Which authorities we believe."""

import ssl
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=8)
def trust(certificates: Path | None) -> ssl.SSLContext:
    """Made once: it takes 20 ms, and every call needs it."""
    return ssl.create_default_context(cafile=str(certificates) if certificates else None)
