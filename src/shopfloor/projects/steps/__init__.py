"""The long parts of projects."""
