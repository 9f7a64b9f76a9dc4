"""Which file is which split of which backbone, and which two splits the gap lies between."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from etl.errors import ArchiveMember, NotCsv, SourceName, SourceNotFound
from etl.streams import ARCHIVES, members

JOIN = "+"  # between the names of backbones whose features are read side by side
# test set 1 under the names that people give it, in the order of preference
REFERENCE_NAMES = ("val", "test1", "test_1", "seen")

# what a feature file may be: text, text packed as a whole, a table, arrays
TEXTS = (".csv", ".csv.gz", ".csv.zst")
TABLES = (".parquet", ".npy", ".npz", ".safetensors")
_KINDS = "csv, .csv.gz, .csv.zst, .parquet, .npy, .npz, .safetensors, or a .zip or .tar.gz of CSVs"
_TODO = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "Export the sheet as CSV"),
    ".tsv": "Write it with commas as .csv",
    ".gz": "Name it .csv.gz",
    ".zst": "Name it .csv.zst",
}
LABELS_SUFFIX = ".labels.csv"  # labels and paths beside a file of arrays
CLASSES_SUFFIX = ".classes.csv"  # class names that `gapscope extract` writes beside its features
_NAME = r"[A-Za-z0-9][A-Za-z0-9.+-]*"
_FILE = re.compile(
    rf"(?P<split>test_\d+|{_NAME})_(?P<backbone>[\w.+-]+?)"
    rf"(?P<kind>{'|'.join(re.escape(kind) for kind in (*TEXTS, *TABLES, *ARCHIVES))})",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(?P<split>[\w.+-]+)(:(?P<backbone>[\w.+-]+))?=(?P<file>.+)")


@dataclass(frozen=True)
class Source:
    """One feature file: the rows of one split in the features of one backbone."""

    split: str
    backbone: str
    file: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """The file in full, with `::member` where it lies in an archive."""
        file = os.path.realpath(self.file)  # resolve() fails on a loop
        return file if self.member is None else f"{file}::{self.member}"

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


def is_like_train(split: str) -> bool:
    """Whether a split is train, or called so that it may be meant."""
    return re.fullmatch(r"train(ing|set|_set)?", split, re.IGNORECASE) is not None


def check_split(split: str, file: Path) -> str:
    """Return the split, unless it only looks like train: its rows would silently become a test set.

    Raises
    ------
    SourceName
    """
    if split != "train" and is_like_train(split):
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
    >>> parse_name("val_x.csv.gz"), parse_name("val_x.npy")
    (('val', 'x'), ('val', 'x'))
    >>> [parse_name(name) for name in ("classes.csv", "val_x.labels.csv", "val_x.classes.csv")]
    [None, None, None]
    """
    match = _FILE.fullmatch(name)
    if match is None or name.lower().endswith((LABELS_SUFFIX, CLASSES_SUFFIX)):
        return None
    split = match["split"]
    return ("v2" if split.lower() == "testv2" else split), match["backbone"]


def find_sources(
    places: Sequence[Path], explicit: Sequence[str] = (), classes: Path | None = None
) -> tuple[list[Source], list[str]]:
    """Feature files in files and folders, plus those named as `SPLIT[:BACKBONE]=FILE`.

    Parameters
    ----------
    classes
        The file of class names, which may lie in one of the folders.

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
            found, passed = _in_folder(place, classes)
            sources += found
            notes += passed
        else:
            sources += _of_file(place)
    for option in explicit:
        sources += _of_option(option)
    taken: dict[tuple[str, str], Source] = {}
    for source in sources:
        other = taken.setdefault((source.split, source.backbone), source)
        if other.name != source.name:
            raise SourceName(
                f"one file for split {source.split!r} of backbone {source.backbone!r}",
                f"{other.name} and {source.name}",
                "Name one of them, or give the other another split: --split NAME:BACKBONE=FILE.",
            )
    return list(taken.values()), notes


def refuse_names_alike(sources: Sequence[Source], kept: Sequence[str]) -> None:
    """Refuse a backbone that the database would take for another one.

    Its tables know no capital letters, and `a+b` are the features of `a` and `b` side by side.

    Raises
    ------
    SourceName
    """
    names = {*kept, *(source.backbone for source in sources)}
    for source in sources:
        mine = source.backbone
        alike = [name for name in names if name != mine and name.lower() == mine.lower()]
        joined = [name for name in names if JOIN in name and {*name.split(JOIN)} < names]
        if alike or joined:
            raise SourceName(
                "backbones whose names differ in more than capital letters, and none called as two "
                f"others joined by {JOIN}",
                f"{alike[0]!r} and {mine!r}" if alike else f"{joined[0]!r} beside its parts",
                f"Give it another name: --split {source.split}:BACKBONE={source.file}.",
                file=source.file,
            )


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


def _in_folder(folder: Path, classes: Path | None) -> tuple[list[Source], list[str]]:
    found: list[Source] = []
    notes = []
    for file in sorted(folder.iterdir()):
        if classes is not None and file.resolve() == classes.resolve():
            continue
        named = parse_name(file.name)
        if named is not None:
            found += _of_named(file, *named)
        elif file.suffix.lower() == ".zip":  # its table of contents is quickly read
            try:
                found += _of_members(file, None, None)
            except ArchiveMember as refused:
                notes.append(f"{file.name} ignored: {refused}")
        elif file.name.lower().endswith(CLASSES_SUFFIX):
            notes.append(f"{file.name} holds class names: give it as --classes to load them")
        elif file.suffix.lower() == ".csv" and not file.name.lower().endswith(LABELS_SUFFIX):
            notes.append(f"{file.name} ignored: its name is not <split>_<backbone>.csv")
    if not found:
        raise SourceNotFound(
            f"a folder with files named <split>_<backbone> (.{_KINDS})",
            "no such file in it",
            "Name the folder that holds the feature files, or one file: --split NAME=FILE.",
            file=folder,
        )
    return found, notes


def _of_file(file: Path) -> list[Source]:
    named = parse_name(file.name)
    if not file.exists():
        raise SourceNotFound(
            "a feature file or a folder of them", "nothing there", "Check the path.", file=file
        )
    if named is not None:
        return _of_named(file, *named)
    if _is_archive(file):
        return _of_members(file, None, None)
    _refuse_other_kind(file)
    raise SourceName(
        "a name like val_eva02.csv (<split>_<backbone>.csv)",
        file.name,
        f"Rename it, or say it: --split NAME:BACKBONE={file}.",
        file=file,
    )


def _refuse_other_kind(file: Path) -> None:
    if not file.name.lower().endswith((*TEXTS, *TABLES, *ARCHIVES)):
        todo = _TODO.get(file.suffix.lower(), "Write it as CSV")
        raise NotCsv(
            f"a feature file (.{_KINDS})",
            f"a file called {file.name}",
            f"{todo}, and load that.",
            file=file,
        )


def _is_archive(file: Path) -> bool:
    return file.name.lower().endswith(ARCHIVES)


def _of_named(file: Path, split: str, backbone: str) -> list[Source]:
    if _is_archive(file):
        return _of_members(file, split, backbone)
    return [Source(check_split(split, file), backbone, file)]


def _of_members(file: Path, split: str | None, backbone: str | None) -> list[Source]:
    """CSV files in an archive: by their own names, or a single one by the archive's name.

    Raises
    ------
    ArchiveMember
        It holds none, or one that is encrypted, a link or a device.
    """
    found: list[Source] = []
    texts = [
        (member, PurePosixPath(member.name.replace("\\", "/")).name)
        for member in members(file)
        if member.name.lower().endswith(".csv")
    ]
    texts = [(m, name) for m, name in texts if not name.startswith("._")]  # what macOS adds
    for member, name in texts:
        named = parse_name(name)
        if named is None and len(texts) == 1 and split is not None and backbone is not None:
            named = split, backbone
        if named is None:
            continue
        if member.trouble is not None or not member.name.isprintable():
            raise ArchiveMember(
                "plain files in the archive",
                f"{member.name!r}, which is {member.trouble or 'not a printable name'}",
                "Pack the file itself, without a password.",
                file=file,
            )
        if any((other.split, other.backbone) == named for other in found):
            raise ArchiveMember(
                "each feature file once in the archive",
                f"{name!r} twice",
                "Pack the right one alone.",
                file=file,
            )
        found.append(Source(check_split(named[0], file), named[1], file, member.name))
    if not found:
        raise ArchiveMember(
            "a file named <split>_<backbone>.csv in the archive",
            ", ".join(repr(name[:60]) for _, name in texts[:5]) or "none that ends in .csv",
            "Pack the CSV file itself (no archive inside an archive), under such a name.",
            file=file,
        )
    return found


def _of_option(option: str) -> list[Source]:
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
    split = check_split(match["split"], file)
    if file.suffix.lower() in _TODO:
        _refuse_other_kind(file)
    if not _is_archive(file):
        return [Source(split, backbone, file)]
    inside = _of_members(file, split, backbone)
    if len(inside) > 1:
        raise ArchiveMember(
            f"one feature file in the archive, for --split {match['split']}",
            f"{len(inside)}",
            "Name the archive without --split: its members are loaded by their names.",
            file=file,
        )
    return [Source(split, backbone, file, inside[0].member)]


def choose_reference(splits: list[str], asked: str | None, before: str | None) -> str | None:
    """Test set 1 of some splits: the one asked for, now or before, else the default.

    Raises
    ------
    SourceName
        No test split has the name that was asked for.
    """
    tests = [split for split in splits if role_of(split) == "test"]
    if asked is not None and asked not in tests:
        raise SourceName(
            f"a test split as --reference (here: {', '.join(tests) or 'none'})",
            asked,
            "Name one of them.",
        )
    if asked is not None:
        return asked
    return before if before in tests else default_reference(tests)
