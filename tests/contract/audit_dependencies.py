"""Looks up known vulnerabilities of the pinned versions: `make audit-dependencies`.

Exits with 1 where one is found; where the registry does not answer, says so and exits with 0.
"""

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent.parent / "constraints.txt"
LONGEST_S = 180


def main(seconds: float = LONGEST_S) -> int:
    # all versions are pinned: pip-audit needs neither pip nor their dependencies
    command = ["pip-audit", "--disable-pip", "--no-deps", "--progress-spinner", "off"]
    command += ["--timeout", "5", "--format", "json", "--requirement", str(CONSTRAINTS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        print(f"dependencies not audited: the registry did not answer within {seconds:g} s")
        return 0
    try:
        found = json.loads(done.stdout)["dependencies"]
    except ValueError:
        words = done.stderr.strip().splitlines() or ["the registry does not answer"]
        print(f"dependencies not audited: {words[-1]}")
        return 0
    checked = [one for one in found if "skip_reason" not in one]
    vulnerable = [one for one in checked if one["vulns"]]
    for one in vulnerable:
        for vuln in one["vulns"]:
            mended = ", ".join(vuln["fix_versions"]) or "no version yet"
            print(f"{one['name']} {one['version']}: {vuln['id']}, mended in {mended}")
    if not checked:
        print("dependencies not audited: the registry knows nothing of them")
        return 0
    print(
        f"{len(checked)} of {len(found)} dependencies audited, {len(vulnerable)} with known "
        "vulnerabilities"
    )
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
