"""Holds a bill of materials against the published schema of CycloneDX, and against itself."""

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def main(path):
    with open(path) as file:
        text = file.read()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        sys.exit(f"{path} is no CycloneDX 1.6: {error}")
    bom = json.loads(text)
    known = {part["bom-ref"] for part in bom["components"]}
    known.add(bom["metadata"]["component"]["bom-ref"])
    related = {relation["ref"] for relation in bom["dependencies"]}
    needed = {to for relation in bom["dependencies"] for to in relation["dependsOn"]}
    if related != known or not needed <= known:
        sys.exit(f"{path}: relations and components differ: {related ^ known | needed - known}")
    bare = [p["bom-ref"] for p in bom["components"] if not p["licenses"] or not p.get("hashes")]
    if bare:
        sys.exit(f"{path}: without licence or checksum: {bare}")
    inside = [part for p in bom["components"] for part in p.get("components", [])]
    required = sum(p["scope"] == "required" for p in bom["components"])
    print(
        f"valid: {required} crates in the program, {len(known) - 1 - required} that build it, "
        f"{len(inside)} bundled libraries"
    )


if __name__ == "__main__":
    main(sys.argv[1])
