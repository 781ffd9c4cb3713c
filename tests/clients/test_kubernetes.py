"""Log-ins of pods, by hvac and by OpenBao's agent, with an HTTPS server that speaks the one API that a
cluster is asked by: TokenReview."""

import json
import os
import ssl
import subprocess
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import hvac.exceptions

from directory import free_port
from provider import AskingBroker

BAO = os.environ["BAO"]
# What the accounts of the cluster hold. It says whose it is, and only the cluster can say whether.
TOKENS = {
    "eyJhbGciOiJSUzI1NiIsImtpZCI6InNhIn0.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6c2hvcDp3ZWIifQ.d2Vi": ("shop", "web", "uid-1"),
    "eyJhbGciOiJSUzI1NiIsImtpZCI6InNhIn0.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6c2hvcDpqb2IifQ.am9i": ("shop", "job", "uid-2"),
}
WEB, JOB = TOKENS

AGENT = """
exit_after_auth = true
pid_file = "{dir}/agent.pid"
vault {{
  address = "{address}"
  ca_cert = "{dir}/ca.pem"
  client_cert = "{dir}/admin.pem"
  client_key = "{dir}/admin.key"
}}
auto_auth {{
  method "kubernetes" {{
    config = {{
      role = "web"
      token_path = "{dir}/pod-token"
    }}
  }}
  sink "file" {{
    config = {{ path = "{dir}/agent-token" }}
  }}
}}
"""


class Cluster(BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/apis/authentication.k8s.io/v1/tokenreviews":
            return self.send_error(404)
        if self.headers["Authorization"] != "Bearer reviewer-token":
            return self.send_error(401)
        account = TOKENS.get(review["spec"]["token"])
        wanted = review["spec"].get("audiences", ["https://kubernetes.default.svc"])
        known = [audience for audience in wanted if audience == "broker"]
        status = {"authenticated": False, "error": "invalid token"}
        if account and known:
            namespace, name, uid = account
            user = {"username": f"system:serviceaccount:{namespace}:{name}", "uid": uid}
            status = {"authenticated": True, "user": user, "audiences": known}
        body = json.dumps({**review, "status": status}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Kubernetes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        port = free_port()
        cls.broker = AskingBroker([f"127.0.0.1:{port}"])
        cls.cluster = ThreadingHTTPServer(("127.0.0.1", port), Cluster)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cls.broker.path("server.pem"), cls.broker.path("server.key"))
        cls.cluster.socket = context.wrap_socket(cls.cluster.socket, server_side=True)
        threading.Thread(target=cls.cluster.serve_forever, daemon=True).start()
        root = cls.broker.root()
        root.sys.enable_auth_method("kubernetes")
        root.auth.kubernetes.configure(
            kubernetes_host=f"https://127.0.0.1:{port}",
            kubernetes_ca_cert=cls.broker.read("ca.pem"),
            token_reviewer_jwt="reviewer-token",
        )
        root.auth.kubernetes.create_role(
            name="web",
            bound_service_account_names=["web"],
            bound_service_account_namespaces=["shop"],
            audience="broker",
            ttl="1h",
            policies=["default"],
        )

    @classmethod
    def tearDownClass(cls):
        cls.cluster.shutdown()
        cls.cluster.server_close()
        cls.broker.stop()

    def test_hvac_logs_in_as_a_service_account(self):
        root = self.broker.root()
        self.assertEqual(root.auth.kubernetes.list_roles()["keys"], ["web"])
        self.assertNotIn("reviewer-token", json.dumps(root.auth.kubernetes.read_config()))
        made = self.broker.connect().auth.kubernetes.login("web", WEB)["auth"]
        self.assertEqual(made["metadata"]["service_account_name"], "web")
        self.assertTrue(self.broker.connect(token=made["client_token"]).is_authenticated())
        for role, token in [("web", JOB), ("web", WEB[:-1] + "A"), ("other", WEB), ("web", "x")]:
            with self.assertRaises(hvac.exceptions.InvalidRequest):
                self.broker.connect().auth.kubernetes.login(role, token)

    def test_the_agent_logs_in_as_a_service_account(self):
        with open(self.broker.path("pod-token"), "w") as file:
            file.write(WEB)
        config = self.broker.path("agent.hcl")
        with open(config, "w") as file:
            file.write(AGENT.format(dir=self.broker.dir, address=self.broker.address))
        agent = subprocess.run(
            [BAO, "agent", f"-config={config}"],
            env={"PATH": os.environ["PATH"], "HOME": self.broker.dir},
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(agent.returncode, 0, agent.stdout + agent.stderr)
        token = self.broker.read("agent-token")
        self.assertTrue(self.broker.connect(token=token).is_authenticated())


if __name__ == "__main__":
    unittest.main()
