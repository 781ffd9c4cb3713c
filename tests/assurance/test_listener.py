"""The listener of a live broker under a scanner, sslyze, and under handshakes that no honest client sends."""

import socket
import ssl
import struct
import sys
import unittest
import urllib.parse
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "clients"))

from sslyze import (
    ClientAuthenticationCredentials,
    ScanCommand,
    ScanCommandAttemptStatusEnum,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
)
from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.errors import TLSError

from authority import Authority
from broker import WithBroker

# As OpenSSL calls them, and as the standard does.
TLS12 = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
}
TLS13 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
CURVES = {"X25519", "secp256r1", "secp384r1"}

HANDSHAKE, ALERT, CHANGE_CIPHER_SPEC, APPLICATION_DATA = 22, 21, 20, 23
PROTOCOL_VERSION, RECORD_OVERFLOW, HANDSHAKE_FAILURE = 70, 22, 40
# Longer than the broker waits for a handshake: ten seconds.
# Longer than a handshake may take, and some for a busy machine.
PATIENCE = 90


def record(kind, content, version=0x0301):
    return struct.pack(">BHH", kind, version, len(content)) + content


def hello(version=0x0303, suites=(0x1301, 0xC02B, 0xC02C), extensions=b""):
    """A ClientHello that asks for nothing but what is needed."""
    body = struct.pack(">H", version) + bytes(32) + b"\0"
    body += struct.pack(">H", 2 * len(suites)) + b"".join(struct.pack(">H", s) for s in suites)
    body += b"\x01\x00" + struct.pack(">H", len(extensions)) + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def extension(number, content):
    return struct.pack(">HH", number, len(content)) + content


# X25519 and P-256; ECDSA on P-256; extended master secret.
FOR_TLS12 = (
    extension(10, bytes.fromhex("0004001d0017"))
    + extension(13, bytes.fromhex("00020403"))
    + extension(11, bytes.fromhex("0100"))
    + extension(23, b"")
)


class Listener(WithBroker):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        address = urllib.parse.urlparse(cls.broker.address)
        cls.place = (address.hostname, address.port)

    def tearDown(self):
        # Whatever was sent: it serves, and nothing went wrong inside.
        self.assertEqual(self.health(), 200)
        log = self.broker.read("log")
        self.assertNotIn("panicked", log)

    def context(self, chain=None, key=None, version=None):
        context = ssl.create_default_context(cafile=self.broker.path("ca.pem"))
        context.check_hostname = False
        if chain:
            context.load_cert_chain(chain, key)
        if version:
            context.minimum_version = context.maximum_version = version
        return context

    def health(self):
        context = self.context(*self.broker.identity("admin"))
        url = self.broker.address + "/v1/sys/health"
        with urllib.request.urlopen(url, context=context, timeout=PATIENCE) as answer:
            return answer.status

    def is_served(self, context):
        """Whether a request is answered at all; with TLS 1.3 a refusal comes after the handshake."""
        try:
            with socket.create_connection(self.place, PATIENCE) as plain:
                with context.wrap_socket(plain, server_hostname="localhost") as stream:
                    stream.sendall(b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n")
                    return stream.recv(12) == b"HTTP/1.1 200"
        except (ssl.SSLError, ConnectionError):
            return False

    def sent(self, *pieces):
        """What comes back when these bytes are sent, until the broker closes the connection."""
        with socket.create_connection(self.place, PATIENCE) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer = b""
            try:
                for piece in pieces:
                    plain.sendall(piece)
                while part := plain.recv(65536):
                    answer += part
            except ConnectionError:
                pass
            return answer

    def assert_alert(self, answer, *descriptions):
        """A fatal alert alone: nothing else is told."""
        kind, _, length = struct.unpack(">BHH", answer[:5])
        self.assertEqual((kind, length, len(answer)), (ALERT, 2, 7), answer)
        self.assertEqual(answer[5], 2, "fatal")
        if descriptions:
            self.assertIn(answer[6], descriptions)

    def scan(self, credentials):
        chain, key = credentials
        request = ServerScanRequest(
            ServerNetworkLocation(hostname="localhost", ip_address=self.place[0], port=self.place[1]),
            ServerNetworkConfiguration(
                "localhost",
                tls_client_auth_credentials=ClientAuthenticationCredentials(Path(chain), Path(key)),
            ),
            scan_commands=set(ScanCommand) - {ScanCommand.CERTIFICATE_INFO, ScanCommand.HTTP_HEADERS},
        )
        scanner = Scanner()
        scanner.queue_scans([request])
        (result,) = scanner.get_results()
        self.assertIsNotNone(result.scan_result, result.connectivity_error_trace)
        found = {}
        for command in request.scan_commands:
            attempt = getattr(result.scan_result, command.value)
            self.assertEqual(
                attempt.status, ScanCommandAttemptStatusEnum.COMPLETED, (command, attempt.error_trace)
            )
            found[command.value] = attempt.result
        return found

    def test_a_scanner_finds_two_protocols_few_suites_and_no_known_hole(self):
        found = self.scan(self.broker.identity("admin"))

        def suites(protocol):
            accepted = found[protocol + "_cipher_suites"].accepted_cipher_suites
            return {one.cipher_suite.name for one in accepted}

        for protocol in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
            self.assertEqual(suites(protocol), set(), protocol)
        # The scanner tries most suites without the extended master secret, which is required.
        self.assertLessEqual(suites("tls_1_2"), set(TLS12.values()))
        self.assertEqual(suites("tls_1_3"), TLS13)
        self.assertFalse(found["tls_compression"].supports_compression)
        self.assertFalse(found["tls_1_3_early_data"].supports_early_data)
        self.assertFalse(found["openssl_ccs_injection"].is_vulnerable_to_ccs_injection)
        self.assertFalse(found["heartbleed"].is_vulnerable_to_heartbleed)
        self.assertIn("NOT_VULNERABLE", found["robot"].robot_result.name)
        self.assertTrue(found["tls_extended_master_secret"].supports_ems_extension)
        renegotiation = found["session_renegotiation"]
        self.assertTrue(renegotiation.supports_secure_renegotiation)
        self.assertEqual(renegotiation.client_renegotiations_success_count, 0)
        self.assertFalse(renegotiation.is_vulnerable_to_client_renegotiation_dos)
        resumption = found["session_resumption"]
        self.assertGreater(resumption.session_id_attempted_resumptions_count, 0)
        self.assertEqual(resumption.session_id_successful_resumptions_count, 0)
        self.assertGreater(resumption.tls_ticket_attempted_resumptions_count, 0)
        self.assertEqual(resumption.tls_ticket_successful_resumptions_count, 0)
        curves = {curve.name for curve in found["elliptic_curves"].supported_curves}
        self.assertEqual(curves, CURVES)

    def test_each_suite_of_tls_1_2_is_agreed_on_and_none_of_the_others(self):
        for ciphers in (*TLS12, "ALL:!aNULL:!ECDHE", "ECDHE-ECDSA-AES256-SHA384:ECDHE+CBC"):
            version = ssl.TLSVersion.TLSv1_2
            context = self.context(*self.broker.identity("admin"), version=version)
            context.set_ciphers(ciphers + ":@SECLEVEL=0")
            self.assertEqual(self.is_served(context), ciphers in TLS12, ciphers)

    def test_nobody_is_served_without_a_certificate_that_is_trusted(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.assertTrue(
                self.is_served(self.context(*self.broker.identity("admin"), version=version))
            )
            self.assertFalse(self.is_served(self.context(version=version)), version)
            with Authority() as stranger:
                identity = stranger.issue("stranger")
                self.assertFalse(self.is_served(self.context(*identity, version=version)), version)

    def test_weak_keys_are_no_identity(self):
        with Authority(self.broker.path("ca.pem"), self.broker.path("ca.key")) as known:
            self.assertTrue(self.is_served(self.context(*known.issue("good"))))
            for algorithm in ("rsa:1024", "ec:prime192v1", "ec:secp224r1", "ec:secp256k1"):
                context = ssl.create_default_context(cafile=self.broker.path("ca.pem"))
                context.check_hostname = False
                # Our own library would otherwise refuse to show such a key.
                context.set_ciphers("DEFAULT:@SECLEVEL=0")
                context.load_cert_chain(*known.issue("weak", algorithm))
                self.assertFalse(self.is_served(context), algorithm)

    def test_long_and_fat_lists_of_certificates_are_refused(self):
        chain, key = self.broker.identity("admin")
        leaf, authority = Path(chain).read_text(), self.broker.read("ca.pem") + "\n"
        for certificates, served in ((7, True), (8, False), (100, False), (1000, False)):
            path = Path(self.broker.path("long.pem"))
            path.write_text(leaf + authority * certificates)
            self.assertEqual(self.is_served(self.context(path, key)), served, certificates)

    def test_a_certificate_whose_key_the_client_has_not_is_refused(self):
        chain, _ = self.broker.identity("admin")
        with Authority() as other:
            _, key = other.issue("other")
            self.assertTrue(self.by_hand(*self.broker.identity("admin")))
            with self.assertRaises((TLSError, ConnectionError)):
                self.by_hand(chain, key)

    def by_hand(self, chain, key, **settings):
        """A request over TLS 1.2 by tlslite, which checks nothing of what it sends."""
        with socket.create_connection(self.place, PATIENCE) as plain:
            wanted = HandshakeSettings()
            wanted.minVersion = wanted.maxVersion = (3, 3)
            for name, value in settings.items():
                setattr(wanted, name, value)
            shown = X509CertChain()
            shown.parsePemList(Path(chain).read_text())
            private = parsePEMKey(Path(key).read_text(), private=True)
            stream = TLSConnection(plain)
            stream.handshakeClientCert(shown, private, settings=wanted)
            stream.write(b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n")
            return bytes(stream.read(min=1, max=12)).startswith(b"HTTP/1.1 200")

    def test_proofs_that_could_be_replayed_on_another_connection_are_refused(self):
        # RFC 7627: TLS 1.2 without the extended master secret.
        identity = self.broker.identity("admin")
        self.assertTrue(self.by_hand(*identity))
        with self.assertRaises((TLSError, ConnectionError)):
            self.by_hand(*identity, useExtendedMasterSecret=False)

    def test_old_versions_end_in_one_alert(self):
        for version in (0x0300, 0x0301, 0x0302):
            first = record(HANDSHAKE, hello(version, extensions=FOR_TLS12), 0x0300)
            self.assert_alert(self.sent(first), PROTOCOL_VERSION)
        # Offered in the way of TLS 1.3, and as SSL 2 wrote it.
        old = extension(43, bytes.fromhex("0403020301"))
        first = record(HANDSHAKE, hello(0x0303, extensions=FOR_TLS12 + old))
        self.assert_alert(self.sent(first), PROTOCOL_VERSION)
        ssl2 = bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0")
        self.assertLessEqual(len(self.sent(ssl2 + bytes(16))), 7)

    def test_suites_without_forward_secrecy_or_authentication_are_not_agreed_on(self):
        weak = [0x0000, 0x0001, 0x0004, 0x000A, 0x002F, 0x0035, 0x003C, 0x009C, 0xC008, 0xC023]
        first = record(HANDSHAKE, hello(suites=weak, extensions=FOR_TLS12))
        self.assert_alert(self.sent(first), HANDSHAKE_FAILURE)

    def test_a_hello_in_many_pieces_is_the_same_hello(self):
        whole = hello(extensions=FOR_TLS12)
        pieces = [record(HANDSHAKE, whole[at : at + 1]) for at in range(len(whole))]
        with socket.create_connection(self.place, PATIENCE) as plain:
            for piece in pieces:
                plain.sendall(piece)
            answer = plain.recv(65536)
        self.assertEqual(answer[0], HANDSHAKE)
        self.assertEqual(answer[5], 2, "a ServerHello")

    def test_a_hello_that_does_not_end_is_not_waited_for(self):
        whole = record(HANDSHAKE, hello(extensions=FOR_TLS12))
        for length in (0, 1, 4, 5, 6, 20, len(whole) - 1):
            with socket.create_connection(self.place, PATIENCE) as plain:
                plain.sendall(whole[:length])
                plain.shutdown(socket.SHUT_WR)
                self.assertLessEqual(len(plain.recv(65536)), 7, length)
        # And when the other end stays: the time of a handshake is limited.
        self.assertLessEqual(len(self.sent(whole[:20])), 7)

    def test_what_is_no_handshake_ends_at_once(self):
        first = record(HANDSHAKE, hello(extensions=FOR_TLS12))
        for what, pieces in {
            "HTTP in clear": [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
            "zeros": [bytes(4096)],
            "ones": [b"\xff" * 4096],
            "application data first": [record(APPLICATION_DATA, b"GET / HTTP/1.1\r\n\r\n")],
            "an alert first": [record(ALERT, b"\x02\x28")],
            "a cipher change first": [record(CHANGE_CIPHER_SPEC, b"\x01")],
            "a cipher change after the hello": [first, record(CHANGE_CIPHER_SPEC, b"\x01", 0x0303)],
            "a heartbeat": [first, record(24, b"\x01\x40\x00", 0x0303)],
            "a hello within the handshake": [first, first],
            "a record that is too long": [struct.pack(">BHH", 22, 0x0301, 0x5000) + bytes(0x5000)],
            "a message that says it is huge": [record(HANDSHAKE, b"\x01\xff\xff\xff" + bytes(64))],
            "an empty hello": [record(HANDSHAKE, b"\x01\x00\x00\x00")],
            "a message of an unknown kind": [record(HANDSHAKE, b"\xfe\x00\x00\x00")],
            "empty records without end": [record(HANDSHAKE, b"")] * 2000,
        }.items():
            with self.subTest(what):
                answer = self.sent(*pieces)
                last = answer[-7:]
                self.assertTrue(not answer or last[0] == ALERT and last[5] == 2, answer[-64:])

    def test_lengths_that_lie_are_refused_wherever_they_stand(self):
        whole = bytearray(hello(extensions=FOR_TLS12))
        # Each byte of the message in turn: what is parsed is bounded by what has come.
        refused = 0
        for at in range(len(whole)):
            changed = bytearray(whole)
            changed[at] ^= 0xFF
            with socket.create_connection(self.place, PATIENCE) as plain:
                plain.sendall(record(HANDSHAKE, bytes(changed)))
                plain.shutdown(socket.SHUT_WR)
                answer = plain.recv(65536)
            self.assertTrue(not answer or answer[0] in (ALERT, HANDSHAKE), at)
            refused += not answer or answer[0] == ALERT
        self.assertGreater(refused, 20)


if __name__ == "__main__":
    unittest.main()
