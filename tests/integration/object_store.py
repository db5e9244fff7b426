"""An S3-compatible server in a process of its own: `python object_store.py PORT`.

Its objects are in memory, so a kill would lose them, which no store with a disk does. Instead SIGUSR1 takes it off the
network, and SIGUSR2 brings it back with all that it held.
"""

from __future__ import annotations

import signal
import sys

from moto.server import ThreadedMotoServer

HOST = "127.0.0.1"
AWAY, BACK, END = signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM


def main(port: int) -> None:
    """Serve until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {AWAY, BACK, END})  # in threads that come later, too
    server, serves = ThreadedMotoServer(HOST, port), False
    asked = int(BACK)
    while asked != END:
        if (asked == BACK) != serves:
            (server.stop if serves else server.start)()
            serves = not serves
        asked = signal.sigwait({AWAY, BACK, END})


if __name__ == "__main__":
    main(int(sys.argv[1]))
