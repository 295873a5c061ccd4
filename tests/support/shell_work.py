"""Pieces of an agent's work as shell scripts, drawn by dice."""

import base64
import random
import shlex

WHO = "git -c user.name=A -c user.email=a@b.invalid -c gc.auto=0"


def command(dice: random.Random, verb: str) -> str:
    """A piece of work as a shell script."""
    path = shlex.quote(
        dice.choice(["app.py", "a.txt", "b.txt", "sub/a.txt", "sub/deep/b.txt", "größe 😀.txt", "line\nbreak"])
    )
    content = base64.b64encode(dice.randbytes(dice.choice([0, 3, 200, 70_000]))).decode()
    name = f"n{dice.randrange(10**6)}"
    match verb:
        case "write":
            return f'mkdir -p "$(dirname {path})" && echo {content} | base64 -d | dd of={path} conv=fsync status=none'
        case "delete":
            return f"rm -f {path}"
        case "link":
            return f"rm -rf link-{name}; ln -s {path} link-{name}"
        case "mode":
            return f"test -f {path} && chmod +x {path}"
        case "replace_folder":
            return "rm -rf sub; mkdir -p sub; echo new > sub/new.txt"
        case "commit":
            return f"{WHO} add -A && {WHO} commit -qm {name}"
        case "amend":
            return f"{WHO} add -A && {WHO} commit -q --amend -m {name}"
        case "reset":
            return f"{WHO} reset -q --hard HEAD~1"
        case "branch":
            return f"{WHO} checkout -q -b {name}"
        case "detach":
            return f"{WHO} checkout -q --detach"
        case "stash":
            return f"{WHO} stash -q -u"
        case "repack":
            return f"{WHO} repack -q -a -d -l"
        case "soft":
            return f"{WHO} reset -q --soft HEAD~1"
        case "stage":
            return f"{WHO} add -A"
    raise ValueError(verb)
