"""Forks keepers on demand. It has imported everything already, so that a keeper starts in a millisecond; it ends with the server."""

import gc
import os
import signal
import socket
import sys
import traceback

from shopfloor.sandboxes.adapters._keeper import keeper, launch
from shopfloor.sandboxes.adapters._keeper.service import receive


def main() -> None:
    """Serve requests on standard input, a socket: each names a folder and brings its lock and a pipe for the report."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    launch.warm_up()
    gc.freeze()
    os.dup2(0, launch.CHANNEL, inheritable=False)
    channel = socket.socket(fileno=launch.CHANNEL)
    while True:
        request, handles = receive(channel)
        if request is None:
            return
        if os.fork() == 0:
            channel.detach()  # its number is needed again
            for handle in handles:
                os.set_inheritable(handle, False)
            try:
                keeper.keep(request["folder"], handles[1])
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        for handle in handles:
            os.close(handle)
