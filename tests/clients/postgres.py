"""A PostgreSQL of its own for the tests, in a directory of its own."""

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile

USER = "broker_admin"
PASSWORD = "first"
# How a role makes users.
CREATE = (
    "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
)


def _programs():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    return found[-1] if found else os.path.dirname(shutil.which("initdb"))


class Postgres:
    def __init__(self):
        self._owned = tempfile.TemporaryDirectory(prefix="leasehold-postgres-")
        # It refuses to run as root.
        self._as = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self._owned.name, user.pw_uid, user.pw_gid)
        self.data = os.path.join(self._owned.name, "data")
        password = os.path.join(self._owned.name, "password")
        with open(password, "w") as file:
            file.write(PASSWORD)
        os.chmod(password, 0o644)
        self._run(
            "initdb", "--pgdata", self.data, "--username", USER, "--pwfile", password,
            "--auth", "scram-sha-256", "--no-sync",
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = f"-p {self.port} -h 127.0.0.1 -k {self._owned.name} -F"
        log = os.path.join(self._owned.name, "log")
        self._run("pg_ctl", "start", "--wait", "-D", self.data, "-l", log, "-o", options)

    def _run(self, program, *arguments):
        subprocess.run(
            [os.path.join(_programs(), program), *arguments],
            check=True, stdout=subprocess.DEVNULL, cwd="/", **self._as,
        )

    def sql(self, statement, user=USER, password=PASSWORD):
        """What the database answers, without titles: as the administrator, or as somebody else."""
        command = [
            os.path.join(_programs(), "psql"), "--quiet", "--no-align", "--tuples-only",
            "--host", "127.0.0.1", "--port", str(self.port), "--username", user,
            "--command", statement, "postgres",
        ]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, cwd="/",
            env={"PGPASSWORD": password},
        )
        return done.stdout.strip()

    @property
    def environment(self):
        """What the clients in other languages are told."""
        address = f"127.0.0.1:{self.port}/postgres?sslmode=disable"
        return {
            "DATABASE_URL": "postgresql://{{username}}:{{password}}@" + address,
            "DATABASE_USER": USER,
            "DATABASE_PASSWORD": PASSWORD,
        }

    @property
    def connection(self):
        """What `database/config/...` is written with."""
        database = self.environment
        return {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": database["DATABASE_URL"],
            "username": USER,
            "password": PASSWORD,
            "allowed_roles": "*",
        }

    def stop(self):
        self._run("pg_ctl", "stop", "--wait", "-D", self.data, "-m", "immediate")
        self._owned.cleanup()
