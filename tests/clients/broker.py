"""A real broker for the clients to talk to: `leasehold dev` in a directory of its own."""

import json
import os
import ssl
import subprocess
import tempfile
import unittest
import urllib.request

from directory import Directory, free_port, wait_for

PROGRAM = os.environ["LEASEHOLD"]


class Broker:
    def __init__(self, listen="127.0.0.1:0"):
        self._owned = tempfile.TemporaryDirectory(prefix="leasehold-clients-")
        self.dir = self._owned.name
        self._log = open(self.path("log"), "w")
        self._process = subprocess.Popen(
            [PROGRAM, "dev", "--dir", self.dir, "--listen", listen],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        for line in self._process.stdout:
            if line.startswith("ready https://"):
                self.address = line.split()[1]
                return
        raise RuntimeError("the broker did not start: " + open(self.path("log")).read())

    def serve(self, tables):
        """Goes on as `leasehold server` on the same files, with these tables of the configuration."""
        self._serve(self.read("leasehold.toml") + "\n" + tables)
        self._unseal()

    def serve_empty(self):
        """Goes on as `leasehold server` with a store that nobody has initialized."""
        config = self.read("leasehold.toml")
        store = 'type = "sqlite"\npath = "%s"' % self.path("empty.db")
        config = config.replace('type = "sqlite"', store)
        self._serve(config.replace(self.path("audit.log"), self.path("empty-audit.log")))

    def _serve(self, config):
        self._process.terminate()
        self._process.wait(timeout=30)
        self._process.stdout.close()
        port = free_port()
        self.address = "https://127.0.0.1:%d" % port
        with open(self.path("server.toml"), "w") as file:
            file.write(config.replace("127.0.0.1:0", "127.0.0.1:%d" % port))
        self._process = subprocess.Popen(
            [PROGRAM, "server", "--config", self.path("server.toml")],
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        wait_for(port, self._process)

    def _unseal(self):
        trust = ssl.create_default_context(cafile=self.path("ca.pem"))
        trust.load_cert_chain(*self.identity("admin"))
        for key in self.unseal_keys["keys"]:
            body = json.dumps({"key": key}).encode()
            request = urllib.request.Request(self.address + "/v1/sys/unseal", body, method="PUT")
            with urllib.request.urlopen(request, context=trust) as answer:
                if not json.load(answer)["sealed"]:
                    return
        raise RuntimeError("all shares given and still sealed")

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

    def connect(self, who="admin", token=None):
        """An hvac client with somebody's certificate."""
        # Here, because the tests of the listener have an environment without it.
        import hvac

        made = hvac.Client(url=self.address, cert=self.identity(who), verify=self.path("ca.pem"))
        # Not what the environment or the home directory may hold.
        made.token = token
        return made

    def root(self):
        """The same with the root token."""
        return self.connect(token=self.root_token)

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


class WithDirectory(WithBroker):
    """A broker that may ask a directory."""

    @classmethod
    def setUpClass(cls):
        cls.directory = Directory()
        try:
            super().setUpClass()
            cls.broker.serve('[auth]\nldap_hosts = ["127.0.0.1:%d"]\n' % cls.directory.port)
        except BaseException:
            cls.directory.stop()
            raise

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.directory.stop()
