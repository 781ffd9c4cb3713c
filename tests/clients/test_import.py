"""`leasehold import` from a real OpenBao server."""

import json
import os
import signal
import stat
import time
import unittest

import hvac
import hvac.exceptions

from bao import Bao
from broker import Broker
from importing import SECRET, Importing

BULK = 60
PASSWORD_POLICY = 'length = 20\nrule "charset" {\n  charset = "abcdefghijklmnop"\n}\n'
WEB = 'path "team/app/data/*" {\n  capabilities = ["read"]\n}\n'


def fill(bao, certificate):
    """Something of everything."""
    client = bao.client()
    engine = client.sys.enable_secrets_engine
    engine("kv", path="plain", description="one version", options={"version": "1"})
    engine("kv", path="team/app", options={"version": "2"}, config={"max_lease_ttl": "48h"})
    engine("kv", path="bulk", options={"version": "2"})
    for path in ("transit", "pki", "database"):
        engine(path)
    plain = client.secrets.kv.v1
    plain.create_or_update_secret("a", {"k": SECRET + "plain", "n": 7}, mount_point="plain")
    plain.create_or_update_secret("d/e f/ü", {"k": SECRET + "deep"}, mount_point="plain")
    versions(client)
    for number in range(BULK):
        for version in range(3):
            client.secrets.kv.v2.create_or_update_secret(
                f"dir{number % 4}/s{number}",
                {"v": f"{SECRET}bulk {number} {version}"},
                mount_point="bulk",
            )
    client.sys.create_or_update_policy("web", WEB)
    client.write_data("sys/policies/password/long", data={"policy": PASSWORD_POLICY})
    methods(client, certificate)
    client.write_data("transit/keys/app", data={"exportable": True})
    client.write_data(
        "database/config/main",
        data={
            "plugin_name": "postgresql-database-plugin",
            "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/app",
            "username": "root",
            "password": SECRET + "database",
            "allowed_roles": ["reader"],
            "verify_connection": False,
        },
    )
    client.write_data(
        "database/roles/reader",
        data={
            "db_name": "main",
            "creation_statements": [
                "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"
            ],
            "default_ttl": "1h",
            "max_ttl": "4h",
        },
    )


def versions(client):
    kv = client.secrets.kv.v2
    mount = "team/app"
    kv.configure(max_versions=12, mount_point=mount)

    def write(path, *values):
        for value in values:
            kv.create_or_update_secret(path, {"k": SECRET + value}, mount_point=mount)

    write("states", "1", "2", "3", "4", "5")
    kv.destroy_secret_versions("states", [1, 4], mount_point=mount)
    kv.delete_secret_versions("states", [2], mount_point=mount)
    write("gone", "1", "2")
    kv.delete_latest_version_of_secret("gone", mount_point=mount)
    write("pruned", *(str(number) for number in range(15)))
    write("with space/ü", "1")
    odd = {"float": 1.5, "big": 12345678901234567890, "deep": {"l": [1, None, True]}, "e": ""}
    kv.create_or_update_secret("odd", odd, mount_point=mount)
    kv.update_metadata(
        "strict",
        max_versions=3,
        cas_required=True,
        delete_version_after="72h",
        custom_metadata={"owner": "team"},
        mount_point=mount,
    )
    for version in range(5):
        kv.create_or_update_secret(
            "strict", {"k": f"{SECRET}{version}"}, cas=version, mount_point=mount
        )
    kv.update_metadata("shell", custom_metadata={"only": "metadata"}, mount_point=mount)


def methods(client, certificate):
    for kind, path in (
        ("approle", "approle"),
        ("userpass", "people"),
        ("cert", "tls"),
        ("jwt", "ci"),
    ):
        client.sys.enable_auth_method(kind, path=path)
    client.sys.tune_auth_method("people", max_lease_ttl="24h")
    client.auth.approle.create_or_update_approle(
        "web", token_policies=["web"], token_ttl="20m", secret_id_num_uses=3
    )
    client.auth.approle.update_role_id("web", "the-role-id-of-web")
    client.auth.approle.generate_secret_id("web")
    client.auth.userpass.create_or_update_user(
        "ann", password=SECRET + "ann", mount_point="people"
    )
    client.write_data("auth/people/users/ann", data={"token_policies": ["web"], "token_ttl": "1h"})
    client.write_data(
        "auth/tls/certs/web",
        data={
            "certificate": certificate,
            "allowed_common_names": ["web"],
            "token_policies": ["web"],
        },
    )
    client.write_data(
        "auth/token/roles/job",
        data={"allowed_policies": ["web"], "renewable": False, "token_explicit_max_ttl": "10m"},
    )
    accessor = client.sys.list_auth_methods()["data"]["people/"]["accessor"]
    entity = client.write_data(
        "identity/entity",
        data={"name": "ann", "policies": ["web"], "metadata": {"team": "a"}},
    )["data"]["id"]
    client.write_data(
        "identity/entity-alias",
        data={"name": "ann", "mount_accessor": accessor, "canonical_id": entity},
    )
    client.write_data(
        "identity/group",
        data={"name": "devs", "policies": ["web"], "member_entity_ids": [entity]},
    )


class Import(Importing):
    @classmethod
    def setUpClass(cls):
        # One directory lends its certificate to the source.
        cls.lender = Broker()
        path = cls.lender.path
        cls.bao = Bao(path("server.pem"), path("server.key"), path("ca.pem"))
        fill(cls.bao, cls.lender.read("ca.pem"))

    @classmethod
    def tearDownClass(cls):
        cls.bao.cleanup()
        cls.lender.stop()

    def secrets(self, client, mount, directory=""):
        try:
            keys = client.secrets.kv.v2.list_secrets(directory, mount_point=mount)
        except hvac.exceptions.InvalidPath:
            return []
        found = []
        for key in keys["data"]["keys"]:
            path = directory + key
            found += self.secrets(client, mount, path) if key.endswith("/") else [path]
        return sorted(found)

    def history(self, client, mount, path):
        """All that both servers can say of a secret."""
        data = client.read(f"{mount}/metadata/{path}")["data"]
        made = {}
        for number, version in data["versions"].items():
            deleted = version["deletion_time"] != "" and version["deletion_time"] < time.strftime(
                "%Y-%m-%dT%H:%M:%S", time.gmtime()
            )
            state = "destroyed" if version["destroyed"] else "deleted" if deleted else "live"
            values = None
            if state == "live":
                values = client.secrets.kv.v2.read_secret_version(
                    path, int(number), mount_point=mount, raise_on_deleted_version=True
                )["data"]["data"]
            made[number] = (state, values)
        settings = {
            name: data[name]
            for name in ("current_version", "max_versions", "cas_required")
        }
        # None there and an empty one here say the same.
        settings["custom_metadata"] = data["custom_metadata"] or {}
        return made, settings

    def assert_same(self, mount):
        paths = self.secrets(self.there, mount)
        self.assertEqual(self.secrets(self.here, mount), paths)
        for path in paths:
            self.assertEqual(
                self.history(self.here, mount, path), self.history(self.there, mount, path), path
            )
        return len(paths)

    def test_everything(self):
        report_file = self.broker.path("report.json")
        report = self.imported("-report", report_file)
        self.assertTrue(report["finished"])
        self.assertEqual(report["different"], [])
        with open(report_file) as file:
            self.assertEqual(json.load(file), report)
        self.assertEqual(stat.S_IMODE(os.stat(report_file).st_mode), 0o600)

        count = self.assert_same("team/app")
        self.assertEqual(count, 7)
        self.assertEqual(self.assert_same("bulk"), BULK)
        self.assertEqual(self.counts(report, "kv secret")["equal"], count + BULK + 2)
        states = self.here.read("team/app/metadata/states")["data"]["versions"]
        self.assertTrue(states["1"]["destroyed"] and states["4"]["destroyed"])
        self.assertEqual(sorted(states, key=int), ["1", "2", "3", "4", "5"])
        pruned = self.here.read("team/app/metadata/pruned")["data"]["versions"]
        self.assertEqual(sorted(map(int, pruned)), list(range(4, 16)), "numbers are kept")
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            self.here.secrets.kv.v2.create_or_update_secret(
                "strict", {"k": "v"}, mount_point="team/app"
            )
        for path in ("a", "d/e f/ü"):
            self.assertEqual(
                self.here.secrets.kv.v1.read_secret(path, mount_point="plain")["data"],
                self.there.secrets.kv.v1.read_secret(path, mount_point="plain")["data"],
            )
        self.assertEqual(self.here.read("team/app/config")["data"]["max_versions"], 12)
        tuned = self.here.read("sys/mounts/team/app/tune")["data"]
        self.assertEqual(tuned["max_lease_ttl"], 48 * 3600)
        self.assertEqual(self.here.sys.read_policy("web")["rules"], WEB)
        policy = self.here.read("sys/policies/password/long")["data"]["policy"]
        self.assertEqual(policy, PASSWORD_POLICY)
        versions = self.listed(report, "kv version")
        self.assertIn("team/app/states", versions)
        self.assertIn("2", versions["team/app/states"]["reason"])
        self.assertIn("pki", self.listed(report, "secrets engine"))

        self.who_logs_in(report)
        self.who_they_are()
        self.databases(report)

        again = self.imported()
        self.assertEqual([row["copied"] for row in again["counts"]], [0] * len(again["counts"]))

    def who_logs_in(self, report):
        role = self.here.read("auth/approle/role/web")["data"]
        self.assertEqual((role["token_policies"], role["token_ttl"]), (["web"], 1200))
        self.assertIn("auth/approle/role/web", self.listed(report, "secret id"))
        secret_id = self.here.auth.approle.generate_secret_id("web")["data"]["secret_id"]
        fresh = self.broker.connect()
        login = fresh.auth.approle.login("the-role-id-of-web", secret_id)
        self.assertIn("web", login["auth"]["policies"])
        self.assertIn("auth/people/users/ann", self.listed(report, "credential"))
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            fresh.auth.userpass.login("ann", SECRET + "ann", mount_point="people")
        self.here.write_data("auth/people/users/ann/password", data={"password": "another"})
        login = fresh.auth.userpass.login("ann", "another", mount_point="people")
        self.assertIn("web", login["auth"]["policies"])
        certificate = self.here.read("auth/tls/certs/web")["data"]
        self.assertEqual(certificate["allowed_common_names"], ["web"])
        self.assertEqual(certificate["certificate"].strip(), self.lender.read("ca.pem"))
        job = self.here.read("auth/token/roles/job")["data"]
        self.assertEqual((job["renewable"], job["token_explicit_max_ttl"]), (False, 600))

    def who_they_are(self):
        accessor = self.here.sys.list_auth_methods()["data"]["people/"]["accessor"]
        entity = self.here.write_data(
            "identity/lookup/entity",
            data={"alias_name": "ann", "alias_mount_accessor": accessor},
        )["data"]
        self.assertEqual((entity["policies"], entity["metadata"]), (["web"], {"team": "a"}))

    def databases(self, report):
        database = self.here.read("database/config/main")["data"]
        self.assertEqual(database["connection_details"]["username"], "root")
        self.assertEqual(database["allowed_roles"], ["reader"])
        self.assertIn("database/config/main", self.listed(report, "credential"))
        role = self.here.read("database/roles/reader")["data"]
        self.assertEqual((role["db_name"], role["default_ttl"]), ("main", 3600))

    def test_a_dry_run_writes_nothing_and_says_what_would_be(self):
        def seen():
            return [
                self.here.sys.list_mounted_secrets_engines()["data"],
                self.here.sys.list_auth_methods()["data"],
                self.here.sys.list_policies()["data"]["keys"],
            ]

        before = seen()
        report = self.imported("-dry-run")
        self.assertEqual(seen(), before)
        self.assertEqual(self.counts(report, "kv secret")["copied"], 7 + BULK + 2)
        self.assertIn("pki", self.listed(report, "secrets engine"))

    def test_parts_and_mounts_can_be_chosen(self):
        report = self.imported("-only", "kv", "-mount", "plain")
        kinds = {row["kind"] for row in report["counts"]}
        self.assertEqual(kinds, {"secrets engine", "kv secret"})
        self.assertEqual(self.counts(report, "kv secret")["copied"], 2)
        self.assertNotIn("bulk/", self.here.sys.list_mounted_secrets_engines()["data"])
        process = self.start("-mount", "nosuch")
        self.assertIn("nosuch", self.finish(process, 1)[1])

    def test_what_is_different_here_is_kept_and_told(self):
        flags = ("-only", "kv,policies")
        self.imported(*flags)
        kv = self.here.secrets.kv.v2
        kv.create_or_update_secret("odd", {"k": "mine"}, mount_point="team/app")
        self.here.secrets.kv.v1.create_or_update_secret("a", {"k": "mine"}, mount_point="plain")
        self.here.sys.create_or_update_policy("web", WEB.replace("read", "list"))
        mine = {"whose": "mine"}
        kv.update_metadata("states", custom_metadata=mine, mount_point="team/app")
        report = self.imported(*flags, status=2)
        different = {row["path"] for row in report["different"]}
        self.assertEqual(
            different, {"team/app/odd", "team/app/states", "plain/a", "sys/policies/acl/web"}
        )
        states = kv.read_secret_metadata("states", mount_point="team/app")["data"]
        self.assertEqual(states["custom_metadata"], mine)
        self.assertEqual(self.here.read("plain/a")["data"], {"k": "mine"})
        report = self.imported(*flags, "-overwrite", status=2)
        different = {row["path"] for row in report["different"]}
        self.assertEqual(different, {"team/app/odd"}, "no version is ever taken back")
        self.assertEqual(self.here.sys.read_policy("web")["rules"], WEB)
        self.assertEqual(
            self.history(self.here, "team/app", "states"),
            self.history(self.there, "team/app", "states"),
        )

    def test_a_killed_import_goes_on_where_it_was(self):
        flags = ("-only", "kv", "-mount", "bulk")
        process = self.start(*flags, "-rate", "80", "-concurrency", "2")
        self.wait_for_some(process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        report = self.imported(*flags)
        row = self.counts(report, "kv secret")
        self.assertTrue(0 < row["copied"] < BULK, row)
        self.assertEqual(row["equal"], BULK)
        self.assert_same("bulk")

    def test_a_source_that_stops_is_told_and_the_next_run_goes_on(self):
        flags = ("-only", "kv", "-mount", "bulk")
        process = self.start(*flags, "-rate", "80")
        self.wait_for_some(process)
        self.bao.stop()
        try:
            report, err = self.finish(process, 1)
        finally:
            self.bao.start()
        self.assertFalse(report["finished"])
        self.assertIn("does not go on", err)
        self.imported(*flags)
        self.assert_same("bulk")

    def wait_for_some(self, process):
        deadline = time.monotonic() + 60
        while len(self.secrets(self.here, "bulk")) < 3:
            self.assertIsNone(process.poll(), "it ended before it could be interrupted")
            self.assertLess(time.monotonic(), deadline)

    def test_what_the_token_may_not_read_is_listed(self):
        self.there.sys.create_or_update_policy(
            "most",
            'path "*" { capabilities = ["read", "list", "sudo"] }\n'
            'path "team/app/data/odd" { capabilities = ["deny"] }\n',
        )
        self.addCleanup(self.there.sys.delete_policy, "most")
        token = self.there.auth.token.create(policies=["most"])["auth"]["client_token"]
        report = self.imported("-only", "kv", token=token)
        self.assertIn("team/app/odd", self.listed(report, "kv secret"))
        self.assertIn("permission denied", self.listed(report, "kv secret")["team/app/odd"]["reason"])
        self.assert_same("bulk")
        process = self.start(token="hvs.wrong")
        self.assertIn("cannot be read", self.finish(process, 1)[1])


if __name__ == "__main__":
    unittest.main()
