"""The root a sandboxed program sees: built from an allow list, nothing of the host that is not named here."""

import os
import sys
from dataclasses import dataclass

from shopfloor.sandboxes.adapters._keeper.plan import Plan

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "ssl",
    "pki",
    "ca-certificates",
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
)
SHARED_MEMORY = 64 << 20
SERVICE = "/run/shopfloor/exec.py"
PYTHON = "/usr/bin/python3"
OWN_PYTHON = "/opt/python"
DATA = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000:agent:/home/agent:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "/etc/group": "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "/etc/gitconfig": "[safe]\n\tdirectory = *\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n",
}
# PID 1 is bwrap's own reaper, so that the main program starts before any Python: a shell of a millisecond says who it is, waits
# until it is in its control groups, leaves a listener behind (which becomes the exec service at the first request, and ends
# the sandbox when the keeper is gone) and becomes the program.
WRAPPER = """printf . >&3
read -r _ <&3 || exit 126
( { if read -r _ <&3; then exec "$0" -I -S "$1"; else kill -9 -1; fi; } >/dev/null 2>&1 & )
shift
exec "$@" 3<&-"""


@dataclass(kw_only=True)
class Sources:
    """Where the host side of each mount can be reached by the uid that bwrap runs as."""

    bwrap: str
    service: str
    overlay: str
    lower: str
    python: str
    read_only: dict[str, str]
    writable: dict[str, str]


def interpreter(plan: Plan) -> str:
    """The Python that runs the exec service, as seen inside."""
    if not plan.python:
        return PYTHON
    return f"{OWN_PYTHON}/bin/python{sys.version_info.major}.{sys.version_info.minor}"


def command(plan: Plan) -> list[str]:
    """What bwrap runs: the main program, with the exec service's listener left behind."""
    return ["/bin/sh", "-c", WRAPPER, interpreter(plan), SERVICE, *plan.argv]


def environment(plan: Plan) -> dict[str, str]:
    """All the variables the main program sees."""
    path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    found = {
        "PATH": f"{OWN_PYTHON}/bin:{path}" if plan.python else path,
        "HOME": "/home/agent",
        "USER": "agent",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108 -- inside, where /tmp is private
    }
    return {**found, **proxies(plan), **plan.env}


def proxies(plan: Plan) -> dict[str, str]:
    """The variables that point programs at the gate's proxy."""
    if plan.gate is None:
        return {}
    proxy, direct = (
        f"http://{plan.gate.address}:3128",
        ",".join(dict.fromkeys(("127.0.0.1", "localhost", plan.gate.address))),
    )
    named = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": direct}
    return {**named, **{name.lower(): value for name, value in named.items()}}


def options(plan: Plan, sources: Sources, *, seccomp: int, data: dict[str, int]) -> list[str]:
    """Bwrap's options. They travel through a file descriptor: a command line is readable by every user of the host."""
    args = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    args += ["--disable-userns", "--die-with-parent", "--new-session", "--hostname", "sandbox"]
    args += ["--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--clearenv"]
    args += ["--seccomp", str(seccomp)]
    args += _system()
    for path, handle in data.items():
        args += ["--ro-bind-data", str(handle), path]
    args += ["--proc", "/proc", "--dev", "/dev", "--size", str(min(SHARED_MEMORY, plan.tmp)), "--tmpfs", "/dev/shm"]  # noqa: S108
    args += ["--perms", "1777", "--size", str(plan.tmp), "--tmpfs", "/tmp"]  # noqa: S108
    if "/home/agent" not in plan.writable:
        args += ["--size", str(plan.tmp), "--tmpfs", "/home/agent"]
    args += _workspace(sources)
    mounts = [(p, "--ro-bind", s) for p, s in sources.read_only.items()]
    mounts += [(p, "--bind", s) for p, s in sources.writable.items()]
    for path, kind, source in sorted(mounts):
        args += [kind, source, path]
    args += ["--ro-bind", sources.service, SERVICE]
    if sources.python:
        args += ["--ro-bind", sources.python, OWN_PYTHON]
    for name, value in environment(plan).items():
        args += ["--setenv", name, value]
    # bwrap's own / and /dev are writable tmpfs without a size: an agent could fill the host's memory through them.
    return [*args, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", plan.directory]


def _system() -> list[str]:
    args: list[str] = []
    for path in SYSTEM:
        if os.path.islink(path):
            args += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            args += ["--ro-bind", path, path]
    for name in ETC:
        args += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return args


def _workspace(sources: Sources) -> list[str]:
    upper = f"{sources.overlay}/upper"
    if not sources.lower:
        return ["--bind", upper, "/workspace"]
    return ["--overlay-src", sources.lower, "--overlay", upper, f"{sources.overlay}/work", "/workspace"]
