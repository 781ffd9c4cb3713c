"""`leasehold import` of methods that ask other servers, of groups and quotas: from a real OpenBao, and what
that does not have (`ldap`) from another broker of our own, whose API is the same."""

import base64

import hvac
import hvac.exceptions

from bao import Bao
from broker import Broker
from directory import Directory, free_port
from importing import SECRET, Importing
from provider import Provider

STAFF = 'path "secret/data/*" {\n  capabilities = ["read"]\n}\n'


def methods(client, provider, cluster, ca):
    """A method of each kind that asks somebody, with roles."""
    for kind, path in (("jwt", "ci"), ("oidc", "sso"), ("kubernetes", "k8s"), ("userpass", "people")):
        client.sys.enable_auth_method(kind, path=path)
    client.sys.enable_auth_method("userpass", path="doors")
    write = lambda at, **fields: client.write_data(at, data=fields)
    write("auth/ci/config", jwks_url=provider.issuer + "/jwks", bound_issuer=provider.issuer)
    write(
        "auth/ci/role/robot",
        role_type="jwt",
        user_claim="client_id",
        bound_audiences=["urn:broker"],
        bound_claims={"scope": "api"},
        token_policies=["staff"],
        token_ttl="20m",
    )
    write(
        "auth/sso/config",
        oidc_discovery_url=provider.issuer,
        oidc_client_id="broker",
        oidc_client_secret=SECRET + "client",
        default_role="staff",
    )
    write(
        "auth/sso/role/staff",
        user_claim="sub",
        groups_claim="groups",
        oidc_scopes=["email", "groups"],
        claim_mappings={"email": "mail"},
        allowed_redirect_uris=["http://localhost:8250/oidc/callback"],
        token_policies=["staff"],
    )
    write(
        "auth/k8s/config",
        kubernetes_host=cluster,
        kubernetes_ca_cert=ca,
        token_reviewer_jwt=SECRET + "reviewer",
        disable_local_ca_jwt=True,
    )
    write(
        "auth/k8s/role/web",
        bound_service_account_names=["web"],
        bound_service_account_namespaces=["shop"],
        audience="broker",
        token_policies=["staff"],
    )
    write("auth/people/users/ann", password=SECRET + "ann", token_policies=["staff"])


def identities(client):
    accessors = {
        path: mount["accessor"] for path, mount in client.sys.list_auth_methods()["data"].items()
    }
    write = lambda at, **fields: client.write_data(at, data=fields)["data"]["id"]
    ann = write("identity/entity", name="ann", metadata={"team": "a"}, policies=["staff"])
    for path, notes in (("people/", {"home": "ann's"}), ("sso/", {})):
        write(
            "identity/entity-alias",
            name="ann",
            mount_accessor=accessors[path],
            canonical_id=ann,
            custom_metadata=notes,
        )
    devs = write("identity/group", name="devs", policies=["staff"], member_entity_ids=[ann])
    write("identity/group", name="all", member_group_ids=[devs], metadata={"kind": "nested"})
    operators = write("identity/group", name="operators", type="external", policies=["staff"])
    write(
        "identity/group-alias",
        name="operators",
        mount_accessor=accessors["sso/"],
        canonical_id=operators,
    )


def tuned(write):
    """Settings of mounts that stay behind easily."""
    lockout = {"lockout_threshold": 3, "lockout_duration": "10m"}
    headers = {"passthrough_request_headers": ["X-Trace"], "allowed_response_headers": ["X-Cost"]}
    write("sys/auth/people/tune", user_lockout_config=lockout, **headers)
    write("sys/auth/doors/tune", user_lockout_config={"lockout_disable": True})
    write("sys/mounts/ssh/tune", **headers)


def machines(write):
    write("ssh/config/ca", generate_signing_key=True)
    write(
        "ssh/roles/people",
        key_type="ca",
        allow_user_certificates=True,
        allowed_users="web,db",
        default_user="web",
        default_extensions={"permit-pty": ""},
        allowed_user_key_lengths={"rsa": [2048, 4096], "ed25519": 0},
        ttl="30m",
    )
    write(
        "ssh/roles/hosts",
        key_type="ca",
        allow_host_certificates=True,
        allow_subdomains=True,
        allowed_domains="Example.com",
        algorithm_signer="rsa-sha2-256",
        key_id_format="host-{{public_key_hash}}",
    )
    write("ssh/roles/once", key_type="otp", default_user="app", cidr_list="10.0.0.0/8, 192.0.2.0/24")
    # What this server has no word for, and what it refuses.
    write("ssh/roles/anybody", key_type="ca", allow_user_certificates=True, allow_empty_principals=True)
    write("ssh/config/zeroaddress", roles="once")


class ImportMethods(Importing):
    @classmethod
    def setUpClass(cls):
        cls.lender = Broker()
        cls.addClassCleanup(cls.lender.stop)
        cls.provider = Provider([])
        cls.addClassCleanup(cls.provider.stop)
        path = cls.lender.path
        cls.bao = Bao(path("server.pem"), path("server.key"), path("ca.pem"), audited=True)
        cls.addClassCleanup(cls.bao.cleanup)
        cls.cluster = "https://127.0.0.1:%d" % free_port()
        client = cls.bao.client()
        for engine in ("totp", "ssh"):
            client.sys.enable_secrets_engine(engine)
        client.sys.create_or_update_policy("staff", STAFF)
        methods(client, cls.provider, cls.cluster, cls.lender.read("ca.pem"))
        identities(client)
        write = lambda at, **fields: client.write_data(at, data=fields)
        write("totp/keys/ann", generate=True, issuer="x", account_name="ann")
        machines(write)
        tuned(write)
        write("sys/quotas/rate-limit/all", rate=5000, interval="1s")
        write("sys/quotas/rate-limit/people", path="auth/people/", rate=50, interval="1m")

    def target(self):
        broker = Broker()
        hosts = [f"127.0.0.1:{self.provider.port}", self.cluster.removeprefix("https://")]
        named = ", ".join(f'"{host}"' for host in hosts)
        broker.serve(f"[auth]\noutgoing_hosts = [{named}]\n")
        return broker

    def test_methods_identities_and_quotas_arrive_and_work(self):
        report = self.imported()
        self.assertEqual(report["different"], [])
        self.assertTrue(report["finished"])
        left = {(row["kind"], row["path"]) for row in report["not_copied"]}
        self.assertEqual(
            left,
            {
                ("totp key", "totp/keys/ann"),
                ("ssh signing key", "ssh/config/ca"),
                ("ssh role", "ssh/roles/anybody"),
                ("credential", "auth/ci/config"),
                ("credential", "auth/sso/config"),
                ("credential", "auth/k8s/config"),
                ("credential", "auth/people/users/ann"),
                ("audit device", "file"),
            },
            report["not_copied"],
        )
        self.assertEqual(len(report["not_copied"]), len(left), "each is listed once")
        self.they_log_in()
        self.they_belong_together()
        quota = self.here.read("sys/quotas/rate-limit/people")["data"]
        self.assertEqual((quota["path"], quota["rate"], quota["interval"]), ("auth/people/", 50, 60))
        self.machines_are_reached(report)
        self.mounts_are_set()
        again = self.imported()
        self.assertEqual([row["copied"] for row in again["counts"]], [0] * len(again["counts"]))

    def machines_are_reached(self, report):
        totp = self.listed(report, "totp key")["totp/keys/ann"]["what_to_do"]
        self.assertIn("leasehold write totp/keys/ann key=- issuer=x account_name=ann", totp)
        read = lambda at: self.here.read(at)["data"]
        people = read("ssh/roles/people")
        self.assertEqual((people["allowed_users"], people["ttl"]), ("web,db", 1800))
        self.assertEqual(people["allowed_user_key_lengths"], {"rsa": [2048, 4096], "ed25519": [0]})
        self.assertEqual(people["default_extensions"], {"permit-pty": ""})
        hosts = read("ssh/roles/hosts")
        self.assertEqual(hosts["allowed_domains"], "example.com")
        self.assertEqual(hosts["algorithm_signer"], "rsa-sha2-256")
        self.assertEqual(hosts["key_id_format"], "host-{{public_key_hash}}")
        once = read("ssh/roles/once")
        self.assertEqual((once["cidr_list"], once["port"]), ("10.0.0.0/8,192.0.2.0/24", 22))
        self.assertEqual(read("ssh/config/zeroaddress")["roles"], ["once"])
        # As the list says.
        self.here.write_data("ssh/config/ca", data={"generate_signing_key": True})
        issued = self.here.write_data("ssh/issue/people", data={"valid_principals": "web"})["data"]
        self.assertIn("cert", issued["signed_key"])

    def mounts_are_set(self):
        people = self.here.read("sys/auth/people/tune")["data"]
        lockout = people["user_lockout_config"]
        self.assertEqual((lockout["lockout_threshold"], lockout["lockout_duration"]), (3, 600))
        self.assertEqual((lockout["lockout_counter_reset"], lockout["lockout_disable"]), (900, False))
        doors = self.here.read("sys/auth/doors/tune")["data"]["user_lockout_config"]
        self.assertEqual((doors["lockout_threshold"], doors["lockout_disable"]), (5, True))
        for tuned in (people, self.here.read("sys/mounts/ssh/tune")["data"]):
            self.assertEqual(tuned["passthrough_request_headers"], ["X-Trace"])
            self.assertEqual(tuned["allowed_response_headers"], ["X-Cost"])

    def they_log_in(self):
        robot = self.visitor().auth.jwt.jwt_login("robot", self.provider.machine_token(), path="ci")
        self.assertIn("staff", robot["auth"]["policies"])
        self.assertEqual(robot["auth"]["lease_duration"], 1200)
        role = self.here.read("auth/sso/role/staff")["data"]
        self.assertEqual(role["claim_mappings"], {"email": "mail"})
        config = self.here.read("auth/k8s/config")["data"]
        self.assertEqual(config["kubernetes_host"], self.cluster)
        role = self.here.read("auth/k8s/role/web")["data"]
        self.assertEqual(role["bound_service_account_namespaces"], ["shop"])
        self.here.write_data("auth/people/users/ann/password", data={"password": "another"})
        ann = self.visitor().auth.userpass.login("ann", "another", mount_point="people")
        self.assertIn("staff", ann["auth"]["policies"])
        entity = self.here.read("identity/entity/id/" + ann["auth"]["entity_id"])["data"]
        self.assertEqual((entity["name"], entity["metadata"]), ("ann", {"team": "a"}))

    def they_belong_together(self):
        entity = self.here.read("identity/entity/name/ann")["data"]
        accessors = {
            mount["accessor"]: path
            for path, mount in self.here.sys.list_auth_methods()["data"].items()
        }
        paths = {accessors[alias["mount_accessor"]] for alias in entity["aliases"]}
        self.assertEqual(paths, {"people/", "sso/"})
        notes = {
            accessors[alias["mount_accessor"]]: alias["custom_metadata"]
            for alias in entity["aliases"]
        }
        self.assertEqual(notes, {"people/": {"home": "ann's"}, "sso/": {}})
        devs = self.here.read("identity/group/name/devs")["data"]
        self.assertEqual(devs["member_entity_ids"], [entity["id"]])
        everyone = self.here.read("identity/group/name/all")["data"]
        self.assertEqual(everyone["member_group_ids"], [devs["id"]])
        operators = self.here.read("identity/group/name/operators")["data"]
        self.assertEqual((operators["type"], operators["alias"]["name"]), ("external", "operators"))

    def test_what_is_more_here_than_there_is_told_and_taken_back(self):
        flags = ("-only", "auth,policies")
        self.imported(*flags)
        self.here.write_data("auth/ci/role/robot", data={"bound_subject": "x", "token_num_uses": 3})
        self.here.write_data("auth/k8s/role/web", data={"token_bound_cidrs": ["192.0.2.0/24"]})
        self.here.sys.tune_auth_method("people", max_lease_ttl="1h")
        report = self.imported(*flags, status=2)
        different = {row["path"]: row["reason"] for row in report["different"]}
        self.assertEqual(
            different,
            {
                "auth/ci/role/robot": "bound_subject, token_num_uses differs",
                "auth/k8s/role/web": "token_bound_cidrs differs",
                "sys/auth/people/tune max_lease_ttl": "differs",
            },
        )
        report = self.imported(*flags, "-overwrite")
        self.assertEqual(report["different"], [])
        self.assertEqual(self.here.read("auth/ci/role/robot")["data"]["token_num_uses"], 0)
        self.assertEqual(self.here.read("auth/k8s/role/web")["data"]["token_bound_cidrs"], [])

    def test_what_is_said_of_aliases_and_of_locking_is_compared(self):
        flags = ("-only", "auth,policies,identity")
        self.imported(*flags)
        entity = self.here.read("identity/entity/name/ann")["data"]
        for alias in entity["aliases"]:
            mine = {"home": "mine"}
            at = "identity/entity-alias/id/" + alias["id"]
            self.here.write_data(at, data={"custom_metadata": mine})
        lockout = {"user_lockout_config": {"lockout_threshold": 50}}
        for method in ("people", "k8s"):
            self.here.write_data(f"sys/auth/{method}/tune", data=lockout)
        headers = {"allowed_response_headers": ["X-Mine"]}
        self.here.write_data("sys/auth/people/tune", data=headers)
        report = self.imported(*flags, status=2)
        different = [(row["path"], row["reason"]) for row in report["different"]]
        self.assertEqual(
            sorted(different),
            [
                ("identity/entity/name/ann ann", "custom_metadata differs"),
                ("identity/entity/name/ann ann", "custom_metadata differs"),
                ("sys/auth/k8s/tune user_lockout_config", "differs"),
                ("sys/auth/people/tune allowed_response_headers", "differs"),
                ("sys/auth/people/tune user_lockout_config", "differs"),
            ],
        )
        report = self.imported(*flags, "-overwrite")
        self.assertEqual(report["different"], [])
        self.they_belong_together()
        tuned = self.here.read("sys/auth/k8s/tune")["data"]["user_lockout_config"]
        self.assertEqual(tuned["lockout_threshold"], 5)

    def test_an_import_that_stopped_behind_a_mount_goes_on_with_its_settings(self):
        self.there.sys.tune_auth_method("people", max_lease_ttl="24h")
        self.addCleanup(self.there.sys.tune_auth_method, "people", max_lease_ttl="0")
        # As if it had been killed right there.
        self.here.sys.enable_auth_method("userpass", path="people")
        report = self.imported("-only", "auth", "-mount", "auth/people")
        self.assertEqual(report["different"], [])
        tuned = self.here.read("sys/auth/people/tune")["data"]
        self.assertEqual(tuned["max_lease_ttl"], 24 * 3600)

    def test_a_role_id_that_somebody_chose_here_is_kept(self):
        self.there.sys.enable_auth_method("approle")
        self.addCleanup(self.there.sys.disable_auth_method, "approle")
        self.there.auth.approle.create_or_update_approle("web", token_ttl="20m")
        self.there.auth.approle.update_role_id("web", "of-the-source")
        self.here.sys.enable_auth_method("approle")
        self.here.auth.approle.create_or_update_approle("web", token_ttl="20m")
        self.here.auth.approle.update_role_id("web", "chosen-here")
        report = self.imported("-only", "auth", "-mount", "auth/approle", status=2)
        self.assertEqual([row["path"] for row in report["different"]], ["auth/approle/role/web/role-id"])
        self.assertEqual(self.here.auth.approle.read_role_id("web")["data"]["role_id"], "chosen-here")


class ImportTransit(Importing):
    KINDS = (
        "aes128-gcm96",
        "aes256-gcm96",
        "chacha20-poly1305",
        "xchacha20-poly1305",
        "ed25519",
        "ecdsa-p256",
        "ecdsa-p384",
        "ecdsa-p521",
        "rsa-2048",
        "rsa-4096",
    )
    TEXT = base64.b64encode(SECRET.encode()).decode()

    @classmethod
    def setUpClass(cls):
        cls.lender = Broker()
        cls.addClassCleanup(cls.lender.stop)
        path = cls.lender.path
        cls.bao = Bao(path("server.pem"), path("server.key"), path("ca.pem"))
        cls.addClassCleanup(cls.bao.cleanup)
        client = cls.bao.client()
        client.sys.enable_secrets_engine("transit", path="keys/own")
        write = lambda at, **fields: client.write_data("keys/own/" + at, data=fields)["data"]
        cls.sealed, cls.signed, cls.macs = [], [], []
        for kind in cls.KINDS:
            client.write_data("keys/own/keys/" + kind, data={"type": kind, "exportable": True})
            for _ in range(2):
                if kind.startswith("e"):
                    made = write("sign/" + kind, input=cls.TEXT)
                    cls.signed.append((kind, made["signature"]))
                else:
                    made = write("encrypt/" + kind, plaintext=cls.TEXT)
                    cls.sealed.append((kind, made["ciphertext"], {}))
                client.write_data(f"keys/own/keys/{kind}/rotate")
        fields = {"type": "hmac", "key_size": 32, "exportable": True}
        client.write_data("keys/own/keys/mac", data=fields)
        cls.macs.append(("mac", write("hmac/mac", input=cls.TEXT)["hmac"]))
        fields = {"derived": True, "exportable": True}
        client.write_data("keys/own/keys/same", data=fields)
        fields["convergent_encryption"] = True
        client.write_data("keys/own/keys/convergent", data=fields)
        context = {"context": base64.b64encode(b"context").decode()}
        made = write("encrypt/same", plaintext=cls.TEXT, **context)
        cls.sealed.append(("same", made["ciphertext"], context))
        client.write_data("keys/own/keys/same/config", data={"deletion_allowed": True})
        client.write_data("keys/own/keys/kept")
        client.write_data("keys/own/keys/late", data={"exportable": True})
        client.write_data("keys/own/keys/late/rotate")
        client.write_data("keys/own/keys/late/config", data={"min_decryption_version": 2})

    def here_at(self, at, **fields):
        return self.here.write_data("keys/own/" + at, data=fields)["data"]

    def test_keys_that_may_be_read_out_work_here_as_there(self):
        report = self.imported()
        self.assertEqual(report["different"], [])
        left = self.listed(report, "transit key")
        names = {path.rpartition("/")[2] for path in left}
        self.assertEqual(names, {"kept", "late", "convergent"})
        self.assertIn("not exportable", left["keys/own/keys/kept"]["reason"])
        self.assertEqual(self.counts(report, "transit key")["equal"], len(self.KINDS) + 2)
        for name, ciphertext, more in self.sealed:
            opened = self.here_at("decrypt/" + name, ciphertext=ciphertext, **more)
            self.assertEqual(opened["plaintext"], self.TEXT, name)
        for name, signature in self.signed:
            checked = self.here_at("verify/" + name, input=self.TEXT, signature=signature)
            self.assertTrue(checked["valid"], name)
        for name, mac in self.macs:
            checked = self.here_at("verify/" + name, input=self.TEXT, hmac=mac)
            self.assertTrue(checked["valid"], name)
        self.assertTrue(self.here.read("keys/own/keys/same")["data"]["deletion_allowed"])
        again = self.imported()
        self.assertEqual([row["copied"] for row in again["counts"]], [0] * len(again["counts"]))

    def test_versions_come_along_and_another_key_is_kept(self):
        self.here.sys.enable_secrets_engine("transit", path="keys/own")
        self.here_at_made("keys/aes256-gcm96", exportable=True)
        self.here_at_made("keys/ed25519", type="ed25519")
        report = self.imported("-only", "transit", status=2)
        different = {row["path"]: row["reason"] for row in report["different"]}
        self.assertEqual(
            different, {"keys/own/keys/aes256-gcm96": "version 1 is another key here"}
        )
        # Nobody can tell, since it cannot be read out here.
        self.assertIn("keys/own/keys/ed25519", self.listed(report, "transit key"))
        # One more version there.
        self.there.write_data("keys/own/keys/chacha20-poly1305/rotate")
        report = self.imported("-only", "transit", status=2)
        self.assertEqual(self.counts(report, "transit key version")["copied"], 1)
        key = self.here.read("keys/own/keys/chacha20-poly1305")["data"]
        there = self.there.read("keys/own/keys/chacha20-poly1305")["data"]
        self.assertEqual(key["latest_version"], there["latest_version"])

    def here_at_made(self, at, **fields):
        self.here.write_data("keys/own/" + at, data=fields)


class ImportDirectory(Importing):
    """Of a method that this OpenBao is built without."""

    @classmethod
    def setUpClass(cls):
        cls.directory = Directory()
        cls.addClassCleanup(cls.directory.stop)
        cls.bao = cls.asking()
        cls.addClassCleanup(cls.bao.stop)
        client = cls.bao.client()
        client.sys.enable_auth_method("ldap", path="people")
        write = lambda at, **fields: client.write_data(at, data=fields)
        write(
            "auth/people/config",
            url=cls.directory.url,
            binddn="cn=broker,dc=example,dc=org",
            bindpass="broker-secret",
            userdn="dc=example,dc=org",
            userattr="uid",
            groupdn="dc=example,dc=org",
            groupattr="cn",
            token_ttl="15m",
        )
        write("auth/people/groups/operators", policies="staff")
        write("auth/people/users/ann", policies="web", groups="more")

    @classmethod
    def asking(cls):
        broker = Source()
        broker.serve(f'[auth]\nldap_hosts = ["127.0.0.1:{cls.directory.port}"]\n')
        return broker

    def target(self):
        return self.asking()

    def shown(self):
        certificate, key = self.bao.identity("admin")
        return {"LEASEHOLD_FROM_CLIENT_CERT": certificate, "LEASEHOLD_FROM_CLIENT_KEY": key}

    def test_a_directory_is_asked_as_before(self):
        report = self.imported("-only", "auth", "-mount", "auth/people")
        self.assertEqual(report["different"], [])
        left = [(row["kind"], row["path"]) for row in report["not_copied"]]
        self.assertEqual(left, [("credential", "auth/people/config")], report["not_copied"])
        self.assertIn('binddn="cn=broker,dc=example,dc=org"', report["not_copied"][0]["what_to_do"])
        # Whom it is asked by has a password there, which nobody could read out.
        with self.assertRaises(hvac.exceptions.VaultError):
            self.visitor().auth.ldap.login("ann", "ann-secret", mount_point="people")
        account = {"binddn": "cn=broker,dc=example,dc=org", "bindpass": "broker-secret"}
        self.here.write_data("auth/people/config", data=account)
        ann = self.visitor().auth.ldap.login("ann", "ann-secret", mount_point="people")
        self.assertLessEqual({"staff", "web"}, set(ann["auth"]["policies"]))
        self.assertEqual(ann["auth"]["lease_duration"], 900)


class Source(Broker):
    """A broker to import from."""

    @property
    def ca(self):
        return self.path("ca.pem")

    @property
    def token(self):
        return self.root_token

    def client(self):
        return self.root()
