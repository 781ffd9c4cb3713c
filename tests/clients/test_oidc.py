"""Log-ins at a certified OpenID provider: by hvac, by OpenBao's command line, and by our own."""

import json
import os
import re
import subprocess
import time
import unittest
from urllib.parse import parse_qs, urlsplit

import hvac.exceptions

from broker import PROGRAM
from directory import free_port
from provider import AskingBroker, Person, Provider

BAO = os.environ["BAO"]
# Where the pages of a console come back to: nobody listens there, the browser alone goes there.
CONSOLE = "https://console.example/ui/auth/broker/oidc/callback"

# Notes what it is asked to open, and leaves the rest to somebody else.
OPENER = """#!/bin/sh
printf '%s\\n' "$0" "$@" > "{noted}.new"
mv "{noted}.new" "{noted}"
"""


class Oidc(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.port = free_port()
        cls.back = f"http://localhost:{cls.port}/oidc/callback"
        cls.provider = Provider([cls.back, CONSOLE])
        cls.broker = AskingBroker([f"127.0.0.1:{cls.provider.port}"])
        root = cls.broker.root()
        for client, secret in [("broker", "client-secret-1"), ("poster", "client-secret-2")]:
            root.sys.enable_auth_method("oidc", path=client)
            root.auth.oidc.configure(
                oidc_discovery_url=cls.provider.issuer,
                oidc_client_id=client,
                oidc_client_secret=secret,
                default_role="staff",
                path=client,
            )
            cls.make_role(root, client)
        root.sys.enable_auth_method("jwt")
        root.auth.jwt.configure(oidc_discovery_url=cls.provider.issuer)
        root.auth.jwt.create_role(
            name="robot",
            role_type="jwt",
            user_claim="client_id",
            allowed_redirect_uris=[],
            bound_audiences=["urn:broker"],
            bound_claims={"scope": "api"},
            token_policies=["default"],
        )

    @classmethod
    def tearDownClass(cls):
        cls.broker.stop()
        cls.provider.stop()

    @classmethod
    def make_role(cls, root, path, **more):
        root.auth.oidc.create_role(
            name="staff",
            user_claim="sub",
            role_type="oidc",
            allowed_redirect_uris=["http://localhost:8250/oidc/callback"],
            oidc_scopes=["email", "groups"],
            groups_claim="groups",
            claim_mappings={"email": "mail"},
            token_policies=["default"],
            path=path,
            **more,
        )

    def begin(self, path="broker"):
        begun = self.broker.connect().auth.oidc.oidc_authorization_url_request("staff", self.back, path=path)
        return begun["data"]["auth_url"]

    def test_hvac_logs_in_with_a_browser(self):
        for path in ["broker", "poster"]:
            address = self.begin(path)
            nonce = re.search("[?&]nonce=([^&]+)", address).group(1)
            brought = Person("ann").brought_back(address, self.back)
            auth = self.broker.connect().auth.oidc
            made = auth.oidc_callback(brought["state"], nonce, brought["code"], path=path)["auth"]
            self.assertEqual(made["metadata"], {"mail": "ann@example.org", "role": "staff"})
            self.assertTrue(self.broker.connect(token=made["client_token"]).is_authenticated())
            # The same once more, and the same state with another code.
            for code in [brought["code"], "other"]:
                with self.assertRaises(hvac.exceptions.InvalidRequest):
                    auth.oidc_callback(brought["state"], nonce, code, path=path)

    def test_a_code_of_another_log_in_is_worth_nothing(self):
        """PKCE: the provider gives nothing for a code without the secret of the log-in it began with."""
        ann, bob = self.begin(), self.begin()
        stolen = Person("ann").brought_back(ann, self.back)
        own = Person("bob").brought_back(bob, self.back)
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            self.broker.connect().auth.oidc.oidc_callback(own["state"], "", stolen["code"], path="broker")

    def test_a_public_client_needs_no_secret(self):
        root = self.broker.root()
        root.sys.enable_auth_method("oidc", path="public")
        root.auth.oidc.configure(
            oidc_discovery_url=self.provider.issuer, oidc_client_id="public", path="public"
        )
        self.make_role(root, "public", bound_claims={"groups": ["team-ann"]})
        for name, lets_in in [("ann", True), ("bob", False)]:
            brought = Person(name).brought_back(self.begin("public"), self.back)
            finish = lambda: self.broker.connect().auth.oidc.oidc_callback(
                brought["state"], "", brought["code"], path="public"
            )
            if lets_in:
                self.assertIn("default", finish()["auth"]["policies"])
            else:
                self.assertRaises(hvac.exceptions.InvalidRequest, finish)

    def test_hvac_logs_in_with_a_token(self):
        token = self.provider.machine_token()
        made = self.broker.connect().auth.jwt.jwt_login("robot", token)["auth"]
        self.assertEqual(made["metadata"], {"role": "robot"})
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            self.broker.connect().auth.jwt.jwt_login("robot", token[:-8] + "AAAAAAAA")
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            self.broker.connect().auth.jwt.jwt_login("other", token)

    def test_the_page_of_a_console_logs_in(self):
        """Back by HTTPS: what the page was given in its address, it sends to the callback itself."""
        root = self.broker.root()
        role = {
            "user_claim": "sub", "role_type": "oidc", "allowed_redirect_uris": [CONSOLE],
            "token_policies": ["default"], "path": "broker",
        }
        root.auth.oidc.create_role(name="console", **role)
        auth = self.broker.connect().auth.oidc

        def begin(uri):
            return auth.oidc_authorization_url_request("console", uri, path="broker")["data"]["auth_url"]

        # Only an address that is registered to the letter.
        for other in [
            CONSOLE + "/", CONSOLE.replace("https", "http"),
            CONSOLE.replace("example", "example:8443"), self.back,
        ]:
            with self.assertRaises(hvac.exceptions.InvalidRequest):
                begin(other)
        address = begin(CONSOLE)
        query = parse_qs(urlsplit(address).query)
        self.assertEqual(query["redirect_uri"], [CONSOLE])
        self.assertEqual(query["code_challenge_method"], ["S256"])
        brought = Person("ann").brought_back(address, CONSOLE)
        nonce = query["nonce"][0]
        made = auth.oidc_callback(brought["state"], nonce, brought["code"], path="broker")["auth"]
        self.assertEqual(made["metadata"]["role"], "console")
        self.assertTrue(self.broker.connect(token=made["client_token"]).is_authenticated())
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            auth.oidc_callback(brought["state"], nonce, brought["code"], path="broker")

    def command(self, program, prefix, *arguments, **more):
        certificate, key = self.broker.identity("admin")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": self.broker.dir,
            f"{prefix}_ADDR": self.broker.address,
            f"{prefix}_CACERT": self.broker.path("ca.pem"),
            f"{prefix}_CLIENT_CERT": certificate,
            f"{prefix}_CLIENT_KEY": key,
            **more,
        }
        return subprocess.Popen(
            [program, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finished(self, process):
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, out + err)
        return out

    def shown_address(self, stream):
        for line in stream:
            found = re.search(r"http://127\.0\.0\.1:\d+/auth\?\S+", line)
            if found:
                return found.group(0)
        self.fail("no address was shown")

    def test_command_lines_log_in_with_a_token(self):
        token = self.broker.path("robot-token")
        with open(token, "w") as file:
            file.write(self.provider.machine_token())
        made = json.loads(self.finished(self.command(BAO, "BAO", "write", "-format=json",
            "auth/jwt/login", "role=robot", f"jwt=@{token}")))
        self.assertEqual(made["auth"]["metadata"], {"role": "robot"})
        ours = ["login", "-method=jwt", "-no-store", "-format=json", "role=robot", f"jwt=@{token}"]
        made = json.loads(self.finished(self.command(PROGRAM, "LEASEHOLD", *ours)))
        self.assertEqual(made["auth"]["metadata"], {"role": "robot"})

    def test_command_lines_log_in_with_a_browser(self):
        for program, prefix, stream in [(BAO, "BAO", "stderr"), (PROGRAM, "LEASEHOLD", "stderr")]:
            process = self.command(
                program, prefix, "login", "-method=oidc", "-path=broker", "-no-store",
                "-format=json", "role=staff", f"port={self.port}", "skip_browser=true",
            )
            address = self.shown_address(getattr(process, stream))
            page = Person("ann").go(address, self.back)
            made = json.loads(self.finished(process))
            self.assertEqual(made["auth"]["metadata"]["mail"], "ann@example.org", page)

    def opener(self, name):
        """A program that notes what it is asked to open; and where it does."""
        path, noted = self.broker.path(name), self.broker.path(name + ".noted")
        with open(path, "w") as file:
            file.write(OPENER.format(noted=noted))
        os.chmod(path, 0o755)
        return path, noted

    def opened(self, noted, process):
        deadline = time.monotonic() + 60
        while not os.path.exists(noted):
            if time.monotonic() > deadline or process.poll() is not None:
                self.fail("no browser was opened")
            time.sleep(0.05)
        with open(noted) as file:
            return file.read().splitlines()

    def test_our_command_line_opens_a_browser(self):
        system, system_noted = self.opener("xdg-open")
        chosen, chosen_noted = self.opener("chosen")
        found = {"PATH": self.broker.dir + ":" + os.environ["PATH"]}
        cases = [
            (system_noted, [system], found),
            # The first that there is; with the address where it belongs.
            (
                chosen_noted, [chosen, "--new", "--", "--private"],
                {**found, "BROWSER": f"not-there %s:{chosen} --new -- %s --private:{system}"},
            ),
        ]
        for noted, words, environment in cases:
            process = self.command(
                PROGRAM, "LEASEHOLD", "login", "-method=oidc", "-path=broker", "-no-store",
                "-format=json", "role=staff", f"port={self.port}", **environment,
            )
            said = self.opened(noted, process)
            (address,) = [word for word in said if word.startswith("http://127.0.0.1:")]
            self.assertEqual([word for word in said if word != address], words)
            if len(words) > 1:
                self.assertEqual(said.index(address), 3)
            page = Person("ann").go(address, self.back)
            made = json.loads(self.finished(process))
            self.assertEqual(made["auth"]["metadata"]["mail"], "ann@example.org", page)
            os.remove(noted)
        self.assertFalse(os.path.exists(system_noted), "the chosen one alone was opened")


if __name__ == "__main__":
    unittest.main()
