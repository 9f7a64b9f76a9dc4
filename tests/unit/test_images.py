"""Image files: what is found under a root, and that nothing outside it is ever opened."""

import ctypes
import errno
import os

import pyarrow.parquet as pq
import pytest

from etl import images, load
from etl.errors import RootNotFound
from etl.images import _walk, link_images, open_image, roots_in


@pytest.fixture
def root(tmp_path):
    """A root with an image, links of all kinds, a pipe, and a secret beside it."""
    root = tmp_path / "img"
    (root / "val" / "0").mkdir(parents=True)
    (root / "val" / "0" / "a.JPEG").write_bytes(b"image")
    (root / "val" / "readme.txt").write_text("no image")
    secret = tmp_path / "img-secret"
    secret.mkdir()
    (secret / "s.png").write_bytes(b"secret")
    (root / "out.png").symlink_to(secret / "s.png")
    (root / "up.png").symlink_to("../img-secret/s.png")
    (root / "outer").symlink_to(secret)
    (root / "loop").symlink_to(root)
    (root / "alias.png").symlink_to("val/0/a.JPEG")
    (root / "dangling.png").symlink_to("nothing.png")
    (root / "device.png").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe.png")
    return root.resolve()


def found_in(root):
    walked = _walk(root, 0, lambda _n: None)
    rows = [row for block in walked.blocks for row in block.to_pylist()]
    return {row["name"]: row["file"] for row in rows}, walked


def test_a_walk_finds_images_and_links_inside_the_root_alone(root):
    files, walked = found_in(root)
    assert files == {"val/0/a.JPEG": "val/0/a.JPEG", "alias.png": "val/0/a.JPEG"}
    assert walked.n_outside == 3  # out, up, device
    assert walked.n_unreadable == 1  # dangling


def test_names_that_are_no_text_are_counted(root):
    (root / os.fsdecode(b"\xff.png")).write_bytes(b"")
    assert found_in(root)[1].n_misnamed == 1


def test_an_image_is_opened_below_its_root(root):
    with open_image(str(root), "val/0/a.JPEG") as stream:
        assert stream.read() == b"image"


@pytest.mark.parametrize(
    "file",
    [
        "out.png", "up.png", "outer/s.png", "loop/val/0/a.JPEG", "dangling.png", "device.png",
        "pipe.png", "val", "val/0", "", ".", "..", "../img-secret/s.png",
        "val/../../img-secret/s.png", "val/../val/0/a.JPEG", "./val/0/a.JPEG", "/etc/passwd",
        "//etc/passwd", "val//0/a.JPEG",
        "~/x.png", "file:///etc/passwd", "%2e%2e%2fimg-secret%2fs.png", "..\\img-secret\\s.png",
        "/proc/self/environ", "/dev/zero", "a" * 5000 + ".png", "val/0/a.JPEG/",
        "val/0/a.JPEG\0", "val/0/a\0.JPEG", "val/0/a.JPEG ",
    ],
)  # fmt: skip
def test_nothing_else_is_opened(root, file):
    with pytest.raises(OSError):
        open_image(str(root), file)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("val/../up.png", r"^not a place below the root: 'val/\.\./up\.png'$"),
        ("pipe.png", r"^not a regular file: 'pipe\.png'$"),
        (
            "out.png",
            r"^not a regular file: 'out\.png'$",
        ),
        ("outer/s.png", r"outer"),
    ],
)
def test_what_is_not_opened_is_named(root, file, said):
    with pytest.raises(OSError, match=said):
        open_image(str(root), file)


def test_a_file_swapped_for_a_link_before_its_opening_is_not_followed(root, monkeypatch):
    regular = (root / "val" / "0" / "a.JPEG").stat()
    monkeypatch.setattr(os, "stat", lambda *_args, **_how: regular)
    with pytest.raises(OSError) as refused:
        open_image(str(root), "out.png")
    assert refused.value.errno == errno.ELOOP


def test_a_folder_swapped_for_a_link_after_the_walk_is_not_followed(root, tmp_path):
    (root / "val" / "0" / "a.JPEG").unlink()
    (root / "val" / "0").rmdir()
    (root / "val" / "0").symlink_to(tmp_path / "img-secret")
    with pytest.raises(OSError):
        open_image(str(root), "val/0/s.png")


def test_the_setting_is_split_as_path_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert [str(r) for r in roots_in("~/a:/b c::d")] == ["/home/me/a", "/b c", "d"]
    assert roots_in("") == ()


@pytest.mark.parametrize(
    ("platform", "error"),
    [("darwin", 0), ("linux", errno.ENOSYS), ("linux", errno.EPERM), ("linux", errno.EACCES)],
)
def test_where_the_kernel_offers_no_step_beneath_it_goes_folder_by_folder(
    root, monkeypatch, platform, error
):
    class Kernel:
        def syscall(self, *_asked):
            assert platform == "linux"
            ctypes.set_errno(error)
            return -1

    monkeypatch.setattr(images.sys, "platform", platform)
    monkeypatch.setattr(images, "_LIBC", Kernel())
    if error == errno.EACCES:  # refused: by no other way, either
        with pytest.raises(PermissionError):
            open_image(str(root), "val/0/a.JPEG")
        return
    with open_image(str(root), "val/0/a.JPEG") as stream:
        assert stream.read() == b"image"
    with pytest.raises(OSError):
        open_image(str(root), "outer/s.png")


def test_a_file_swapped_for_a_pipe_before_its_opening_is_closed_again(root, monkeypatch):
    opened, stat, fdopen = [], os.stat, os.fdopen

    def swap(name, **how):
        found = stat(name, **how)
        (root / "val" / "0" / "a.JPEG").unlink()
        os.mkfifo(root / "val" / "0" / "a.JPEG")
        return found

    monkeypatch.setattr(os, "stat", swap)
    monkeypatch.setattr(os, "fdopen", lambda *given: opened.append(fdopen(*given)) or opened[-1])
    with pytest.raises(PermissionError, match=r"not a regular file: 'val/0/a\.JPEG'"):
        open_image(str(root), "val/0/a.JPEG")
    assert [stream.closed for stream in opened] == [True]


def test_a_walk_goes_on_in_blocks(root, monkeypatch):
    for i in range(5):
        (root / f"{i}.png").write_bytes(b"1234")
    monkeypatch.setattr(images, "_FILES_A_BLOCK", 3)
    seen = []
    walked = _walk(root, 10, seen.append)
    assert [block.num_rows for block in walked.blocks] == [3, 3, 1]
    assert seen == [13, 16, 17]
    assert sum(block["n_bytes"].to_pylist().count(4) for block in walked.blocks) == 5


def test_what_is_linked_is_told_by_split_and_stored(root, tmp_path):
    data, other = tmp_path / "data", tmp_path / "other"
    known = {"val": ["val/0/a.JPEG", "b.png"], "v2": [f"v2/{i}.png" for i in range(7)]}
    for split, paths in known.items():
        rows = "".join(f"{path},0,{i}\n" for i, path in enumerate(paths))
        (tmp_path / f"{split}_x.csv").write_text("path,label,0\n" + rows)
    for place in ("c/b.png", "d/b.png", "v2/0.png"):
        (other / place).parent.mkdir(parents=True, exist_ok=True)
        (other / place).write_bytes(b"123")
    (other / os.fsdecode(b"\xff.png")).write_bytes(b"")
    load(data, [tmp_path / "val_x.csv", tmp_path / "v2_x.csv"], n_threads=1)
    seen = []
    report = link_images(data, [other, root, root / "val", other], seen.append)
    assert report.roots == (str(other.resolve()), str(root))
    assert report.n_files == 5
    assert seen == [3, 5]
    assert report.notes == (
        "3 links that lead outside their root were not followed",
        "1 files or folders could not be read",
        "1 files have names that are no UTF-8 text",
    )
    told = {one.split: one for one in report.splits}
    val, v2 = told["val"], told["v2"]
    assert (val.n_images, val.n_found, val.n_missing, val.n_ambiguous) == (2, 1, 0, 1)
    assert (val.missing, val.ambiguous) == ((), ("b.png",))
    assert (v2.n_images, v2.n_found, v2.n_missing, v2.n_ambiguous) == (7, 1, 6, 0)
    assert (v2.missing, v2.ambiguous) == (tuple(known["v2"][1:6]), ())
    stored = pq.read_table(data / "images" / "linked.parquet").to_pylist()
    by_path = {row["path"]: row for row in stored}
    assert by_path["val/0/a.JPEG"] == {
        "split": "val", "path": "val/0/a.JPEG", "root": str(root), "file": "val/0/a.JPEG",
        "n_bytes": 5,
    }  # fmt: skip
    assert by_path["v2/0.png"]["root"] == str(other.resolve())
    assert set(by_path) == {"val/0/a.JPEG", "b.png", "v2/0.png"}


@pytest.mark.parametrize("place", ["none", "file.png", "closed"])
def test_a_root_is_a_readable_folder(tmp_path, place, monkeypatch):
    (tmp_path / "file.png").touch()
    (tmp_path / "closed").mkdir()
    (tmp_path / "x.csv").write_text("path,label,0\na,0,1\n")
    load(tmp_path / "data", [], explicit=[f"val:x={tmp_path}/x.csv"], n_threads=1)
    # root may read any folder, so that its being closed is only said here
    monkeypatch.setattr(os, "access", lambda at, how: at.name != "closed" and how == 5)
    with pytest.raises(RootNotFound) as refused:
        link_images(tmp_path / "data", [tmp_path, tmp_path / place])
    assert str(refused.value) == (
        f"{tmp_path / place}: wanted a readable folder with images, got none there. Check the path."
    )
    with pytest.raises(RootNotFound) as refused:
        link_images(tmp_path / "data", [])
    assert str(refused.value) == (
        "wanted at least one folder with images, got none. "
        "Name it: gapscope link-images FOLDER, or set GAP_IMAGES."
    )


def test_a_folder_that_cannot_be_read_is_counted(root, monkeypatch):
    scandir = os.scandir

    def closed(place):
        if str(place).endswith("/val/"):
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(os, "scandir", closed)
    assert found_in(root)[1].n_unreadable == 2  # it, and the link that dangles
    assert images._notes([]) == ()
