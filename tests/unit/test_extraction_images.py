"""Which images a folder holds and which labels they have; no network, no image is decoded."""

import os

import pytest

from etl.class_names import read_class_file
from service.errors import BadImages, ClassesDisagree
from service.extraction.images import check_classes, class_labels, find_images, write_classes


def put(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x")
    return folder


def labels_of(images):
    return dict(zip(images.paths, images.labels, strict=True))


def test_numbers_are_sorted_as_numbers_and_are_the_labels(tmp_path):
    images = find_images(put(tmp_path, "10/a.png", "9/a.png", "0/b.JPEG", "0/a.jpg"), prefix="v2")
    assert images.paths == ["v2/0/a.jpg", "v2/0/b.JPEG", "v2/9/a.png", "v2/10/a.png"]
    assert images.labels == [0, 0, 9, 10]
    assert [(c.label, c.name, c.folder) for c in images.classes][1:] == [
        (9, "9", "9"), (10, "10", "10"),
    ]  # fmt: skip


def test_names_are_numbered_in_their_order(tmp_path):
    put(tmp_path, "n01443537/x.JPEG", "n01440764/n01440764_18.JPEG")
    images = find_images(tmp_path, prefix="train")
    assert labels_of(images) == {
        "train/n01440764/n01440764_18.JPEG": 0, "train/n01443537/x.JPEG": 1,
    }  # fmt: skip
    assert images.files == ["n01440764/n01440764_18.JPEG", "n01443537/x.JPEG"]
    assert images.folder == tmp_path


def test_one_name_among_numbers_makes_all_names():
    assert class_labels(["10", "9", "x"]) == {"10": 0, "9": 1, "x": 2}
    with pytest.raises(BadImages, match="each class number once"):
        class_labels(["01", "1"])


def test_what_is_no_image_is_passed_over_and_said(tmp_path):
    put(tmp_path, "a/1.png", "a/notes.txt", "a/.hidden.png", "loose.png", ".x/1.png", "a/sub/2.png")
    (tmp_path / "b").mkdir()
    images = find_images(tmp_path, prefix="val")
    assert images.paths == ["val/a/1.png", "val/a/sub/2.png"]
    assert [c.folder for c in images.classes] == ["a", "b"]
    assert images.notes == [
        "1 images beside the class folders were passed over",
        "2 files that are no images were passed over",
        "1 class folders hold no image: b",
    ]


@pytest.mark.parametrize(("prefix", "path"), [("", "0/a.png"), ("x/", "x/0/a.png")])
def test_the_prefix_stands_in_front(tmp_path, prefix, path):
    assert find_images(put(tmp_path, "0/a.png"), prefix=prefix).paths == [path]


def test_a_given_mapping_keeps_the_labels_of_absent_classes(tmp_path):
    classes = tmp_path / "c.csv"
    classes.write_text("label,wnid,name\n0,n1,tench\n1,n2,crane\n2,n3,crane\n")
    folder = put(tmp_path / "val", "n3/a.png", "n1/a.png")
    images = find_images(folder, prefix="val", classes=classes)
    assert images.labels == [0, 2]
    assert [c.name for c in images.classes] == ["tench", "crane", "crane"]
    stored = tmp_path / "val_x.classes.csv"
    stored.write_text(write_classes(images.classes))
    assert stored.read_text().splitlines()[1] == "0,tench,n1"
    assert read_class_file(stored).names == {0: "tench", 1: "crane", 2: "crane"}
    assert find_images(folder, prefix="val", classes=stored).classes == images.classes
    # ImageNetV2's numbers are the labels of the same mapping
    numbers = find_images(put(tmp_path / "v2", "2/a.png", "0/a.png"), prefix="v2", classes=classes)
    assert [(c.label, c.name, c.folder) for c in numbers.classes] == [
        (0, "tench", "0"), (1, "crane", "1"), (2, "crane", "2"),
    ]  # fmt: skip


def test_names_with_commas_and_quotes_come_back(tmp_path):
    folder = put(tmp_path / "i", 'a, "b"/1.png')
    stored = tmp_path / "c.csv"
    stored.write_text(write_classes(find_images(folder, prefix="v").classes))
    assert read_class_file(stored).names == {0: 'a, "b"'}


@pytest.mark.parametrize(
    ("text", "words"),
    [("label,name\n0,a\n", "class folders in .* that --classes names, got b"),
     ("label,name\n0,a\n0,b\n", "each label once"), ("label,name\n0,a\n1,a\n", "each folder once"),
     ("label,name\nx,a\n1,b\n", "whole numbers from 0"), ("a,b\n0,1\n", "columns label and folder"),
     (None, "wanted a CSV file for --classes"), ("", "got nothing")],
)  # fmt: skip
def test_a_mapping_that_does_not_fit_is_refused(tmp_path, text, words):
    classes = tmp_path / "c.csv"
    if text is not None:
        classes.write_text(text)
    with pytest.raises(BadImages, match=words):
        find_images(put(tmp_path / "i", "a/1.png", "b/1.png"), prefix="v", classes=classes)


def test_a_number_beyond_the_mapping_is_refused(tmp_path):
    (tmp_path / "c.csv").write_text("label,name\n0,a\n")
    with pytest.raises(BadImages, match="got 7"):
        find_images(put(tmp_path / "i", "7/1.png"), prefix="v", classes=tmp_path / "c.csv")


def test_a_flat_folder_needs_a_file_of_labels(tmp_path):
    folder = put(tmp_path / "i", "b.JPEG", "a.JPEG", "c.JPEG")
    with pytest.raises(BadImages, match=r"found 3 images and no folder.*--labels FILE"):
        find_images(folder, prefix="val")
    labels = tmp_path / "l.csv"
    labels.write_text("filename,label\nb.JPEG,0\na.JPEG,12\n")
    images = find_images(folder, prefix="val", labels=labels)
    assert labels_of(images) == {"val/b.JPEG": 0, "val/a.JPEG": 12}
    assert [(c.label, c.name) for c in images.classes] == [(0, "0"), (12, "12")]
    assert images.notes == ["1 images without a label were passed over"]


def test_labels_by_name_or_with_a_mapping_give_imagenets_own_paths(tmp_path):
    folder = put(tmp_path / "i", "a.JPEG", "b.JPEG")
    labels, classes = tmp_path / "l.csv", tmp_path / "c.csv"
    classes.write_text("label,wnid\n0,n01440764\n1,n01443537\n")
    labels.write_text("path,label\na.JPEG,n01443537\nb.JPEG,n01440764\n")
    wanted = {"val/n01440764/b.JPEG": 0, "val/n01443537/a.JPEG": 1}
    assert labels_of(find_images(folder, prefix="val", labels=labels)) == wanted
    labels.write_text("path,label\na.JPEG,1\nb.JPEG,0\n")
    images = find_images(folder, prefix="val", labels=labels, classes=classes)
    assert labels_of(images) == wanted
    assert images.files == ["b.JPEG", "a.JPEG"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("path,label\nnone.png,0\n", "got 'none.png'"), ("path,label\n../c.csv,0\n", "not there"),
     ("path,label\na.png,0\na.png,0\n", "each image once"),
     ("path,label\na.png,4\n", "labels of --classes"), ("path,label\na.png,x\n", "got x"),
     ("path,label\n", "found none"), ("path\na.png\n", "columns label and path")],
)  # fmt: skip
def test_labels_that_do_not_fit_are_refused(tmp_path, text, words):
    (tmp_path / "l.csv").write_text(text)
    (tmp_path / "c.csv").write_text("label,name\n0,a\n")
    folder = put(tmp_path / "i", "a.png")
    with pytest.raises(BadImages, match=words):
        find_images(folder, prefix="v", labels=tmp_path / "l.csv", classes=tmp_path / "c.csv")


def test_folders_without_images_and_bad_names_are_refused(tmp_path):
    with pytest.raises(BadImages, match="wanted a folder"):
        find_images(tmp_path / "none", prefix="v")
    (tmp_path / "i" / "a").mkdir(parents=True)
    with pytest.raises(BadImages, match="found none"):
        find_images(tmp_path / "i", prefix="v")
    put(tmp_path / "i", "a/x\x07.png")
    with pytest.raises(BadImages, match="control characters"):
        find_images(tmp_path / "i", prefix="v")
    put(tmp_path / "j", "a/" + os.fsdecode(b"\xff.png"))
    with pytest.raises(BadImages, match="UTF-8"):
        find_images(tmp_path / "j", prefix="v")


def test_the_digest_tells_other_images_and_labels(tmp_path):
    folder = put(tmp_path / "i", "0/a.png", "1/b.png")
    images = find_images(folder, prefix="v")
    digest = images.digest()
    assert find_images(folder, prefix="v").digest() == digest
    assert find_images(folder, prefix="w").digest() != digest
    (folder / "0/a.png").write_bytes(b"other")
    assert images.digest() != digest
    (folder / "0/a.png").unlink()
    (folder / "0/a.png").symlink_to("nowhere")
    assert find_images(folder, prefix="v").digest() not in (digest, images.digest() + "x")


def test_another_splits_mapping_must_agree(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    train = find_images(put(tmp_path / "t", "a/1.png", "b/1.png", "c/1.png"), prefix="train")
    (out / "train_x.classes.csv").write_text(write_classes(train.classes))
    put(tmp_path / "v", "a/1.png", "c/1.png")
    val = find_images(tmp_path / "v", prefix="val")
    with pytest.raises(ClassesDisagree, match=r"got 'c' as label 1.*--classes .*train_x.classes"):
        check_classes(out, "val", "x", val.classes)
    check_classes(out, "val", "y_x", val.classes)
    check_classes(out, "train", "x", val.classes)  # its own older one is replaced
    shared = find_images(tmp_path / "v", prefix="val", classes=out / "train_x.classes.csv")
    assert shared.labels == [0, 2]
    check_classes(out, "val", "x", shared.classes)
    numbers = find_images(put(tmp_path / "n", "0/1.png", "2/1.png"), prefix="v2")
    check_classes(out, "v2", "x", numbers.classes)  # numbers are labels as they stand
