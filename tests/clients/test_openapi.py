"""The OpenAPI document, and the broker held against it by schemathesis: whatever is sent, there is no
500, no status that is not described, and no answer that is not as its schema says."""

import json
import os
import re
import subprocess
import sys
import unittest
from collections import Counter

import requests

from broker import PROGRAM, WithDirectory
from furnished import Furnished
from postgres import Postgres

SEED = "2611"
# The most requests that are made up for one operation.
EXAMPLES = "12"

# What would end the run for all that comes after: it seals the broker, holds its revocations back,
# rotates its keys all the time, limits the run to a request now and then, or ends its token.
FATAL = [
    "sys-seal-write",
    "sys-hold-write",
    "sys-rotate-config-write",
    "sys-rotate-keyring-config-write",
    "sys-quotas-rate-limit-name-write",
    "auth-token-revoke-self-write",
]
# Its status is what the request says, be it 500.
CHOSEN = ["sys-health-read"]


def without(operations):
    return [word for name in operations for word in ("--exclude-operation-id", name)]


class OpenApi(WithDirectory):
    """On a broker that has everything mounted that there is, each under the name of its kind."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.postgres = Postgres()
        offline, live = cls.document(), cls.document("-address", cls.broker.address)
        cls.mount_all(offline["paths"], live["paths"])

    @classmethod
    def mount_all(cls, offline, live):
        for path in offline:
            placed = re.match(r"/(auth/)?{(\w+)_mount_path}/", path)
            if not placed:
                continue
            below, kind = placed[1] or "", placed[2].replace("_", "-")
            at = f"/{below}{kind}/"
            if any(other.startswith(at) for other in live):
                continue
            kind, _, version = kind.partition("-v")
            options = {"version": version} if version else {}
            to = f"sys/{below or 'mounts/'}{at.split('/')[-2]}"
            cls.ask("POST", to, {"type": kind, "options": options})
            live = [*live, at]

    @classmethod
    def tearDownClass(cls):
        cls.postgres.stop()
        super().tearDownClass()

    @classmethod
    def ask(cls, method, path, body=None):
        answer = requests.request(
            method,
            f"{cls.broker.address}/v1/{path}",
            json=body,
            headers={"X-Vault-Token": cls.broker.root_token},
            cert=cls.broker.identity("admin"),
            verify=cls.broker.path("ca.pem"),
        )
        if answer.status_code >= 300:
            raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    @classmethod
    def document(cls, *arguments):
        certificate, key = cls.broker.identity("admin")
        environment = {
            "LEASEHOLD_CACERT": cls.broker.path("ca.pem"),
            "LEASEHOLD_CLIENT_CERT": certificate,
            "LEASEHOLD_CLIENT_KEY": key,
            "LEASEHOLD_TOKEN": cls.broker.root_token,
        }
        printed = subprocess.run(
            [PROGRAM, "openapi", *arguments], env=environment, capture_output=True, text=True
        )
        if printed.returncode:
            raise AssertionError(printed.stderr)
        return json.loads(printed.stdout)

    def schemathesis(self, document, config, *arguments):
        """Runs it, and answers with what was asked and what came back."""
        for name, text in [("openapi.json", json.dumps(document)), ("config.toml", config)]:
            with open(self.broker.path(name), "w") as file:
                file.write(text)
        certificate, key = self.broker.identity("admin")
        command = [
            os.path.join(os.path.dirname(sys.executable), "schemathesis"),
            "--config-file", self.broker.path("config.toml"), "--no-color",
            "run", self.broker.path("openapi.json"),
            "--url", self.broker.address + "/v1",
            "--tls-verify", self.broker.path("ca.pem"),
            "--request-cert", certificate, "--request-cert-key", key,
            "--header", "X-Vault-Token: " + self.broker.root_token,
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_schema_conformance",
            "--max-examples", EXAMPLES, "--seed", SEED, "--generation-deterministic",
            "--workers", "1", "--no-shrink", "--continue-on-failure",
            "--suppress-health-check", "all", "--warnings", "off",
            "--report", "har", "--report-har-path", self.broker.path("run.har"),
            *arguments,
        ]
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=600, cwd=self.broker.dir
        )
        self.assertEqual(run.returncode, 0, run.stdout[-20_000:] + run.stderr)
        with open(self.broker.path("run.har")) as file:
            entries = json.load(file)["log"]["entries"]
        statuses = Counter(entry["response"]["status"] for entry in entries)
        told = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
        print(f"schemathesis: {len(entries)} requests, all answered as described; {told}")
        return entries

    def test_the_document_offline_is_that_of_a_server_with_its_mounts_as_parameters(self):
        live = self.document("-address", self.broker.address, "-generic-mount-paths")
        offline = self.document()
        for path, item in live["paths"].items():
            self.assertEqual(item, offline["paths"].get(path), path)

    def test_whatever_is_sent_is_answered_as_described(self):
        document = self.document("-address", self.broker.address)
        ids = {
            operation["operationId"]
            for item in document["paths"].values()
            for method, operation in item.items()
            if method in ("get", "post", "patch", "delete")
        }
        self.assertLessEqual({*FATAL, *CHOSEN}, ids, "what is left out is there at all")
        asked = self.schemathesis(
            document, "", "--phases", "examples,fuzzing", *without(FATAL + CHOSEN)
        )
        self.assertGreater(len(asked), 10 * len(ids))

    def test_what_is_there_is_served_as_described(self):
        there = Furnished(self.ask, self.broker, self.directory, self.postgres)
        document = self.document("-address", self.broker.address)
        for path, body in there.examples.items():
            content = document["paths"][path]["post"]["requestBody"]["content"]
            content["application/json"]["example"] = body
        config = "[parameters]\n" + "".join(
            f'{name} = "x"\n' for name in ("name", "path", "role", "username")
        )
        for path, parameters in there.places.items():
            self.assertIn(path, document["paths"])
            values = ", ".join(f'{name} = "{value}"' for name, value in parameters.items())
            config += f'[[operations]]\ninclude-path = "{path}"\nparameters = {{ {values} }}\n'
        usual = ["--phases", "examples,fuzzing", "--mode", "positive"]
        # They read nothing without a body.
        bodies = ["sys-wrapping-lookup-read", "auth-token-lookup-read"]
        asked = self.schemathesis(
            document, config, *usual, "--include-method", "GET", *without(CHOSEN + bodies)
        )
        answered = self.succeeded(asked)
        # All but lists and roles of mounts that have none.
        self.assertGreaterEqual(len(answered), 95, sorted(answered))
        written = self.schemathesis(
            document, config, *usual, "--exclude-method", "GET", "--exclude-method", "DELETE",
            *without(FATAL),
        )
        done = self.succeeded(written)
        for path in there.examples:
            values = {"name": "x", "username": "x", **there.places.get(path, {})}
            self.assertIn(path.format(**values), done)

    def succeeded(self, entries):
        """The paths, as they were asked for, that were answered with a success."""
        return {
            entry["request"]["url"].split("?")[0].split("/v1", 1)[1]
            for entry in entries
            if entry["response"]["status"] < 300
        }


if __name__ == "__main__":
    unittest.main()
