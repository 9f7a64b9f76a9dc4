from pathlib import Path

import pytest

from etl.errors import (
    DimensionMismatch,
    EmptyFile,
    Encoding,
    HeaderMismatch,
    HeaderMissing,
    NotCsv,
)
from etl.header import parse_header

FILE = Path("val_x.csv")


@pytest.mark.parametrize(
    ("line", "features", "has_path", "index"),
    [
        (b",path,label,0,1\n", ("0", "1"), True, True),
        (b",label,0,1\r\n", ("0", "1"), False, True),
        (b"Unnamed: 0,label,f0", ("f0",), False, True),
        (b"path,label,f0,f1", ("f0", "f1"), True, False),
        (b"f1,label,f0,path", ("f1", "f0"), True, False),
        (b"\xef\xbb\xbfpath,label,f0", ("f0",), True, False),
        (b'"path","label","a,b"', ("a,b",), True, False),
    ],
)
def test_columns_are_found_by_name(line, features, has_path, index):
    header = parse_header(line, FILE)
    assert (header.features, header.has_path, header.ignored_index) == (features, has_path, index)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"0,train/a.png,3,0.25,1.5\n", HeaderMissing),
        (b"1.5,2.5,-3.5\n", HeaderMissing),
        (b"path,class,0,1\n", HeaderMismatch),
        (b"0,1,2,3\n", HeaderMismatch),
        (b"path,label\n", HeaderMismatch),
        (b"path,label,f0,f0\n", HeaderMismatch),
        (b"path,label,f0,,f2\n", HeaderMismatch),
        (b"label,label,f0\n", HeaderMismatch),
        (b"path,class,1,2,0\n", HeaderMismatch),
        (b'path,label,"f0\n', HeaderMismatch),
        (b"path,label,f\x1b[31m\n", HeaderMismatch),
        (b"\xef\xbb\xbf\xef\xbb\xbfpath,label,f0\n", HeaderMismatch),
        (b"path,label," + b"f" * 1_001, HeaderMismatch),
        (b"label," + b",".join(b"%d" % i for i in range(100_001)), HeaderMismatch),
        (b"\xef\xbb\xbf\n", EmptyFile),
        (b"PK\x03\x04rest", NotCsv),
        (b"PAR1rest", NotCsv),
        (b"path,label,f0\r1,2,3", NotCsv),
        ("path,label,é\n".encode("latin-1"), Encoding),
        ("path,label,f0\n".encode("utf-16"), Encoding),
    ],
)
def test_what_is_no_header_is_refused(line, error):
    with pytest.raises(error) as refused:
        parse_header(line, FILE)
    assert refused.value.file == str(FILE)
    assert len(str(refused.value)) < 500


def test_as_many_features_as_the_database_holds_are_accepted():
    line = b"label," + b",".join(b"%d" % i for i in range(100_000))
    assert parse_header(line, FILE).in_order_of(tuple(map(str, range(100_000))), FILE).n_features


def test_features_follow_the_order_of_the_first_file():
    header = parse_header(b"label,b,a", FILE).in_order_of(("a", "b"), FILE)
    assert header.features == ("a", "b")
    assert header.names == ("label", "b", "a")


def test_another_set_of_features_is_refused():
    header = parse_header(b"label,a,b", FILE)
    with pytest.raises(DimensionMismatch, match="wanted 3 features"):
        header.in_order_of(("a", "b", "c"), FILE)
    with pytest.raises(HeaderMismatch, match="'c'"):
        header.in_order_of(("a", "c"), FILE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"path;label;0;1", "separated by ';'"),
        (b"path\tlabel\t0", "separated by"),
        (b"path,Label,0,1", "'Label'?"),
        (b"path,0,1,2,3,4,5,6,target", "got 'target'"),
    ],
)
def test_a_near_miss_is_named(line, said):
    with pytest.raises(HeaderMismatch) as refused:
        parse_header(line, FILE)
    assert said in str(refused.value)
