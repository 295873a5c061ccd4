"""The HTTP doors of the board."""
