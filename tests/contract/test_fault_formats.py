"""Packed and binary feature files, good and broken, against the loader's door alone.

As in test_faults.py, a kind is a small function that says what must come: exactly these rows, or a
refusal. Archives are read as streams and never unpacked, so that no name in them can lead anywhere;
nothing that is pickled is ever run.
"""

import gzip
import io
import pickle
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save

import etl
from tests.faults.sheet import Case, Kept, Refused, Sheet, good, hold, tree
from tests.world import make_world, write_csv

Kind = Callable[[np.random.Generator], Case]
KINDS: dict[str, Kind] = {}
MEMBER = "finetune/pytorch-image-models-main/v9_new.csv"
RATIO = 200  # unpacked bytes a packed byte, above which reading stops


def kind(function: Kind) -> Kind:
    KINDS[function.__name__] = function
    return function


def accepted(name: str, text: bytes, sheet: Sheet, **more: bytes) -> Case:
    return Case({name: text, **more}, Kept({("v9", "new"): sheet}))


def turned_down(name: str, text: bytes, code: str, **more: bytes) -> Case:
    """A refusal of this code; which place it has depends on the format."""
    return Case({name: text, **more}, Refused(code, ..., ..., ...))


# --------------------------------------------------------------------------------- streams: gz, zst


def zstd(text: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text)
    return sink.getvalue().to_pybytes()


STREAMS = {"gz": gzip.compress, "zst": zstd}
REPETITIVE = b"label,0\n" + b"1,0.000000\n" * 3_000_000


def stream_kind(name: str, change: Callable[[bytes, bytes], bytes], code: str | None) -> None:
    """Register a kind for each way of packing: packed text and the text itself are changed."""
    for suffix, pack in STREAMS.items():

        def run(rng: np.random.Generator, suffix: str = suffix, pack: Callable = pack) -> Case:
            sheet = good(rng, n=200, d=20)
            packed = change(pack(sheet.text()), sheet.text())
            file = f"v9_new.csv.{suffix}"
            return turned_down(file, packed, code) if code else accepted(file, packed, sheet)

        KINDS[f"e25_{suffix}_{name}"] = run


stream_kind("good", lambda packed, text: packed, None)
stream_kind("cut", lambda packed, text: packed[: len(packed) // 2], "damaged_archive")
stream_kind("cut_in_the_last_bytes", lambda packed, text: packed[:-3], "damaged_archive")
stream_kind("trailing_garbage", lambda packed, text: packed + b"garbage", "damaged_archive")
stream_kind("of_nothing", lambda packed, text: b"", "empty_file")
stream_kind("that_is_plain_text", lambda packed, text: text, "not_csv")


@kind
def e25_gz_wrong_crc(rng):
    sheet = good(rng)
    packed = bytearray(gzip.compress(sheet.text()))
    packed[-8] ^= 1
    return turned_down("v9_new.csv.gz", bytes(packed), "damaged_archive")


@kind
def e25_gz_wrong_length(rng):
    packed = bytearray(gzip.compress(good(rng).text()))
    packed[-1] ^= 1
    return turned_down("v9_new.csv.gz", bytes(packed), "damaged_archive")


@kind
def e25_gz_several_members(rng):
    """As `cat a.gz b.gz` makes them: one text."""
    sheet = good(rng, n=30)
    text = sheet.text()
    cuts = sorted(int(cut) for cut in rng.integers(1, len(text), 2))
    parts = (text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :])
    return accepted("v9_new.csv.gz", b"".join(map(gzip.compress, parts)), sheet)


@kind
def e25_gz_fault_has_its_line(rng):
    sheet = good(rng)
    row, name = int(rng.integers(len(sheet.rows))), str(rng.choice(sheet.features))
    sheet.put(row, name, "nan")
    wanted = Refused("not_finite", sheet.line(row), name, "v9_new.csv.gz")
    return Case({"v9_new.csv.gz": gzip.compress(sheet.text())}, wanted)


@kind
def e26_gz_bomb(rng):
    return turned_down("v9_new.csv.gz", gzip.compress(REPETITIVE), "archive_bomb")


@kind
def e26_zst_bomb(rng):
    return turned_down("v9_new.csv.zst", zstd(REPETITIVE), "archive_bomb")


# --------------------------------------------------------------------------------------------- zip


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members:
            archive.writestr(name, text, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


@kind
def e27_zip_good(rng):
    sheet = good(rng)
    return accepted("v9_new.zip", zipped((MEMBER, sheet.text())), sheet)


@kind
def e27_zip_good_beside_other_files(rng):
    """Folders, a readme and what a Mac adds are no feature files."""
    sheet = good(rng)
    members = [("finetune/", b""), ("README.md", b"hi"), ("__MACOSX/._v9_new.csv", b"x")]
    return accepted("v9_new.zip", zipped(*members, (MEMBER, sheet.text())), sheet)


@kind
def e27_zip_fault_has_its_line(rng):
    sheet = good(rng)
    row = int(rng.integers(len(sheet.rows)))
    sheet.put(row, "label", "1.5")
    wanted = Refused("label_out_of_range", sheet.line(row), "label", ...)
    return Case({"v9_new.zip": zipped((MEMBER, sheet.text()))}, wanted)


def zip_kind(name: str, code: str, pack: Callable[[bytes], bytes]) -> None:
    KINDS[f"e27_zip_{name}"] = lambda rng: turned_down(
        "v9_new.zip", pack(good(rng, n=60).text()), code
    )


def _link(text: bytes) -> bytes:
    entry = zipfile.ZipInfo("v9_new.csv")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped((entry, b"/etc/passwd"))


def _encrypted(text: bytes) -> bytes:
    """The flag alone: no reader can go on without a password."""
    packed = bytearray(zipped((MEMBER, text)))
    packed[6] |= 1
    packed[packed.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(packed)


def _wrong_crc(text: bytes) -> bytes:
    packed = bytearray(zipped((MEMBER, text)))
    for place in (14, packed.rindex(b"PK\x01\x02") + 16):
        packed[place] ^= 1
    return bytes(packed)


zip_kind("no_member", "archive_member", lambda text: zipped())
zip_kind("no_fitting_member", "archive_member", lambda text: zipped(("a.txt", text)))
zip_kind("two_of_one_name", "archive_member", lambda text: zipped(
    ("a/v9_new.csv", text), ("b/v9_new.csv", text)))  # fmt: skip
zip_kind("encrypted", "archive_member", _encrypted)
zip_kind("link", "archive_member", _link)
zip_kind("nested", "archive_member", lambda text: zipped(
    ("v9_new.zip", zipped(("v9_new.csv", text)))))  # fmt: skip
zip_kind("nested_named_csv", "not_csv", lambda text: zipped(("v9_new.csv", zipped(("a", text)))))
zip_kind("wrong_crc", "damaged_archive", _wrong_crc)
zip_kind("cut", "damaged_archive", lambda text: zipped((MEMBER, text))[:-40])
zip_kind("cut_in_the_middle", "damaged_archive", lambda text: zipped((MEMBER, text))[:300])
zip_kind("bomb", "archive_bomb", lambda text: zipped(("v9_new.csv", REPETITIVE)))
zip_kind("that_is_plain_text", "not_csv", lambda text: text)


@pytest.mark.parametrize(
    "name",
    ["../v9_new.csv", "../../x/v9_new.csv", "/v9_new.csv", "C:\\v9_new.csv", "\x1b[31m/v9_new.csv"],
)
def test_names_in_archives_lead_nowhere(name, old, tmp_path):
    """The member is read as a stream, or refused; no file is made, its name is safe to print."""
    folder = tmp_path / "deep" / "features"
    folder.mkdir(parents=True)
    data = Path(shutil.copytree(old, tmp_path / "data"))
    sheet = good(np.random.default_rng(0))
    (folder / "v9_new.zip").write_bytes(zipped((name, sheet.text())))
    before = set(tree(tmp_path))
    try:
        report = etl.load(data, [folder / "v9_new.zip"])
    except etl.LoadRefused as error:
        assert error.code in ("archive_member", "source_name")  # noqa: PT017
        assert str(error).isprintable()  # noqa: PT017
    else:
        assert [part.split for part in report.loaded] == ["v9"]
    assert set(tree(tmp_path)) == before
    assert not Path("/v9_new.csv").exists()


# --------------------------------------------------------------------------------------------- tar


def tarred(*entries: tuple[tarfile.TarInfo | str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for entry, text in entries:
            info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return packed.getvalue()


def _special(kind_of: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("v9_new.csv")
    info.type, info.linkname, info.devmajor, info.devminor = kind_of, "/dev/zero", 1, 5
    return info


def tar_kind(name: str, code: str, pack: Callable[[bytes], bytes]) -> None:
    KINDS[f"e27_tar_{name}"] = lambda rng: turned_down(
        "v9_new.tar.gz", pack(good(rng, n=200, d=20).text()), code
    )


@kind
def e27_tar_good(rng):
    sheet = good(rng)
    return accepted("v9_new.tar.gz", tarred((MEMBER, sheet.text())), sheet)


tar_kind("cut", "damaged_archive", lambda text: tarred((MEMBER, text))[:-2_000])
tar_kind("device", "archive_member", lambda text: tarred((_special(tarfile.CHRTYPE), b"")))
tar_kind("link", "archive_member", lambda text: tarred((_special(tarfile.SYMTYPE), b"")))
tar_kind("hard_link", "archive_member", lambda text: tarred((_special(tarfile.LNKTYPE), b"")))
tar_kind("fifo", "archive_member", lambda text: tarred((_special(tarfile.FIFOTYPE), b"")))
tar_kind("no_fitting_member", "archive_member", lambda text: tarred(("a.txt", text)))
tar_kind("two_of_one_name", "archive_member", lambda text: tarred(
    ("a/v9_new.csv", text), ("b/v9_new.csv", text)))  # fmt: skip
tar_kind("bomb", "archive_bomb", lambda text: tarred(("v9_new.csv", REPETITIVE)))


# ----------------------------------------------------------------------------------------- parquet


def plain(rng: np.random.Generator) -> Sheet:
    return good(rng, n=30, d=6, path=True, index=False, shuffled=False)


def parquet(sheet: Sheet, **columns: object) -> bytes:
    """A wide table of a sheet, some columns replaced."""
    table = {"path": sheet.column("path"), "label": [int(cell) for cell in sheet.column("label")]}
    table |= {name: sheet.matrix()[:, j] for j, name in enumerate(sheet.features)}
    sink = io.BytesIO()
    pq.write_table(pa.table(table | columns), sink)
    return sink.getvalue()


@kind
def parquet_wide(rng):
    sheet = plain(rng)
    return accepted("v9_new.parquet", parquet(sheet), sheet)


@kind
def parquet_wide_in_float64(rng):
    sheet = plain(rng)
    doubles = {name: [float(cell) for cell in sheet.column(name)] for name in sheet.features}
    return accepted("v9_new.parquet", parquet(sheet, **doubles), sheet)


@kind
def parquet_list_column(rng):
    sheet = plain(rng)
    table = pa.table({
        "path": sheet.column("path"),
        "label": [int(cell) for cell in sheet.column("label")],
        "features": pa.array(list(sheet.matrix()), pa.list_(pa.float32())),
    })  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return accepted("v9_new.parquet", sink.getvalue(), sheet)


@kind
def parquet_list_column_with_lists_of_two_lengths(rng):
    sheet = plain(rng)
    lists = [row.tolist() for row in sheet.matrix()]
    lists[int(rng.integers(len(lists)))].append(0.5)
    labels = [int(cell) for cell in sheet.column("label")]
    sink = io.BytesIO()
    pq.write_table(pa.table({"label": labels, "features": lists}), sink)
    return turned_down("v9_new.parquet", sink.getvalue(), "dimension_mismatch")


def parquet_kind(name: str, code: str, change: Callable[[Sheet, int], dict[str, object]]) -> None:
    def run(rng: np.random.Generator) -> Case:
        sheet = plain(rng)
        row = int(rng.integers(len(sheet.rows)))
        return turned_down("v9_new.parquet", parquet(sheet, **change(sheet, row)), code)

    KINDS[f"parquet_{name}"] = run


def _with(sheet: Sheet, row: int, value: object) -> list[object]:
    return [value if i == row else float(cell) for i, cell in enumerate(sheet.column("2"))]


parquet_kind("null", "bad_number", lambda sheet, row: {"2": _with(sheet, row, None)})
parquet_kind("nan", "not_finite", lambda sheet, row: {"2": _with(sheet, row, float("nan"))})
parquet_kind("inf", "not_finite", lambda sheet, row: {"2": _with(sheet, row, float("-inf"))})
parquet_kind("beyond_float32", "not_finite", lambda sheet, row: {"2": _with(sheet, row, 1e39)})
parquet_kind("text_feature", "bad_number", lambda sheet, row: {"2": sheet.column("2")})
parquet_kind("float_label", "label_out_of_range", lambda sheet, row: {
    "label": [float(cell) + 0.5 for cell in sheet.column("label")]})  # fmt: skip
parquet_kind("negative_label", "label_out_of_range", lambda sheet, row: {
    "label": [-1 if i == row else 1 for i in range(len(sheet.rows))]})  # fmt: skip
parquet_kind("null_label", "label_out_of_range", lambda sheet, row: {
    "label": [None if i == row else 1 for i in range(len(sheet.rows))]})  # fmt: skip
parquet_kind("empty_path", "bad_path", lambda sheet, row: {
    "path": ["" if i == row else f"p{i}" for i in range(len(sheet.rows))]})  # fmt: skip


@kind
def parquet_cut(rng):
    return turned_down("v9_new.parquet", parquet(plain(rng))[:-100], "damaged_archive")


@kind
def parquet_of_no_rows(rng):
    sheet = plain(rng)
    sink = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(parquet(sheet))).slice(0, 0), sink)
    return turned_down("v9_new.parquet", sink.getvalue(), "empty_file")


@kind
def parquet_that_is_plain_text(rng):
    return turned_down("v9_new.parquet", plain(rng).text(), "not_csv")


# ------------------------------------------------------------------------- npy, npz and safetensors


class Trap:
    """Unpickled, it would make a folder."""

    place = "trap"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.mkdir, (Path(self.place),)


def npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=True)
    return sink.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=True, **arrays)
    return sink.getvalue()


def label_table(sheet: Sheet, n: int | None = None) -> bytes:
    rows = zip(sheet.column("path")[:n], sheet.column("label")[:n], strict=True)
    return ("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows)).encode()


def with_labels(matrix: bytes, sheet: Sheet, code: str | None, n: int | None = None) -> Case:
    files = {"v9_new.npy": matrix, "v9_new.labels.csv": label_table(sheet, n)}
    wanted = Refused(code, ..., ..., ...) if code else Kept({("v9", "new"): sheet})
    return Case(files, wanted, {"only": "v9_new.npy"})


@kind
def npy_good(rng):
    sheet = plain(rng)
    return with_labels(npy(sheet.matrix()), sheet, None)


@kind
def npy_good_in_fortran_order_and_float64(rng):
    sheet = plain(rng)
    return with_labels(npy(np.asfortranarray(sheet.matrix().astype(float))), sheet, None)


@pytest.mark.parametrize("n_rows", [0, 1])
def test_e21_a_width_that_the_head_alone_claims_costs_no_memory(tmp_path, n_rows):
    """A name for each of a hundred million features took 7 GB, for a file of 128 bytes."""
    head = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, 10**11)}
    np.lib.format.write_array_header_1_0(head, shape)
    (tmp_path / "val_x.npy").write_bytes(head.getvalue())
    (tmp_path / "val_x.labels.csv").write_text("label\n0\n")
    with pytest.raises(etl.LoadRefused, match="at most 100,000 feature columns") as refused:
        etl.load(tmp_path / "data", [tmp_path / "val_x.npy"])
    assert refused.value.code == "header_mismatch"


@kind
def npy_a_row_more_than_labels(rng):
    sheet = plain(rng)
    return with_labels(npy(sheet.matrix()), sheet, "row_count_mismatch", n=-1)


@kind
def npy_a_row_less_than_labels(rng):
    sheet = plain(rng)
    return with_labels(npy(sheet.matrix()[:-1]), sheet, "row_count_mismatch")


@kind
def npy_of_one_dimension(rng):
    sheet = plain(rng)
    return with_labels(npy(sheet.matrix()[:, 0]), sheet, "dimension_mismatch")


@kind
def npy_nan(rng):
    sheet = plain(rng)
    matrix = sheet.matrix().copy()
    matrix[int(rng.integers(len(matrix))), 3] = np.nan
    return with_labels(npy(matrix), sheet, "not_finite")


@kind
def npy_cut(rng):
    sheet = plain(rng)
    return with_labels(npy(sheet.matrix())[:-5], sheet, "damaged_archive")


@kind
def npy_pickled(rng):
    return with_labels(npy(np.array([[Trap()]], object)), plain(rng), "damaged_archive")


@kind
def npy_that_is_a_bare_pickle(rng):
    return with_labels(pickle.dumps(Trap()), plain(rng), "not_csv")


@kind
def npy_without_labels(rng):
    return turned_down("v9_new.npy", npy(plain(rng).matrix()), "source_not_found")


def arrays(sheet: Sheet) -> dict[str, np.ndarray]:
    labels = np.array([int(cell) for cell in sheet.column("label")])
    return {"features": sheet.matrix(), "label": labels, "path": np.array(sheet.column("path"))}


@kind
def npz_good(rng):
    sheet = plain(rng)
    return accepted("v9_new.npz", npz(**arrays(sheet)), sheet)


@kind
def npz_pickled(rng):
    sheet = plain(rng)
    paths = np.array([Trap() for _ in sheet.rows], object)
    return turned_down("v9_new.npz", npz(**arrays(sheet) | {"path": paths}), "damaged_archive")


@kind
def npz_with_another_number_of_labels(rng):
    sheet = plain(rng)
    fewer = {"label": arrays(sheet)["label"][:-1]}
    return turned_down("v9_new.npz", npz(**arrays(sheet) | fewer), "row_count_mismatch")


@kind
def npz_without_features(rng):
    sheet = plain(rng)
    return turned_down("v9_new.npz", npz(label=arrays(sheet)["label"]), "header_mismatch")


@kind
def npz_cut(rng):
    return turned_down("v9_new.npz", npz(**arrays(plain(rng)))[:-40], "damaged_archive")


def tensors(sheet: Sheet) -> bytes:
    found = arrays(sheet)
    return save({
        "features": np.ascontiguousarray(found["features"]),
        "label": found["label"].astype(np.int64),
    })  # fmt: skip


@kind
def safetensors_good(rng):
    sheet = good(rng, n=30, path=False, index=False, shuffled=False)
    labels = np.array([int(cell) for cell in sheet.column("label")], np.int64)
    packed = save({"features": np.ascontiguousarray(sheet.matrix()), "label": labels})
    return accepted("v9_new.safetensors", packed, sheet)


@kind
def safetensors_endless_header(rng):
    packed = struct.pack("<Q", 1 << 63) + tensors(plain(rng))[8:]
    return turned_down("v9_new.safetensors", packed, "damaged_archive")


@kind
def safetensors_cut(rng):
    return turned_down("v9_new.safetensors", tensors(plain(rng))[:-9], "damaged_archive")


# --------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    etl.load(folder / "data", [write_csv(folder / "val_toy.csv", make_world()["val", "toy"])])
    return folder / "data"


@pytest.mark.parametrize("name", KINDS)
def test_fault(name, old, tmp_path, monkeypatch, record_property):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    monkeypatch.setattr(Trap, "place", str(tmp_path / "sprung"))
    case = KINDS[name](rng)
    outcome = "accepted exactly" if isinstance(case.wanted, Kept) else "refused with its place"
    record_property("fault", [name, outcome, 1])
    folder = tmp_path / "features"
    folder.mkdir()
    hold(case, old, folder, rng)
    assert not (tmp_path / "sprung").exists()
