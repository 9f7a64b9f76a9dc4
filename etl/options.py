"""The options of `load`, apart from what it imports: help must not take seconds."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `load`."""
    parser.add_argument(
        "sources",
        nargs="*",
        type=Path,
        metavar="SOURCE",
        help="feature files <split>_<backbone>.csv, or folders of them",
    )
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME[:BACKBONE]=FILE",
        help="a file whose name does not say its split and backbone",
    )
    parser.add_argument("--reference", metavar="NAME", help="test set 1 (default: val, test1, …)")
    parser.add_argument(
        "--paths-from",
        metavar="BACKBONE",
        help="take the paths of this backbone, row by row, for files without a path column",
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="class names: label,name[,superclass]"
    )
    parser.add_argument("--replace", action="store_true", help="forget what is loaded already")
