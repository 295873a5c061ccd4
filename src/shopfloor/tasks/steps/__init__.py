"""The long parts of tasks: which is next, how it is started, why one waits."""
