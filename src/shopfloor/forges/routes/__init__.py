"""The HTTP doors of forges."""

from fastapi import APIRouter

from shopfloor.forges.routes import changes, github

hooks = github.hooks
router = APIRouter()
for _door in (github.router, changes.router):
    router.include_router(_door)
