"""Which file is which split of which backbone, and which two splits the gap lies between."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etl.errors import NotCsv, SourceName, SourceNotFound

# test set 1 under the names that people give it, in the order of preference
REFERENCE_NAMES = ("val", "test1", "test_1", "seen")

_OTHER_KINDS = {
    **dict.fromkeys((".gz", ".zip", ".zst", ".xz", ".bz2", ".tgz", ".tar"), "Unpack it"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "Export the sheet as CSV"),
    **dict.fromkeys((".parquet", ".npy", ".npz", ".tsv"), "Write it as CSV"),
}
CLASSES_SUFFIX = ".classes.csv"  # class names that `gapscope extract` writes beside its features
_NAME = r"[A-Za-z0-9][A-Za-z0-9.+-]*"
_FILE = re.compile(rf"(?P<split>test_\d+|{_NAME})_(?P<backbone>[\w.+-]+)\.csv", re.IGNORECASE)
_OPTION = re.compile(r"(?P<split>[\w.+-]+)(:(?P<backbone>[\w.+-]+))?=(?P<file>.+)")


@dataclass(frozen=True)
class Source:
    """One feature file: the rows of one split in the features of one backbone."""

    split: str
    backbone: str
    file: Path

    @property
    def role(self) -> str:
        """`train` for the split of that name, else `test`."""
        return role_of(self.split)


def role_of(split: str) -> str:
    """Role of a split by its name: only `train` may teach a head.

    Examples
    --------
    >>> role_of("train"), role_of("val")
    ('train', 'test')
    """
    return "train" if split == "train" else "test"


def check_split(split: str, file: Path) -> str:
    """Return the split, unless it only looks like train: its rows would silently become a test set.

    Raises
    ------
    SourceName
    """
    if split != "train" and re.fullmatch(r"train(ing|set|_set)?", split, re.IGNORECASE):
        raise SourceName(
            "the split of the rows that may teach a head to be called train",
            f"{split!r}, which would be a test set",
            f"Rename the file to train_…, or say it: --split train:BACKBONE={file}.",
            file=file,
        )
    return split


def parse_name(name: str) -> tuple[str, str] | None:
    """Split and backbone that a file's name tells, or None where it tells neither.

    The split is what stands before the first underscore; `testv2_…`, the default name that the
    ImageNetV2 validation script writes, means `v2_…`, and `test_1_…` is a split named `test_1`.

    Examples
    --------
    >>> parse_name("train_eva02_large_patch14_448.mim_m38m_ft_in22k_in1k.csv")
    ('train', 'eva02_large_patch14_448.mim_m38m_ft_in22k_in1k')
    >>> parse_name("testv2_efficientformerv2_s0.snap_dist_in1k.csv")
    ('v2', 'efficientformerv2_s0.snap_dist_in1k')
    >>> parse_name("classes.csv") is None, parse_name("val_x.classes.csv") is None
    (True, True)
    """
    match = _FILE.fullmatch(name)
    if match is None or name.lower().endswith(CLASSES_SUFFIX):
        return None
    split = match["split"]
    return ("v2" if split.lower() == "testv2" else split), match["backbone"]


def find_sources(
    places: Sequence[Path], explicit: Sequence[str] = ()
) -> tuple[list[Source], list[str]]:
    """Feature files in files and folders, plus those named as `SPLIT[:BACKBONE]=FILE`.

    Returns
    -------
    sources, notes
        `notes` names the CSV files of a folder that were passed over, and why.

    Raises
    ------
    SourceNotFound, SourceName
        A place is absent or holds nothing to load; a name tells no split; two files claim one part.
    """
    sources: list[Source] = []
    notes: list[str] = []
    for place in places:
        if place.is_dir():
            found, passed = _in_folder(place)
            sources += found
            notes += passed
        else:
            sources.append(_of_file(place))
    sources += [_of_option(option) for option in explicit]
    taken: dict[tuple[str, str], Path] = {}
    for source in sources:
        other = taken.setdefault((source.split, source.backbone), source.file)
        if other.resolve() != source.file.resolve():
            raise SourceName(
                f"one file for split {source.split!r} of backbone {source.backbone!r}",
                f"{other} and {source.file}",
                "Name one of them, or give the other another split: --split NAME:BACKBONE=FILE.",
            )
    return list({(s.split, s.backbone): s for s in sources}.values()), notes


def default_reference(test_splits: Sequence[str]) -> str | None:
    """Test set 1 where nobody named it: by its usual names, else the first that was loaded.

    Examples
    --------
    >>> default_reference(["v2", "val"])
    'val'
    >>> default_reference(["photo", "art"])
    'photo'
    """
    for name in REFERENCE_NAMES:
        if name in test_splits:
            return name
    return test_splits[0] if test_splits else None


def gap_ends(test_splits: Sequence[str], reference: str | None) -> tuple[str | None, str | None]:
    """Return default reference and target among the test splits of one backbone, in load order.

    Examples
    --------
    >>> gap_ends(["v2", "val"], "seen")
    ('val', 'v2')
    >>> gap_ends(["val"], "val")
    ('val', None)
    """
    first = reference if reference in test_splits else default_reference(test_splits)
    return first, next((split for split in test_splits if split != first), None)


def _in_folder(folder: Path) -> tuple[list[Source], list[str]]:
    found, notes = [], []
    for file in sorted(folder.glob("*.[cC][sS][vV]")):
        named = parse_name(file.name)
        if file.name.lower().endswith(CLASSES_SUFFIX):
            notes.append(f"{file.name} holds class names: give it as --classes to load them")
        elif named is None:
            notes.append(f"{file.name} ignored: its name is not <split>_<backbone>.csv")
        else:
            found.append(Source(check_split(named[0], file), named[1], file))
    if not found:
        raise SourceNotFound(
            "a folder with files named <split>_<backbone>.csv",
            "no such file in it (packed files and other formats are not read)",
            "Name the folder that holds the feature files, or one file: --split NAME=FILE.",
            file=folder,
        )
    return found, notes


def _of_file(file: Path) -> Source:
    named = parse_name(file.name)
    if not file.exists():
        raise SourceNotFound(
            "a feature file or a folder of them", "nothing there", "Check the path.", file=file
        )
    if file.suffix.lower() in _OTHER_KINDS:
        raise NotCsv(
            "a CSV text file",
            f"a file called {file.name}",
            f"{_OTHER_KINDS[file.suffix.lower()]}, and load the .csv file.",
            file=file,
        )
    if named is None:
        raise SourceName(
            "a name like val_eva02.csv (<split>_<backbone>.csv)",
            file.name,
            f"Rename it, or say it: --split NAME:BACKBONE={file}.",
            file=file,
        )
    return Source(check_split(named[0], file), named[1], file)


def _of_option(option: str) -> Source:
    match = _OPTION.fullmatch(option)
    if match is None:
        raise SourceName(
            "--split NAME[:BACKBONE]=FILE",
            f"--split {option}",
            "For example --split val:eva02=f.csv.",
        )
    file = Path(match["file"])
    named = parse_name(file.name)
    backbone = match["backbone"] or (named[1] if named else None)
    if backbone is None:
        raise SourceName(
            "the backbone of this file",
            f"neither a name in --split {option} nor one in the file's name",
            f"Say it: --split {match['split']}:BACKBONE={file}.",
            file=file,
        )
    return Source(check_split(match["split"], file), backbone, file)
