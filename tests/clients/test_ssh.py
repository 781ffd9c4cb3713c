"""Logging in to a real OpenSSH server with hvac and by OpenBao's command line."""

import json
import os
import socket
import subprocess
import tempfile
import time
import unittest

import hvac
import hvac.exceptions

from broker import WithBroker
from directory import free_port

BAO = os.environ["BAO"]
SSHD = "/usr/sbin/sshd"
CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {dir}/host_key
HostCertificate {dir}/host_key-cert.pub
TrustedUserCAKeys {dir}/authority
RevokedKeys {dir}/revoked
AuthenticationMethods publickey
AuthorizedKeysFile none
PermitRootLogin yes
UsePAM no
PidFile none
"""


class Server:
    """One that trusts an authority for users, and shows a certificate of its own."""

    def __init__(self):
        self._owned = tempfile.TemporaryDirectory(prefix="leasehold-sshd-")
        self.dir = self._owned.name
        self.port = free_port()
        self._process = None
        self.host_key = self.make_key("host_key")

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content)

    def make_key(self, name):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", self.path(name)]
        subprocess.run(command, check=True)
        with open(self.path(name + ".pub")) as file:
            return file.read()

    def start(self, authority, certificate):
        self.write("authority", authority.encode())
        self.write("host_key-cert.pub", certificate.encode())
        self.write("revoked", b"")
        self.write("config", CONFIG.format(port=self.port, dir=self.dir).encode())
        os.makedirs("/run/sshd", exist_ok=True)
        self._process = subprocess.Popen(
            [SSHD, "-D", "-E", self.path("log"), "-f", self.path("config")]
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("sshd did not start: " + self.log())

    def log(self):
        with open(self.path("log")) as file:
            return file.read()

    def stop(self):
        if self._process:
            self._process.kill()
            self._process.wait(timeout=30)
        self._owned.cleanup()


class Ssh(WithBroker):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = hvac.Client(
            url=cls.broker.address,
            cert=cls.broker.identity("admin"),
            verify=cls.broker.path("ca.pem"),
            token=cls.broker.root_token,
        )
        cls.root.sys.enable_secrets_engine("ssh")
        cls.root.sys.enable_secrets_engine("ssh", path="hosts")
        cls.ssh = cls.root.secrets.ssh
        for mount in ["ssh", "hosts"]:
            cls.ssh.submit_ca_information(generate_signing_key=True, key_type="ed25519", mount_point=mount)
        cls.users = cls.ssh.read_public_key()["data"]["public_key"]
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)
        cls.ssh.create_role(
            name="host", key_type="ca", allow_host_certificates=True, allow_bare_domains=True,
            allowed_domains="localhost", allow_user_certificates=False, ttl="1h", mount_point="hosts",
        )
        signed = cls.ssh.sign_ssh_key(
            name="host", public_key=cls.server.host_key, cert_type="host",
            valid_principals="localhost", mount_point="hosts",
        )
        cls.server.start(cls.users, signed["data"]["signed_key"])
        cls.user_key = cls.server.make_key("user_key")

    def bao(self, *arguments):
        certificate, key = self.broker.identity("admin")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": self.server.dir,
            "BAO_ADDR": self.broker.address,
            "BAO_CACERT": self.broker.path("ca.pem"),
            "BAO_CLIENT_CERT": certificate,
            "BAO_CLIENT_KEY": key,
            "BAO_TOKEN": self.broker.root_token,
        }
        return subprocess.run(
            [BAO, *arguments], env=environment, capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def log_in(self, role, *options):
        return self.bao(
            "ssh", "-mode=ca", "-role=" + role,
            "-public-key-path=" + self.server.path("user_key.pub"),
            "-private-key-path=" + self.server.path("user_key"),
            "-host-key-mount-point=hosts", "-host-key-hostnames=localhost",
            *options,
            "root@localhost", "-p", str(self.server.port), "-o", "BatchMode=yes",
            "-o", "IdentityAgent=none", "echo", "inside",
        )

    def test_certificates(self):
        role = {
            "name": "users", "key_type": "ca", "allow_user_certificates": True,
            "allowed_users": "root,app", "default_user": "root", "ttl": "10m",
            # The command line always asks for what it could need.
            "allowed_extensions": "*", "allow_user_key_ids": True,
        }
        self.ssh.create_role(**role)
        self.assertEqual(self.ssh.read_role("users")["data"]["default_user"], "root")
        self.assertIn("users", self.ssh.list_roles()["data"]["keys"])
        login = self.log_in("users")
        self.assertEqual(login.stdout.strip(), "inside", login.stderr + self.server.log())
        with self.assertRaisesRegex(hvac.exceptions.InvalidRequest, "valid_principals"):
            self.ssh.sign_ssh_key(
                name="users", public_key=self.user_key, valid_principals="nobody"
            )

        # Taken back by what the server logged of it.
        signed = self.ssh.sign_ssh_key(
            name="users", public_key=self.user_key, key_id="laptop", valid_principals="root"
        )
        self.server.write("user_key-cert.pub", signed["data"]["signed_key"].encode())
        login = [
            "ssh", "-F", "none", "-i", self.server.path("user_key"), "-p", str(self.server.port),
            "-o", "CertificateFile=" + self.server.path("user_key-cert.pub"),
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "BatchMode=yes", "-o", "IdentityAgent=none", "root@127.0.0.1", "echo", "inside",
        ]
        tried = subprocess.run(login, capture_output=True, text=True, timeout=60)
        self.assertEqual(tried.stdout.strip(), "inside", tried.stderr)
        self.root.write_data("ssh/revoke", data={"key_id": "laptop"})
        fetched = self.root.session.get(
            self.broker.address + "/v1/ssh/krl",
            cert=self.broker.identity("admin"),
            verify=self.broker.path("ca.pem"),
        )
        self.server.write("revoked", fetched.content)
        tried = subprocess.run(login, capture_output=True, text=True, timeout=60)
        self.assertIn("Permission denied", tried.stderr)
        self.assertIn("revoked by file", self.server.log())
        # The others are not concerned.
        self.assertEqual(self.log_in("users").stdout.strip(), "inside", self.server.log())

    def test_one_time_passwords(self):
        self.ssh.create_role(
            name="otp", key_type="otp", default_user="root", cidr_list="127.0.0.0/8", ttl="5m"
        )
        self.assertEqual(self.ssh.list_roles_by_ip(ip="127.0.0.1")["data"]["roles"], ["otp"])
        made = self.ssh.generate_ssh_credentials(name="otp", username="root", ip="127.0.0.1")
        told = self.ssh.verify_ssh_otp(otp=made["data"]["key"])["data"]
        self.assertEqual((told["ip"], told["username"]), ("127.0.0.1", "root"))
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            self.ssh.verify_ssh_otp(otp=made["data"]["key"])
        # The command line asks for one, and would type it.
        shown = self.bao("ssh", "-mode=otp", "-role=otp", "-no-exec", "-format=json", "root@127.0.0.1")
        self.assertEqual(shown.returncode, 0, shown.stderr)
        password = json.loads(shown.stdout)["data"]["key"]
        self.assertEqual(self.ssh.verify_ssh_otp(otp=password)["data"]["role_name"], "otp")
        self.ssh.configure_zeroaddress_roles(roles="otp")
        self.assertEqual(self.ssh.list_zeroaddress_roles()["data"]["roles"], ["otp"])
        self.ssh.generate_ssh_credentials(name="otp", username="root", ip="192.0.2.1")
        self.ssh.delete_zeroaddress_role()
        self.ssh.delete_role("otp")


if __name__ == "__main__":
    unittest.main()
