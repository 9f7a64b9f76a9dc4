"""Fills README's blocks that a program can write: `make docs`.

A block stands between `<!-- made by make docs: NAME -->` and `<!-- end -->`.
"""

import argparse
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

from pydantic_core import PydanticUndefined

from etl import LoadRefused, load
from service.cli import _parser
from service.gap import PARTS
from service.settings import Settings
from tests.world import make_world, write_world

README = Path(__file__).resolve().parent.parent.parent / "README.md"
_BLOCK = re.compile(r"(<!-- made by make docs: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings() -> str:
    """The settings as a table."""
    lines = ["| name | meaning | default |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        assert field.default is not PydanticUndefined
        default = "" if field.default in (None, ()) else f"`{field.default}`"
        lines.append(f"| `GAP_{name.upper()}` | {field.description} | {default} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Each command with what it is for."""
    verbs = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    width = max(len(choice.dest) for choice in verbs._choices_actions)
    lines = [f"{c.dest:{width}}  {c.help}" for c in verbs._choices_actions]
    return "\n".join(["```text", *lines, "```", ""])


def refusals() -> str:
    """What a load says to three faulty files."""
    faults: dict[str, Callable[[str], str]] = {
        "val_toy.csv": lambda text: text.replace("7.0\n", "nan\n", 2).replace("nan", "7.0", 1),
        "v2_toy.csv": lambda text: text.replace(".png,0,", ".png,1.5,", 1),
        "train_toy.csv": lambda text: text.replace("train/0/0.png", "val/0/0.png"),
    }
    said = []
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name, fault in faults.items():
            write_world(Path("features"), make_world())
            file = Path("features", name)
            file.write_text(fault(file.read_text()))
            try:
                load(Path("data"), [Path("features")])
            except LoadRefused as refused:
                words = str(refused).replace(os.path.realpath(folder) + os.sep, "")
                said.append(f"refused ({refused.code}): {words}")
    assert len(said) == len(faults)
    return "\n".join(["```text", *said, "```", ""])


def parts() -> str:
    """The parts of the answer to why a gap is there."""
    lines = ["| call | what it answers | charts |", "| --- | --- | --- |"]
    for part in PARTS.values():
        charts = ", ".join(f"`{name}`" for name in part.charts)
        lines.append(f"| `GET /gap/{{model}}/{part.name}` | {part.about} | {charts} |")
    return "\n".join(lines) + "\n"


BLOCKS = {"parts": parts, "settings": settings, "commands": commands, "refusals": refusals}


def readme() -> str:
    """README with its blocks as they would be written now."""
    return _BLOCK.sub(lambda m: m[1] + BLOCKS[m[2]]() + m[3], README.read_text(encoding="utf-8"))


if __name__ == "__main__":
    README.write_text(readme(), encoding="utf-8")
