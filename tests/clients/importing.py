"""Runs `leasehold import` from a source that the tests of a class share, into a broker of each test's own."""

import json
import subprocess
import unittest

from broker import PROGRAM, Broker

# What every secret of the source begins with; it is printed nowhere.
SECRET = "hunter2-"


class Importing(unittest.TestCase):
    """A class has `bao`, the source."""

    def setUp(self):
        self.broker = self.target()
        self.addCleanup(self.broker.stop)
        self.here = self.broker.root()
        self.there = self.bao.client()

    def target(self):
        """The broker that is imported into."""
        return Broker()

    def shown(self):
        """What the source wants to see of whoever copies from it, beside a token."""
        return {}

    def visitor(self):
        """Somebody without a token."""
        return self.broker.connect()

    def start(self, *flags, token=None):
        certificate, key = self.broker.identity("admin")
        return subprocess.Popen(
            [PROGRAM, "import", "-format=json", "-from", self.bao.address, *flags],
            env={
                "HOME": self.broker.dir,
                "LEASEHOLD_ADDR": self.broker.address,
                "LEASEHOLD_CACERT": self.broker.path("ca.pem"),
                "LEASEHOLD_CLIENT_CERT": certificate,
                "LEASEHOLD_CLIENT_KEY": key,
                "LEASEHOLD_TOKEN": self.broker.root_token,
                "LEASEHOLD_FROM_CACERT": self.bao.ca,
                "LEASEHOLD_FROM_TOKEN": token or self.bao.token,
            }
            | self.shown(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process, status):
        out, err = process.communicate(timeout=300)
        self.assertEqual(process.returncode, status, out + err)
        for secret in (SECRET, self.bao.token, self.broker.root_token):
            self.assertNotIn(secret, out + err)
        return (json.loads(out) if out else None), err

    def imported(self, *flags, status=0, token=None):
        return self.finish(self.start(*flags, token=token), status)[0]

    def counts(self, report, kind):
        return next(row for row in report["counts"] if row["kind"] == kind)

    def listed(self, report, kind):
        return {row["path"]: row for row in report["not_copied"] if row["kind"] == kind}
