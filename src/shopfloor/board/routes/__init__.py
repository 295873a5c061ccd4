"""The HTTP doors of tickets, the board and its phases."""

from shopfloor.board.routes import approval, board, merging, moves, phases, tickets

ROUTERS = (approval.router, board.router, phases.router, moves.router, tickets.router, merging.router)
"""Those with fixed paths stand before those with an id (W25)."""
