"""OpenBao's agent and proxy, the published program, unmodified: both log in by certificate and go on
with what they were given."""

import datetime
import json
import os
import subprocess
import time
import unittest

import hvac
import hvac.exceptions

from broker import WithBroker
from directory import free_port, wait_for
from postgres import CREATE, Postgres

PROGRAM = os.environ["BAO"]

LOG_IN = """
pid_file = "{dir}/{name}.pid"
vault {{
  address = "{address}"
  ca_cert = "{dir}/ca.pem"
  client_cert = "{dir}/workload.pem"
  client_key = "{dir}/workload.key"
}}
auto_auth {{
  method "cert" {{
    config = {{
      name = "{name}"
      ca_cert = "{dir}/ca.pem"
      client_cert = "{dir}/workload.pem"
      client_key = "{dir}/workload.key"
    }}
  }}
  sink "file" {{
    config = {{ path = "{dir}/{name}-token" }}
  }}
}}
"""

TEMPLATES = """
exit_after_auth = false
template_config {{
  static_secret_render_interval = "1s"
}}
template {{
  contents = "{{{{ with secret \\"secret/data/hello\\" }}}}{{{{ .Data.metadata.version }}}}{{{{ end }}}}"
  destination = "{dir}/version"
}}
template {{
  contents = "{{{{ with secret \\"database/creds/brief\\" }}}}{{\\"lease\\": \\"{{{{ .LeaseID }}}}\\", \\"user\\": \\"{{{{ .Data.username }}}}\\", \\"password\\": \\"{{{{ .Data.password }}}}\\"}}{{{{ end }}}}"
  destination = "{dir}/credentials"
}}
"""

PROXY = """
api_proxy {{
  use_auto_auth_token = true
}}
cache {{
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_disable = true
}}
"""

TOKEN_TTL = 6
LEASE_TTL = 4
LEASE_MAX = 12


def lifetime(known):
    """How many seconds lie between issue and end, as far as those are known now."""
    ends = [datetime.datetime.fromisoformat(known[name]) for name in ("issue_time", "expire_time")]
    return (ends[1] - ends[0]).total_seconds()


class Agent(WithBroker):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.postgres = Postgres()
        cls.addClassCleanup(cls.postgres.stop)
        cls.root = cls.broker.root()
        for name in ["agent", "proxy"]:
            cls.root.auth.cert.create_ca_certificate_role(
                name=name,
                certificate=cls.broker.read("ca.pem"),
                allowed_uri_sans="spiffe://dev.leasehold.internal/workload/*",
                token_policies=["workload"],
                token_ttl=TOKEN_TTL,
            )
        cls.root.write_data("database/config/pg", data=cls.postgres.connection)
        for name, ttl, longest in [("brief", LEASE_TTL, LEASE_MAX), ("usual", 3600, 7200)]:
            role = {"db_name": "pg", "creation_statements": CREATE}
            cls.root.write_data(
                f"database/roles/{name}", data={**role, "default_ttl": ttl, "max_ttl": longest}
            )

    def begin(self, command, text, **more):
        """Starts the agent or the proxy, and has it ended with the test."""
        known = {"dir": self.broker.dir, "address": self.broker.address, "name": command, **more}
        config = self.broker.path(command + ".hcl")
        with open(config, "w") as file:
            file.write((LOG_IN + text).format(**known))
        with open(self.broker.path(command + ".log"), "w") as log:
            process = subprocess.Popen(
                [PROGRAM, command, f"-config={config}"],
                env={"PATH": os.environ["PATH"], "HOME": self.broker.dir},
                stdout=log,
                stderr=log,
            )
        self.addCleanup(process.wait, timeout=30)
        self.addCleanup(process.terminate)
        return process

    def soon(self, look, wanted):
        """What `look` sees, once it is as wanted."""
        deadline = time.monotonic() + 60
        seen = None
        while time.monotonic() < deadline:
            seen = look()
            if wanted(seen):
                return seen
            time.sleep(0.1)
        self.fail(f"saw {seen!r}; the agent said: {self.broker.read('agent.log')[-2000:]}")

    def rendered(self, name):
        return self.broker.read(name) if os.path.exists(self.broker.path(name)) else ""

    def users(self):
        return self.postgres.sql("SELECT rolname FROM pg_roles").split()

    def test_the_agent_keeps_templates_fresh_and_renews_what_they_lease(self):
        self.root.secrets.kv.v2.create_or_update_secret("hello", {"greeting": "hallo"})
        self.begin("agent", TEMPLATES)
        first = json.loads(self.soon(lambda: self.rendered("credentials"), bool))
        own = self.broker.read("agent-token")

        # A secret without a lease, as soon as it is another.
        version = self.soon(lambda: self.rendered("version"), bool)
        self.root.secrets.kv.v2.create_or_update_secret("hello", {"greeting": "salut"})
        self.soon(lambda: self.rendered("version"), lambda text: text == str(int(version) + 1))

        # A user of the database lives on, by the broker's word and by the database's.
        ends = "SELECT rolvaliduntil FROM pg_roles WHERE rolname = '%s'" % first["user"]
        at_first = self.postgres.sql(ends)
        lease = self.soon(
            lambda: self.root.sys.read_lease(first["lease"])["data"],
            lambda lease: lease["last_renewal"] and lifetime(lease) > LEASE_TTL + 1,
        )
        self.assertGreater(lease["last_renewal"], lease["issue_time"])
        self.assertLessEqual(lifetime(lease), LEASE_MAX + 1)
        self.assertEqual(json.loads(self.rendered("credentials")), first, "it is the same user")
        self.assertNotEqual(self.postgres.sql(ends), at_first)

        # And is another before the longest time is over.
        text = self.soon(
            lambda: self.rendered("credentials"),
            lambda text: json.loads(text)["user"] != first["user"],
        )
        second = json.loads(text)
        self.assertEqual(
            self.postgres.sql("SELECT current_user", second["user"], second["password"]),
            second["user"],
        )
        self.soon(self.users, lambda users: first["user"] not in users)
        self.assertIn(second["user"], self.users())

        # All by the token of its one log-in, which would have ended long ago.
        known = self.soon(
            lambda: self.root.auth.token.lookup(own)["data"],
            lambda known: lifetime(known) > 2 * TOKEN_TTL,
        )
        self.assertEqual(known["creation_ttl"], TOKEN_TTL)
        self.assertEqual(self.broker.read("agent-token"), own)

    def test_the_proxy_presents_certificate_and_token_for_others(self):
        port = free_port()
        proxy = self.begin("proxy", PROXY, port=port)
        wait_for(port, proxy)
        self.soon(lambda: self.rendered("proxy-token"), bool)
        # No certificate, no token, not even TLS.
        client = hvac.Client(url=f"http://127.0.0.1:{port}", token="")
        read = client.secrets.kv.v2.read_secret_version("hello", raise_on_deleted_version=True)
        self.assertIn("greeting", read["data"]["data"])
        me = client.auth.token.lookup_self()["data"]
        self.assertEqual(me["policies"], ["default", "workload"])
        with self.assertRaises(hvac.exceptions.Forbidden):
            client.secrets.kv.v2.create_or_update_secret("hello", {"greeting": "no"})
        # What is leased is leased once for all who ask for it, and ends for all.
        leased = client.read("database/creds/usual")
        self.assertEqual(client.read("database/creds/usual")["lease_id"], leased["lease_id"])
        self.assertIn(leased["data"]["username"], self.users())
        self.assertIsNotNone(self.root.sys.read_lease(leased["lease_id"])["data"]["expire_time"])
        client.sys.revoke_lease(leased["lease_id"])
        again = self.soon(
            lambda: client.read("database/creds/usual"),
            lambda again: again["lease_id"] != leased["lease_id"],
        )
        self.soon(self.users, lambda users: leased["data"]["username"] not in users)
        self.assertIn(again["data"]["username"], self.users())


if __name__ == "__main__":
    unittest.main()
