import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import etl.identity
from etl.identity import SplitImages


@pytest.fixture
def con():
    con = duckdb.connect()
    con.execute(
        "create table image (image_id bigint, split varchar, path varchar, class_id integer)"
    )
    return con


def identify(images, *paths, labels=None):
    labels = np.zeros(len(paths), np.int64) if labels is None else np.array(labels, np.int64)
    return images.identify(pa.array(paths, pa.string()), labels)


def test_new_known_and_second_mentions(con):
    con.execute("insert into image values (4, 'val', 'a', 1), (9, 'train', 'b', 1)")
    images = SplitImages(con, "val")
    ids, conflict = identify(images, "b", "a", "b", "c", labels=[0, 1, 0, 2])
    assert (ids.tolist(), conflict) == ([10, 4, -1, 11], None)
    ids, conflict = identify(images, "c", "d", labels=[2, 3])
    assert (ids.tolist(), conflict) == ([-1, 12], None)
    images.write(con)
    assert con.execute("from image where split = 'val' order by image_id").fetchall() == [
        (4, "val", "a", 1), (10, "val", "b", 0), (11, "val", "c", 2), (12, "val", "d", 3),
    ]  # fmt: skip


def test_another_label_is_a_conflict(con):
    images = SplitImages(con, "val")
    identify(images, "a", "b", labels=[1, 2])
    assert identify(images, "c", "b", labels=[1, 1])[1] == 1
    assert images.label_of("b") == 2


@settings(deadline=None)  # each case opens a database
@given(
    blocks=st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=30), max_size=12),
    known=st.sets(st.integers(0, 60), max_size=20),
)
def test_it_agrees_with_a_dict_while_it_grows(blocks, known):
    con = duckdb.connect()
    con.execute(
        "create table image (image_id bigint, split varchar, path varchar, class_id integer)"
    )
    model = {f"p{i}": n for n, i in enumerate(known)}
    for path, n in model.items():
        con.execute("insert into image values (?, 'val', ?, 0)", [n, path])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(etl.identity, "_CAPACITY", 8)
        images, read = SplitImages(con, "val"), set()
    for block in blocks:
        paths = [f"p{i}" for i in block]
        wanted = []
        for path in paths:
            model.setdefault(path, len(model))
            wanted.append(-1 if path in read else model[path])
            read.add(path)
        assert identify(images, *paths)[0].tolist() == wanted
    images.write(con)
    assert dict(con.execute("select path, image_id from image").fetchall()) == model


def test_many_paths_have_keys_of_their_own():
    n = 300_000
    paths = pa.array([f"train/n{i % 1000:08}/n{i % 1000:08}_{i}.JPEG" for i in range(n)])
    keys = etl.identity._keys(paths)
    assert all(len(np.unique(half)) == n for half in keys.T)
    # each bit of a good key is set for half of the paths: 8 standard errors are allowed
    shares = [
        ((keys[:, i] >> np.uint64(b)) & np.uint64(1)).mean() for i in (0, 1) for b in range(64)
    ]
    assert abs(np.array(shares) - 0.5).max() < 8 * 0.5 / np.sqrt(n)
