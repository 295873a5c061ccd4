"""The long parts of the board, one file each; every one may be repeated after a crash without doing harm."""
