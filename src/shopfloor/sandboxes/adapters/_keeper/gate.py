"""The network gate: accepts from inside the sandbox, connects outside. Nothing leaves but what the plan names."""

import contextlib
import ipaddress
import json
import os
import socket
import threading
import time

from shopfloor.sandboxes.adapters._keeper.plan import DENIED, GatePlan

CONNECTIONS = 256
HEAD = 64 << 10
PATIENCE = 15.0
DENIED_LINES = 1000
BUFFER = 256 << 10
NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(Exception):
    """The gate does not let this through."""


class Gate:
    """Serves the listeners of one sandbox in threads of its own."""

    def __init__(self, plan: GatePlan, folder: str) -> None:
        self.plan = plan
        self.folder = folder
        self.allow = {entry.lower() for entry in plan.allow}
        self.slots = threading.BoundedSemaphore(CONNECTIONS)
        self.noted = 0

    def serve(self, listeners: list[socket.socket]) -> None:
        """Start to accept: the API, the proxy, then the pipes in the plan's order."""
        targets: list[str | None] = ["", None, *self.plan.pipes.values()]
        for listener, target in zip(listeners, targets, strict=True):
            threading.Thread(target=self._accept, args=(listener, target), daemon=True).start()

    def _accept(self, listener: socket.socket, target: str | None) -> None:
        listener.setblocking(True)
        while True:
            self.slots.acquire()
            try:
                inside, _ = listener.accept()
            except OSError:
                self.slots.release()
                time.sleep(0.05)  # out of file descriptors, say: the sandbox's own doing
                continue
            try:
                threading.Thread(target=self._connection, args=(inside, target), daemon=True).start()
            except RuntimeError:  # no more threads for now: refuse this one, stay for the next
                inside.close()
                self.slots.release()
                time.sleep(0.05)

    def _connection(self, inside: socket.socket, target: str | None) -> None:
        try:
            with inside, contextlib.suppress(OSError):
                if target is None:
                    self._proxy(inside)
                else:
                    with dial_socket(self.plan.api_socket) if not target else dial(target) as outside:
                        splice(inside, outside)
        finally:
            self.slots.release()

    def _proxy(self, inside: socket.socket) -> None:
        inside.settimeout(PATIENCE)
        try:
            head, rest = _head(inside)
            method, host, port, forward = _target(head)
        except Refused as refusal:
            _answer(inside, "400 Bad Request", str(refusal))
            return
        try:
            outside = self._open(host, port)
        except Refused as refusal:
            self._note(method, f"{host}:{port}", str(refusal))
            _answer(inside, "403 Forbidden", f"The sandbox may not reach {host}:{port}: {refusal}.")
            return
        except OSError as error:
            _answer(inside, "502 Bad Gateway", f"{host}:{port} did not answer: {error}.")
            return
        with outside:
            if forward:
                outside.sendall(forward)
            else:
                inside.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            outside.sendall(rest)
            splice(inside, outside)

    def _open(self, host: str, port: int) -> socket.socket:
        """Resolve once, check every address, dial a checked one: a name cannot change its mind in between."""
        if f"{host}:{port}" not in self.allow:
            raise Refused("it is not on the allow list")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [(family, where) for family, _, _, _, where in found if self._reachable(str(where[0]), port)]
        if not addresses:
            raise Refused("the name leads to an address of this host or a private network")
        problem = OSError("no address")
        for family, where in addresses:
            outside = socket.socket(family, socket.SOCK_STREAM)
            outside.settimeout(PATIENCE)
            try:
                outside.connect(where)
            except OSError as error:
                outside.close()
                problem = error
                continue
            return outside
        raise problem

    def _reachable(self, address: str, port: int) -> bool:
        if f"{address}:{port}" in self.allow or f"[{address}]:{port}" in self.allow:
            return True
        return public(address) and not own(address)

    def _note(self, method: str, target: str, why: str) -> None:
        self.noted += 1
        if self.noted > DENIED_LINES:
            return
        line = json.dumps({"at": time.time(), "method": method[:16], "target": target[:300], "why": why})
        with open(os.path.join(self.folder, DENIED), "a") as file:
            file.write(line + "\n")


def public(address: str) -> bool:
    """Whether an address is one of the open internet, looking through the disguises of IPv4 in IPv6."""
    ip: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        hidden = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in NAT64:
            hidden = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = hidden or ip
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def own(address: str) -> bool:
    """Whether an address belongs to this host: only then can it be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def dial(target: str) -> socket.socket:
    """Connect to the `address:port` that a pipe is wired to; the operator named it, so it is not checked."""
    host, _, port = target.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE)


def dial_socket(path: str) -> socket.socket:
    """Connect to a unix socket, however long its path."""
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
    outside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        outside.settimeout(PATIENCE)
        outside.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    except BaseException:
        outside.close()
        raise
    finally:
        os.close(folder)
    return outside


def splice(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until both sides have ended."""
    one.settimeout(None)
    other.settimeout(None)
    back = threading.Thread(target=_pump, args=(other, one), daemon=True)
    back.start()
    _pump(one, other)
    back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(BUFFER):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # One side is gone: wake the pump of the other direction as well.
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


def _head(inside: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        more = inside.recv(8192)
        if not more or len(data) > HEAD:
            raise Refused("this is no request of a proxy client")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _target(head: bytes) -> tuple[str, str, int, bytes]:
    """(method, host, port, head to forward); the head is empty for CONNECT."""
    first, *lines = head.split(b"\r\n")
    try:
        method, target, _ = first.decode("ascii").split(" ")
        if method == "CONNECT":
            return method, *_authority(target, None), b""
        scheme, _, rest = target.partition("://")
        authority, slash, path = rest.partition("/")
        if scheme.lower() != "http" or "@" in authority:
            raise ValueError(target)
        host, port = _authority(authority, 80)
    except ValueError as error:
        raise Refused("use CONNECT host:port or an absolute http:// address") from error
    dropped = (b"proxy-", b"connection:", b"host:", b"keep-alive:")
    kept = [line for line in lines if not line.lower().startswith(dropped)]
    # One request for one connection: the next one is looked at again.
    own_lines = [
        f"{method} {slash or '/'}{path} HTTP/1.1".encode(),
        f"Host: {authority}".encode(),
        b"Connection: close",
    ]
    return method, host, port, b"\r\n".join([*own_lines, *kept]) + b"\r\n\r\n"


def _authority(text: str, default: int | None) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        if default is None:
            raise ValueError(text)
        host, port = text, str(default)
    host = host.lower().rstrip(".").strip("[]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(text)
    return host, int(port)


def _answer(inside: socket.socket, status: str, text: str) -> None:
    body = f"{text}\n".encode("utf-8", "replace")
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError):
        inside.sendall(head.encode() + body)
        inside.shutdown(socket.SHUT_WR)
