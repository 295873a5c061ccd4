"""What every route of forges takes."""

from typing import Annotated

from fastapi import Depends, Request

from shopfloor.forges.service import Repositories
from shopfloor.kit.db import Database

ID = r"^[A-Za-z0-9._-]+$"
"""Our ids; PostgreSQL would choke on other text (NUL)."""


def repositories(request: Request) -> Repositories:
    """The repositories of this host."""
    found: Repositories = request.app.state.repositories
    return found


def database(request: Request) -> Database:
    """The database."""
    found: Database = request.app.state.database
    return found


House = Annotated[Repositories, Depends(repositories)]
Data = Annotated[Database, Depends(database)]
