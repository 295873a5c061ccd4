"""A TCP proxy in front of something, which a test can cut: connections are refused, or packets vanish without a word."""

import contextlib
import socket
import threading
from collections.abc import Callable


class Proxy:
    """Listens on a port of this machine and passes bytes to whatever `connect` opens."""

    def __init__(self, connect: Callable[[], socket.socket], *, port: int = 0) -> None:
        self._connect = connect
        self._open = threading.Event()
        self._open.set()
        self._pairs: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        """From now on nothing passes in either direction, and nobody is told."""
        self._open.clear()

    def heal(self) -> None:
        """Pass bytes again; what was swallowed stays lost with its connection."""
        self._drop()
        self._open.set()

    def close(self) -> None:
        """End everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # a thread that waits in accept would take one more
        self._listener.close()
        self._drop()
        self._open.set()

    def _drop(self) -> None:
        pairs, self._pairs = self._pairs, []
        for end in pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self._open.is_set():
                    self._pairs.append(near)  # accepted by the kernel, answered by nobody
                    continue
                far = self._connect()
                self._pairs += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._open.is_set():
                    target.sendall(data)
        if self._open.is_set():
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)


def to_postgres(folder: str) -> Callable[[], socket.socket]:
    """How to reach the cluster whose Unix socket lies in `folder`."""

    def connect() -> socket.socket:
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{folder}/.s.PGSQL.5432")
        return far

    return connect
