"""Locks that belong to an open file: passed to another process with the file, released by the kernel when the last holder dies."""

import fcntl
import os
import struct

# struct flock: l_type, l_whence, l_start, l_len, l_pid (natural alignment; open file description locks need a pid of 0).
LAYOUT = "hhqqi4x"


def _flock(kind: int) -> bytes:
    return struct.pack(LAYOUT, kind, os.SEEK_SET, 0, 0, 0)


def take(path: str) -> int | None:
    """Lock the file at `path` (made when missing); answers the open file that holds the lock, None when it is held."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK))
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle


def held(path: str) -> bool:
    """Whether somebody holds the lock; asks without taking it. A missing file is not held."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK))
    finally:
        os.close(handle)
    kind: int = struct.unpack(LAYOUT, answer)[0]
    return kind != fcntl.F_UNLCK
