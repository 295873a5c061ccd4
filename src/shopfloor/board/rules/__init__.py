"""The law of the board, a module for each part. Pure."""
