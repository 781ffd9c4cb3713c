"""Cryptography as a service, by hvac and by OpenBao's command line, and against OpenBao's own server."""

import base64
import hashlib
import json
import os
import subprocess
import tempfile
import time
import unittest
import urllib.request

import hvac
import hvac.exceptions
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from broker import WithBroker

BAO = os.environ["BAO"]
CIPHERS = ["aes256-gcm96", "chacha20-poly1305"]
ALL = [
    "aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "ed25519",
    "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "rsa-3072", "rsa-4096", "hmac",
]
SIGNERS = ["ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048"]


def b64(data):
    return base64.b64encode(data).decode()


HELLO = b64(b"hello")
CONTEXT = b64(b"context")


def wrapped(public_pem, key):
    """A key as it is brought in: AES-KWP under a fresh key, that one by RSA-OAEP."""
    wrapping = os.urandom(32)
    public = serialization.load_pem_public_key(public_pem.encode())
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    return b64(public.encrypt(wrapping, oaep) + keywrap.aes_key_wrap_with_padding(wrapping, key))


def importable(kind, exported):
    """An exported key in the form in which keys are imported."""
    if exported.startswith("-----"):
        key = serialization.load_pem_private_key(exported.encode(), None)
    elif kind == "ed25519":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(exported)[:32])
    else:
        return base64.b64decode(exported)
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class OpenBao:
    """The real server, in memory."""

    def __init__(self):
        self._dir = tempfile.TemporaryDirectory(prefix="leasehold-openbao-")
        self._log = open(os.path.join(self._dir.name, "log"), "w+")
        for port in range(18200, 18300):
            self.address = f"http://127.0.0.1:{port}"
            self._process = subprocess.Popen(
                [BAO, "server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token",
                 f"-dev-listen-address=127.0.0.1:{port}"],
                env={"PATH": os.environ["PATH"], "HOME": self._dir.name},
                stdout=self._log,
                stderr=self._log,
            )
            if self._answers():
                return
            self._end()
        raise RuntimeError("OpenBao does not start")

    def _answers(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(self.address + "/v1/sys/health", timeout=2):
                    # Another server may have had the port.
                    return self._process.poll() is None
            except OSError:
                time.sleep(0.1)
        return False

    def _end(self):
        self._process.terminate()
        self._process.wait(timeout=30)

    def client(self):
        made = hvac.Client(url=self.address, token="root")
        made.sys.enable_secrets_engine("transit")
        return made.secrets.transit

    def stop(self):
        self._end()
        self._log.close()
        self._dir.cleanup()


class Transit(WithBroker):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = cls.broker.root()
        cls.root.sys.enable_secrets_engine("transit")
        cls.transit = cls.root.secrets.transit

    def test_keys(self):
        transit = self.transit
        made = transit.create_key("orders", exportable=True, auto_rotate_period="24h")["data"]
        self.assertEqual((made["type"], made["auto_rotate_period"]), ("aes256-gcm96", 86400))
        self.assertIn("orders", transit.list_keys()["data"]["keys"])
        transit.rotate_key("orders")
        self.assertEqual(transit.read_key("orders")["data"]["latest_version"], 2)
        transit.update_key_configuration("orders", min_decryption_version=2, deletion_allowed=True)
        transit.update_key_configuration("orders", min_encryption_version=2)
        transit.trim_key("orders", min_version=2)
        self.assertEqual(list(transit.read_key("orders")["data"]["keys"]), ["2"])
        transit.delete_key("orders")
        with self.assertRaises(hvac.exceptions.InvalidPath):
            transit.read_key("orders")

    def test_messages(self):
        transit = self.transit
        for kind in ["aes256-gcm96", "chacha20-poly1305", "rsa-2048"]:
            transit.create_key("m-" + kind, key_type=kind)
            sealed = transit.encrypt_data("m-" + kind, plaintext=HELLO)["data"]["ciphertext"]
            self.assertTrue(sealed.startswith("vault:v1:"))
            opened = transit.decrypt_data("m-" + kind, ciphertext=sealed)
            self.assertEqual(opened["data"]["plaintext"], HELLO)
            transit.rotate_key("m-" + kind)
            again = transit.rewrap_data("m-" + kind, ciphertext=sealed)["data"]["ciphertext"]
            self.assertTrue(again.startswith("vault:v2:"))
            made = transit.generate_data_key("m-" + kind, key_type="plaintext", bits=256)["data"]
            opened = transit.decrypt_data("m-" + kind, ciphertext=made["ciphertext"])
            self.assertEqual(opened["data"]["plaintext"], made["plaintext"])
        transit.create_key("c", convergent_encryption=True, derived=True)
        one, other = (
            transit.encrypt_data("c", plaintext=HELLO, context=CONTEXT)["data"]["ciphertext"]
            for _ in range(2)
        )
        self.assertEqual(one, other)
        items = [{"plaintext": HELLO, "reference": str(n)} for n in range(3)]
        results = transit.encrypt_data("m-aes256-gcm96", batch_input=items)["data"]["batch_results"]
        self.assertEqual([one["reference"] for one in results], ["0", "1", "2"])
        opened = transit.decrypt_data("m-aes256-gcm96", batch_input=results)["data"]["batch_results"]
        self.assertEqual({one["plaintext"] for one in opened}, {HELLO})
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            transit.encrypt_data("m-aes256-gcm96", batch_input=items + [{"plaintext": "?"}])

    def test_signatures_and_hmacs(self):
        transit = self.transit
        for kind in SIGNERS:
            transit.create_key("s-" + kind, key_type=kind)
            for form in ["asn1", "jws"]:
                signed = transit.sign_data(
                    "s-" + kind, hash_input=HELLO, hash_algorithm="sha2-512", marshaling_algorithm=form
                )["data"]["signature"]
                for message, valid in [(HELLO, True), (CONTEXT, False)]:
                    checked = transit.verify_signed_data(
                        "s-" + kind,
                        hash_input=message,
                        signature=signed,
                        hash_algorithm="sha2-512",
                        marshaling_algorithm=form,
                    )
                    self.assertEqual(checked["data"]["valid"], valid, (kind, form))
        mac = transit.generate_hmac("s-ed25519", hash_input=HELLO)["data"]["hmac"]
        checked = transit.verify_signed_data("s-ed25519", hash_input=HELLO, hmac=mac)
        self.assertTrue(checked["data"]["valid"])

        mac = transit.generate_hmac("s-ed25519", hash_input=HELLO, algorithm="sha2-384")
        mac = mac["data"]["hmac"]
        self.assertEqual(len(base64.b64decode(mac.rpartition(":")[2])), 48)
        checked = transit.verify_signed_data(
            "s-ed25519", hash_input=HELLO, hmac=mac, hash_algorithm="sha2-384"
        )
        self.assertTrue(checked["data"]["valid"])
        digest = b64(hashlib.sha512(b"hello").digest())
        by_digest = {"hash_algorithm": "sha2-512", "prehashed": True}
        for kind in ["ecdsa-p256", "rsa-2048"]:
            signed = transit.sign_data("s-" + kind, hash_input=digest, key_version=1, **by_digest)
            checked = transit.verify_signed_data(
                "s-" + kind,
                hash_input=HELLO,
                signature=signed["data"]["signature"],
                hash_algorithm="sha2-512",
            )
            self.assertTrue(checked["data"]["valid"], kind)
        many = [{"input": HELLO}, {"input": CONTEXT}]
        signed = transit.sign_data("s-ed25519", batch_input=many)["data"]["batch_results"]
        self.assertEqual(len({one["signature"] for one in signed}), 2)
        transit.create_key("s-derived", key_type="ed25519", derived=True)
        signed = transit.sign_data("s-derived", hash_input=HELLO, context=CONTEXT)["data"]
        for context, valid in [(CONTEXT, True), (HELLO, False)]:
            checked = transit.verify_signed_data(
                "s-derived", hash_input=HELLO, signature=signed["signature"], context=context
            )
            self.assertEqual(checked["data"]["valid"], valid)

    def test_contexts(self):
        transit = self.transit
        transit.create_key("d", derived=True)
        sealed = transit.encrypt_data("d", plaintext=HELLO, context=CONTEXT, associated_data=HELLO)
        sealed = sealed["data"]["ciphertext"]
        opened = transit.decrypt_data("d", ciphertext=sealed, context=CONTEXT, associated_data=HELLO)
        self.assertEqual(opened["data"]["plaintext"], HELLO)
        for context, data in [(HELLO, HELLO), (CONTEXT, CONTEXT), (CONTEXT, None), (None, HELLO)]:
            with self.assertRaises(hvac.exceptions.InvalidRequest):
                transit.decrypt_data("d", ciphertext=sealed, context=context, associated_data=data)
        plain = transit.encrypt_data("d", plaintext=HELLO, context=CONTEXT)["data"]["ciphertext"]
        transit.rotate_key("d")
        again = transit.rewrap_data("d", ciphertext=plain, context=CONTEXT, key_version=2)
        self.assertTrue(again["data"]["ciphertext"].startswith("vault:v2:"))
        items = [{"ciphertext": plain, "context": CONTEXT}, {"ciphertext": plain, "context": HELLO}]
        results = transit.rewrap_data("d", None, batch_input=items)["data"]["batch_results"]
        self.assertEqual(["ciphertext" in one for one in results], [True, False])
        made = transit.generate_data_key("d", key_type="wrapped", context=CONTEXT, bits=512)["data"]
        self.assertNotIn("plaintext", made)
        opened = transit.decrypt_data("d", ciphertext=made["ciphertext"], context=CONTEXT)["data"]
        self.assertEqual(len(base64.b64decode(opened["plaintext"])), 64)
        # A key that is made by being used.
        transit.encrypt_data(
            "d-new", plaintext=HELLO, context=CONTEXT, type="chacha20-poly1305",
            convergent_encryption=True,
        )
        made = transit.read_key("d-new")["data"]
        self.assertEqual(
            (made["type"], made["derived"], made["convergent_encryption"]),
            ("chacha20-poly1305", True, True),
        )

    def test_exports(self):
        transit = self.transit
        transit.create_key("e", exportable=True, key_type="ecdsa-p256")
        transit.rotate_key("e")
        for part, begin in [("signing-key", "-----BEGIN EC PRIVATE KEY"), ("hmac-key", "")]:
            keys = transit.export_key("e", key_type=part)["data"]["keys"]
            self.assertEqual(sorted(keys), ["1", "2"])
            self.assertTrue(keys["1"].startswith(begin))
            keys = transit.export_key("e", key_type=part, version="latest")["data"]["keys"]
            self.assertEqual(list(keys), ["2"])
        transit.create_key("e-closed")
        with self.assertRaisesRegex(hvac.exceptions.InvalidRequest, "not exportable"):
            transit.export_key("e-closed", key_type="encryption-key")

    def test_tools(self):
        made = self.transit.generate_random_bytes(n_bytes=16)["data"]["random_bytes"]
        self.assertEqual(len(base64.b64decode(made)), 16)
        made = self.transit.generate_random_bytes(n_bytes=16, output_format="hex")["data"]
        self.assertEqual(len(bytes.fromhex(made["random_bytes"])), 16)
        for algorithm, standard in [("sha2-256", hashlib.sha256), ("sha2-512", hashlib.sha512)]:
            summed = self.transit.hash_data(HELLO, algorithm=algorithm)["data"]["sum"]
            self.assertEqual(summed, standard(b"hello").hexdigest())
            summed = self.transit.hash_data(HELLO, algorithm=algorithm, output_format="base64")
            self.assertEqual(summed["data"]["sum"], b64(standard(b"hello").digest()))

    def test_backups(self):
        transit = self.transit
        transit.create_key("b", exportable=True, allow_plaintext_backup=True)
        sealed = transit.encrypt_data("b", plaintext=HELLO)["data"]["ciphertext"]
        backup = transit.backup_key("b")["data"]["backup"]
        transit.update_key_configuration("b", deletion_allowed=True)
        transit.delete_key("b")
        transit.restore_key(backup)
        self.assertEqual(transit.decrypt_data("b", ciphertext=sealed)["data"]["plaintext"], HELLO)
        # Not even force puts a backup over a key that may not be deleted.
        with self.assertRaisesRegex(hvac.exceptions.InvalidRequest, "may not be deleted"):
            transit.restore_key(backup, name="b", force=True)
        transit.update_key_configuration("b", deletion_allowed=True)
        transit.restore_key(backup, name="b", force=True)

    def test_the_command_line(self):
        certificate, key = self.broker.identity("admin")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": self.broker.dir,
            "BAO_ADDR": self.broker.address,
            "BAO_CACERT": self.broker.path("ca.pem"),
            "BAO_CLIENT_CERT": certificate,
            "BAO_CLIENT_KEY": key,
            "BAO_TOKEN": self.broker.root_token,
        }

        def bao(*arguments):
            done = subprocess.run(
                [BAO, *arguments], env=environment, capture_output=True, text=True, timeout=60
            )
            self.assertEqual(done.returncode, 0, f"{arguments}: {done.stdout}{done.stderr}")
            return done.stdout

        bao("write", "-f", "transit/keys/line")
        sealed = bao("write", "-field=ciphertext", "transit/encrypt/line", "plaintext=" + HELLO)
        opened = bao("write", "-field=plaintext", "transit/decrypt/line", "ciphertext=" + sealed)
        self.assertEqual(opened, HELLO)
        bao("write", "-f", "transit/keys/line/rotate")
        bao("write", "transit/keys/line/config", "deletion_allowed=true", "exportable=true")
        exported = json.loads(bao("read", "-format=json", "transit/export/encryption-key/line"))
        self.assertEqual(sorted(exported["data"]["keys"]), ["1", "2"])
        self.assertIn("line", bao("list", "transit/keys"))
        bao("delete", "transit/keys/line/soft-delete")
        self.assertTrue(json.loads(bao("read", "-format=json", "transit/keys/line"))["data"]["soft_deleted"])
        bao("write", "-f", "transit/keys/line/soft-delete-restore")
        bao("delete", "transit/keys/line")

        # Keys that it wraps itself.
        from cryptography.hazmat.primitives.asymmetric import rsa

        pair = rsa.generate_private_key(65537, 2048)
        der = pair.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        with open(self.broker.path("pair"), "w") as file:
            file.write(b64(der))
        secret = os.urandom(32)
        bao("transit", "import", "transit/keys/brought", b64(secret), "type=aes256-gcm96", "exportable=true")
        bao("transit", "import", "transit/keys/pair", "@" + self.broker.path("pair"), "type=rsa-2048")
        bao("transit", "import-version", "transit/keys/brought", b64(os.urandom(32)))
        keys = json.loads(bao("read", "-format=json", "transit/export/encryption-key/brought"))["data"]["keys"]
        self.assertEqual((keys["1"], len(keys)), (b64(secret), 2))
        told = json.loads(bao("read", "-format=json", "transit/keys/pair"))["data"]
        public = pair.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.assertEqual(told["keys"]["1"]["public_key"].strip(), public.decode().strip())
        self.assertTrue(told["imported_key"])


class BothWays(Transit):
    """What one server makes, with a key that moved, the other understands."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.openbao = OpenBao()
        cls.addClassCleanup(cls.openbao.stop)
        cls.theirs = cls.openbao.client()

    def moved(self, kind, name, giver, taker, derived=False):
        """A key that `giver` makes and `taker` imports."""
        convergent = derived and kind in CIPHERS
        giver.create_key(
            name, key_type=kind, exportable=True, derived=derived, convergent_encryption=convergent
        )
        part = "encryption-key" if kind in CIPHERS else "signing-key"
        exported = giver.export_key(name, key_type=part)["data"]["keys"]["1"]
        adapter = taker._adapter
        public = adapter.get("/v1/transit/wrapping_key")["data"]["public_key"]
        body = {
            "type": kind,
            "ciphertext": wrapped(public, importable(kind, exported)),
            "hash_function": "SHA256",
            "derived": derived,
        }
        if convergent:
            # Not even as false does OpenBao take it.
            body["convergent_encryption"] = True
        adapter.post(f"/v1/transit/keys/{name}/import", json=body)

    def pairs(self):
        return [("ours", self.transit, self.theirs), ("theirs", self.theirs, self.transit)]

    def test_ciphertexts(self):
        for whose, giver, taker in self.pairs():
            for kind in CIPHERS:
                name = f"{whose}-{kind}"
                self.moved(kind, name, giver, taker)
                for maker, reader in [(giver, taker), (taker, giver)]:
                    sealed = maker.encrypt_data(name, plaintext=HELLO, associated_data=CONTEXT)
                    opened = reader.decrypt_data(
                        name, ciphertext=sealed["data"]["ciphertext"], associated_data=CONTEXT
                    )
                    self.assertEqual(opened["data"]["plaintext"], HELLO, name)

    def test_derived_keys(self):
        name = "derived"
        self.moved("aes256-gcm96", name, self.theirs, self.transit, derived=True)
        for maker, reader in [(self.theirs, self.transit), (self.transit, self.theirs)]:
            sealed = maker.encrypt_data(name, plaintext=HELLO, context=CONTEXT)
            opened = reader.decrypt_data(
                name, ciphertext=sealed["data"]["ciphertext"], context=CONTEXT
            )
            self.assertEqual(opened["data"]["plaintext"], HELLO)

    def test_signatures(self):
        for whose, giver, taker in self.pairs():
            for kind in SIGNERS:
                name = f"{whose}-{kind}"
                self.moved(kind, name, giver, taker)
                for maker, reader in [(giver, taker), (taker, giver)]:
                    for manner in self.manners(kind):
                        signed = maker.sign_data(name, hash_input=HELLO, **manner)
                        checked = reader.verify_signed_data(
                            name,
                            hash_input=HELLO,
                            signature=signed["data"]["signature"],
                            **manner,
                        )
                        self.assertTrue(checked["data"]["valid"], (name, manner))

    def test_hashes(self):
        # hvac knows neither the others nor keys for HMACs alone.
        secret = b64(os.urandom(32))
        ask = [server._adapter.post for server in (self.transit, self.theirs)]
        for server in (self.transit, self.theirs):
            public = server._adapter.get("/v1/transit/wrapping_key")["data"]["public_key"]
            body = {"type": "hmac", "ciphertext": wrapped(public, base64.b64decode(secret))}
            server._adapter.post("/v1/transit/keys/mac/import", json=body)
        for name in ["sha1", "sha3-224", "sha3-256", "sha3-384", "sha3-512"]:
            body = {"input": HELLO}
            macs = [post(f"/v1/transit/hmac/mac/{name}", json=body)["data"]["hmac"] for post in ask]
            self.assertEqual(macs[0], macs[1], name)
            if name == "sha1":
                continue
            sums = [post(f"/v1/transit/hash/{name}", json=body)["data"]["sum"] for post in ask]
            self.assertEqual(sums[0], sums[1], name)
            key = "sha3-" + name
            self.moved("ecdsa-p256", key, self.theirs, self.transit)
            for maker, reader in [ask, ask[::-1]]:
                signed = maker(f"/v1/transit/sign/{key}/{name}", json=body)["data"]["signature"]
                claim = {"input": HELLO, "signature": signed}
                self.assertTrue(reader(f"/v1/transit/verify/{key}/{name}", json=claim)["data"]["valid"])

    def test_backups(self):
        for kind in ALL:
            name = "backup-" + kind
            # hvac does not know all of the types.
            self.theirs._adapter.post(
                f"/v1/transit/keys/{name}",
                json={
                    "type": kind, "exportable": True, "allow_plaintext_backup": True,
                    "auto_rotate_period": "24h", "key_size": 32 if kind == "hmac" else 0,
                },
            )
            self.theirs.rotate_key(name)
            proof = self.proof(self.theirs, kind, name)
            self.restored(name)
            self.assertTrue(self.holds(self.transit, kind, name, proof), name)
            told, ours = self.theirs.read_key(name)["data"], self.transit.read_key(name)["data"]
            for field in ["type", "latest_version", "exportable", "auto_rotate_period", "imported_key"]:
                self.assertEqual(told[field], ours[field], (name, field))
            # Of keys for HMACs alone OpenBao tells no versions.
            self.assertEqual(sorted(told.get("keys", ours["keys"])), sorted(ours["keys"]))
            if kind in SIGNERS:
                public = [keys["keys"]["2"]["public_key"].strip() for keys in (told, ours)]
                self.assertEqual(public[0], public[1], name)
            # And on from there, as with any other key.
            self.transit.rotate_key(name)
            again = self.proof(self.transit, kind, name)
            self.assertTrue(self.holds(self.transit, kind, name, again), name)
            self.assertTrue(self.holds(self.transit, kind, name, proof), name)

        for kind in CIPHERS:
            name = "backup-convergent-" + kind
            self.theirs.create_key(
                name, key_type=kind, derived=True, convergent_encryption=True, exportable=True,
                allow_plaintext_backup=True,
            )
            self.restored(name)
            one, other = (
                server.encrypt_data(name, plaintext=HELLO, context=CONTEXT)["data"]["ciphertext"]
                for server in (self.theirs, self.transit)
            )
            self.assertEqual(one, other)

    def restored(self, name):
        self.transit.restore_key(self.theirs.backup_key(name)["data"]["backup"])

    def proof(self, server, kind, name):
        """What shows that a server has that key."""
        if kind == "hmac":
            return server.generate_hmac(name, hash_input=HELLO)["data"]["hmac"]
        if kind in SIGNERS and not kind.startswith("rsa"):
            return server.sign_data(name, hash_input=HELLO)["data"]["signature"]
        return server.encrypt_data(name, plaintext=HELLO)["data"]["ciphertext"]

    def holds(self, server, kind, name, proof):
        if kind == "hmac":
            return server.verify_signed_data(name, hash_input=HELLO, hmac=proof)["data"]["valid"]
        if kind in SIGNERS and not kind.startswith("rsa"):
            checked = server.verify_signed_data(name, hash_input=HELLO, signature=proof)
            return checked["data"]["valid"]
        return server.decrypt_data(name, ciphertext=proof)["data"]["plaintext"] == HELLO

    def manners(self, kind):
        manners = [{}, {"hash_algorithm": "sha2-512"}]
        if kind.startswith("ecdsa"):
            manners += [{"marshaling_algorithm": "jws"}, {"hash_algorithm": "sha2-224"}]
        if kind.startswith("rsa"):
            manners += [
                {"signature_algorithm": "pkcs1v15"},
                {"signature_algorithm": "pss", "salt_length": "hash"},
            ]
        return manners


def load_tests(loader, _standard, _pattern):
    suite = unittest.TestSuite()
    suite.addTests(loader.loadTestsFromTestCase(Transit))
    for name in [
        "test_backups", "test_ciphertexts", "test_derived_keys", "test_hashes", "test_signatures"
    ]:
        suite.addTest(BothWays(name))
    return suite


if __name__ == "__main__":
    unittest.main()
