"""A broker with something called x everywhere, for whoever makes up requests by its document."""

import base64
import json
import subprocess
import time

import pyotp
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from postgres import CREATE

PASSWORD = "correct horse battery"
TEXT = base64.b64encode(b"hello").decode()
TOTP_KEY = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


class Issuer:
    """Somebody whose tokens are believed by their signature alone."""

    def __init__(self):
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def public_key(self):
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode()

    def token(self, claims):
        def encoded(part):
            return base64.urlsafe_b64encode(part).rstrip(b"=")

        times = {"iat": int(time.time()), "nbf": int(time.time()), "exp": int(time.time()) + 3600}
        parts = [{"alg": "RS256", "typ": "JWT"}, {**times, **claims}]
        text = b".".join(encoded(json.dumps(part).encode()) for part in parts)
        signature = self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return (text + b"." + encoded(signature)).decode()


class Furnished:
    """`ask(method, path, body)` does what its name says, as root.

    `places` are the parameters of paths that have another value than x, and `examples` bodies that
    are good ones, both by path."""

    def __init__(self, ask, broker, directory, postgres):
        self.ask, self.broker, self.directory = ask, broker, directory
        self.places, self.examples = {}, {}
        self.write_all()
        self.databases(postgres)
        self.identities()
        self.server()
        self.transit()
        self.ssh()
        self.totp()
        self.methods()

    def data(self, method, path, body=None):
        return self.ask(method, path, body)["data"]

    def write_all(self):
        for path, body in [
            ("sys/mounts/x", {"type": "kv", "options": {"version": "2"}}),
            ("sys/auth/x", {"type": "userpass"}),
            ("sys/policies/acl/x", {"policy": 'path "x" { capabilities = ["read"] }'}),
            (
                "sys/policies/password/x",
                {"policy": 'length = 20\nrule "charset" { charset = "abcdefghij" }'},
            ),
            ("sys/quotas/rate-limit/x", {"path": "nowhere", "rate": 1000}),
            ("sys/quotas/lease-count/x", {"path": "database", "max_leases": 100_000}),
            ("auth/token/roles/x", {"allowed_policies": "default"}),
            ("auth/userpass/users/x", {"password": PASSWORD}),
            ("auth/cert/certs/x", {"allowed_common_names": "x", "token_policies": "default"}),
            ("kv-v1/x", {"a": {"b": [1, None, True, "text"]}, "ttl": "1h"}),
            ("kv-v1/x/below", {"a": 1.5}),
            ("cubbyhole/x", {"a": "b"}),
            ("cubbyhole/x/below", {"a": "b"}),
            ("kv-v2/data/x", {"data": {"a": {"b": 1}}}),
            ("kv-v2/data/x/below", {"data": {"a": {"b": 1}}}),
            ("kv-v2/metadata/x", {"custom_metadata": {"owner": "team"}, "max_versions": 3}),
        ]:
            self.ask("POST", path, body)

    def databases(self, postgres):
        self.ask("POST", "database/config/x", postgres.connection)
        role = {"db_name": "x", "creation_statements": CREATE}
        self.ask("POST", "database/roles/x", role)
        postgres.sql("CREATE ROLE taken_over LOGIN")
        static = {"db_name": "x", "username": "taken_over", "rotation_period": "1h"}
        self.ask("POST", "database/static-roles/x", static)
        self.ask("GET", "database/creds/x")

    def identities(self):
        login = self.ask("POST", "auth/userpass/login/x", {"password": PASSWORD})
        entity = self.data("GET", "identity/entity/id/" + login["auth"]["entity_id"])
        inner = self.data("POST", "identity/group", {"name": "x", "policies": ["x"]})["id"]
        outer = self.data("POST", "identity/group", {"name": "outer", "type": "external"})["id"]
        accessors = self.data("GET", "sys/auth")
        alias = {"name": "x", "canonical_id": outer}
        alias["mount_accessor"] = accessors["userpass/"]["accessor"]
        alias = self.data("POST", "identity/group-alias", alias)["id"]
        method = {"issuer": "Corp", "method_name": "x"}
        method = self.data("POST", "identity/mfa/method/totp", method)["method_id"]
        # Of a mount that nobody logs in at.
        demanded = {
            "mfa_method_ids": [method], "auth_method_accessors": [accessors["x/"]["accessor"]],
        }
        self.ask("POST", "identity/mfa/login-enforcement/x", demanded)
        whose = {"method_id": method, "entity_id": entity["id"]}
        self.ask("POST", "identity/mfa/method/totp/admin-generate", whose)
        self.places |= {
            "/identity/entity/id/{id}": {"id": entity["id"]},
            "/identity/entity/name/{name}": {"name": entity["name"]},
            "/identity/entity-alias/id/{id}": {"id": entity["aliases"][0]["id"]},
            "/identity/group/id/{id}": {"id": inner},
            "/identity/group-alias/id/{id}": {"id": alias},
            "/identity/mfa/method/{id}": {"id": method},
            "/identity/mfa/method/totp/{id}": {"id": method},
        }
        self.examples |= {
            "/identity/lookup/entity": {"id": entity["id"]},
            "/identity/lookup/group": {"name": "x"},
            "/identity/group": {"name": "another", "member_entity_ids": [entity["id"]]},
            "/identity/mfa/method/totp/admin-destroy": whose,
            "/identity/mfa/method/totp/admin-generate": whose,
        }

    def server(self):
        self.ask("POST", "sys/mounts/moving", {"type": "kv"})
        moved = self.data("POST", "sys/remount", {"from": "moving", "to": "moved"})
        revoked = self.data("POST", "sys/leases/revoke-prefix/database/creds/none", {})
        self.places |= {
            "/sys/remount/status/{id}": {"id": moved["migration_id"]},
            "/sys/leases/operations/{id}": {"id": revoked["operation_id"]},
            "/sys/leases/lookup/{prefix}": {"prefix": "database"},
        }

    def transit(self):
        kept = {"exportable": True, "allow_plaintext_backup": True}
        self.ask("POST", "transit/keys/x", kept)
        self.ask("POST", "transit/keys/signer", {"type": "ed25519"})
        self.ask("POST", "transit/keys/restored", kept)
        # It takes the place of the one that is there.
        self.ask("POST", "transit/keys/restored/config", {"deletion_allowed": True})
        backup = self.data("GET", "transit/backup/restored")["backup"]
        text = {"input": TEXT}
        sealed = {"ciphertext": self.data("POST", "transit/encrypt/x", {"plaintext": TEXT})["ciphertext"]}
        signed = {**text, "signature": self.data("POST", "transit/sign/signer", text)["signature"]}
        self.places |= {
            "/transit/datakey/{plaintext}/{name}": {"plaintext": "wrapped", "name": "x"},
            "/transit/export/{type}/{name}": {"type": "encryption-key", "name": "x"},
            "/transit/export/{type}/{name}/{version}":
                {"type": "encryption-key", "name": "x", "version": "1"},
            "/transit/sign/{name}": {"name": "signer"},
            "/transit/verify/{name}": {"name": "signer"},
            "/transit/sign/{name}/{urlalgorithm}": {"name": "signer", "urlalgorithm": "sha2-256"},
            "/transit/verify/{name}/{urlalgorithm}": {"name": "signer", "urlalgorithm": "sha2-256"},
            "/transit/hmac/{name}/{urlalgorithm}": {"name": "x", "urlalgorithm": "sha2-512"},
            "/transit/hash/{urlalgorithm}": {"urlalgorithm": "sha3-256"},
            "/transit/random/{urlbytes}": {"urlbytes": "16"},
            "/transit/random/{source}/{urlbytes}": {"source": "platform", "urlbytes": "16"},
            "/transit/restore/{name}": {"name": "restored"},
        }
        self.examples |= {
            "/transit/encrypt/{name}": {"plaintext": TEXT},
            "/transit/decrypt/{name}": sealed,
            "/transit/rewrap/{name}": sealed,
            "/transit/datakey/{plaintext}/{name}": {"bits": 256},
            "/transit/sign/{name}": text,
            "/transit/sign/{name}/{urlalgorithm}": text,
            "/transit/verify/{name}": signed,
            "/transit/verify/{name}/{urlalgorithm}": signed,
            "/transit/hmac/{name}": text,
            "/transit/hmac/{name}/{urlalgorithm}": text,
            "/transit/hash": text,
            "/transit/hash/{urlalgorithm}": text,
            "/transit/random": {"bytes": 16},
            "/transit/random/{urlbytes}": {"format": "hex"},
            "/transit/random/{source}/{urlbytes}": {"format": "base64"},
            "/transit/keys/{name}/config": {"min_decryption_version": 1},
            "/transit/restore/{name}": {"backup": backup, "force": True},
        }

    def ssh(self):
        self.ask("POST", "ssh/config/ca", {"generate_signing_key": True})
        signing = {
            "key_type": "ca", "allow_user_certificates": True, "allowed_users": "*",
            "default_user": "app", "allowed_extensions": "*", "allow_user_key_ids": True,
        }
        self.ask("POST", "ssh/roles/x", signing)
        passwords = {"key_type": "otp", "default_user": "app", "cidr_list": "10.0.0.0/8"}
        self.ask("POST", "ssh/roles/otp", passwords)
        self.ask("POST", "ssh/config/zeroaddress", {"roles": "otp"})
        made = self.data("POST", "ssh/creds/otp", {"ip": "10.0.0.1"})
        key = self.broker.path("ssh-key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.places |= {"/ssh/creds/{name}": {"name": "otp"}}
        self.examples |= {
            "/ssh/sign/{name}": {"public_key": self.broker.read("ssh-key.pub")},
            "/ssh/issue/{name}": {"key_type": "ed25519"},
            "/ssh/creds/{name}": {"ip": "10.0.0.1"},
            "/ssh/verify": {"otp": made["key"]},
            "/ssh/lookup": {"ip": "10.0.0.1"},
            "/ssh/revoke": {"key_id": "lost"},
            "/ssh/unrevoke": {"key_id": "lost"},
        }

    def totp(self):
        # By the hour: longer than the run takes.
        url = f"otpauth://totp/Corp:x?secret={TOTP_KEY}&issuer=Corp&period=3600"
        self.ask("POST", "totp/keys/x", {"url": url})
        code = pyotp.HOTP(TOTP_KEY).at(int(time.time()) // 3600)
        self.examples["/totp/code/{name}"] = {"code": code}

    def methods(self):
        self.ask("POST", "auth/approle/role/x", {"token_policies": "default"})
        secret_id = self.data("POST", "auth/approle/role/x/secret-id", {"metadata": '{"a": "b"}'})
        role_id = self.data("GET", "auth/approle/role/x/role-id")
        issuer = Issuer()
        for mount in ["jwt", "oidc"]:
            keys = {"jwt_validation_pubkeys": [issuer.public_key], "default_role": "x"}
            self.ask("POST", f"auth/{mount}/config", keys)
            role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": "broker"}
            self.ask("POST", f"auth/{mount}/role/x", role)
        token = issuer.token({"sub": "robot", "aud": "broker"})
        # Tokens are judged by their signature, without a cluster.
        self.ask("POST", "auth/kubernetes/config", {"pem_keys": [issuer.public_key]})
        role = {
            "bound_service_account_names": "web", "bound_service_account_namespaces": "shop",
            "audience": "broker",
        }
        self.ask("POST", "auth/kubernetes/role/x", role)
        account = {"name": "web", "uid": "uid-1"}
        pod = {
            "sub": "system:serviceaccount:shop:web", "aud": ["broker"],
            "kubernetes.io": {"namespace": "shop", "serviceaccount": account},
        }
        config = {
            "url": self.directory.url, "userdn": "dc=example,dc=org", "userattr": "uid",
            "groupdn": "dc=example,dc=org", "binddn": "cn=broker,dc=example,dc=org",
            "bindpass": "broker-secret",
        }
        self.ask("POST", "auth/ldap/config", config)
        self.ask("POST", "auth/ldap/groups/x", {"policies": "default"})
        self.ask("POST", "auth/ldap/users/x", {"policies": "default"})
        self.places |= {"/auth/ldap/login/{username}": {"username": "ann"}}
        self.examples |= {
            "/auth/approle/login": {**role_id, "secret_id": secret_id["secret_id"]},
            "/auth/approle/role/{name}/secret-id": {"metadata": "{}"},
            "/auth/jwt/login": {"role": "x", "jwt": token},
            "/auth/oidc/login": {"role": "x", "jwt": token},
            "/auth/kubernetes/login": {"role": "x", "jwt": issuer.token(pod)},
            "/auth/ldap/login/{username}": {"password": "ann-secret"},
            "/auth/userpass/login/{username}": {"password": PASSWORD},
        }
