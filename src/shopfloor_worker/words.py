"""What every agent is told by the platform itself, whichever program it runs in."""

HOUSE_RULES = """\
You work unattended in an isolated sandbox, on a git work tree whose branch is already checked out. Nobody can answer questions: \
decide yourself and say what you decided. Do not switch branches, push or rewrite history; what you leave in the work tree is \
committed for you. A message inside <guardian-intervention> comes from the platform's guardian, which watches over your work: \
follow it before anything else."""
GUARDIAN = (
    "<guardian-intervention>\nThe guardian that watches over this work order intervenes:\n{}\n</guardian-intervention>"
)
MOVED = """\
(This conversation goes on in a new sandbox: its work tree holds what had been committed to the branch, and nothing else.)"""
CONTINUE = """\
The program you run in was killed and has been started again in the same work tree. Commands that were running were stopped. \
Look at what is already done, then go on with your task to its end."""
REPLACED = """\
While you were working this was said to you:

{}

Your work was stopped for it, commands that were running too. Go on with your task to its end with that in mind."""
NOBODY = "Nobody can answer questions here: decide yourself and say what you decided."


def told(text: str, kind: str) -> str:
    """A text as the agent is to read it."""
    return GUARDIAN.format(text) if kind == "guardian_intervention" else text
