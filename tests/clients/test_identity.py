"""Entities, aliases and groups by hvac and by OpenBao's command line, both unmodified."""

import hvac.exceptions

from test_bao import Bao
from test_hvac import Hvac as HvacClient

POLICY = 'path "secret/data/{{identity.groups.names.readers.metadata.dir}}/*" { capabilities = ["read"] }'
PASSWORD = "correct horse battery"


class Identity(HvacClient):
    """Its own tests alone; the broker and the clients are those of the class above."""

    def accessor(self, path):
        return self.root().sys.list_auth_methods()["data"][path]["accessor"]

    def person(self, name):
        """Somebody who logs in with a password; answers a log-in."""
        root = self.root()
        if "userpass/" not in root.sys.list_auth_methods()["data"]:
            root.sys.enable_auth_method("userpass")
        root.auth.userpass.create_or_update_user(name, PASSWORD)
        return lambda: self.client().auth.userpass.login(name, PASSWORD)["auth"]

    def test_entities(self):
        identity = self.root().secrets.identity
        made = identity.create_or_update_entity("ann", metadata={"team": "a"}, policies=["default"])
        ann = made["data"]["id"]
        identity.create_or_update_entity_by_name("ann", metadata={"team": "b"})
        self.assertEqual(identity.read_entity_by_name("ann")["data"]["metadata"], {"team": "b"})
        identity.update_entity(ann, name="ann2", policies=["default"])
        read = identity.read_entity(ann)["data"]
        self.assertEqual((read["name"], read["policies"]), ("ann2", ["default"]))
        self.assertIn(ann, identity.list_entities()["data"]["keys"])
        self.assertIn("ann2", identity.list_entities_by_name()["data"]["keys"])
        self.assertEqual(identity.lookup_entity(name="ann2")["data"]["id"], ann)
        identity.delete_entity(ann)
        with self.assertRaises(hvac.exceptions.InvalidPath):
            identity.read_entity(ann)
        identity.create_or_update_entity_by_name("bob")
        identity.delete_entity_by_name("bob")
        self.assertEqual(identity.lookup_entity(name="bob").status_code, 204)

    def test_aliases_and_merging(self):
        identity, log_in = self.root().secrets.identity, self.person("carl")
        before = log_in()
        carl = identity.create_or_update_entity("carl-himself")["data"]["id"]
        identity.merge_entities(from_entity_ids=before["entity_id"], to_entity_id=carl)
        # The token that was given before the merge is his now, and so is the next.
        own = self.client(token=before["client_token"])
        self.assertEqual(own.auth.token.lookup_self()["data"]["entity_id"], carl)
        self.assertEqual(log_in()["entity_id"], carl)
        alias = identity.lookup_entity(
            alias_name="carl", alias_mount_accessor=self.accessor("userpass/")
        )["data"]["aliases"][0]
        self.assertEqual(identity.read_entity_alias(alias["id"])["data"]["canonical_id"], carl)
        self.assertIn(alias["id"], identity.list_entity_aliases()["data"]["keys"])
        identity.update_entity_alias(
            alias["id"], name="carl", canonical_id=carl, mount_accessor=alias["mount_accessor"]
        )
        identity.update_entity(carl, metadata={})
        self.root().write("identity/entity/id/" + carl, disabled=True)
        self.assertFalse(own.is_authenticated())
        with self.assertRaises((hvac.exceptions.Forbidden, hvac.exceptions.InvalidRequest)):
            log_in()
        self.root().write("identity/entity/id/" + carl, disabled=False)
        self.assertTrue(own.is_authenticated())
        identity.delete_entity_alias(alias["id"])
        self.assertNotEqual(log_in()["entity_id"], carl)
        identity.delete_entity(carl)
        self.assertFalse(own.is_authenticated())
        made = identity.create_or_update_entity("dora")["data"]["id"]
        given = identity.create_or_update_entity_alias(
            name="dora", canonical_id=made, mount_accessor=self.accessor("userpass/")
        )
        self.assertEqual(given["data"]["canonical_id"], made)
        self.assertEqual(self.person("dora")()["entity_id"], made)

    def test_groups(self):
        root = self.root()
        identity, log_in = root.secrets.identity, self.person("gina")
        root.sys.create_or_update_policy("readers", POLICY)
        root.secrets.kv.v2.create_or_update_secret("papers/a", {"k": "v"})
        auth = log_in()
        gina = self.client(token=auth["client_token"])

        def reads():
            try:
                gina.secrets.kv.v2.read_secret_version("papers/a", raise_on_deleted_version=True)
            except hvac.exceptions.Forbidden:
                return False
            return True

        self.assertFalse(reads())
        inner = identity.create_or_update_group("inner", member_entity_ids=[auth["entity_id"]])
        outer = identity.create_or_update_group_by_name(
            "readers",
            policies=["readers"],
            metadata={"dir": "papers"},
            member_group_ids=[inner["data"]["id"]],
        )
        outer = outer["data"]["id"]
        self.assertTrue(reads())
        self.assertEqual(
            gina.auth.token.lookup_self()["data"]["identity_policies"], ["readers"]
        )
        self.assertEqual(identity.read_group(outer)["data"]["policies"], ["readers"])
        self.assertEqual(identity.lookup_group(name="readers")["data"]["id"], outer)
        self.assertIn(outer, identity.list_groups()["data"]["keys"])
        self.assertIn("readers", identity.list_groups_by_name()["data"]["keys"])
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            identity.update_group(inner["data"]["id"], name="inner", member_group_ids=[outer])
        identity.update_group(inner["data"]["id"], name="inner", member_entity_ids=[])
        self.assertFalse(reads())
        identity.delete_group_by_name("readers")
        external = identity.create_or_update_group("outside", group_type="external")["data"]["id"]
        alias = identity.create_or_update_group_alias(
            name="cn=a", mount_accessor=self.accessor("userpass/"), canonical_id=external
        )["data"]["id"]
        self.assertEqual(identity.read_group_alias(alias)["data"]["canonical_id"], external)
        self.assertIn(alias, identity.list_group_aliases()["data"]["keys"])
        identity.update_group_alias(
            alias, name="cn=b", mount_accessor=self.accessor("userpass/"), canonical_id=external
        )
        named = identity.read_group(external)["data"]["alias"]
        self.assertEqual(named["name"], "cn=b")
        identity.delete_group_alias(named["id"])
        identity.delete_group(external)


class IdentityByBao(Bao):
    """Its own tests alone; the broker and the program are those of the class above."""

    def test_entities(self):
        made = self.root("write", "-field=id", "identity/entity", "name=ann").strip()
        read = self.root("read", "-field=id", "identity/entity/name/ann").strip()
        self.assertEqual(made, read)
        self.root("write", "identity/group", "name=g", "member_entity_ids=" + made)
        self.assertIn("g", self.root("list", "identity/group/name"))
        self.assertIn("ann", self.root("list", "identity/entity/name"))
        self.root("delete", "identity/entity/id/" + made)


def load_tests(loader, _tests, _pattern):
    """What the classes inherit is tested where it stands."""
    suite = loader.suiteClass()
    for case in (Identity, IdentityByBao):
        suite.addTests(case(name) for name in vars(case) if name.startswith("test_"))
    return suite
