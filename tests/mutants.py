"""Print how many mutants the tests killed, a row a module: after `mutmut run`, or amid it."""

import json
from collections import Counter
from pathlib import Path

from mutmut.stats import status_by_exit_code

# a mutant that hangs is found out as surely as one that fails
KILLED = ("killed", "timeout", "segfault")
ROW = "| {} | {} | {} | {} | {} |"


def main() -> None:
    print(ROW.format("module", "mutants", "killed", "survived", "score"))
    print(ROW.format("---", "---:", "---:", "---:", "---:"))
    for file in sorted(Path("mutants").rglob("*.py.meta")):
        codes = json.loads(file.read_text())["exit_code_by_key"].values()
        n = Counter(status_by_exit_code[code] for code in codes)
        n_left = n.pop("not checked", 0)
        n_killed = sum(n[status] for status in KILLED)
        module = str(file.relative_to("mutants")).removesuffix(".meta")
        score = f"{n_killed / n.total():.1%}" if n else "not run"
        print(ROW.format(module, n.total(), n_killed, n.total() - n_killed, score), end="")
        print(f" and {n_left} not run" if n_left and n else "")


if __name__ == "__main__":
    main()
