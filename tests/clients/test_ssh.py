"""Logging in to a real OpenSSH server with hvac and by OpenBao's command line."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

import hvac
import hvac.exceptions

from broker import WithBroker
from directory import free_port
from terminal import Terminal

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

# Of a server that asks for passwords, which PAM passes on.
PASSWORDS = """
ListenAddress 127.0.0.1:{port}
HostKey {dir}/host_key
AuthenticationMethods keyboard-interactive
KbdInteractiveAuthentication yes
PermitRootLogin yes
UsePAM yes
PidFile none
"""
SERVICE = """
auth requisite pam_exec.so quiet expose_authtok {dir}/helper
auth required pam_permit.so
account required pam_permit.so
session required pam_permit.so
"""
# What is installed on a host for this: PAM says who wants to log in, and gives the password, which ends
# with a zero byte; the broker says whose it is.
HELPER = """#!/bin/sh
printf '{{"otp": "%s"}}' "$(tr -d '\\000')" |
  curl --silent --fail --cacert {ca} --cert {certificate} --key {key} --data @- {address}/v1/ssh/verify |
  grep --quiet '"username":"'"$PAM_USER"'"'
"""


class Server:
    """One that trusts an authority for users, and shows a certificate of its own."""

    program = SSHD

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
        self.begin(CONFIG)

    def begin(self, config):
        self.write("config", config.format(port=self.port, dir=self.dir).encode())
        os.makedirs("/run/sshd", exist_ok=True)
        self._process = subprocess.Popen(
            [self.program, "-D", "-E", self.path("log"), "-f", self.path("config")]
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


class PasswordServer(Server):
    """One that lets in whom a helper knows, by a PAM service of its own."""

    def __init__(self, broker):
        super().__init__()
        name = "leasehold-sshd-%d" % os.getpid()
        self._service = "/etc/pam.d/" + name
        certificate, key = broker.identity("workload")
        known = {"ca": broker.path("ca.pem"), "certificate": certificate, "key": key}
        self.write("helper", HELPER.format(address=broker.address, **known).encode())
        os.chmod(self.path("helper"), 0o755)
        with open(self._service, "w") as file:
            file.write(SERVICE.format(dir=self.dir))
        # Newer ones are told the name of their service; before, it was that of the program.
        option = ["-T", "-f", "/dev/null", "-h", self.path("host_key"), "-o", "PAMServiceName=" + name]
        told = subprocess.run([SSHD, *option], capture_output=True).returncode == 0
        if not told:
            self.program = self.path(name)
            os.symlink(SSHD, self.program)
        self.begin(PASSWORDS + ("PAMServiceName %s\n" % name) * told)

    def stop(self):
        os.remove(self._service)
        super().stop()


class Ssh(WithBroker):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = cls.broker.root()
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

    def test_a_one_time_password_opens_a_session_once(self):
        server = PasswordServer(self.broker)
        self.addCleanup(server.stop)
        for name, user in [("hosts", "root"), ("others", "app")]:
            self.ssh.create_role(
                name=name, key_type="otp", default_user=user, cidr_list="127.0.0.0/8", ttl="5m"
            )
            self.addCleanup(self.ssh.delete_role, name)

        def password(role):
            return self.ssh.generate_ssh_credentials(name=role, ip="127.0.0.1")["data"]["key"]

        options = [
            "-F", "none", "-p", str(server.port), "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "PubkeyAuthentication=no",
            "-o", "NumberOfPasswordPrompts=1", "-o", "IdentityAgent=none",
        ]

        def log_in(password):
            command = [shutil.which("ssh"), *options, "root@127.0.0.1", "echo", "inside"]
            at = Terminal(command, {"PATH": os.environ["PATH"], "HOME": server.dir})
            at.wait_for("Password:")
            at.type_unseen(password)
            return at.end(), at.shown

        once = password("hosts")
        status, shown = log_in(once)
        self.assertEqual((status, shown.split()[-1]), (0, "inside"), shown + server.log())
        # The same again, one that nobody was given, and one for somebody else.
        for refused in [once, "x" * len(once), password("others")]:
            status, shown = log_in(refused)
            self.assertEqual(status, 255, shown)
            self.assertIn("Permission denied", shown)
        self.assertEqual(server.log().count("Accepted keyboard-interactive/pam for root"), 1)

        # OpenBao's command line shows one, and leaves the typing to the person.
        certificate, key = self.broker.identity("admin")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": server.dir,
            "BAO_ADDR": self.broker.address,
            "BAO_CACERT": self.broker.path("ca.pem"),
            "BAO_CLIENT_CERT": certificate,
            "BAO_CLIENT_KEY": key,
            "BAO_TOKEN": self.broker.root_token,
        }
        own = ["-strict-host-key-checking=no", "-user-known-hosts-file=/dev/null"]
        command = [
            BAO, "ssh", "-mode=otp", "-role=hosts", *own, "root@127.0.0.1", *options, "echo", "inside",
        ]
        at = Terminal(command, environment)
        at.wait_for("Password:")
        shown = re.search(r"OTP for the session is:? *([0-9A-Za-z]+)", at.shown)
        self.assertIsNotNone(shown, at.shown)
        at.type_unseen(shown.group(1))
        self.assertEqual(at.end(), 0, at.shown + server.log())
        self.assertEqual(at.shown.split()[-1], "inside")


if __name__ == "__main__":
    unittest.main()
