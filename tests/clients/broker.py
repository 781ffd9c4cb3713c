"""A real broker for the clients to talk to: `leasehold dev` in a directory of its own."""

import json
import os
import subprocess
import tempfile
import unittest

PROGRAM = os.environ["LEASEHOLD"]


class Broker:
    def __init__(self):
        self._owned = tempfile.TemporaryDirectory(prefix="leasehold-clients-")
        self.dir = self._owned.name
        self._log = open(self.path("log"), "w")
        self._process = subprocess.Popen(
            [PROGRAM, "dev", "--dir", self.dir, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        for line in self._process.stdout:
            if line.startswith("ready https://"):
                self.address = line.split()[1]
                return
        raise RuntimeError("the broker did not start: " + open(self.path("log")).read())

    def path(self, name):
        return os.path.join(self.dir, name)

    def read(self, name):
        with open(self.path(name)) as file:
            return file.read().strip()

    @property
    def root_token(self):
        return self.read("root-token")

    @property
    def unseal_keys(self):
        return json.loads(self.read("unseal-keys.json"))

    def identity(self, name):
        """Paths of a client certificate and its key."""
        return self.path(name + ".pem"), self.path(name + ".key")

    def stop(self):
        self._process.terminate()
        self._process.wait(timeout=30)
        self._process.stdout.close()
        self._log.close()
        self._owned.cleanup()


class WithBroker(unittest.TestCase):
    """A broker for all tests of a class."""

    @classmethod
    def setUpClass(cls):
        cls.broker = Broker()

    @classmethod
    def tearDownClass(cls):
        cls.broker.stop()
