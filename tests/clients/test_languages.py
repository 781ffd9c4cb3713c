"""vaultrs and node-vault, unmodified: the programs beside this file, each against a broker of its own."""

import os
import subprocess
import unittest

from broker import WithBroker
from postgres import Postgres


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
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "node", "node_vault.js")
        self.play(
            ["node", program],
            {
                "NODE_PATH": os.environ["NODE_PATH"],
                "ADDRESS": self.broker.address,
                "CACERT": self.broker.path("ca.pem"),
                "CLIENT_CERT": certificate,
                "CLIENT_KEY": key,
            },
        )


if __name__ == "__main__":
    unittest.main()
