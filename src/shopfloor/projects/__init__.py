"""Projects: a repository and how work on it is done."""
