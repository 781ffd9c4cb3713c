"""Writes crypto.json: what src/crypto must read, made without it.

Run `python3 crypto.py > crypto.json` with the `cryptography` package (OpenSSL underneath). The stored
layouts are written out here a second time, from their description, so that a change of layout in
the product fails a test instead of losing data. Everything random is derived from SHA-256 of a name.
"""

import hashlib
import hmac
import json
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

SUITES = {1: AESGCM, 2: ChaCha20Poly1305}


def fixed(name, length=32):
    return hashlib.sha256(b"leasehold test vector: " + name.encode()).digest()[:length]


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def subkey(key, info):
    """HKDF-Expand (RFC 5869, section 2.3) to one block."""
    return mac(key, info + b"\x01")


def u(value, length):
    return value.to_bytes(length, "big")


def seal(suite, key, nonce, aad, plaintext):
    return SUITES[suite](key).encrypt(nonce, plaintext, aad)


# --- keyring: two terms, one of each suite --------------------------------------------------------

ROOT, SEED, GENERATION = fixed("root key"), fixed("seed"), 41
TERMS = [(1, 1, 1_700_000_000_000, 7, fixed("kek 1")), (2, 2, 1_800_000_000_000, 9, fixed("kek 2"))]


def keyring():
    plain = SEED
    for number, suite, created, encryptions, kek in TERMS:
        plain += u(number, 4) + u(suite, 1) + u(created, 8) + u(encryptions, 8) + kek
    suite = TERMS[-1][1]
    header, nonce = bytes([1, suite]), fixed("keyring nonce", 12)
    key = subkey(ROOT, b"leasehold/v1/root-key/keyring" + bytes([suite]))
    aad = b"leasehold/v1/keyring" + header + u(GENERATION, 8)
    return header + nonce + seal(suite, key, nonce, aad, plain)


def wrapped_root(suite, unseal_key, context):
    header, nonce = bytes([1, suite]), fixed(f"root nonce {suite}", 12)
    key = subkey(unseal_key, b"leasehold/v1/unseal-key/root-key" + bytes([suite]))
    aad = b"leasehold/v1/unseal-key/root-key" + header + context
    return header + nonce + seal(suite, key, nonce, aad, ROOT)


# --- records ----------------------------------------------------------------------------------------


def record(term, body_suite, context, plaintext):
    number, wrap_suite, _, _, kek = TERMS[term - 1]
    header = bytes([1, body_suite]) + u(number, 4)
    data_key = fixed(f"data key {term} {body_suite}")
    nonce = fixed(f"wrap nonce {term} {body_suite}", 12)
    place = (
        u(context["namespace"], 4)
        + u(context["kind"], 2)
        + bytes.fromhex(context["parent"])
        + bytes.fromhex(context["name"])
        + u(context["rev"], 8)
    )
    wrapped = seal(
        wrap_suite, kek, nonce, b"leasehold/v1/record/data-key" + header + place, data_key
    )
    body_aad = b"leasehold/v1/record/body" + header[:2] + place
    return header + nonce + wrapped + seal(body_suite, data_key, bytes(12), body_aad, plaintext)


def tag(namespace, kind, purpose, text):
    key = subkey(SEED, b"leasehold/v1/blind-index")
    message = u(namespace, 4) + u(kind, 2) + u(purpose, 1) + u(len(text), 8) + text
    return mac(key, message)[:16]


# --- Shamir's sharing, by tables of logarithms to the base 3 --------------------------------------

EXP, LOG = [0] * 510, [0] * 256
value = 1
for power in range(255):
    EXP[power] = EXP[power + 255] = value
    LOG[value] = power
    double = value << 1
    value ^= double ^ (0x11B if double & 0x100 else 0)


def times(a, b):
    return EXP[LOG[a] + LOG[b]] if a and b else 0


def shares(secret, threshold, points):
    """Also the coefficients, byte by byte of the secret, from x^1 upwards."""
    stream = b"".join(fixed(f"coefficients {threshold} {i}") for i in range(64))
    coefficients = stream[: len(secret) * (threshold - 1)]
    out = []
    for x in points:
        share = b""
        for i, byte in enumerate(secret):
            y, x_power = byte, 1
            for c in coefficients[i * (threshold - 1) : (i + 1) * (threshold - 1)]:
                x_power = times(x_power, x)
                y ^= times(c, x_power)
            share += bytes([y])
        out.append(share + bytes([x]))
    return coefficients, out


def sharing(threshold, points):
    secret = fixed(f"secret {threshold}")
    coefficients, made = shares(secret, threshold, points)
    return {
        "threshold": threshold,
        "secret": secret.hex(),
        "coefficients": coefficients.hex(),
        "points": bytes(points).hex(),
        "shares": [share.hex() for share in made],
    }


CONTEXT = {
    "namespace": 3,
    "kind": 258,
    "parent": fixed("parent", 16).hex(),
    "name": fixed("name", 16).hex(),
    "rev": 0x0102030405060708,
}
LABELS = [
    "blind-index", "token-hash", "audit-hmac", "audit-chain", "batch-token", "checksum", "login-state",
]
TEXT = "database/creds/läse"

json.dump(
    {
        "root": ROOT.hex(),
        "generation": GENERATION,
        "keyring": keyring().hex(),
        "wrapped_roots": [
            {
                "unseal_key": fixed("unseal key").hex(),
                "context": b"slot 1".hex(),
                "wrapped": wrapped_root(suite, fixed("unseal key"), b"slot 1").hex(),
            }
            for suite in SUITES
        ],
        "subkeys": {label: subkey(SEED, b"leasehold/v1/" + label.encode()).hex() for label in LABELS},
        "text": TEXT,
        "tags": [tag(3, 258, purpose, TEXT.encode()).hex() for purpose in (1, 2, 3)],
        "token_hash": mac(subkey(SEED, b"leasehold/v1/token-hash"), TEXT.encode()).hex(),
        "audit": "hmac-sha256:" + mac(subkey(SEED, b"leasehold/v1/audit-hmac"), TEXT.encode()).hex(),
        "context": CONTEXT,
        "records": [
            {
                "term": term,
                "plaintext": plaintext.hex(),
                "sealed": record(term, suite, CONTEXT, plaintext).hex(),
            }
            for term in (1, 2)
            for suite in SUITES
            for plaintext in (b"", b"hunter2" * 9)
        ],
        "sharings": [
            sharing(2, [1, 255]),
            sharing(3, [5, 250, 1, 77, 128]),
            sharing(7, [9, 8, 7, 6, 5, 4, 3, 2]),
        ],
    },
    sys.stdout,
    indent=1,
)
print()
