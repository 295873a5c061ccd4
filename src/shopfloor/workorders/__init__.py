"""The pillar: one piece of agent work on one repository, from request to delivered branch."""
