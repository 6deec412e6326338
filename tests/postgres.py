"""A PostgreSQL server of the tests' own, where Debian's package or another is installed."""

import contextlib
import glob
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

#: what `initdb` is told, and what is never to be seen
PASSWORD = "s3cr3t/of?mine"


def programs():
    """The folder of `initdb` and `pg_ctl`; None where there is none."""
    found = shutil.which("initdb") or next(
        iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)), None
    )
    return str(Path(found).parent) if found else None


class Postgres:
    """A server in a folder of its own, on a free port of this machine; root starts it as another user."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="thalweg-postgres-"))
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self.run("initdb", "-D", self.data, "-U", "me", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync")
        self.start()

    @property
    def data(self):
        return str(self.folder / "data")

    def url(self, database="postgres", password="s3cr3t%2Fof%3Fmine", user="me"):
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def run(self, program, *arguments):
        command = [f"{programs()}/{program}", *arguments]
        subprocess.run(
            command, user=self.user, cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        self.run("pg_ctl", "-D", self.data, "-w", "-l", f"{self.data}/log", "-o", options, "start")

    def stop(self, how="immediate"):
        """Immediate: as if it had crashed."""
        self.run("pg_ctl", "-D", self.data, "-w", "-m", how, "stop")

    def database(self, name):
        """An empty one, and its URL."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def close(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
