"""Image files: found once under the configured roots, and opened only there."""

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from etl.annotations import known_images
from etl.errors import RootNotFound
from etl.matching import AMBIGUOUS, MATCHED, UNMATCHED, match
from etl.sidecar import (
    IMAGE_FILE_SCHEMA,
    IMAGES,
    LINKED,
    replace_whole,
    write_empty,
    write_table,
)

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
_FILES_A_BLOCK = 65_536
_N_EXAMPLES = 5
_OPENAT2 = 437  # the number of the system call, the same on every architecture of Linux
_LIBC = ctypes.CDLL(None, use_errno=True)
_RESOLVE = 0x08 | 0x04 | 0x02  # RESOLVE_BENEATH, _NO_SYMLINKS, _NO_MAGICLINKS of linux/openat2.h
Progress = Callable[[int], None]


@dataclass(frozen=True)
class SplitLinks:
    """For how many images of one split a file was found.

    Attributes
    ----------
    missing : a few of the paths without a file
    ambiguous : a few of the paths for which several files fit
    """

    split: str
    n_images: int
    n_found: int
    n_missing: int
    n_ambiguous: int
    missing: tuple[str, ...]
    ambiguous: tuple[str, ...]


@dataclass(frozen=True)
class LinkReport:
    """What looking for the image files found: how many files, for which images, what was left."""

    roots: tuple[str, ...]
    n_files: int
    splits: tuple[SplitLinks, ...]
    notes: tuple[str, ...]


@dataclass
class _Walked:
    """Image files under one root in blocks of columns, and what was passed over."""

    blocks: list[pa.Table]
    n_outside: int = 0
    n_unreadable: int = 0
    n_misnamed: int = 0


def roots_in(setting: str) -> tuple[Path, ...]:
    """Image roots in the value of GAP_IMAGES, separated as folders in PATH are.

    Examples
    --------
    >>> [root.name for root in roots_in(os.pathsep.join(["imagenet", "", "imagenet v2"]))]
    ['imagenet', 'imagenet v2']
    """
    return tuple(Path(root).expanduser() for root in setting.split(os.pathsep) if root)


def link_images(
    data: Path, roots: Sequence[Path], progress: Progress = lambda _n: None
) -> LinkReport:
    """Find the file of each loaded image under the roots, and store which it is.

    Files are matched by their whole place in the file system (see `etl.matching.match`), so that
    ImageNet's layouts are found whatever stands in front: `train/n01440764/n01440764_18.JPEG`, val
    as one folder or in class folders, V2's `0/<id>.jpeg`. The links that were there are replaced.
    An image without a file is counted, not refused.

    Parameters
    ----------
    progress
        Called with the number of image files seen so far.

    Raises
    ------
    RootNotFound
        No root at all, or one that is no readable folder.
    NothingLoaded, OtherShape
        There are no images to find files for.
    """
    known = known_images(data)
    folders = _folders(roots)
    walked: dict[Path, _Walked] = {}
    for folder in folders:
        n_before = sum(block.num_rows for w in walked.values() for block in w.blocks)
        walked[folder] = _walk(folder, n_before, progress)
    files = pa.concat_tables(
        block.append_column("root", pa.array([str(folder)] * block.num_rows, pa.string()))
        for folder, w in walked.items()
        for block in w.blocks
    )
    found = match(
        pa.table({"split": pa.nulls(known.num_rows, pa.string()), "path": known["path"]}),
        pa.table(
            {
                "split": pa.array(["file"] * files.num_rows, pa.string()),
                "path": pc.binary_join_element_wise(files["root"], files["name"], "/"),
            }
        ),
    )
    known = known.append_column("status", found["status"])
    linked = files.take(found["known_row"].combine_chunks())
    table = pa.table(
        {
            "split": known["split"],
            "path": known["path"],
            "root": linked["root"],
            "file": linked["file"],
            "n_bytes": linked["n_bytes"],
        },
        IMAGE_FILE_SCHEMA,
    ).filter(pc.not_equal(known["status"], UNMATCHED))
    write_empty(data)
    replace_whole(data / IMAGES / LINKED, lambda fresh: write_table(fresh, table))
    return LinkReport(
        tuple(map(str, folders)), files.num_rows, _of_splits(known), _notes(walked.values())
    )


def open_image(root: str, file: str) -> BinaryIO:
    """Open a linked image file for reading: a regular file below root, reached through no link.

    Every folder on the way is opened from the one above it, so that nothing can be put in its place
    between the check and the opening. The name comes from a table that another hand may have
    changed: it is not trusted.

    Raises
    ------
    OSError
        Not there, not readable, not a regular file, or a link or `..` on the way.
    """
    *folders, name = parts = file.split("/")
    is_text = file.encode(errors="replace").decode() == file
    if not is_text or "\0" in file or any(part in ("", ".", "..") for part in parts):
        raise PermissionError(f"not a place below the root: {file!r}")
    folder = _folder_below(root, folders)
    try:
        # a device may act on being opened, so its kind is asked first
        _check_regular(os.stat(name, dir_fd=folder, follow_symlinks=False), file)
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    stream = os.fdopen(descriptor, "rb")
    try:
        _check_regular(os.fstat(descriptor), file)
    except OSError:
        stream.close()
        raise
    return stream


def _folder_below(root: str, folders: Sequence[str]) -> int:
    """Open a folder below root through no link; the caller closes it.

    In one step where the kernel can (Linux 5.6; some containers do not let it), else each folder
    from the one above it.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        below = _opened_beneath(folder, "/".join(folders)) if folders else os.dup(folder)
    finally:
        os.close(folder)
    return _one_by_one(root, folders) if below is None else below


def _one_by_one(root: str, folders: Sequence[str]) -> int:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for name in folders:
        try:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def _opened_beneath(folder: int, place: str) -> int | None:
    """Open a folder beneath an open one with openat2; None where the kernel does not offer that."""
    if sys.platform != "linux":
        return None
    how = struct.pack("QQQ", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0, _RESOLVE)
    opened: int = _LIBC.syscall(_OPENAT2, folder, os.fsencode(place), how, len(how))
    error = ctypes.get_errno()
    if opened >= 0:
        return opened
    if error in (errno.ENOSYS, errno.EPERM):  # an old kernel; a container's filter of system calls
        return None
    raise OSError(error, os.strerror(error), place)


def _check_regular(found: os.stat_result, file: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise PermissionError(f"not a regular file: {file!r}")


def _folders(roots: Sequence[Path]) -> list[Path]:
    """Roots without links in them, each once, none inside another."""
    if not roots:
        raise RootNotFound(
            "at least one folder with images",
            "none",
            "Name it: gapscope link-images FOLDER, or set GAP_IMAGES.",
        )
    folders = []
    for root in roots:
        if not (root.is_dir() and os.access(root, os.R_OK | os.X_OK)):
            raise RootNotFound(
                "a readable folder with images", "none there", "Check the path.", file=root
            )
        folders.append(root.resolve())
    outer = [f for f in folders if not any(f != g and f.is_relative_to(g) for g in folders)]
    return list(dict.fromkeys(outer))


def _walk(root: Path, n_seen: int, progress: Progress) -> _Walked:
    """All image files below a root, each folder listed once.

    A link to a folder is not followed: what it leads to is listed at its own place, or lies outside
    the root. A link to a file inside the root counts under its own name, and leads to the file.
    """
    walked = _Walked([])
    names: list[str] = []
    files: list[str] = []
    sizes: list[int] = []
    for entry, name in _entries(root, walked):
        try:
            file, n_bytes = _target(entry, name, root, walked)
        except (OSError, RuntimeError):  # the latter of a link that leads to itself
            walked.n_unreadable += 1
            continue
        if file is None:
            continue
        names.append(name)
        files.append(file)
        sizes.append(n_bytes)
        if len(names) == _FILES_A_BLOCK:
            n_seen += len(names)
            walked.blocks.append(_block(names, files, sizes))
            names, files, sizes = [], [], []
            progress(n_seen)
    walked.blocks.append(_block(names, files, sizes))
    progress(n_seen + len(names))
    return walked


def _entries(root: Path, walked: _Walked) -> Iterator[tuple["os.DirEntry[str]", str]]:
    """Entries with the name of an image, and their place below the root."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(f"{root}/{folder}") as entries:
                for entry in entries:
                    name = folder + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(name + "/")
                    elif entry.name.lower().endswith(SUFFIXES):
                        yield entry, name
        except OSError:
            walked.n_unreadable += 1


def _target(
    entry: "os.DirEntry[str]", name: str, root: Path, walked: _Walked
) -> tuple[str | None, int]:
    """Regular file behind an entry, relative to root, and its size; None where there is none."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # bytes that are no text: no path in the database is called so
        walked.n_misnamed += 1
        return None, 0
    if not entry.is_symlink():
        found = entry.stat(follow_symlinks=False)
        return (name if stat.S_ISREG(found.st_mode) else None), found.st_size
    real = Path(entry.path).resolve(strict=True)
    if not real.is_relative_to(root):
        walked.n_outside += 1
        return None, 0
    found = real.stat()
    is_image = stat.S_ISREG(found.st_mode) and real.name.lower().endswith(SUFFIXES)
    return (real.relative_to(root).as_posix() if is_image else None), found.st_size


def _block(names: list[str], files: list[str], sizes: list[int]) -> pa.Table:
    return pa.table(
        {
            "name": pa.array(names, pa.string()),
            "file": pa.array(files, pa.string()),
            "n_bytes": pa.array(sizes, pa.int64()),
        }
    )


def _of_splits(known: pa.Table) -> tuple[SplitLinks, ...]:
    def some(rows: pa.Table, status: str) -> tuple[str, ...]:
        mine = rows.filter(pc.equal(rows["status"], status))["path"]
        return tuple(mine[:_N_EXAMPLES].to_pylist())

    reports = []
    for split in known["split"].unique().to_pylist():
        rows = known.filter(pc.equal(known["split"], split))
        n = {r["values"]: r["counts"] for r in rows["status"].value_counts().to_pylist()}
        reports.append(
            SplitLinks(
                split=split,
                n_images=rows.num_rows,
                n_found=n.get(MATCHED, 0),
                n_missing=n.get(UNMATCHED, 0),
                n_ambiguous=n.get(AMBIGUOUS, 0),
                missing=some(rows, UNMATCHED),
                ambiguous=some(rows, AMBIGUOUS),
            )
        )
    return tuple(reports)


def _notes(walked: Collection[_Walked]) -> tuple[str, ...]:
    n_outside = sum(w.n_outside for w in walked)
    n_unreadable = sum(w.n_unreadable for w in walked)
    n_misnamed = sum(w.n_misnamed for w in walked)
    notes = []
    if n_outside:
        notes.append(f"{n_outside:,} links that lead outside their root were not followed")
    if n_unreadable:
        notes.append(f"{n_unreadable:,} files or folders could not be read")
    if n_misnamed:
        notes.append(f"{n_misnamed:,} files have names that are no UTF-8 text")
    return tuple(notes)
