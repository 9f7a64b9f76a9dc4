"""Rows of features as an Arrow stream: by name, in blocks, and whatever is wrong is refused."""

import asyncio
import json
import shutil
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from models import heads
from service import app, arrow_predictions
from service.analysis import Analysis
from service.door import limits
from service.results import Results
from service.settings import Settings
from tests.e2e.server import serving
from tests.world import make_world

ARROW = "application/vnd.apache.arrow.stream"
NAMES = ["0", "1", "2"]


@pytest.fixture(scope="module")
def features():
    return make_world()["val", "toy"].features.astype(np.float32)


@pytest.fixture
def ask(client):
    def post(body, query="model=mean", kind=ARROW, **more):
        headers = {} if kind is None else {"content-type": kind}
        return client.post(f"/predict/arrow?{query}", content=body, headers=headers, **more)

    return post


def stream(*tables, options=None, close=True):
    sink = BytesIO()
    writer = pa.ipc.new_stream(sink, tables[0].schema, options=options)
    for table in tables:
        writer.write(table)
    if close:
        writer.close()
    return sink.getvalue()


def vectors(features, kind=None):
    kind = kind or pa.list_(pa.float32(), features.shape[1])
    return pa.table({"vector": pa.array(list(features), kind)})


def columns(features, names=NAMES, order=None):
    table = pa.table({name: features[:, i] for i, name in enumerate(names)})
    return table.select(order or names)


def answered(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == ARROW
    return pa.ipc.open_stream(answer.content).read_all()


def test_the_answer_is_that_of_json(client, ask, features):
    json_answer = client.post("/predict", json={"model": "mean", "features": features.tolist()})
    wanted = json_answer.json()
    table = answered(ask(stream(vectors(features)), "model=mean&probabilities=true"))
    assert table.column("class_id").to_pylist() == wanted["classes"]
    assert table.column("class_name").to_pylist() == wanted["names"]
    p = np.array(table.column("probabilities").to_pylist())
    np.testing.assert_allclose(p, wanted["probabilities"], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(table.column("confidence"), np.max(wanted["probabilities"], 1))
    assert json.loads(table.schema.metadata[b"class_ids"]) == wanted["class_ids"]
    assert json.loads(table.schema.metadata[b"class_names"]) == wanted["class_names"]
    bare = answered(ask(stream(vectors(features))))
    assert bare.column_names == ["class_id", "class_name", "confidence"]


@pytest.mark.parametrize(
    "make",
    [
        lambda f: vectors(f, pa.list_(pa.float64())),
        lambda f: vectors(f, pa.large_list(pa.float32())),
        lambda f: vectors(f, pa.list_(pa.float32())).slice(0),
        columns,
        lambda f: columns(f, order=["2", "0", "1"]),
        lambda f: columns(f.astype(float)).append_column("label", pa.array(["x"] * len(f))),
        lambda f: columns(f).add_column(1, "vector", pa.array([None] * len(f), pa.null())),
        lambda f: pa.Table.from_pandas(pd.DataFrame(f, columns=NAMES).assign(path="a")),
    ],
)
def test_every_form_gives_the_same_answer(ask, features, make):
    wanted = answered(ask(stream(vectors(features))))
    assert answered(ask(stream(make(features)))).equals(wanted)


def test_features_go_by_the_name_that_they_had_when_the_model_learnt(toy_data, client, features):
    """And not by the order in which another load may have put them."""
    assert Analysis(toy_data).results.feature_names("mean") == NAMES
    turned = features[:, ::-1]
    table = columns(turned, names=NAMES[::-1])
    headers = {"content-type": ARROW}
    one, two = (
        answered(client.post("/predict/arrow?model=mean", content=stream(t), headers=headers))
        for t in (table, vectors(features))
    )
    assert one.equals(two)


def test_a_model_stored_before_names_were_takes_those_of_the_database(
    toy_data, ask, features, monkeypatch
):
    monkeypatch.setattr(Results, "feature_names", lambda _self, _model: None)
    wanted = answered(ask(stream(vectors(features))))
    assert answered(ask(stream(columns(features, order=["2", "1", "0"])))).equals(wanted)


def test_batches_and_blocks_do_not_matter(ask, features, monkeypatch):
    wanted = answered(ask(stream(vectors(features))))
    monkeypatch.setattr(arrow_predictions, "_BLOCK_ROWS", 3)
    table = vectors(features)
    parts = [table.slice(0, 1), table.slice(1, 0), table.slice(1)]
    found = answered(ask(stream(*parts)))
    assert found.column("class_id").equals(wanted.column("class_id"))
    np.testing.assert_allclose(found.column("confidence"), wanted.column("confidence"), rtol=1e-6)
    assert len(answered(ask(stream(table.slice(0, 0))))) == 0


def test_a_body_may_come_in_pieces(client, features):
    body = stream(vectors(features))
    pieces = (body[i : i + 7] for i in range(0, len(body), 7))
    answer = client.post(
        "/predict/arrow?model=mean", content=pieces, headers={"content-type": ARROW}
    )
    assert len(answered(answer)) == len(features)


def dictionary(features):
    return columns(features).append_column(
        "label", pa.array(["a"] * len(features)).dictionary_encode()
    )


def test_a_dictionary_beside_the_features_is_passed_over(ask, features):
    assert len(answered(ask(stream(dictionary(features))))) == len(features)


def with_nulls(features):
    return pa.table({"vector": pa.array([[0.0, None, 1.0]], pa.list_(pa.float32(), 3))})


def two_of_one_name(features):
    column = pa.array(features[:, 0])
    return pa.Table.from_arrays([column] * 4, names=["0", "1", "2", "0"])


COMPRESSED = [pa.ipc.IpcWriteOptions(compression=c) for c in ("lz4", "zstd")]


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (lambda f: b"", "damaged_stream", "an empty body"),
        (lambda f: b"no stream at all, but text", "damaged_stream", "stream"),
        (lambda f: b"PAR1" + bytes(100), "damaged_stream", "stream"),
        (lambda f: b"\xff\xff\xff\xff\xff\xff\xff\x7f", "damaged_stream", "stream"),
        (lambda f: stream(vectors(f), close=False), "damaged_stream", "cut"),
        (lambda f: stream(vectors(f))[:-40], "damaged_stream", "stream"),
        (lambda f: stream(vectors(f)) + b"more", "damaged_stream", "behind"),
        (lambda f: stream(vectors(f)) * 2, "damaged_stream", "behind"),
        (lambda f: stream(vectors(f), options=COMPRESSED[0]), "damaged_stream", "compress"),
        (lambda f: stream(columns(f), options=COMPRESSED[1]), "damaged_stream", "compress"),
        (lambda f: stream(dictionary(f), options=COMPRESSED[1]), "damaged_stream", "compress"),
        (lambda f: stream(vectors(f[:, :2])), "damaged_stream", "3 numbers"),
        (lambda f: stream(pa.table({"vector": [[1.0], [1.0, 2.0]]})), "damaged_stream", "3 num"),
        (lambda f: stream(pa.table({"vector": [[1.0] * 3, None]})), "damaged_stream", "3 numbers"),
        (lambda f: stream(with_nulls(f)), "damaged_stream", "null"),
        (lambda f: stream(columns(f).set_column(1, "1", pa.nulls(len(f), pa.float32()))),
         "damaged_stream", "null"),
        (lambda f: stream(columns(f, names=["a", "b", "c"])), "damaged_stream", "the first is '0'"),
        (lambda f: stream(columns(f).drop(["1"])), "damaged_stream", "the first is '1'"),
        (lambda f: stream(two_of_one_name(f)), "damaged_stream", "two called '0'"),
        (lambda f: stream(columns(f).set_column(1, "1", pa.array(["x"] * len(f)))),
         "damaged_stream", "got string"),
        (lambda f: stream(pa.table({"vector": ["x"]})), "damaged_stream", "lists of numbers"),
        (lambda f: stream(pa.table({"vector": [True]})), "damaged_stream", "lists of numbers"),
        (lambda f: stream(vectors(f * np.nan)), "not_finite_input", "finite"),
        (lambda f: stream(columns(np.full((2, 3), 1e39))), "not_finite_input", "finite"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_422(ask, features, body, code, said, record_property):
    record_property("fault", ["Arrow streams", "refused with 422", 1])
    answer = ask(body(features))
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert said in answer.json()["detail"]


def test_no_damage_is_a_fault_of_ours(ask, features, record_property):
    """Bytes changed, cut and put in at random: an answer of so many rows, or a 422."""
    whole = stream(vectors(features), vectors(features))
    rng = np.random.default_rng(0)
    statuses = []
    for _ in range(150):
        body, at = bytearray(whole), int(rng.integers(len(whole)))
        match int(rng.integers(4)):
            case 0:
                body[at] ^= 1 << int(rng.integers(8))
            case 1:
                body[at : at + 8] = rng.bytes(8)
            case 2:
                del body[at:]
            case 3:
                body[at:at] = rng.bytes(int(rng.integers(1, 20)))
        answer = ask(bytes(body))
        assert answer.status_code in (200, 422), answer.text
        statuses.append(answer.status_code)
    assert statuses.count(422) > 75
    record_property("fault", ["Arrow streams at random", "200 or 422", len(statuses)])


def test_a_fault_in_the_last_batch_is_no_half_answer(ask, features):
    bad = features.copy()
    bad[-1, -1] = np.inf
    answer = ask(stream(*[vectors(features)] * 5, vectors(bad)))
    assert (answer.status_code, answer.json()["code"]) == (422, "not_finite_input")


@pytest.mark.parametrize(
    ("query", "kind", "status", "code"),
    [
        ("model=none", ARROW, 404, "not_found"),
        ("", ARROW, 422, "invalid_request"),
        ("model=../x", ARROW, 422, "invalid_request"),
        ("model=mean&probabilities=perhaps", ARROW, 422, "invalid_request"),
        ("model=mean", "application/json", 415, "wrong_content_type"),
        ("model=mean", "text/csv", 415, "wrong_content_type"),
        ("model=mean", None, 415, "wrong_content_type"),
    ],
)
def test_a_refusal_is_a_problem_with_a_code(ask, features, query, kind, status, code):
    answer = ask(stream(vectors(features)), query, kind)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path", ["/predict/arrow?model=mean", "/predict/image?model=mean", "/train"]
)
def test_a_body_beyond_its_limit_is_refused_by_its_word_and_as_it_comes(
    client, monkeypatch, path, toy_data
):
    monkeypatch.setattr(limits, "BODY_BYTES", {"/predict/arrow": 1000, "/predict/image": 1000})
    monkeypatch.setattr(limits, "OTHER_BODY_BYTES", 1000)
    kind = {"a": ARROW, "i": "image/png"}.get(path[9:10], "application/json")

    for body in (bytes(1001), (bytes(500) for _ in range(3))):  # with and without Content-Length
        answer = client.post(path, content=body, headers={"content-type": kind})
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert not [f for f in toy_data.iterdir() if f.name.startswith("tmp")]


def test_a_body_is_not_read_far_beyond_its_limit(toy_data, monkeypatch):
    """A client that never ends; the test client would read it to its end itself."""
    monkeypatch.setattr(limits, "BODY_BYTES", {"/predict/arrow": 1000})
    n_read, sent = 0, []

    async def receive():
        nonlocal n_read
        n_read += 1
        assert n_read < 5
        return {"type": "http.request", "body": bytes(500), "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/predict/arrow",
        "raw_path": b"/predict/arrow", "query_string": b"model=mean", "root_path": "",
        "scheme": "http", "headers": [(b"host", b"localhost"), (b"content-type", ARROW.encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "state": {},
    }  # fmt: skip
    service = app.create_app(Settings(data=toy_data), with_worker=False)
    asyncio.run(service(scope, receive, send))
    assert sent[0]["status"] == 413


def test_a_full_disk_is_said(ask, features, monkeypatch):
    def full(*_args, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Analysis, "predict_arrow", full)
    answer = ask(stream(vectors(features)))
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")


def test_deep_json_is_refused(client):
    deep = b'{"model": "mean", "features": ' + b"[" * 100_000
    answer = client.post("/predict", content=deep, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)


@pytest.mark.slow
def test_a_million_rows_take_bounded_memory(tmp_path, toy_data):
    """In a service of its own: its peak before and after."""
    rows, n_batches = 20_000, 50
    rng = np.random.default_rng(0)
    batch = vectors(rng.normal(size=(rows, 3)).astype(np.float32))
    data = shutil.copytree(toy_data, tmp_path / "data")
    with serving(data) as (client, service):

        def peak():
            status = Path(f"/proc/{service.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

        def post(n):
            answer = client.post(
                "/predict/arrow?model=mean",
                content=stream(*[batch] * n),
                headers={"content-type": ARROW},
                timeout=httpx.Timeout(300),
            )
            return len(answered(answer))

        assert post(1) == rows
        before = peak()
        assert post(n_batches) == rows * n_batches
        # the body alone is 12 MB of vectors and the answer 30 MB: mapped, so the kernel may take
        # them back; what is held is one block
        assert peak() - before < 120_000


def test_one_block_is_held_at_a_time(tmp_path, monkeypatch):
    """Whatever the size of a batch."""
    seen = []
    whole = heads.probabilities

    def looking(head, block):
        seen.append(len(block))
        return whole(head, block)

    monkeypatch.setattr(heads, "probabilities", looking)
    zero = np.zeros(3)
    head = heads.LinearHead(
        zero, zero + 1, np.eye(3, dtype=np.float32), zero.astype(np.float32), np.arange(3)
    )
    with (tmp_path / "a").open("w+b") as body, (tmp_path / "b").open("w+b") as answer:
        body.write(stream(vectors(np.zeros((10_000, 3), np.float32))))
        body.flush()
        arrow_predictions.predict_stream(body, answer, head, NAMES, {}, with_probabilities=True)
        assert seen == [4096, 4096, 1808]
        answer.seek(0)
        assert len(pa.ipc.open_stream(answer).read_all()) == 10_000
