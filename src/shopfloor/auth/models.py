"""The tables of who may call."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time


class SandboxToken(Base):
    """What a sandbox shows at its door. Only the hash is kept."""

    __tablename__ = "sandbox_tokens"

    sandbox_id: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    token_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    fencing: Mapped[int]
    revoked: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
