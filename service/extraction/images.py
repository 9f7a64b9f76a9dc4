"""Which images a folder holds, and which labels they have."""

import csv
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from etl.cells import label_fault, path_fault
from etl.sources import CLASSES_SUFFIX, parse_name
from service.errors import BadImages, ClassesDisagree

ENDINGS = (
    ".jpeg", ".jpg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
# columns in the order in which they are looked for
_FOLDER_COLUMNS = ("folder", "wnid", "name")
_FILE_COLUMNS = ("path", "file", "filename", "image")


@dataclass(frozen=True)
class ImageClass:
    """One class: its label, its name for people, and the name of its folder."""

    label: int
    name: str
    folder: str


@dataclass(frozen=True)
class ImageList:
    """The images of one split in a fixed order: by label, then by name.

    Attributes
    ----------
    folder : where they lie
    files : path of each in the folder
    paths : path of each in the feature file
    labels : label of each
    classes : the mapping, by label
    notes : what was passed over, in sentences
    """

    folder: Path
    files: list[str]
    paths: list[str]
    labels: list[int]
    classes: list[ImageClass]
    notes: list[str]

    def digest(self) -> str:
        """SHA-256 of paths, labels and file sizes: tells another list, or other files in it."""
        digest = hashlib.sha256()
        for file, path, label in zip(self.files, self.paths, self.labels, strict=True):
            digest.update(f"{path}\0{label}\0{_size(self.folder, file)}\n".encode())
        return digest.hexdigest()


def find_images(
    folder: Path, *, prefix: str, labels: Path | None = None, classes: Path | None = None
) -> ImageList:
    """Images of a folder with one folder a class, or of a flat folder with a file of labels.

    Parameters
    ----------
    prefix
        What stands before each path in the feature file, usually the split: ImageNet's own names
        are train/n01440764/n01440764_18.JPEG; empty for ImageNetV2's, 0/….jpeg.
    labels
        CSV with columns `path` (in the folder; or file, filename, image) and `label`: a class
        number, or the name of a class.
    classes
        CSV with columns `label` and `folder` (or wnid, or name): the mapping that all splits share.

    Raises
    ------
    BadImages
        No images, no labels, a class that the mapping lacks, names that no feature file may hold.
    """
    if not folder.is_dir():
        raise BadImages(f"wanted a folder of images, got {folder}. Check the path.")
    given = None if classes is None else _read_classes(classes)
    if labels is not None:
        found = _labelled(folder, labels, given)
    else:
        found = _in_class_folders(folder, given)
    rows, mapping, notes = found
    if not rows:
        raise BadImages(
            f"wanted images ({', '.join(ENDINGS)}) in {folder}, found none. Check the path."
        )
    rows.sort()
    front = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    paths = [front + path for _, path, _ in rows]
    for path in paths:
        if path_fault(path) is not None or not _is_utf8(path):
            raise BadImages(
                f"wanted file names in UTF-8 without control characters, got {path!r}. "
                "Rename the file."
            )
    return ImageList(
        folder, [file for *_, file in rows], paths, [label for label, *_ in rows], mapping, notes
    )


def class_labels(folders: Iterable[str]) -> dict[str, int]:
    """Label of each class folder: the number that it is, else its place among the sorted names.

    Raises
    ------
    BadImages
        Two folders are one number.

    Examples
    --------
    >>> class_labels(["10", "9", "0"])
    {'0': 0, '9': 9, '10': 10}
    >>> class_labels(["n01443537", "n01440764"])
    {'n01440764': 0, 'n01443537': 1}
    """
    names = sorted(folders)
    if not all(name.isascii() and name.isdecimal() for name in names):
        return {name: label for label, name in enumerate(names)}
    numbers = {name: int(name) for name in sorted(names, key=int)}
    if len(set(numbers.values())) < len(numbers):
        twice = next(n for n in numbers if [*numbers.values()].count(numbers[n]) > 1)
        raise BadImages(
            f"wanted each class number once, got the folder {twice!r} and another of the same "
            "number. Rename one, or give --classes."
        )
    return numbers


def write_classes(classes: Sequence[ImageClass]) -> str:
    """Return the mapping as CSV text: label, name, folder; `gapscope load --classes` reads it."""
    lines = [["label", "name", "folder"], *([str(c.label), c.name, c.folder] for c in classes)]
    return "".join(",".join(_cell(cell) for cell in line) + "\n" for line in lines)


def check_classes(out: Path, split: str, backbone: str, classes: Sequence[ImageClass]) -> None:
    """Refuse a mapping that disagrees with that of another split of the same backbone.

    Folders that are numbers are labels as they stand; between them and names there is nothing to
    compare.

    Raises
    ------
    ClassesDisagree
    """
    mine = {c.folder: c.label for c in classes}
    for file in sorted(out.glob(f"*{CLASSES_SUFFIX}")):
        named = parse_name(file.name.removesuffix(CLASSES_SUFFIX) + ".csv")
        if named is None or named[1] != backbone or named[0] == split:
            continue
        theirs = {c.folder: c.label for c in _read_classes(file)}
        if _are_numbers(mine) or _are_numbers(theirs):
            continue
        folder_of = {label: folder for folder, label in theirs.items()}
        for folder, label in mine.items():
            if theirs.get(folder, label) != label or folder_of.get(label, folder) != folder:
                raise ClassesDisagree(
                    f"wanted the labels of split {named[0]!r} ({file}: label {label} is "
                    f"{folder_of.get(label, 'no class')!r}), got {folder!r} as label {label}. A "
                    f"class folder is absent in one of them: give both --classes {file}, or a "
                    "file that has all classes."
                )


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _size(folder: Path, file: str) -> int:
    try:
        return os.stat(f"{folder}/{file}").st_size  # noqa: PTH116 (a million of them)
    except OSError:  # a link to nothing: found unreadable when its turn comes
        return -1


def _in_class_folders(
    folder: Path, given: list[ImageClass] | None
) -> tuple[list[tuple[int, str, str]], list[ImageClass], list[str]]:
    inside = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    folders = [entry.name for entry in inside if entry.is_dir()]
    loose = sum(entry.name.lower().endswith(ENDINGS) for entry in inside if entry.is_file())
    if not folders:
        raise BadImages(
            f"wanted one folder a class in {folder}, found {loose} images and no folder. Give "
            "their labels: --labels FILE, a CSV with the columns path and label."
        )
    mapping = _mapping(folders, given, f"class folders in {folder}")
    label_of = {c.folder: c.label for c in mapping}
    rows: list[tuple[int, str, str]] = []
    n_other, empty = 0, []
    for name in folders:
        n_before = len(rows)
        for place, subfolders, files in os.walk(folder / name):
            subfolders[:] = [s for s in subfolders if not s.startswith(".")]
            inner = Path(place).relative_to(folder).as_posix()
            for file in files:
                if file.lower().endswith(ENDINGS) and not file.startswith("."):
                    path = f"{inner}/{file}"
                    rows.append((label_of[name], path, path))
                else:
                    n_other += 1
        if len(rows) == n_before:
            empty.append(name)
    notes = []
    if loose:
        notes.append(f"{loose} images beside the class folders were passed over")
    if n_other:
        notes.append(f"{n_other} files that are no images were passed over")
    if empty:
        notes.append(f"{len(empty)} class folders hold no image: {_few(sorted(empty))}")
    return rows, mapping, notes


def _labelled(
    folder: Path, labels: Path, given: list[ImageClass] | None
) -> tuple[list[tuple[int, str, str]], list[ImageClass], list[str]]:
    column, table = _read(labels, _FILE_COLUMNS, "--labels")
    are_numbers = all(label_fault(row["label"]) is None for row in table)
    if are_numbers and given is None:
        used = sorted({int(row["label"]) for row in table})
        mapping = [ImageClass(label, str(label), str(label)) for label in used]
    elif are_numbers:
        mapping = given or []
        if unknown := {int(row["label"]) for row in table} - {c.label for c in mapping}:
            raise BadImages(
                f"wanted labels of --classes in {labels}, got {_few(sorted(unknown))}. Add them."
            )
    else:
        mapping = _mapping({row["label"] for row in table}, given, f"classes in {labels}")
    by_name = {str(c.label) if are_numbers else c.folder: c for c in mapping}
    # as the class folder of ImageNet's own names, where a flat folder lost it
    has_folders = not are_numbers or given is not None
    rows = []
    for row in table:
        file = row[column]
        place = PurePosixPath(file)
        if place.is_absolute() or ".." in place.parts or not (folder / file).is_file():
            raise BadImages(
                f"wanted images in {folder}, got {file!r} in {labels}, which is not there. "
                f"The column {column} holds paths in that folder."
            )
        found = by_name[str(int(row["label"])) if are_numbers else row["label"]]
        is_bare = len(place.parts) == 1
        path = f"{found.folder}/{file}" if has_folders and is_bare else file
        rows.append((found.label, path, file))
    if len({file for *_, file in rows}) < len(rows):
        raise BadImages(f"wanted each image once in {labels}, got some twice. Remove the copies.")
    n_there = sum(
        name.lower().endswith(ENDINGS) for _, _, files in os.walk(folder) for name in files
    )
    left = n_there - len(rows)
    return rows, mapping, [f"{left} images without a label were passed over"] if left > 0 else []


def _mapping(folders: Iterable[str], given: list[ImageClass] | None, what: str) -> list[ImageClass]:
    names = set(folders)
    if given is None:
        return [ImageClass(label, name, name) for name, label in class_labels(names).items()]
    known = {c.folder for c in given}
    if names <= known:
        return given
    if _are_numbers(class_labels(names)):  # ImageNetV2's folders are the labels themselves
        numbers = class_labels(names)
        named = {c.label: c for c in given}
        if set(numbers.values()) <= set(named):
            folder_of = {label: folder for folder, label in numbers.items()}
            return [
                ImageClass(c.label, c.name, folder_of.get(c.label, str(c.label))) for c in given
            ]
    raise BadImages(
        f"wanted {what} that --classes names, got {_few(sorted(names - known))}. Add them to the "
        "file, or name the folder that holds the class folders."
    )


def _read_classes(file: Path) -> list[ImageClass]:
    column, table = _read(file, _FOLDER_COLUMNS, "--classes")
    found = []
    for row in table:
        if label_fault(row["label"]) is not None:
            raise BadImages(
                f"wanted whole numbers from 0 in the column label of {file}, got "
                f"{row['label']!r}. Repair the row."
            )
        found.append(ImageClass(int(row["label"]), row.get("name") or row[column], row[column]))
    for what in ("label", "folder"):
        if len({getattr(c, what) for c in found}) < len(found):
            raise BadImages(f"wanted each {what} once in {file}, got one twice. Repair the file.")
    return sorted(found, key=lambda c: c.label)


def _read(file: Path, columns: Sequence[str], option: str) -> tuple[str, list[dict[str, str]]]:
    """Rows of a CSV with the column label and one of `columns`, and which one that is."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            names = list(reader.fieldnames or ())
            table = [{k: v or "" for k, v in row.items() if k} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadImages(f"wanted a CSV file for {option}, got: {error}. Check {file}.") from error
    column = next((c for c in columns if c in names), None)
    if column is None or "label" not in names:
        raise BadImages(
            f"wanted the columns label and {columns[0]} ({', '.join(columns[1:])} will do) in "
            f"{file}, got {_few(names)}. Rename the columns."
        )
    return column, table


def _are_numbers(folders: dict[str, int]) -> bool:
    return all(folder.isdecimal() and int(folder) == label for folder, label in folders.items())


def _cell(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\n\r') else cell


def _few(names: Sequence[object]) -> str:
    shown = ", ".join(str(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nothing"
