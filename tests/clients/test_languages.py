"""vaultrs and node-vault, unmodified: the programs beside this file, each against a broker of its own.
And that clients which know nothing of certificates need nothing but another address: hvac, node-vault
and OpenBao's command line."""

import json
import os
import subprocess
import unittest

import hvac
import hvac.exceptions
import requests

from broker import WithBroker
from directory import free_port
from postgres import Postgres

BAO = os.environ["BAO"]


def node(name):
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "node", name)


class Languages(WithBroker):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.postgres = Postgres()

    @classmethod
    def tearDownClass(cls):
        cls.postgres.stop()
        super().tearDownClass()

    def play(self, command, environment):
        environment = {
            "PATH": os.environ["PATH"],
            "ROOT_TOKEN": self.broker.root_token,
            **self.postgres.environment,
            **environment,
        }
        played = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        self.assertEqual(played.returncode, 0, played.stdout + played.stderr)
        self.assertIn("is content", played.stdout)

    def test_vaultrs(self):
        certificate, key = self.broker.identity("admin")
        self.play(
            [os.environ["VAULTRS"]],
            {
                "VAULT_ADDR": self.broker.address,
                "VAULT_CACERT": self.broker.path("ca.pem"),
                "VAULT_CLIENT_CERT": certificate,
                "VAULT_CLIENT_KEY": key,
            },
        )

    def test_node_vault(self):
        certificate, key = self.broker.identity("admin")
        self.play(
            ["node", node("node_vault.js")],
            {
                "NODE_PATH": os.environ["NODE_PATH"],
                "ADDRESS": self.broker.address,
                "CACERT": self.broker.path("ca.pem"),
                "CLIENT_CERT": certificate,
                "CLIENT_KEY": key,
            },
        )


LISTENER = """
[[listener]]
name = "people"
address = "127.0.0.1:{port}"
certificate = "{dir}/server.pem"
key = "{dir}/server.key"
client_certificate = "optional"
"""


class WithoutCertificate(WithBroker):
    """Beside the listener that demands certificates there is one that does not. All that the clients
    are given is its address, and whom to trust the server by."""

    PASSWORD = "correct horse battery"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        port = free_port()
        cls.broker.serve(LISTENER.format(port=port, dir=cls.broker.dir))
        cls.address = f"https://127.0.0.1:{port}"
        root = cls.client()
        root.token = cls.broker.root_token
        policy = 'path "secret/data/hello" { capabilities = ["read"] }'
        root.sys.create_or_update_policy("reader", policy)
        root.sys.enable_auth_method("userpass")
        root.auth.userpass.create_or_update_user("ann", cls.PASSWORD, policies=["reader"])
        root.sys.enable_auth_method("approle")
        root.auth.approle.create_or_update_approle("job", token_policies=["reader"])
        cls.role_id = root.auth.approle.read_role_id("job")["data"]["role_id"]
        cls.secret_id = root.auth.approle.generate_secret_id("job")["data"]["secret_id"]

    @classmethod
    def client(cls):
        return hvac.Client(url=cls.address, verify=cls.broker.path("ca.pem"), token="")

    def reads_its_secret_and_no_other(self, client):
        kv = client.secrets.kv.v2
        read = kv.read_secret_version("hello", raise_on_deleted_version=True)
        self.assertEqual(read["data"]["data"]["greeting"], "hello")
        with self.assertRaises(hvac.exceptions.Forbidden):
            kv.read_secret_version("other", raise_on_deleted_version=True)

    def test_hvac(self):
        by_password, by_role = self.client(), self.client()
        with self.assertRaises(hvac.exceptions.Forbidden):
            by_password.secrets.kv.v2.read_secret_version("hello", raise_on_deleted_version=True)
        by_password.auth.userpass.login("ann", self.PASSWORD)
        by_role.auth.approle.login(self.role_id, self.secret_id)
        for client in [by_password, by_role]:
            self.reads_its_secret_and_no_other(client)
            client.auth.token.renew_self()
        # What belongs to a certificate is worth nothing without it, here as elsewhere.
        holder = hvac.Client(
            url=self.address,
            cert=self.broker.identity("workload"),
            verify=self.broker.path("ca.pem"),
        )
        holder.auth.cert.login(
            name="workload",
            cert_pem=self.broker.identity("workload")[0],
            key_pem=self.broker.identity("workload")[1],
        )
        self.assertTrue(holder.is_authenticated())
        thief = self.client()
        thief.token = holder.token
        self.assertFalse(thief.is_authenticated())
        # And the other listener goes on to demand one.
        with self.assertRaises(requests.ConnectionError):
            hvac.Client(
                url=self.broker.address, verify=self.broker.path("ca.pem"), token=by_role.token
            ).auth.token.lookup_self()

    def test_node_vault(self):
        environment = {
            "PATH": os.environ["PATH"],
            "NODE_PATH": os.environ["NODE_PATH"],
            "ADDRESS": self.address,
            "CACERT": self.broker.path("ca.pem"),
            "NAME": "ann",
            "PASSWORD": self.PASSWORD,
            "ROLE_ID": self.role_id,
            "SECRET_ID": self.secret_id,
            "SECRET": "secret/data/hello",
        }
        played = subprocess.run(
            ["node", node("without_certificate.js")],
            env=environment, capture_output=True, text=True, timeout=120,
        )
        self.assertEqual(played.returncode, 0, played.stdout + played.stderr)
        self.assertIn("is content", played.stdout)

    def test_bao(self):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": self.broker.dir,
            "BAO_ADDR": self.address,
            "BAO_CACERT": self.broker.path("ca.pem"),
        }

        def bao(*arguments):
            return subprocess.run(
                [BAO, *arguments], env=environment, capture_output=True, text=True, timeout=60
            )

        refused = bao("kv", "get", "secret/hello")
        self.assertEqual(refused.returncode, 2, refused.stdout)
        self.assertIn("403", refused.stderr)
        # It keeps the token of its log-in in the home directory, and goes on with that.
        by_password = bao("login", "-method=userpass", "username=ann", f"password={self.PASSWORD}")
        self.assertEqual(by_password.returncode, 0, by_password.stderr)
        read = bao("kv", "get", "-field=greeting", "secret/hello")
        self.assertEqual((read.returncode, read.stdout), (0, "hello"), read.stderr)
        self.assertEqual(bao("kv", "get", "secret/other").returncode, 2)
        ids = [f"role_id={self.role_id}", f"secret_id={self.secret_id}"]
        by_role = bao("write", "-format=json", "auth/approle/login", *ids)
        self.assertEqual(by_role.returncode, 0, by_role.stderr)
        environment["BAO_TOKEN"] = json.loads(by_role.stdout)["auth"]["client_token"]
        read = bao("kv", "get", "-field=greeting", "secret/hello")
        self.assertEqual((read.returncode, read.stdout), (0, "hello"), read.stderr)


if __name__ == "__main__":
    unittest.main()
