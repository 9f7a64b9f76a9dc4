"""Files that pretend to be a model's, or were damaged (S10–S19): each must be refused in words.

Builders of the content of a file, by what is wrong with it. `payload` is a pickle that, were it
ever run, would make a marker file.
"""

import gzip
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save

DEEP = 100_000


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def payload(marker: Path, protocol: int = 4) -> bytes:
    """Return a pickle that makes the marker when it is run."""
    return pickle.dumps(_Evil(marker), protocol)


def pickles(marker: Path) -> dict[str, bytes]:
    """Return pickles in every wrapping in which weights come."""
    plain = payload(marker)
    found = {f"pickle {protocol}": payload(marker, protocol) for protocol in (0, 2, 4, 5)}
    found["pickle gz"] = gzip.compress(plain)
    in_dict = io.BytesIO()
    torch.save({"fc.weight": torch.zeros(4, 3), "x": _Evil(marker)}, in_dict)
    found["torch zip"] = in_dict.getvalue()
    legacy = io.BytesIO()
    torch.save(_Evil(marker), legacy, _use_new_zipfile_serialization=False)
    found["torch legacy"] = legacy.getvalue()
    objects = io.BytesIO()
    np.save(objects, np.array([_Evil(marker)], object), allow_pickle=True)
    found["numpy objects"] = objects.getvalue()
    return found


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a file with a header as given, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    n = len(text) if length is None else length
    return struct.pack("<Q", n) + text + data


def broken_safetensors(
    arrays: Mapping[str, np.ndarray], metadata: dict[str, str], marker: Path
) -> dict[str, bytes]:
    """Return what a reader of safetensors must refuse, made of a good file."""
    good = save(dict(arrays), metadata)
    n = struct.unpack("<Q", good[:8])[0]
    header, data = json.loads(good[8 : 8 + n]), good[8 + n :]
    names = [name for name in header if name != "__metadata__"]
    first, second = names[:2]

    def changed(name: str, **values: Any) -> bytes:
        return safetensors({**header, name: {**header[name], **values}}, data)

    start, end = header[first]["data_offsets"]
    text = json.dumps(header)
    twice = text[:-1] + f', "{first}": {json.dumps(header[second])}' + "}"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("archive/data.pkl", payload(marker))
    return {
        "empty": b"",
        "seven bytes": good[:7],
        "length alone": good[:8],
        "length 0": safetensors(b"", data),
        "length 2^63": safetensors(header, data, 1 << 63),
        "length 2^64-1": safetensors(header, data, (1 << 64) - 1),
        "length beyond the end": safetensors(header, data, len(good) * 2),
        "length 1 GB": safetensors(header, data, 1 << 30),
        "length one less": safetensors(header, data, n - 1),
        "no JSON": safetensors(b"{" * 40, data),
        "a list": safetensors([], data),
        "null": safetensors(None, data),
        "Latin-1": safetensors(b'{"\xff": 1}', data),
        "deep": safetensors(b'{"a":' * DEEP, data),
        "deep lists": safetensors(b"[" * DEEP + b"]" * DEEP, data),
        "names twice": safetensors(twice.encode(), data),
        "offsets overlap": changed(second, data_offsets=[start, end]),
        "offsets negative": changed(first, data_offsets=[-8, end]),
        "offsets turned": changed(first, data_offsets=[end, start]),
        "offsets beyond": changed(first, data_offsets=[start, len(data) + 8]),
        "offsets huge": changed(first, data_offsets=[0, (1 << 64) - 1]),
        "offsets three": changed(first, data_offsets=[0, 8, 16]),
        "hole": safetensors({k: v for k, v in header.items() if k != first}, data),
        "bytes behind": good + b"behind",
        "zip behind": good + archive.getvalue(),
        "zip": archive.getvalue(),
        "dtype unknown": changed(first, dtype="OBJECT"),
        "dtype smaller": changed(first, dtype="U8"),
        "shape larger": changed(first, shape=[1 << 20, 1 << 20]),
        "shape overflows": changed(first, shape=[1 << 62, 4, 4]),
        "shape negative": changed(first, shape=[-1]),
        "shape of floats": changed(first, shape=[1.5]),
        "shape missing": safetensors({**header, first: {"dtype": "F32"}}, data),
        "metadata of numbers": safetensors({**header, "__metadata__": {"gapscope": 1}}, data),
        "metadata a list": safetensors({**header, "__metadata__": []}, data),
        "half": good[: len(good) // 2],
        "one byte less": good[:-1],
        "HTML": b"<script>alert(1)</script>",
        **pickles(marker),
    }


def other_heads(arrays: Mapping[str, np.ndarray], marker: Path) -> dict[str, bytes]:
    """Return well-formed files that are no head, or one with numbers that are none."""

    def file(change: Mapping[str, Any] = {}, what: object = {"type": "linear"}) -> bytes:
        text = what if isinstance(what, str) else json.dumps(what)
        return save({**arrays, **change}, {"gapscope": text})

    d, k = arrays["weight"].shape
    evil = np.frombuffer(payload(marker), np.uint8)
    standard = {n: arrays[n] for n in ("mean", "scale", "class_ids")} | {"weights": arrays["mean"]}
    version = ".".join(__import__("sklearn").__version__.split(".")[:2])
    forest = {"type": "sklearn", "name": "GaussianNB", "temperature": 1.0, "version": version}
    return {
        "NaN": file({"weight": np.full((d, k), np.nan, np.float32)}),
        "infinite": file({"bias": np.full(k, -np.inf, np.float32)}),
        "too wide": file({"weight": np.zeros((d, k + 1), np.float32)}),
        "turned": file({"weight": np.zeros((k, d + 3), np.float32)}),
        "no axis": file({"bias": np.array(1, np.float32)}),
        "empty tensors": file({"mean": np.zeros(0)}),
        "ids of floats": file({"class_ids": np.arange(k, dtype=float)}),
        "weights of bytes": file({"weight": np.zeros((d, k), np.uint8)}),
        "one tensor more": file({"more": np.zeros(3)}),
        "of no kind": file(what={}),
        "of unknown kind": file(what={"type": "os.system"}),
        "kind a list": file(what=[]),
        "kind null": file(what="null"),
        "kind no JSON": file(what="{"),
        "kind deep": file(what="[" * DEEP),
        "kind of HTML": file(what={"type": "<script>alert(1)</script>"}),
        "kind 8 MB": file(what={"type": "x" * (8 << 20)}),
        "neighbours without votes": file(what={"type": "knn"}),
        "network of no kind": file(what={"type": "network"}),
        "network of a list": file(what={"type": "network", "kind": []}),
        "ensemble of none": file(what={"type": "ensemble", "members": []}),
        "ensemble of 1": file(what={"type": "ensemble", "members": 1}),
        "ensemble in itself": file(
            what=json.dumps({"type": "ensemble", "members": [{"type": "linear"}] * 9})
        ),
        "selected of none": file(what={"type": "selected", "n_features": "x"}),
        "sklearn pickle": save({**standard, "estimator": evil}, {"gapscope": json.dumps(forest)}),
        "sklearn unknown": save(
            {**standard, "estimator": evil},
            {"gapscope": json.dumps(forest | {"name": "os.system"})},
        ),
        "sklearn of another class": save(
            {**standard, "estimator": skops_of({"a": 1})}, {"gapscope": json.dumps(forest)}
        ),
        "sklearn untrusted": save(
            {**standard, "estimator": skops_of(Path("/"))}, {"gapscope": json.dumps(forest)}
        ),
    }


def skops_of(value: object) -> np.ndarray:
    """Return what skops writes of an object."""
    import skops.io

    return np.frombuffer(skops.io.dumps(value), np.uint8)


def broken_json(good: Any, marker: Path) -> dict[str, bytes]:
    """Return texts that are no JSON, or none that could be told from good."""
    text = json.dumps(good)
    return {
        "empty": b"",
        "half": text[: len(text) // 2].encode(),
        "text": b"not JSON",
        "null": b"null",
        "number": b"7",
        "of the other kind": b"[]" if isinstance(good, dict) else b"{}",
        "list of null": b"[null]",
        "deep": b"[" * DEEP,
        "deep and closed": b"[" * DEEP + b"]" * DEEP,
        "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        "NaN": b'[NaN, {"model": NaN}]',
        "1e400": b"[1e400]",
        "long number": b"[" + b"9" * 10_000 + b"]",
        "half a character": b'["\\ud800"]',
        "UTF-16": text.encode("utf-16"),
        "NUL": b"\0" * 100,
        "zip": b"PK\x03\x04" + b"\0" * 100,
        "pickle": payload(marker),
        "80 MB of nothing": b" " * (80 << 20),
    }


def broken_cards(card: dict[str, Any]) -> dict[str, bytes]:
    """Return cards that are JSON, but with a value that no card has."""
    values = {
        "another name": {"model": "other"},
        "a path as name": {"model": "../../etc/passwd"},
        "no name": {"model": None},
        "HTML as name": {"model": "<script>alert(1)</script>"},
        "time a number": {"created_at": 5},
        "time a word": {"created_at": "yesterday"},
        "seed a word": {"seed": "0"},
        "seed a list": {"seed": [0]},
        "classes a word": {"n_classes": "ten"},
        "head a list": {"head": ["logistic"]},
        "params a list": {"params": ["C", 1]},
        "params a half character": {"params": {"C": "\ud800"}},
        "params infinite": {"params": {"C": float("inf")}},
        "params NaN": {"params": {"C": float("nan")}},
        "digests a word": {"train_sha256": "ab"},
        "backbone a number": {"backbone": 1},
        "validation a word": {"validation": "good"},
        "validation empty": {"validation": {}},
        "notes a word": {"notes": "x"},
        "rows a list": {"rows": [1]},
        "given a path": {"given": "../../etc/passwd"},
    }
    found = {what: json.dumps({**card, **more}).encode() for what, more in values.items()}
    for name in ("model", "head", "params", "created_at", "train_sha256"):
        found[f"without {name}"] = json.dumps(
            {key: value for key, value in card.items() if key != name}
        ).encode()
    return found


def broken_parquet(good: pa.Table, marker: Path) -> dict[str, bytes]:
    """Return files that are no Parquet, or one of other columns or of endless rows."""

    def file(table: pa.Table) -> bytes:
        sink = io.BytesIO()
        pq.write_table(table, sink)
        return sink.getvalue()

    whole = file(good)
    first = good.column_names[0]
    middle = len(whole) // 2
    flipped = whole[: middle - 40] + b"\xff" * 80 + whole[middle + 40 :]
    return {
        "empty": b"",
        "text": b"path,label\n",
        "magic alone": b"PAR1PAR1",
        "half": whole[:middle],
        "one byte less": whole[:-1],
        "footer length": whole[:-8] + b"\xff\xff\xff\x7fPAR1",
        "flipped": flipped,
        "pickle": payload(marker),
        "other columns": file(pa.table({"a": [1], "b": ["x"]})),
        "no column": file(pa.table({})),
        "of text": file(pa.table({first: ["x"] * 3})),
        "a column more": file(good.append_column("more", pa.nulls(len(good)))),
        "without the first": file(good.drop_columns([first])),
        "endless": _endless(good),
    }


def _endless(good: pa.Table) -> bytes:
    """51 million rows of one value each in a few kB."""
    block = pa.table(
        {
            field.name: pa.repeat(good[field.name][0], 1_000_000).cast(field.type)
            for field in good.schema
        },
        good.schema,
    )
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, good.schema, compression="zstd") as writer:
        for _ in range(51):
            writer.write_table(block, row_group_size=1_000_000)
    return sink.getvalue()


def other_weights() -> dict[str, bytes]:
    """Return files of torch with tensors that are no weights."""
    bias = torch.zeros(4)
    contents = {
        "a list": [torch.zeros(4, 3), bias],
        "a tensor": torch.zeros(4, 3),
        "nothing": None,
        "no tensors": {"fc.weight": 1, "fc.bias": "x"},
        "sparse": {"fc.weight": torch.zeros(4, 3).to_sparse(), "fc.bias": bias},
        "repeated": {"fc.weight": torch.zeros(1).expand(1 << 30, 3),
                     "fc.bias": torch.zeros(1).expand(1 << 30)},
        "complex": {"fc.weight": torch.zeros(4, 3, dtype=torch.complex64), "fc.bias": bias},
        "on no device": {"fc.weight": torch.zeros(4, 3, device="meta"), "fc.bias": bias},
        "infinite": {"fc.weight": torch.full((4, 3), torch.inf), "fc.bias": bias},
    }  # fmt: skip
    found = {}
    for what, content in contents.items():
        sink = io.BytesIO()
        torch.save(content, sink)
        found[f"torch {what}"] = sink.getvalue()
    good, packed = io.BytesIO(), io.BytesIO()
    torch.save({"fc.weight": torch.zeros(1_000, 3), "fc.bias": torch.zeros(1_000)}, good)
    with zipfile.ZipFile(good) as parts, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for part in parts.infolist():
            out.writestr(part.filename, parts.read(part))
    return found | {"torch packed": packed.getvalue()}
