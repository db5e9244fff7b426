"""The process of the embedded Prefect server, which `flows.server` starts with the two locks."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import uvicorn
from prefect.server.api.server import create_app

from flows.server import HOST, STOP_SECONDS


def main(lock: int, users: Path) -> None:
    """Serve until a signal, or until no process holds the users' lock any more.

    Args:
        lock: File descriptor of `server.lock`, which stays locked as long as this process has it open.
        users: Path of `users.lock`.
    """
    os.set_inheritable(lock, False)
    listener = socket.create_server((HOST, 0))  # bound before it is announced, so no other process takes the port

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                os.write(sys.stdout.fileno(), b"%d\n" % listener.getsockname()[1])
                os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    server = Server(
        uvicorn.Config(
            create_app(final=True), log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=3
        )
    )
    threading.Thread(target=_end_with_users, args=(server, users), daemon=True).start()
    server.run(sockets=[listener])


def _end_with_users(server: uvicorn.Server, users: Path) -> None:
    """Wait until this process can lock the users' lock alone, then stop."""
    with users.open("w") as lock:
        while True:
            time.sleep(0.5)
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                server.should_exit = True
                time.sleep(STOP_SECONDS)
                os._exit(1)  # a request that does not end


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
