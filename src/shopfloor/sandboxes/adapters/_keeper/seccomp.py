"""The system calls an agent has no business with, as a BPF program for bwrap: a deny list, so that ordinary programs notice nothing."""

import errno
import functools
import os
import struct

LOAD, JUMP_EQUAL, JUMP_NOT_BELOW, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCH, FIRST_ARGUMENT = 0, 4, 16
X32 = 0x40000000
CLONE_NEWUSER = 0x10000000
TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
FAMILIES = (0, 1, 2, 10, 16)  # unspecified, unix, IPv4, IPv6, netlink (getifaddrs); no packet, vsock, alg, ...

# name: (x86_64, aarch64); -1 where it does not exist.
DENIED = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "chroot": (161, 51),
    "clock_adjtime": (305, 266), "clock_settime": (227, 112), "delete_module": (176, 106), "fanotify_init": (300, 262),
    "finit_module": (313, 273), "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430),
    "fspick": (433, 433), "init_module": (175, 105), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425), "ioperm": (173, -1), "iopl": (172, -1), "kcmp": (312, 272),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219), "lookup_dcookie": (212, 18),
    "modify_ldt": (154, -1), "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429),
    "move_pages": (279, 239), "name_to_handle_at": (303, 264), "nfsservctl": (180, 42), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "open_tree_attr": (467, 467), "perf_event_open": (298, 241), "personality": (135, 92),
    "pidfd_getfd": (438, 438), "pivot_root": (155, 41), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "ptrace": (101, 117), "quotactl": (179, 60), "quotactl_fd": (443, 443), "reboot": (169, 142),
    "request_key": (249, 218), "setns": (308, 268), "settimeofday": (164, 170), "swapoff": (168, 225),
    "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282),
    "uselib": (134, -1), "vhangup": (153, 58),
}  # fmt: skip
CLONE3, MEMFD_SECRET, MEMFD_CREATE = (435, 435), (447, 447), (319, 279)
CLONE, SOCKET, IOCTL = (56, 220), (41, 198), (16, 29)
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class UnknownMachine(Exception):
    """There is no filter for this processor."""


def _step(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, k)


def _refuse(number: int, error: int) -> bytes:
    return _step(JUMP_EQUAL, number, 0, 1) + _step(RETURN, FAIL | error)


def _with_argument(number: int, argument: int, checks: list[bytes]) -> bytes:
    """Look at an argument of one call. The call's number is gone afterwards, so the answer is final."""
    body = _step(LOAD, FIRST_ARGUMENT + 8 * argument) + b"".join(checks) + _step(RETURN, ALLOW)
    return _step(JUMP_EQUAL, number, 0, len(body) // 8) + body


@functools.cache
def program(*, memfd: bool, machine: str = "") -> bytes:
    """The filter for this machine. `memfd` is false where only a watchdog bounds memory: it cannot see such files."""
    machine = machine or os.uname().machine
    if machine not in MACHINES:
        raise UnknownMachine(f"no system call filter for {machine}")
    column, arch = MACHINES[machine]
    steps = [_step(LOAD, ARCH), _step(JUMP_EQUAL, arch, 1, 0), _step(RETURN, KILL), _step(LOAD, NUMBER)]
    if machine == "x86_64":
        steps += [_step(JUMP_NOT_BELOW, X32, 0, 1), _step(RETURN, FAIL | errno.ENOSYS)]
    # glibc falls back from clone3, whose flags lie in memory where a filter cannot see them, to clone.
    absent = [CLONE3, MEMFD_SECRET] if memfd else [CLONE3, MEMFD_SECRET, MEMFD_CREATE]
    steps += [_refuse(call[column], errno.ENOSYS) for call in absent]
    steps += [_refuse(call[column], errno.EPERM) for call in DENIED.values() if call[column] >= 0]
    eperm = _step(RETURN, FAIL | errno.EPERM)
    steps.append(_with_argument(CLONE[column], 0, [_step(JUMP_ANY_BIT, CLONE_NEWUSER, 0, 1), eperm]))
    injections = [part for k in TERMINAL_INJECTION for part in (_step(JUMP_EQUAL, k, 0, 1), eperm)]
    steps.append(_with_argument(IOCTL[column], 1, injections))
    families = [_step(JUMP_EQUAL, f, len(FAMILIES) - i, 0) for i, f in enumerate(FAMILIES)]
    steps.append(_with_argument(SOCKET[column], 0, [*families, _step(RETURN, FAIL | errno.EAFNOSUPPORT)]))
    return b"".join([*steps, _step(RETURN, ALLOW)])
