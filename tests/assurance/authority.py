"""An authority that issues client certificates, good and bad, by OpenSSL."""

import subprocess
import tempfile
from pathlib import Path


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """With the certificate and key of one that exists, or new ones."""

    def __init__(self, certificate=None, key=None):
        self._dir = tempfile.TemporaryDirectory(prefix="leasehold-authority-")
        if certificate is None:
            certificate, key = self.path("ca.pem"), self.path("ca.key")
            openssl(
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", key, "-out", certificate, "-subj", "/CN=another", "-days", "2",
            )
        self._certificate, self._key = certificate, key

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._dir.cleanup()

    def path(self, name):
        return Path(self._dir.name) / name

    def issue(self, name, algorithm="ec:P-256"):
        """Paths of a certificate for clients and of its key, of such an algorithm."""
        kind, detail = algorithm.split(":")
        option = "rsa_keygen_bits" if kind == "rsa" else "ec_paramgen_curve"
        certificate, key, request, extensions = (
            self.path(name + end) for end in (".pem", ".key", ".csr", ".ext")
        )
        openssl(
            "genpkey", "-algorithm", kind.upper(), "-pkeyopt", f"{option}:{detail}", "-out", key
        )
        openssl("req", "-new", "-key", key, "-subj", "/CN=" + name, "-out", request)
        extensions.write_text(
            "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n"
            f"subjectAltName=DNS:{name}.example\n"
        )
        openssl(
            "x509", "-req", "-in", request, "-CA", self._certificate, "-CAkey", self._key,
            "-CAcreateserial", "-CAserial", self.path("serial"), "-days", "2",
            "-extfile", extensions, "-out", certificate,
        )
        return certificate, key
