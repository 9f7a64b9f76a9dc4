import numpy as np
import pytest

import etl.part
import etl.rows
from etl.errors import (
    BadLabel,
    BadNumber,
    BadPath,
    EmptyFile,
    Encoding,
    NotFinite,
    RaggedRow,
    SourceChanged,
    SourceNotFound,
)
from etl.reading import last_line_of
from etl.rows import FeatureFile

HEADER = b"path,label,a,b\n"


def read(file, content):
    file.write_bytes(content)
    with FeatureFile(file) as feature_file:
        return list(feature_file.rows(feature_file.header.features, 2))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "val_x.csv"


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(etl.rows, "BLOCK_BYTES", 32)


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (b"p.png,3,1.5,-2e-3\n", "p.png"),
        (b"p.png,3, 1.5 ,-2e-3", "p.png"),
        (b'"a, b.png",3,"1.5",-2e-3\r\n', "a, b.png"),
        (b'"say ""hi"".png",3,+1.5,-.002\n', 'say "hi".png'),
        (b"\n\np.png,3,1.5,-2e-3\n\n", "p.png"),
        ("größe.png,3,1.5,-2e-3\n".encode(), "größe.png"),
        (b'"p.png",3,1.5,-2e-3', "p.png"),
        (b'"NA",3,1.5,-2e-3\n', "NA"),
    ],
)
def test_a_row_is_read_exactly(file, row, path):
    (rows,) = read(file, HEADER + row)
    assert rows.paths.to_pylist() == [path]
    assert rows.labels.tolist() == [3]
    np.testing.assert_array_equal(rows.features, np.array([[1.5, -2e-3]], np.float32))


def test_rows_without_a_path_may_be_quoted_too(file):
    (rows,) = read(file, b'label,a\n"3",1.5\n')
    assert (rows.paths, rows.labels.tolist(), rows.features.tolist()) == (None, [3], [[1.5]])


def test_the_end_of_float32_is_the_same_in_quotes(file):
    end = etl.rows.FLOAT32_END
    (rows,) = read(file, HEADER + b'"p",0,%r,1\n' % float(np.nextafter(end, 0)))
    assert rows.features[0, 0] == np.finfo(np.float32).max
    with pytest.raises(NotFinite):
        read(file, HEADER + b'"p",0,%r,1\n' % end)


@pytest.mark.parametrize(
    ("text", "n_bytes", "end"),
    [
        (b"a\nb\nc\n", 3, 2),
        (b"a\nb", 3, 2),
        (b"\nab", 3, 1),
        (b"ab", 2, 0),
        (b'a\n"b\nc', 6, 2),
        (b'"b\nc\n"\nd', 8, 7),
        (b'"b\n\nc\n', 6, 0),
        (b'a\n"b"\n"c\n\n', 11, 6),
    ],
)
def test_a_block_ends_behind_its_last_whole_row(text, n_bytes, end):
    assert etl.rows._end_of_last_row(bytearray(text), n_bytes) == end


def test_columns_come_in_the_order_asked_for(file):
    file.write_bytes(HEADER + b"p,0,1,2\n")
    with FeatureFile(file) as feature_file:
        (rows,) = feature_file.rows(("b", "a"), 1)
    assert rows.features.tolist() == [[2, 1]]


@pytest.mark.usefixtures("small_blocks")
def test_blocks_join_without_a_seam(file):
    n = 200
    body = b"".join(b'"p,\n%d",%d,%d.5,0\n' % (i, i % 7, i) for i in range(n))
    blocks = read(file, HEADER + body)
    assert len(blocks) > 50
    sizes = [len(b.labels) for b in blocks]
    assert [b.first_row for b in blocks] == np.cumsum([0, *sizes[:-1]]).tolist()
    assert np.concatenate([b.labels for b in blocks]).tolist() == [i % 7 for i in range(n)]
    assert [path for b in blocks for path in b.paths.to_pylist()] == [f"p,\n{i}" for i in range(n)]


@pytest.mark.parametrize(
    ("row", "error", "column"),
    [
        (b"p,0,1", RaggedRow, None),
        (b"p,0,1,2,3", RaggedRow, None),
        (b"p,0,nan,2", NotFinite, "a"),
        (b"p,0,1,-Infinity", NotFinite, "b"),
        (b"p,0,1e39,2", NotFinite, "a"),
        (b"p,0,1e400,2", NotFinite, "a"),
        (b"p,0,,2", BadNumber, "a"),
        (b"p,0,1_000,2", BadNumber, "a"),
        (b"p,0,0x1F,2", BadNumber, "a"),
        (b'p,0,"1,5",2', BadNumber, "a"),
        (b"p,0,abc,2", BadNumber, "a"),
        (b"p,1.5,1,2", BadLabel, "label"),
        (b"p,1.0,1,2", BadLabel, "label"),
        (b"p, 1,1,2", BadLabel, "label"),
        (b"p,-7,1,2", BadLabel, "label"),
        (b"p,99999999999,1,2", BadLabel, "label"),
        (b"p,,1,2", BadLabel, "label"),
        (b",0,1,2", BadPath, "path"),
        (b"p\0q,0,1,2", BadPath, "path"),
        (b"p\x1bq,0,1,2", BadPath, "path"),
        (b'"p\r\nq",0,1,2', BadPath, "path"),
        (b"p\xff,0,1,2", Encoding, None),
    ],
)
@pytest.mark.parametrize("block", [32, 1 << 20])
def test_a_faulty_row_is_named_by_line_and_column(file, monkeypatch, block, row, error, column):
    monkeypatch.setattr(etl.rows, "BLOCK_BYTES", block)
    good = b"".join(b"g%d,1,0.5,0.5\n" % i for i in range(20))
    with pytest.raises(error) as refused:
        read(file, HEADER + good + row + b"\n" + good.replace(b"g", b"h"))
    assert (refused.value.line, refused.value.column) == (22, column)
    assert "line 22" in str(refused.value)


def test_lines_are_counted_as_an_editor_does(file):
    with pytest.raises(NotFinite) as refused:
        read(file, HEADER + b'"two\nlines",0,1,2\np,0,nan,2\n')
    assert refused.value.line == 4


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("block", [48, 1 << 20])
def test_every_row_knows_its_line(file, monkeypatch, block, end):
    """Lines as an editor counts them: of blank ones, and of cells that span several."""
    monkeypatch.setattr(etl.rows, "BLOCK_BYTES", block)
    cells = [b"a,0,1,2", b"", b'"two\nlines",0,1,2', b"b,0,1,2", b"", b"", b"c,0,1,2", b'"d",0,1,2']
    blocks = read(file, end.join([HEADER.strip(), *cells]) + end)
    lines = [rows.line_of(i) for rows in blocks for i in range(len(rows.labels))]
    assert lines == [2, 4, 6, 9, 10]


@pytest.mark.parametrize(
    ("cells", "lines"),
    [
        (["a", "b", "c"], [2, 3, 4]),
        (["a", "", "b", "", "", "c"], [2, 4, 7]),
        (['"two\nlines"', "a", '"b"'], [2, 4, 5]),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_rows_by_what_is_between_them(file, cells, lines, end):
    """Each alone: what makes rows and lines differ must not need another to be seen."""
    text = end.join(["path,label,a,b", *(cell and f"{cell},0,1,2" for cell in cells)])
    blocks = read(file, text.encode())
    assert [rows.line_of(i) for rows in blocks for i in range(len(rows.labels))] == lines


@pytest.mark.parametrize(
    ("row", "came"),
    [
        (b'"p"q,0,1,2', "',' expected after '\"'"),
        (b"p\rq,0,1,2", "new-line character seen in unquoted field"),
        (b'"p",0,1,2\rq,0,1,2', "new-line character seen in unquoted field"),
    ],
)
def test_quotes_and_line_ends_stand_in_their_places(file, row, came):
    with pytest.raises(RaggedRow) as refused:
        read(file, HEADER + b"o,0,1,2\n" + row + b"\n")
    wanted = "wanted one row a line, quotes around whole cells, got"
    assert str(refused.value).startswith(f"{file}, line 3: {wanted} {came}")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("val_x.csv", HEADER + b"p,0,1,2\nq,0,1,2\np,0,1,2\nr,0,1,2\n", 4),
        ("val_x.csv", HEADER + b"q,0,1,2\n", None),
        ("val_x.csv", b"label,a\n0,1\n", None),
        ("val_x.csv", b"", None),
        ("val_x.npz", None, None),
        ("gone_x.csv", None, None),
    ],
)
def test_the_last_line_of_a_path_is_found_again(tmp_path, name, content, line):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    elif name.endswith(".npz"):
        rows = {"features": np.zeros((1, 2), np.float32), "label": np.zeros(1, np.int64)}
        np.savez(tmp_path / name, **rows, path=np.array(["p"]))
    assert last_line_of(str(tmp_path / name), "p") == line


@pytest.mark.parametrize("sizes", [[], [3], [2, 2, 2], [7], [1, 1], [0, 4, 0, 5]])
def test_rows_are_stored_in_groups_in_their_order(sizes):
    """All groups but the last are of the size that is stored at once."""
    ids = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]) if sizes else []
    groups = list(etl.part._in_groups(((i, np.stack([i, -i], 1)) for i in ids), 3))
    whole, rest = divmod(sum(sizes), 3)
    assert [len(i) for i, _ in groups] == [3] * whole + [rest] * bool(rest)
    assert [i for group, _ in groups for i in group] == list(range(sum(sizes)))
    assert all((vectors[:, 1] == -i).all() for i, vectors in groups)


@pytest.mark.parametrize(
    "tail", [b'"open,0,1,2\n', b'"op""en,0,1,2\n', b'"open,0,1,2\nq,0,1,2\nr,0,1,2\n']
)
def test_an_unclosed_quote_swallows_no_row(file, tail):
    with pytest.raises(RaggedRow) as refused:
        read(file, HEADER + b"p,0,1,2\n" + tail)
    assert str(refused.value) == (
        f"{file}, line 3: wanted one row a line, quotes closed, got a quote that is never closed. "
        "Repair it."
    )


def test_an_endless_row_is_stopped(file, monkeypatch):
    monkeypatch.setattr(etl.rows, "ROW_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(etl.rows, "BLOCK_BYTES", 1 << 18)
    with pytest.raises(RaggedRow) as refused:
        read(file, HEADER + b"p,0,1,2\n" + b'"' + b"x" * (2 << 20))
    assert str(refused.value) == (
        f"{file}, line 3: wanted one row a line, quotes closed, got a row of more than 1 MB. "
        "Repair it."
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "wanted a header line and rows, got no bytes."),
        (b"\n", "wanted a header line and rows, got an empty first line."),
        (HEADER, "wanted rows after the header, got none."),
        (HEADER + b"\n\n", "wanted rows after the header, got none."),
    ],
)
def test_an_empty_file_is_refused(file, content, said):
    with pytest.raises(EmptyFile) as refused:
        read(file, content)
    assert str(refused.value) == f"{file}: {said} Export it again."


def test_what_is_no_regular_file_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(SourceNotFound):
            FeatureFile(place)


def test_a_file_that_grows_while_it_is_read_is_refused(file):
    file.write_bytes(HEADER + b"p,0,1,2\n")
    with FeatureFile(file) as feature_file:
        rows = feature_file.rows(("a", "b"), 1)
        next(rows)
        with file.open("ab") as more:
            more.write(b"q,0,1,2\n")
        with pytest.raises(SourceChanged):
            list(rows)
