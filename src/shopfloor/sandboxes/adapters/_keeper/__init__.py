"""The host process that holds one sandbox. Standard library only: it is started by a bare interpreter and outlives the server."""
