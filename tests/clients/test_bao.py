"""OpenBao's own command line, the published program, unmodified."""

import json
import os
import re
import subprocess
import unittest

from broker import WithBroker, WithDirectory

PROGRAM = os.environ["BAO"]


class Bao(WithBroker):
    def environment(self, who, token):
        certificate, key = self.broker.identity(who)
        made = {
            "PATH": os.environ["PATH"],
            "HOME": self.broker.dir,
            "BAO_ADDR": self.broker.address,
            "BAO_CACERT": self.broker.path("ca.pem"),
            "BAO_CLIENT_CERT": certificate,
            "BAO_CLIENT_KEY": key,
        }
        if token:
            made["BAO_TOKEN"] = token
        return made

    def run_bao(self, *arguments, who="admin", token=None):
        return subprocess.run(
            [PROGRAM, *arguments],
            env=self.environment(who, token),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def root(self, *arguments):
        done = self.run_bao(*arguments, token=self.broker.root_token)
        self.assertEqual(done.returncode, 0, f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def root_json(self, *arguments):
        command, *rest = arguments
        words = command.split()
        return json.loads(self.root(*words, "-format=json", *rest))

    def test_status(self):
        status = self.root_json("status")
        self.assertEqual((status["initialized"], status["sealed"]), (True, False))

    def test_secrets(self):
        self.root("kv", "put", "secret/app", "a=1", "b=2")
        self.assertEqual(self.root("kv", "get", "-field=a", "secret/app"), "1")
        self.root("kv", "patch", "secret/app", "a=3")
        read = self.root_json("kv get", "secret/app")
        self.assertEqual(read["data"]["data"], {"a": "3", "b": "2"})
        self.assertIn("app", self.root_json("kv list", "secret"))
        self.root("kv", "delete", "secret/app")
        self.root("kv", "undelete", "-versions=2", "secret/app")
        self.root("kv", "rollback", "-version=1", "secret/app")
        self.assertEqual(self.root("kv", "get", "-field=a", "secret/app"), "1")
        self.root("kv", "metadata", "put", "-max-versions=3", "secret/app")
        self.root("kv", "metadata", "delete", "secret/app")
        gone = self.run_bao("kv", "get", "secret/app", token=self.broker.root_token)
        self.assertEqual(gone.returncode, 2)
        self.assertIn("No value found", gone.stdout + gone.stderr)

    def test_mounts(self):
        self.root("secrets", "enable", "-path=plain", "-version=1", "kv")
        self.root("kv", "put", "plain/x", "a=b")
        self.assertEqual(self.root_json("kv get", "plain/x")["data"], {"a": "b"})
        self.root("secrets", "tune", "-default-lease-ttl=1h", "plain/")
        listed = self.root_json("secrets list", "-detailed")
        self.assertEqual(listed["plain/"]["config"]["default_lease_ttl"], 3600)
        self.root("secrets", "move", "plain/", "moved/")
        self.root("secrets", "disable", "moved/")
        self.root("auth", "enable", "-path=other", "cert")
        self.assertIn("other/", self.root_json("auth list"))
        self.root("auth", "disable", "other/")

    def test_ssh(self):
        self.root("secrets", "enable", "ssh")
        self.root("write", "-force", "ssh/config/ca")
        self.root(
            "write",
            "ssh/roles/web",
            "key_type=ca",
            "allow_user_certificates=true",
            "allowed_users=app",
            "allowed_extensions=*",
        )
        key = self.broker.path("ssh-key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        paths = [f"-public-key-path={key}.pub", f"-private-key-path={key}"]
        signed = self.root(
            "ssh", "-mode=ca", "-role=web", "-mount-point=ssh", "-no-exec", *paths, "app@127.0.0.1"
        )
        self.assertIn("ssh-ed25519-cert-v01@openssh.com ", signed)
        refused = self.run_bao(
            "ssh", "-mode=ca", "-role=web", "-no-exec", *paths, "root@127.0.0.1",
            token=self.broker.root_token,
        )
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("valid_principals", refused.stderr)
        # The file that a certificate is written to by a shell.
        signed = self.root(
            "write", "-field=signed_key", "ssh/sign/web", f"public_key=@{key}.pub",
            "valid_principals=app",
        )
        self.assertTrue(signed.startswith("ssh-ed25519-cert-v01@openssh.com "))

        self.root(
            "write", "ssh/roles/otp", "key_type=otp", "default_user=app", "cidr_list=127.0.0.0/8"
        )
        leased = self.root("ssh", "-mode=otp", "-role=otp", "-no-exec", "app@127.0.0.1")
        password = re.search(r"^key +([0-9A-Za-z]{24})$", leased, re.MULTILINE)
        self.assertIsNotNone(password, leased)
        verified = self.root_json("write", "ssh/verify", f"otp={password.group(1)}")
        self.assertEqual(verified["data"]["username"], "app")

    def test_one_time_passwords_by_time(self):
        self.root("secrets", "enable", "totp")
        key = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
        url = f"otpauth://totp/Corp:ann?secret={key}&issuer=Corp&period=3600"
        self.root("write", "totp/keys/ann", f"url={url}")
        code = self.root("read", "-field=code", "totp/code/ann")
        self.assertRegex(code, r"^[0-9]{6}$")
        checked = self.root_json("write", "totp/code/ann", f"code={code}")
        self.assertEqual(checked["data"], {"valid": True})
        again = self.run_bao(
            "write", "totp/code/ann", f"code={code}", token=self.broker.root_token
        )
        self.assertEqual(again.returncode, 2)
        self.assertIn("already used", again.stderr)

    def test_policies_and_tokens(self):
        policy = self.broker.path("team.hcl")
        with open(policy, "w") as file:
            file.write('path "secret/data/hello" { capabilities = ["read"] }\n')
        self.root("policy", "write", "team", policy)
        self.assertIn("team", self.root_json("policy list"))
        made = self.root_json("token create", "-policy=team", "-ttl=1h", "-no-default-policy")
        token = made["auth"]["client_token"]
        self.assertEqual(made["auth"]["policies"], ["team"])
        seen = self.root("token", "capabilities", token, "secret/data/hello")
        self.assertEqual(seen.strip(), "read")
        read = self.run_bao("kv", "get", "secret/hello", token=token)
        self.assertEqual(read.returncode, 0, read.stderr)
        denied = self.run_bao("kv", "get", "secret/other", token=token)
        self.assertEqual(denied.returncode, 2)
        self.root("token", "renew", token)
        self.root("token", "revoke", token)
        again = self.run_bao("token", "lookup", token=token)
        self.assertEqual(again.returncode, 2)

    def test_login_by_certificate(self):
        done = self.run_bao(
            "login", "-method=cert", "-no-store", "-format=json", "name=workload", who="workload"
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        token = json.loads(done.stdout)["auth"]["client_token"]
        read = self.run_bao("kv", "get", "secret/hello", who="workload", token=token)
        self.assertEqual(read.returncode, 0, read.stderr)
        stolen = self.run_bao("kv", "get", "secret/hello", who="admin", token=token)
        self.assertEqual(stolen.returncode, 2)

    def test_wrapping(self):
        wrapped = self.root_json("kv get", "-wrap-ttl=60s", "secret/hello")["wrap_info"]["token"]
        self.assertTrue(json.loads(self.root("unwrap", "-format=json", wrapped))["data"]["data"])
        again = self.run_bao("unwrap", wrapped, token=self.broker.root_token)
        self.assertEqual(again.returncode, 2)

    def test_settings_of_mounts(self):
        self.root("secrets", "enable", "-path=tuned", "-audit-non-hmac-request-keys=a", "kv")
        self.root(
            "secrets",
            "tune",
            "-audit-non-hmac-response-keys=b",
            "-passthrough-request-headers=X-One",
            "-allowed-response-headers=X-Two",
            "-listing-visibility=unauth",
            "-max-lease-ttl=2h",
            "tuned/",
        )
        config = self.root_json("secrets list", "-detailed")["tuned/"]["config"]
        self.assertEqual(config["audit_non_hmac_request_keys"], ["a"])
        self.assertEqual(config["audit_non_hmac_response_keys"], ["b"])
        self.assertEqual(config["passthrough_request_headers"], ["X-One"])
        self.assertEqual(config["allowed_response_headers"], ["X-Two"])
        self.assertEqual((config["listing_visibility"], config["max_lease_ttl"]), ("unauth", 7200))
        self.root("auth", "enable", "-path=staff", "userpass")
        self.root("auth", "tune", "-user-lockout-threshold=3", "-token-type=batch", "staff/")
        self.root("auth", "move", "auth/staff/", "auth/crew/")
        self.assertEqual(self.root_json("auth list")["crew/"]["config"]["token_type"], "batch")
        self.root("auth", "disable", "crew/")
        self.root("secrets", "disable", "tuned/")

    def test_what_can_be_mounted_is_listed(self):
        self.assertIn("kv", self.root("plugin", "list", "secret"))
        self.assertIn("cert", self.root("plugin", "list", "auth"))
        self.assertIn("postgresql-database-plugin", self.root("plugin", "list", "database"))
        self.assertIn("true", self.root("plugin", "info", "auth", "cert"))

    def test_the_audit_is_the_configurations(self):
        sinks = self.root_json("audit list")
        (name,) = sinks
        path = sinks[name]["options"]["file_path"]
        self.root("audit", "enable", f"-path={name}", "file", f"file_path={path}")
        refused = self.run_bao(
            "audit", "enable", "-path=other", "file", "file_path=/tmp/x",
            token=self.broker.root_token,
        )
        self.assertEqual(refused.returncode, 2)
        self.assertIn("[[audit]]", refused.stderr)
        kept = self.run_bao("audit", "disable", name, token=self.broker.root_token)
        self.assertEqual(kept.returncode, 2)

    def test_versions_and_what_nodes_do(self):
        history = self.root_json("version-history")["data"]
        self.assertIn(history["keys"][0], self.root("version-history"))
        refused = self.run_bao("operator", "step-down", token=self.broker.root_token)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("every node is active", refused.stderr)

    def test_headers_for_browsers(self):
        header = "sys/config/ui/headers/X-Frame-Options"
        self.root("write", header, "values=DENY")
        self.assertEqual(self.root_json("list", "sys/config/ui/headers"), ["X-Frame-Options"])
        self.assertEqual(self.root("read", "-field=value", header).strip(), "DENY")
        self.root("delete", header)

    def test_counters(self):
        read = "sys/internal/counters/tokens"
        tokens = self.root_json("read", read)["data"]["counters"]["service_tokens"]["total"]
        self.assertGreater(tokens, 0)

    def test_a_root_token_is_made_and_decoded(self):
        started = json.loads(self.root("operator", "generate-root", "-init", "-format=json"))
        for key in self.broker.unseal_keys["keys"][:2]:
            done = self.root(
                "operator", "generate-root", "-format=json", f"-nonce={started['nonce']}", key
            )
        encoded = json.loads(done)["encoded_token"]
        decode = [f"-decode={encoded}", f"-otp={started['otp']}"]
        token = self.root("operator", "generate-root", *decode).strip().split()[-1]
        self.assertEqual(json.loads(self.run_bao(
            "token", "lookup", "-format=json", token=token
        ).stdout)["data"]["policies"], ["root"])

    def test_rotation(self):
        before = self.root_json("operator key-status")["term"]
        self.root("operator", "rotate")
        self.assertEqual(self.root_json("operator key-status")["term"], before + 1)


class Sealing(Bao):
    """A broker of its own, since it is sealed."""

    def test_seal_and_unseal(self):
        self.root("operator", "seal")
        self.assertEqual(self.run_bao("status").returncode, 2, "sealed, by exit status")
        for key in self.broker.unseal_keys["keys"][:2]:
            self.run_bao("operator", "unseal", key)
        self.assertEqual(self.run_bao("status").returncode, 0)


def load_tests(loader, _standard, _pattern):
    suite = unittest.TestSuite()
    suite.addTests(loader.loadTestsFromTestCase(Bao))
    suite.addTest(Sealing("test_seal_and_unseal"))
    return suite


class BaoWithDirectory(WithDirectory):
    environment = Bao.environment
    run_bao = Bao.run_bao
    root = Bao.root

    def test_ldap(self):
        self.root("auth", "enable", "ldap")
        self.root(
            "write",
            "auth/ldap/config",
            "url=" + self.directory.url,
            "userdn=dc=example,dc=org",
            "userattr=uid",
            "groupdn=dc=example,dc=org",
            "binddn=cn=broker,dc=example,dc=org",
            "bindpass=broker-secret",
        )
        self.root("write", "auth/ldap/groups/operators", "policies=operate")
        # Its `login` has no such method, but what that would write can be written.
        login = ["write", "-format=json", "auth/ldap/login/ann"]
        done = self.run_bao(*login, "password=ann-secret")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        auth = json.loads(done.stdout)["auth"]
        self.assertEqual(auth["token_policies"], ["default", "operate"])
        refused = self.run_bao(*login, "password=wrong")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("invalid username or password", refused.stderr)


if __name__ == "__main__":
    unittest.main()
