"""hvac, the usual Python client, unmodified."""

import base64
import io
import subprocess
import unittest
import urllib.parse

import PIL.Image
import hvac
import hvac.exceptions
import pyotp
import zxingcpp

from broker import WithBroker, WithDirectory

POLICY = 'path "secret/data/team/*" { capabilities = ["read"] }'


class Hvac(WithBroker):
    def client(self, who="admin", token=None):
        return self.broker.connect(who, token)

    def root(self):
        return self.broker.root()

    def test_status(self):
        client = self.client()
        self.assertTrue(client.sys.is_initialized())
        self.assertFalse(client.sys.is_sealed())
        health = client.sys.read_health_status(method="GET")
        self.assertEqual((health["initialized"], health["sealed"]), (True, False))
        self.assertEqual(client.sys.read_health_status(method="HEAD").status_code, 200)
        self.assertIn("ha_enabled", client.sys.read_leader_status())

    def test_versioned_secrets(self):
        kv = self.root().secrets.kv.v2
        kv.create_or_update_secret("app/a", {"user": "u", "pass": "1"}, cas=0)
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            kv.create_or_update_secret("app/a", {"user": "v"}, cas=0)
        kv.patch("app/a", {"pass": "2"})
        read = kv.read_secret_version("app/a", raise_on_deleted_version=True)
        self.assertEqual(read["data"]["data"], {"user": "u", "pass": "2"})
        self.assertEqual(read["data"]["metadata"]["version"], 2)
        self.assertEqual(kv.list_secrets("app")["data"]["keys"], ["a"])
        kv.update_metadata("app/a", max_versions=5, custom_metadata={"owner": "team"})
        self.assertEqual(
            kv.read_secret_metadata("app/a")["data"]["custom_metadata"], {"owner": "team"}
        )
        kv.delete_latest_version_of_secret("app/a")
        with self.assertRaises(hvac.exceptions.InvalidPath):
            kv.read_secret_version("app/a", raise_on_deleted_version=True)
        deleted = kv.read_secret_version("app/a", raise_on_deleted_version=False)
        self.assertNotEqual(deleted["data"]["metadata"]["deletion_time"], "")
        kv.undelete_secret_versions("app/a", [2])
        kv.read_secret_version("app/a", raise_on_deleted_version=True)
        kv.destroy_secret_versions("app/a", [1])
        kv.delete_metadata_and_all_versions("app/a")
        with self.assertRaises(hvac.exceptions.InvalidPath):
            kv.read_secret_metadata("app/a")

    def test_plain_secrets_in_a_mount_of_their_own(self):
        root = self.root()
        root.sys.enable_secrets_engine("kv", path="plain", options={"version": "1"})
        self.assertIn("plain/", root.sys.list_mounted_secrets_engines()["data"])
        root.sys.tune_mount_configuration("plain", default_lease_ttl="1h", max_lease_ttl="2h")
        tuned = root.sys.read_mount_configuration("plain")["data"]
        self.assertEqual((tuned["default_lease_ttl"], tuned["max_lease_ttl"]), (3600, 7200))
        kv = root.secrets.kv.v1
        kv.create_or_update_secret("a", {"k": "v"}, mount_point="plain")
        self.assertEqual(kv.read_secret("a", mount_point="plain")["data"], {"k": "v"})
        self.assertEqual(kv.list_secrets("", mount_point="plain")["data"]["keys"], ["a"])
        kv.delete_secret("a", mount_point="plain")
        root.sys.move_backend("plain", "moved")
        root.sys.disable_secrets_engine("moved")
        self.assertNotIn("moved/", root.sys.list_mounted_secrets_engines()["data"])

    def test_certificates_and_passwords_for_ssh(self):
        root = self.root()
        root.sys.enable_secrets_engine("ssh")
        ssh = root.secrets.ssh
        made = ssh.submit_ca_information(key_type="ssh-ed25519")["data"]["public_key"]
        self.assertTrue(made.startswith("ssh-ed25519 "))
        self.assertEqual(ssh.read_public_key()["data"]["public_key"], made)
        ssh.create_role(
            name="web",
            key_type="ca",
            allow_user_certificates=True,
            allowed_users="app,deploy",
            default_user="app",
            allowed_extensions="permit-pty",
            ttl="30m",
        )
        self.assertEqual(ssh.list_roles()["data"]["keys"], ["web"])
        self.assertEqual(ssh.read_role("web")["data"]["allowed_users"], "app,deploy")
        key = self.broker.path("ssh-key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        public_key = self.broker.read("ssh-key.pub")
        signed = ssh.sign_ssh_key(
            "web", public_key, valid_principals="deploy", extensions={"permit-pty": ""}
        )["data"]
        with open(key + "-cert.pub", "w") as file:
            file.write(signed["signed_key"])
        shown = subprocess.run(
            ["ssh-keygen", "-L", "-f", key + "-cert.pub"], check=True, capture_output=True, text=True
        ).stdout
        self.assertIn(f"Serial: {int(signed['serial_number'], 16)}", shown)
        self.assertRegex(shown, r"Principals:\s+deploy\n")
        self.assertRegex(shown, r"Extensions:\s+permit-pty\n")
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            ssh.sign_ssh_key("web", public_key, valid_principals="root")

        ssh.create_role(name="otp", key_type="otp", default_user="app", cidr_list="10.0.0.0/8")
        self.assertEqual(ssh.list_roles_by_ip(ip="10.1.2.3")["data"]["roles"], ["otp"])
        leased = ssh.generate_ssh_credentials(name="otp", ip="10.1.2.3")
        self.assertTrue(leased["lease_id"].startswith("ssh/creds/otp/"))
        verified = ssh.verify_ssh_otp(otp=leased["data"]["key"])["data"]
        self.assertEqual(verified, {"ip": "10.1.2.3", "role_name": "otp", "username": "app"})
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            ssh.verify_ssh_otp(otp=leased["data"]["key"])
        ssh.configure_zeroaddress_roles("otp")
        self.assertEqual(ssh.list_zeroaddress_roles()["data"]["roles"], ["otp"])
        ssh.delete_zeroaddress_role()
        ssh.delete_role("otp")
        ssh.delete_ca_information()

    def test_one_time_passwords_by_time(self):
        root = self.root()
        root.sys.enable_secrets_engine("totp")
        made = root.write_data(
            "totp/keys/ann",
            data={"generate": True, "issuer": "Corp", "account_name": "ann@corp.example"},
        )["data"]
        address = urllib.parse.urlparse(made["url"])
        said = urllib.parse.parse_qs(address.query)
        self.assertEqual((address.scheme, address.netloc), ("otpauth", "totp"))
        self.assertEqual(urllib.parse.unquote(address.path), "/Corp:ann@corp.example")
        # What the barcode shows to a phone is that address.
        image = PIL.Image.open(io.BytesIO(base64.b64decode(made["barcode"])))
        self.assertEqual(image.size, (200, 200))
        self.assertEqual([code.text for code in zxingcpp.read_barcodes(image)], [made["url"]])
        # An app computes the code from it, which counts once.
        secret = base64.b32decode(said["secret"][0])
        self.assertEqual(len(secret), 20)
        app = pyotp.parse_uri(made["url"])
        code = app.now()
        checked = root.write_data("totp/code/ann", data={"code": code})
        self.assertEqual(checked["data"], {"valid": True})
        with self.assertRaisesRegex(hvac.exceptions.InvalidRequest, "already used"):
            root.write_data("totp/code/ann", data={"code": code})
        # The other way round: codes for a secret that another service made.
        other = pyotp.totp.TOTP(pyotp.random_base32(), digits=8, interval=120, digest="sha512")
        root.write_data(
            "totp/keys/other",
            data={"key": other.secret, "algorithm": "SHA512", "digits": 8, "period": "2m"},
        )
        self.assertTrue(other.verify(root.read("totp/code/other")["data"]["code"], valid_window=1))

    def test_policies_and_capabilities(self):
        root = self.root()
        root.sys.create_or_update_policy("team", POLICY)
        self.assertIn("team", root.sys.list_policies()["data"]["policies"])
        self.assertEqual(root.sys.read_policy("team")["data"]["rules"], POLICY)
        root.sys.create_or_update_acl_policy("team", POLICY)
        self.assertEqual(root.sys.read_acl_policy("team")["data"]["policy"], POLICY)
        token = root.auth.token.create(policies=["team"])["auth"]["client_token"]
        paths = ["secret/data/team/x", "secret/data/other"]
        asked = root.sys.get_capabilities(paths, token=token)["data"]
        self.assertEqual((asked[paths[0]], asked[paths[1]]), (["read"], ["deny"]))
        with self.assertRaises(hvac.exceptions.Forbidden):
            self.client(token=token).secrets.kv.v2.read_secret_version(
                "other", raise_on_deleted_version=True
            )
        root.sys.delete_policy("team")
        self.assertNotIn("team", root.sys.list_policies()["data"]["policies"])

    def test_tokens(self):
        root = self.root()
        self.assertTrue(root.is_authenticated())
        made = root.auth.token.create(policies=["default"], ttl="1h", meta={"job": "nightly"})
        child = self.client(token=made["auth"]["client_token"])
        known = child.auth.token.lookup_self()["data"]
        self.assertEqual((known["meta"], known["renewable"]), ({"job": "nightly"}, True))
        self.assertLessEqual(child.auth.token.renew_self(increment="30m")["auth"]["lease_duration"], 3600)
        accessor = made["auth"]["accessor"]
        self.assertEqual(root.auth.token.lookup_accessor(accessor)["data"]["accessor"], accessor)
        root.auth.token.create_or_update_role("job", allowed_policies="default", orphan=True)
        self.assertEqual(root.auth.token.list_roles()["data"]["keys"], ["job"])
        by_role = root.auth.token.create(role_name="job", policies=["default"])
        self.assertTrue(by_role["auth"]["orphan"])
        root.auth.token.revoke_accessor(accessor)
        self.assertFalse(child.is_authenticated())
        orphan = root.auth.token.create_orphan(policies=["default"])["auth"]["client_token"]
        self.client(token=orphan).auth.token.revoke_self()
        self.assertFalse(self.client(token=orphan).is_authenticated())

    def test_certificate_login(self):
        root = self.root()
        root.auth.cert.create_ca_certificate_role(
            name="web",
            certificate=self.broker.read("ca.pem"),
            allowed_uri_sans="spiffe://dev.leasehold.internal/workload/*",
            token_policies=["default"],
            mount_point="cert",
        )
        self.assertIn("web", root.auth.cert.list_certificate_roles()["data"]["keys"])
        workload = self.client("workload")
        login = workload.auth.cert.login(
            name="web",
            cert_pem=self.broker.identity("workload")[0],
            key_pem=self.broker.identity("workload")[1],
        )
        self.assertIn("default", login["auth"]["policies"])
        self.assertTrue(workload.is_authenticated())
        # A token that a certificate was given is worth nothing with another.
        stolen = self.client("admin", token=login["auth"]["client_token"])
        self.assertFalse(stolen.is_authenticated())
        root.auth.cert.delete_certificate_role("web")

    def test_a_certificate_is_enough(self):
        workload = self.client("workload")
        read = workload.secrets.kv.v2.read_secret_version("hello", raise_on_deleted_version=True)
        self.assertTrue(read["data"]["data"])

    def test_wrapping(self):
        root = self.root()
        wrapped = root.sys.wrap({"a": "b"}, ttl=60)["wrap_info"]
        self.assertEqual(wrapped["ttl"], 60)
        self.assertEqual(self.client().sys.unwrap(token=wrapped["token"])["data"], {"a": "b"})
        with self.assertRaises((hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden)):
            self.client().sys.unwrap(token=wrapped["token"])
        wrapped = root.sys.wrap({"a": "b"}, ttl=60)["wrap_info"]
        again = root.write_data("sys/wrapping/rewrap", data={"token": wrapped["token"]})["wrap_info"]
        with self.assertRaises((hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden)):
            self.client().sys.unwrap(token=wrapped["token"])
        self.assertEqual(self.client().sys.unwrap(token=again["token"])["data"], {"a": "b"})

    def test_leases(self):
        root = self.root()
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            root.sys.read_lease("database/creds/none/x")
        root.sys.revoke_prefix("database/creds/none")
        root.sys.enable_secrets_engine("ssh", path="leased")
        root.secrets.ssh.create_role(
            name="app", key_type="otp", default_user="app", cidr_list="10.0.0.0/8", ttl="10m",
            mount_point="leased",
        )
        leased = [
            root.secrets.ssh.generate_ssh_credentials("app", ip="10.0.0.1", mount_point="leased")
            for _ in range(2)
        ]
        known = root.sys.read_lease(leased[0]["lease_id"])["data"]
        self.assertEqual(known["id"], leased[0]["lease_id"])
        self.assertTrue(0 < known["ttl"] <= 600, known)
        listed = root.sys.list_leases("leased/creds/app")["data"]["keys"]
        self.assertEqual({f"leased/creds/app/{one}" for one in listed}, {one["lease_id"] for one in leased})
        root.sys.revoke_prefix("leased/creds")
        for one in leased:
            with self.assertRaises(hvac.exceptions.InvalidRequest):
                root.secrets.ssh.verify_ssh_otp(one["data"]["key"], mount_point="leased")

    def test_quotas(self):
        sys = self.root().sys
        sys.enable_secrets_engine("kv", path="busy", options={"version": "1"})
        sys.create_or_update_quota("busy", rate=2, path="busy", interval="1h", block_interval="1h")
        self.assertEqual(sys.list_quotas()["data"]["keys"], ["busy"])
        self.assertEqual(sys.read_quota("busy")["data"]["path"], "busy/")
        kv = self.root().secrets.kv.v1
        for name in ["a", "b"]:
            kv.create_or_update_secret(name, {"k": "v"}, method="POST", mount_point="busy")
        with self.assertRaises(hvac.exceptions.RateLimitExceeded):
            kv.read_secret("a", mount_point="busy")
        sys.delete_quota("busy")
        self.assertEqual(kv.read_secret("a", mount_point="busy")["data"], {"k": "v"})

    def test_audit_is_listed_and_belongs_to_the_configuration(self):
        sys = self.root().sys
        ((name, sink),) = sys.list_enabled_audit_devices()["data"].items()
        sys.enable_audit_device("file", path=name.rstrip("/"), options=sink["options"])
        with self.assertRaisesRegex(hvac.exceptions.InvalidRequest, "configuration"):
            sys.enable_audit_device("file", path="other", options={"file_path": "/tmp/x"})
        with self.assertRaisesRegex(hvac.exceptions.InvalidRequest, "configuration"):
            sys.disable_audit_device(name.rstrip("/"))
        self.assertIn("hash", sys.calculate_hash(name.rstrip("/"), "text")["data"])

    def test_settings_of_mounts(self):
        sys = self.root().sys
        config = {"audit_non_hmac_request_keys": ["a"], "passthrough_request_headers": ["X-One"]}
        sys.enable_secrets_engine("kv", path="set", config=config)
        sys.tune_mount_configuration("set", listing_visibility="unauth", description="d")
        tuned = sys.read_mount_configuration("set")["data"]
        self.assertEqual(tuned["audit_non_hmac_request_keys"], ["a"])
        self.assertEqual(tuned["passthrough_request_headers"], ["X-One"])
        self.assertEqual((tuned["listing_visibility"], tuned["description"]), ("unauth", "d"))
        sys.disable_secrets_engine("set")

    def test_nobody_steps_down(self):
        sys = self.root().sys
        with self.assertRaisesRegex(hvac.exceptions.InvalidRequest, "every node is active"):
            sys.step_down()

    def test_identity(self):
        identity = self.root().secrets.identity
        login = self.client("workload").auth.cert.login(
            cert_pem=self.broker.identity("workload")[0],
            key_pem=self.broker.identity("workload")[1],
        )
        entity = login["auth"]["entity_id"]
        identity.update_entity(entity, metadata={"team": "red"})
        self.assertIn(entity, identity.list_entities()["data"]["keys"])
        self.assertEqual(identity.read_entity(entity)["data"]["metadata"], {"team": "red"})


class Sealing(WithBroker):
    def test_seal_and_unseal(self):
        client = self.broker.root()
        self.assertEqual(client.sys.read_seal_status()["sealed"], False)
        self.assertEqual(client.sys.rotate_encryption_key().status_code, 204)
        self.assertIn("term", client.sys.get_encryption_key_status()["data"])
        client.sys.seal()
        self.assertTrue(client.sys.is_sealed())
        with self.assertRaises(hvac.exceptions.VaultDown):
            client.sys.list_mounted_secrets_engines()
        keys = self.broker.unseal_keys["keys"]
        wrong = keys[0][:-4] + ("0" if keys[0][-4] != "0" else "1") + keys[0][-3:]
        self.assertEqual(client.sys.submit_unseal_key(wrong)["progress"], 1)
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            client.sys.submit_unseal_key(keys[1])
        self.assertEqual(client.sys.read_seal_status()["progress"], 0)
        client.sys.submit_unseal_keys(keys)
        self.assertFalse(client.sys.is_sealed())
        self.assertTrue(client.is_authenticated())


class Holders(WithBroker):
    def test_init_and_rekey(self):
        self.broker.serve_empty()
        client = self.broker.connect()
        self.assertFalse(client.sys.is_initialized())
        made = client.sys.initialize(secret_shares=3, secret_threshold=2)
        self.assertEqual((len(made["keys"]), len(made["keys_base64"])), (3, 3))
        self.assertTrue(client.sys.is_initialized())
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            client.sys.initialize()
        client.sys.submit_unseal_keys(made["keys"][1:])
        client.token = made["root_token"]
        self.assertTrue(client.is_authenticated())

        begun = client.sys.start_rekey(2, 2, require_verification=True)
        self.assertEqual(client.sys.read_rekey_progress()["required"], 2)
        done = client.sys.rekey_multi(made["keys"][:2], nonce=begun["nonce"])
        self.assertEqual((done["complete"], done["verification_required"]), (True, True))
        proven = client.sys.rekey_verify_multi(done["keys"], done["verification_nonce"])
        self.assertTrue(proven["complete"])
        client.sys.seal()
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            client.sys.submit_unseal_keys(made["keys"][:2])
        client.sys.submit_unseal_keys(done["keys"])
        self.assertTrue(client.is_authenticated())


class HvacWithDirectory(WithDirectory):
    client = Hvac.client
    root = Hvac.root

    def test_ldap(self):
        root = self.root()
        root.sys.enable_auth_method("ldap")
        ldap = root.auth.ldap
        ldap.configure(
            url=self.directory.url,
            userdn="dc=example,dc=org",
            userattr="uid",
            groupdn="dc=example,dc=org",
            binddn="cn=broker,dc=example,dc=org",
            bindpass="broker-secret",
            insecure_tls=False,
            use_token_groups=False,
            token_policies=["everybody"],
        )
        config = ldap.read_configuration()["data"]
        self.assertEqual((config["userattr"], config["token_policies"]), ("uid", ["everybody"]))
        self.assertNotIn("bindpass", config)
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            ldap.configure(insecure_tls=True)
        ldap.create_or_update_group("operators", policies=["operate"])
        ldap.create_or_update_user("ann", policies=["own"], groups=["more"])
        self.assertEqual(ldap.list_groups()["data"]["keys"], ["operators"])
        self.assertEqual(ldap.list_users()["data"]["keys"], ["ann"])
        self.assertEqual(ldap.read_group("operators")["data"], {"policies": ["operate"]})
        self.assertEqual(
            ldap.read_user("ann")["data"], {"policies": ["own"], "groups": "more"}
        )
        client = self.client()
        auth = client.auth.ldap.login("Ann", "ann-secret")["auth"]
        self.assertEqual(auth["policies"], ["default", "everybody", "operate", "own"])
        self.assertEqual(auth["metadata"], {"username": "ann"})
        self.assertTrue(client.is_authenticated())
        client.auth.token.renew_self()
        for name, password in [("ann", "wrong"), ("bob", "ann-secret"), ("*", "ann-secret")]:
            with self.assertRaises(hvac.exceptions.InvalidRequest):
                client.auth.ldap.login(name, password)
        ldap.delete_user("ann")
        ldap.delete_group("operators")


if __name__ == "__main__":
    unittest.main()
