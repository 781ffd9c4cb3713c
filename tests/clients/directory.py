"""A real LDAP directory: OpenLDAP's slapd in a directory of its own."""

import os
import socket
import subprocess
import tempfile
import time

CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {dir}/pid
database mdb
maxsize 33554432
suffix "dc=example,dc=org"
directory {dir}/data
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=broker,dc=example,dc=org" read by * none
"""

ENTRIES = """dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: cn=broker,dc=example,dc=org
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: broker
userPassword: broker-secret

dn: uid=ann,dc=example,dc=org
objectClass: inetOrgPerson
cn: Ann
sn: Archer
uid: ann
userPassword: ann-secret

dn: cn=Operators,dc=example,dc=org
objectClass: groupOfNames
cn: Operators
member: uid=ann,dc=example,dc=org
"""

PROGRAM = "/usr/sbin/slapd"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("nobody listens on port %d" % port)


class Directory:
    def __init__(self):
        self._owned = tempfile.TemporaryDirectory(prefix="leasehold-directory-")
        path = lambda name: os.path.join(self._owned.name, name)
        os.mkdir(path("data"))
        with open(path("slapd.conf"), "w") as file:
            file.write(CONFIG.format(dir=self._owned.name))
        with open(path("entries.ldif"), "w") as file:
            file.write(ENTRIES)
        subprocess.run(
            [PROGRAM, "-Ta", "-f", path("slapd.conf"), "-l", path("entries.ldif")], check=True
        )
        self.port = free_port()
        self._process = subprocess.Popen(
            [PROGRAM, "-f", path("slapd.conf"), "-h", self.url, "-d", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self.port, self._process)

    @property
    def url(self):
        return "ldap://127.0.0.1:%d" % self.port

    def stop(self):
        self._process.terminate()
        self._process.wait(timeout=30)
        self._owned.cleanup()
