"""OpenBao's own command line, the published program, unmodified."""

import json
import os
import re
import subprocess
import unittest

import requests

from broker import WithBroker, WithDirectory

PROGRAM = os.environ["BAO"]


class Program:
    """How it is run: by default with the root token."""

    @property
    def token(self):
        return self.broker.root_token

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
        done = self.run_bao(*arguments, token=self.token)
        self.assertEqual(done.returncode, 0, f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def root_json(self, *arguments):
        command, *rest = arguments
        words = command.split()
        return json.loads(self.root(*words, "-format=json", *rest))


class Bao(Program, WithBroker):
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
        gone = self.run_bao("kv", "get", "secret/app", token=self.token)
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
            token=self.token,
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
            "write", "totp/code/ann", f"code={code}", token=self.token
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
        again = self.run_bao("unwrap", wrapped, token=self.token)
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
            token=self.token,
        )
        self.assertEqual(refused.returncode, 2)
        self.assertIn("[[audit]]", refused.stderr)
        kept = self.run_bao("audit", "disable", name, token=self.token)
        self.assertEqual(kept.returncode, 2)

    def test_versions_and_what_nodes_do(self):
        history = self.root_json("version-history")["data"]
        self.assertIn(history["keys"][0], self.root("version-history"))
        refused = self.run_bao("operator", "step-down", token=self.token)
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

    def test_quotas(self):
        self.root("secrets", "enable", "-path=counted", "ssh")
        role = ["key_type=otp", "default_user=app", "cidr_list=10.0.0.0/8"]
        self.root("write", "counted/roles/app", *role)
        self.root("write", "sys/quotas/lease-count/few", "path=counted", "max_leases=2")
        self.assertIn("few", self.root_json("list", "sys/quotas/lease-count"))
        ask = ["write", "-format=json", "counted/creds/app", "ip=10.0.0.1"]
        leased = [json.loads(self.root(*ask))["lease_id"] for _ in range(2)]
        counted = self.root_json("read", "sys/quotas/lease-count/few")["data"]
        self.assertEqual((counted["counter"], counted["max_leases"]), (2, 2))
        environment = {**self.environment("admin", self.token), "BAO_MAX_RETRIES": "0"}

        def refused(*arguments):
            done = subprocess.run(
                [PROGRAM, *arguments], env=environment, capture_output=True, text=True, timeout=60
            )
            return done.returncode == 2 and "Code: 429" in done.stderr

        self.assertTrue(refused(*ask))
        # There is room again when one of them has ended.
        self.root("lease", "revoke", "-sync", leased[0])
        self.root(*ask)
        self.root("delete", "sys/quotas/lease-count/few")
        self.root(*ask)

        self.root("secrets", "enable", "-path=slow", "-version=1", "kv")
        self.root("write", "slow/x", "a=b")
        limit = ["path=slow", "rate=3", "interval=1h", "block_interval=1h"]
        self.root("write", "sys/quotas/rate-limit/slow", *limit)
        read = self.root_json("read", "sys/quotas/rate-limit/slow")["data"]
        self.assertEqual((read["rate"], read["interval"]), (3, 3600))
        for _ in range(3):
            self.root("read", "slow/x")
        self.assertTrue(refused("read", "slow/x"))
        self.root("kv", "get", "secret/hello")
        self.root("delete", "sys/quotas/rate-limit/slow")
        self.root("read", "slow/x")

    def test_who_is_locked_is_listed_and_unlocked(self):
        self.root("auth", "enable", "-path=locking", "userpass")
        self.root("auth", "tune", "-user-lockout-threshold=3", "locking/")
        accessor = self.root_json("auth list")["locking/"]["accessor"]
        self.root("write", "auth/locking/users/ann", "password=correct horse battery")
        login = ["login", "-method=userpass", "-path=locking", "-no-store", "username=ann"]
        right = [*login, "password=correct horse battery"]
        self.assertEqual(self.run_bao(*right).returncode, 0)
        for _ in range(3):
            self.assertEqual(self.run_bao(*login, "password=wrong").returncode, 2)
        self.assertEqual(self.run_bao(*right).returncode, 2, "locked")
        read = ["sys/locked-users", f"mount_accessor={accessor}"]
        locked = self.root_json("read", *read)["data"]
        self.assertEqual(locked["total"], 1)
        (mount,) = locked["by_namespace"][0]["mount_accessors"]
        self.assertEqual((mount["mount_accessor"], mount["alias_identifiers"]), (accessor, ["ann"]))
        self.root("write", "-force", f"sys/locked-users/{accessor}/unlock/ann")
        self.assertEqual(self.root_json("read", *read)["data"]["total"], 0)
        self.assertEqual(self.run_bao(*right).returncode, 0)

    def test_leases(self):
        self.root("secrets", "enable", "-path=leased", "ssh")
        role = ["key_type=otp", "default_user=app", "cidr_list=10.0.0.0/8", "ttl=10m"]
        self.root("write", "leased/roles/app", *role)
        made = self.root_json("write", "leased/creds/app", "ip=10.0.0.1")
        lease = made["lease_id"]
        known = self.root_json("lease lookup", lease)["data"]
        self.assertEqual((known["id"], known["renewable"]), (lease, False))
        self.assertTrue(0 < known["ttl"] <= 600, known)
        written = self.root_json("write", "sys/leases/lookup", f"lease_id={lease}")["data"]
        self.assertEqual(written["id"], lease)
        under = self.root_json("list", "sys/leases/lookup/leased/creds/app")
        self.assertEqual(under, [lease.rpartition("/")[2]])
        self.root("lease", "revoke", "-sync", lease)
        gone = self.run_bao("lease", "lookup", lease, token=self.token)
        self.assertEqual(gone.returncode, 2)
        self.assertIn("invalid lease", gone.stderr)
        otp = f"otp={made['data']['key']}"
        self.assertEqual(self.run_bao("write", "leased/verify", otp, token=self.token).returncode, 2)

    def test_rewrapping(self):
        wrapped = self.root_json("kv get", "-wrap-ttl=60s", "secret/hello")["wrap_info"]
        again = self.root_json("write", "sys/wrapping/rewrap", f"token={wrapped['token']}")["wrap_info"]
        self.assertNotEqual(again["token"], wrapped["token"])
        self.assertEqual((again["ttl"], again["creation_path"]), (60, wrapped["creation_path"]))
        known = self.root_json("write", "sys/wrapping/lookup", f"token={again['token']}")["data"]
        self.assertEqual(known["creation_path"], "secret/data/hello")
        self.assertEqual(self.run_bao("unwrap", wrapped["token"]).returncode, 2)
        read = self.root_json("unwrap", again["token"])["data"]
        self.assertIn("greeting", read["data"])

    def test_help_on_paths(self):
        for path, said in [
            ("secret/data/x", "versions of a secret"),
            ("secret/", "secret/"),
            ("auth/token/create", "token"),
            ("sys/mounts", "mount"),
        ]:
            self.assertIn(said, self.root("path-help", path))
        nowhere = self.run_bao("path-help", "nowhere/x", token=self.token)
        self.assertEqual(nowhere.returncode, 2)

    def test_pages_of_other_origins(self):
        """What browsers heed: what an OPTIONS that comes before the request itself is answered with."""
        def preflight():
            answer = requests.options(
                self.broker.address + "/v1/secret/data/hello",
                headers={
                    "Origin": "https://console.example",
                    "Access-Control-Request-Method": "GET",
                    "Access-Control-Request-Headers": "x-vault-token",
                },
                cert=self.broker.identity("admin"),
                verify=self.broker.path("ca.pem"),
            )
            return answer.headers.get("Access-Control-Allow-Origin")

        self.assertIsNone(preflight())
        self.root("write", "sys/config/cors", "allowed_origins=https://console.example")
        read = self.root_json("read", "sys/config/cors")["data"]
        self.assertEqual(
            (read["enabled"], read["allowed_origins"]), (True, ["https://console.example"])
        )
        self.assertEqual(preflight(), "https://console.example")
        self.root("delete", "sys/config/cors")
        self.assertFalse(self.root_json("read", "sys/config/cors")["data"]["enabled"])
        self.assertIsNone(preflight())

    def test_rotation(self):
        before = self.root_json("operator key-status")["term"]
        self.root("operator", "rotate")
        self.assertEqual(self.root_json("operator key-status")["term"], before + 1)


class Sealing(Program, WithBroker):
    """A broker of its own, since it is sealed."""

    def test_seal_and_unseal(self):
        self.root("operator", "seal")
        self.assertEqual(self.run_bao("status").returncode, 2, "sealed, by exit status")
        for key in self.broker.unseal_keys["keys"][:2]:
            self.run_bao("operator", "unseal", key)
        self.assertEqual(self.run_bao("status").returncode, 0)


class Holders(Program, WithBroker):
    """A broker whose shares are made, and made anew, by those who hold them."""

    token = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.broker.serve_empty()

    def state(self):
        status = json.loads(self.run_bao("status", "-format=json").stdout)
        return status["initialized"], status["sealed"], status["t"], status["n"]

    def replace(self, command, keys, shares, threshold):
        """New shares, by those who hold `keys`."""
        sizes = [f"-key-shares={shares}", f"-key-threshold={threshold}"]
        begun = self.root_json(command, "-init", *sizes)
        self.assertEqual((begun["started"], begun["progress"]), (True, 0))
        for key in keys:
            self.assertFalse(self.root_json(command, "-status").get("complete", False))
            done = self.root_json(command, f"-nonce={begun['nonce']}", key)
        self.assertTrue(done["complete"], done)
        self.assertEqual(len(done["keys"]), shares)
        return done["keys"]

    def opens(self, keys):
        """Whether these shares open it again, once it is sealed."""
        self.root("operator", "seal")
        self.assertTrue(self.state()[1])
        return self.unseal(keys)

    def unseal(self, keys):
        for key in keys:
            self.run_bao("operator", "unseal", key)
        opened = not self.state()[1]
        if not opened:
            self.run_bao("operator", "unseal", "-reset")
        return opened

    def test_init_rekey_and_rotate_keys(self):
        self.assertEqual(self.state()[:2], (False, True))
        self.assertEqual(self.run_bao("operator", "init", "-status").returncode, 2)
        made = self.root_json("operator init", "-key-shares=3", "-key-threshold=2")
        keys, self.token = made["unseal_keys_hex"], made["root_token"]
        self.assertEqual((len(keys), len(made["unseal_keys_b64"])), (3, 3))
        self.assertEqual(self.run_bao("operator", "init").returncode, 2, "once and for all")
        self.assertEqual(self.run_bao("operator", "init", "-status").returncode, 0)
        self.assertEqual(self.state(), (True, True, 2, 3))
        for key in keys[1:]:
            self.root("operator", "unseal", key)
        self.assertEqual(self.state(), (True, False, 2, 3))
        self.root("secrets", "enable", "-path=kept", "-version=1", "kv")
        self.root("kv", "put", "kept/x", "a=b")

        for command, shares, threshold in [
            ("operator rekey", 5, 3),
            ("operator rotate-keys", 4, 2),
        ]:
            old, count = keys, self.state()[2]
            keys = self.replace(command, old[:count], shares, threshold)
            # The new ones open it, and with that the old ones are worth nothing.
            self.assertTrue(self.opens(keys[-threshold:]))
            self.assertEqual(self.state(), (True, False, threshold, shares))
            self.assertEqual(self.root("kv", "get", "-field=a", "kept/x"), "b")
            self.assertFalse(self.opens(old[:count]))
            self.assertTrue(self.unseal(keys[:threshold]))

        # Begun by mistake: nothing is changed, and the next may begin.
        self.root_json("operator rekey", "-init", "-key-shares=3", "-key-threshold=2")
        self.root("operator", "rekey", "-cancel")
        self.assertFalse(self.root_json("operator rekey", "-status")["started"])

        # Proven before the old ones stop working.
        sizes = ["-key-shares=2", "-key-threshold=2"]
        begun = self.root_json("operator rotate-keys", "-init", "-verify", *sizes)
        for key in keys[:2]:
            made = self.root_json("operator rotate-keys", f"-nonce={begun['nonce']}", key)
        self.assertEqual(self.state()[2:], (2, 4), "not before they are proven")
        for key in made["keys"]:
            nonce = f"-nonce={made['verification_nonce']}"
            proven = self.root("operator", "rotate-keys", "-verify", nonce, key)
        self.assertIn("verification successful", proven)
        self.assertEqual(self.state()[2:], (2, 2))
        self.assertTrue(self.opens(made["keys"]))


class BaoWithDirectory(Program, WithDirectory):
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
