"""Holds a bill of materials against the published schema of CycloneDX, and against itself.

    validate_sbom.py BILL [PROGRAM]

And against the program that it is of: its checksum, the crates that its symbols name, the libraries in C that it names.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

# Crates of the compiler's own, which every program has.
STANDARD = {
    "addr2line", "adler2", "alloc", "compiler_builtins", "core", "gimli", "hashbrown", "memchr", "miniz_oxide",
    "object", "panic_unwind", "rustc_demangle", "rustc_std_workspace_alloc", "std", "std_detect", "unwind",
}
# Libraries that are called otherwise than their packages.
RENAMED = {"md_5": "md5", "rustls_webpki": "webpki"}
# How C libraries tell their version inside of a program; AWS-LC does not.
TELLS = {"sqlite": r"(?<![\d.]){version}\0"}
# With fewer of the crates among the symbols, these were not read in the way they are written.
SEEN_MIN = 0.4


def names(program):
    """Crates that its symbols begin with, in either mangling."""
    symbols = subprocess.run(["nm", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = set()
    for symbol in re.findall(r" (_ZN\S+|_R\S+)$", symbols, re.M):
        crates = r"^_ZN(\d+)(\w+)" if symbol.startswith("_ZN") else r"Cs[0-9a-zA-Z]*_(\d+)([a-z_]\w*)"
        for length, rest in re.findall(crates, symbol):
            name = rest[: int(length)]
            # Others are types that something is implemented for, in the mangling of old.
            if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and not name.startswith("_"):
                found.add(name)
    return found


def hold(bom, program):
    content = program.read_bytes()
    stated = bom["metadata"]["component"].get("hashes", [])
    digest = hashlib.sha256(content).hexdigest()
    if [one["content"] for one in stated] != [digest]:
        sys.exit(f"{program} has the checksum {digest}, which is not in the bill")
    inside = {p["name"].replace("-", "_") for p in bom["components"] if p["scope"] == "required"}
    inside = {RENAMED.get(name, name) for name in inside | {"leasehold"}}
    seen = names(program)
    if strange := seen - inside - STANDARD:
        sys.exit(f"{program} has symbols of crates that are not in the bill: {sorted(strange)}")
    if len(seen & inside) < SEEN_MIN * len(inside):
        sys.exit(f"only {len(seen & inside)} of {len(inside)} crates are seen in {program}")
    for part in [part for p in bom["components"] for part in p.get("components", [])]:
        tells = TELLS.get(part["name"])
        if tells and not re.search(tells.format(version=re.escape(part["version"])).encode(), content):
            sys.exit(f"{program} has no {part['name']} {part['version']} in it")
    print(f"{len(seen & inside)} of the crates are seen in its symbols, and none besides")


def main(bill, program=None):
    text = Path(bill).read_text()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        sys.exit(f"{bill} is no CycloneDX 1.6: {error}")
    bom = json.loads(text)
    known = {part["bom-ref"] for part in bom["components"]}
    known.add(bom["metadata"]["component"]["bom-ref"])
    related = {relation["ref"] for relation in bom["dependencies"]}
    needed = {to for relation in bom["dependencies"] for to in relation["dependsOn"]}
    if related != known or not needed <= known:
        sys.exit(f"{bill}: relations and components differ: {related ^ known | needed - known}")
    bare = [p["bom-ref"] for p in bom["components"] if not p["licenses"] or not p.get("hashes")]
    if bare:
        sys.exit(f"{bill}: without licence or checksum: {bare}")
    inside = [part for p in bom["components"] for part in p.get("components", [])]
    required = sum(p["scope"] == "required" for p in bom["components"])
    print(
        f"valid: {required} crates in the program, {len(known) - 1 - required} that build it, "
        f"{len(inside)} bundled libraries"
    )
    if program:
        hold(bom, Path(program))


if __name__ == "__main__":
    main(*sys.argv[1:])
