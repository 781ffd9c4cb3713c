"""Our own command line, as people use it: at a terminal."""

import json
import os
import subprocess
import unittest

from broker import PROGRAM, WithBroker
from terminal import Terminal

PASSWORD = "correct horse battery"


class People(WithBroker):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        root = cls.broker.root()
        root.sys.enable_auth_method("userpass")
        root.auth.userpass.create_or_update_user("ann", PASSWORD, policies=["workload"])

    def environment(self):
        certificate, key = self.broker.identity("admin")
        return {
            "PATH": os.environ["PATH"],
            "HOME": self.broker.dir,
            "LEASEHOLD_ADDR": self.broker.address,
            "LEASEHOLD_CACERT": self.broker.path("ca.pem"),
            "LEASEHOLD_CLIENT_CERT": certificate,
            "LEASEHOLD_CLIENT_KEY": key,
        }

    def command(self, *arguments, environment=None):
        return subprocess.run(
            [PROGRAM, *arguments], env=environment or self.environment(), capture_output=True,
            text=True, timeout=60, stdin=subprocess.DEVNULL,
        )

    def log_in(self, password):
        at = Terminal(
            [PROGRAM, "login", "-method=userpass", "username=ann"], self.environment()
        )
        at.wait_for("Password: ")
        at.type_unseen(password)
        status = at.end()
        self.assertNotIn(password, at.shown)
        return status, at.shown

    def test_a_password_is_asked_for_unseen(self):
        kept = os.path.join(self.broker.dir, ".leasehold-token")
        status, shown = self.log_in("wrong horse battery")
        self.assertEqual(status, 2, shown)
        self.assertIn("invalid username or password", shown)
        self.assertFalse(os.path.exists(kept))
        status, shown = self.log_in(PASSWORD)
        self.assertEqual(status, 0, shown)
        # The token was kept, for its owner alone, and the next command presents it.
        self.assertEqual(os.stat(kept).st_mode & 0o777, 0o600)
        me = self.command("token", "lookup", "-format=json")
        self.assertEqual(me.returncode, 0, me.stderr)
        self.assertEqual(json.loads(me.stdout)["data"]["path"], "auth/userpass/login/ann")
        read = self.command("kv", "get", "-field=greeting", "secret/hello")
        self.assertEqual((read.returncode, read.stdout.strip()), (0, "hello"), read.stderr)
        refused = self.command("kv", "put", "secret/hello", "greeting=no")
        self.assertEqual(refused.returncode, 2, refused.stdout)
        os.remove(kept)

    def test_paths_explain_themselves(self):
        helped = self.command("path-help", "secret/data/app")
        self.assertEqual(helped.returncode, 0, helped.stderr)
        self.assertIn("versions of a secret", helped.stdout)
        document = json.loads(self.command("path-help", "-format=json", "secret/data/app").stdout)
        self.assertIn("versions of a secret", document["help"])
        (path,) = document["openapi"]["paths"]
        self.assertEqual(path, "/secret/data/{path}")
        nowhere = self.command("path-help", "nowhere/app")
        self.assertEqual(nowhere.returncode, 2)
        # It is for those whom the broker knows.
        nobody = self.environment()
        for name in ["LEASEHOLD_CLIENT_CERT", "LEASEHOLD_CLIENT_KEY"]:
            del nobody[name]
        self.assertNotEqual(self.command("path-help", "secret/x", environment=nobody).returncode, 0)


if __name__ == "__main__":
    unittest.main()
