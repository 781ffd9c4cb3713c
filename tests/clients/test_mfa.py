"""A second factor at log-in: hvac, and OpenBao's command line at a terminal, both unmodified."""

import base64
import io
import json
import os
import re
import subprocess
import unittest

import PIL.Image
import hvac
import hvac.exceptions
import pyotp
import zxingcpp

from broker import WithBroker
from terminal import Terminal

PROGRAM = os.environ["BAO"]
TOTP = "identity/mfa/method/totp"


class SecondFactor(WithBroker):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = cls.broker.root()
        cls.root.sys.enable_auth_method("userpass", path="people")
        cls.accessor = cls.root.sys.list_auth_methods()["data"]["people/"]["accessor"]
        made = cls.root.write_data(TOTP, data={"issuer": "Corp", "method_name": "phone"})
        cls.method = made["data"]["method_id"]
        cls.root.write_data(
            "identity/mfa/login-enforcement/people",
            data={"mfa_method_ids": [cls.method], "auth_method_accessors": [cls.accessor]},
        )

    def person(self, name):
        """Somebody who has to show a code: the app with the shared secret."""
        self.root.auth.userpass.create_or_update_user(
            name, password="correct horse", policies=["default"], mount_point="people"
        )
        alias = {"name": name, "mount_accessor": self.accessor}
        entity = self.root.secrets.identity.create_or_update_entity(name)["data"]["id"]
        self.root.secrets.identity.create_or_update_entity_alias(canonical_id=entity, **alias)
        made = self.root.write_data(
            TOTP + "/admin-generate", data={"method_id": self.method, "entity_id": entity}
        )["data"]
        image = PIL.Image.open(io.BytesIO(base64.b64decode(made["barcode"])))
        self.assertEqual(zxingcpp.read_barcode(image).text, made["url"])
        return pyotp.parse_uri(made["url"])

    def client(self):
        return hvac.Client(
            url=self.broker.address,
            cert=self.broker.identity("workload"),
            verify=self.broker.path("ca.pem"),
        )

    def environment(self):
        certificate, key = self.broker.identity("workload")
        return {
            "PATH": os.environ["PATH"],
            "HOME": self.broker.dir,
            "BAO_ADDR": self.broker.address,
            "BAO_CACERT": self.broker.path("ca.pem"),
            "BAO_CLIENT_CERT": certificate,
            "BAO_CLIENT_KEY": key,
        }

    def test_two_phases_with_hvac(self):
        app, client = self.person("ann"), self.client()
        begun = client.auth.userpass.login(
            "ann", "correct horse", mount_point="people", use_token=False
        )
        self.assertEqual(begun["auth"]["client_token"], "")
        demand = begun["auth"]["mfa_requirement"]
        (constraint,) = demand["mfa_constraints"].values()
        self.assertEqual([one["id"] for one in constraint["any"]], [self.method])
        shown = {
            "mfa_request_id": demand["mfa_request_id"],
            "mfa_payload": {self.method: ["0"]},
        }
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            client.write_data("sys/mfa/validate", data=shown)
        shown["mfa_payload"] = {self.method: [app.now()]}
        client.token = client.write_data("sys/mfa/validate", data=shown)["auth"]["client_token"]
        self.assertTrue(client.is_authenticated())
        client.auth.token.renew_self()
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            client.write_data("sys/mfa/validate", data=shown)

    def test_the_command_line_asks_for_the_code(self):
        app = self.person("bob")
        arguments = [
            PROGRAM, "login", "-method=userpass", "-path=people", "-field=token", "-no-store",
            "username=bob", "password=correct horse",
        ]
        at = Terminal(arguments, self.environment())
        at.wait_for(self.method)
        at.type(app.now())
        self.assertEqual(at.end(), 0, at.shown)
        client = self.client()
        client.token = re.search(r"lhs\.\w+", at.shown).group()
        self.assertTrue(client.is_authenticated())
        at = Terminal(arguments, self.environment())
        at.wait_for(self.method)
        at.type("12345")
        self.assertEqual(at.end(), 2, at.shown)
        self.assertIn("second factor", at.shown)

    def test_the_command_line_sends_the_code_at_once(self):
        app = self.person("cat")
        arguments = ["write", "-format=json", "-mfa=%s:%s" % (self.method, app.now())]
        path = "auth/people/login/cat"
        done = subprocess.run(
            [PROGRAM, *arguments, path, "password=correct horse"],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(json.loads(done.stdout)["auth"]["client_token"], r"^lhs\.")


if __name__ == "__main__":
    unittest.main()
