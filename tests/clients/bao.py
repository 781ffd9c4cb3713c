"""A real OpenBao server to import from: TLS, a store that outlives it, one unseal key."""

import os
import subprocess
import tempfile
import time

import hvac

from directory import free_port

PROGRAM = os.environ["BAO"]

CONFIG = """
api_addr = "{address}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
storage "raft" {{
  path = "{dir}/store"
  node_id = "one"
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_cert_file = "{certificate}"
  tls_key_file = "{key}"
}}
"""


AUDIT = """
audit "file" "file" {{
  options {{
    file_path = "{dir}/audit.log"
  }}
}}
"""


class Bao:
    """`certificate`, `key` and `ca` are files; the certificate is one of 127.0.0.1."""

    def __init__(self, certificate, key, ca, audited=False):
        self._owned = tempfile.TemporaryDirectory(prefix="leasehold-bao-")
        self.dir, self.ca = self._owned.name, ca
        port, cluster_port = free_port(), free_port()
        os.mkdir(os.path.join(self.dir, "store"))
        self.address = f"https://127.0.0.1:{port}"
        with open(os.path.join(self.dir, "bao.hcl"), "w") as file:
            file.write(
                (CONFIG + AUDIT * audited).format(
                    dir=self.dir,
                    port=port,
                    cluster_port=cluster_port,
                    address=self.address,
                    certificate=certificate,
                    key=key,
                )
            )
        self._process = None
        self.token = None
        self.start()

    def client(self, token=None):
        return hvac.Client(url=self.address, verify=self.ca, token=token or self.token)

    def start(self):
        with open(os.path.join(self.dir, "log"), "a") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "server", "-config", os.path.join(self.dir, "bao.hcl")],
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": self.dir},
            )
        client = self.client()
        self._wait(lambda: client.sys.is_initialized() in (True, False))
        if self.token is None:
            made = client.sys.initialize(secret_shares=1, secret_threshold=1)
            self.token, self._key = made["root_token"], made["keys"][0]
        client.sys.submit_unseal_key(self._key)
        client.token = self.token
        # Until it leads, it answers reads and refuses writes.
        self._wait(lambda: client.sys.read_leader_status()["is_self"])

    def _wait(self, answers):
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = answers()
            except Exception:
                answer = False
            if answer:
                return
            if time.monotonic() > deadline or self._process.poll() is not None:
                with open(os.path.join(self.dir, "log")) as log:
                    raise RuntimeError("bao does not answer: " + log.read()[-4000:])
            time.sleep(0.05)

    def stop(self):
        self._process.kill()
        self._process.wait(timeout=30)

    def cleanup(self):
        self.stop()
        self._owned.cleanup()
