"""nginx of the system's package with the settings of docker/, in which only what a container changes is changed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from .processes import Process, listens

DOCKER = Path(__file__).parents[2] / "docker"


def start_nginx(
    folder: Path,
    reports: Path,
    *,
    port: int,
    password: str,
    secret: str,
    review_port: int,
    people: Mapping[str, str] | None = None,
) -> Process:
    """Start it, and wait until it listens.

    Args:
        folder: For its files.
        reports: The folder that it shows.
        port: To listen on.
        password: Of the account `reports`.
        secret: What it adds for the review page; empty: nothing.
        review_port: Where the review page listens.
        people: Further accounts and their passwords, as lines that somebody has added.
    """
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is needed: apt-get install nginx-light"
    folder.chmod(0o755)
    there = {
        "${REPORTS_PASSWORD}": password,
        "${REVIEW_SECRET}": secret,
        "listen 8080": f"listen 127.0.0.1:{port}",
        "root /reports": f"root {reports}",
        "/etc/nginx/conf.d": str(folder),
        "http://review:8765": f"http://127.0.0.1:{review_port}",
    }

    def filled(name: str) -> Path:
        """As the container's first script fills it: variables that are set, and no others."""
        text = (DOCKER / f"{name}.template").read_text()
        for old, new in there.items():
            text = text.replace(old, new)
        assert not re.search(r"\$\{", text)
        (folder / name).write_text(text)
        return folder / name

    users = filled("reports.users")
    users.write_text(users.read_text() + "".join(f"{name}:{{PLAIN}}{word}\n" for name, word in (people or {}).items()))
    users.chmod(0o644)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""  # pytest's folders are closed to others
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/pid; events {{}} http {{ {places} access_log {folder}/access.log; "
        f"types {{ text/html html; }} include {filled('reports.conf')}; }}"
    )
    process = Process(
        "nginx", [program, "-e", folder / "error.log", "-c", folder / "nginx.conf"], os.environ, folder / "log",
        lambda: listens(port), folder,
    )  # fmt: skip
    process.start()
    process.expect_ready()
    return process
