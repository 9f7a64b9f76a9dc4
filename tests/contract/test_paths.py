"""Names that lead elsewhere: in feature files, in links, in addresses. Nothing outside is read."""

import asyncio
import itertools
import os
import re
import shutil
import threading
import time
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote, urlencode

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from etl import images, load
from etl.images import link_images, open_image
from etl.sidecar import IMAGE_FILE_SCHEMA, IMAGES, LINKED
from service.analysis import Analysis
from service.app import create_app
from service.page_routes import router as page_router
from service.settings import Settings
from tests.faults.paths import CANARY, COLOUR, CONTROLS, GOOD, SURROGATES, hostile_paths, lay_out

SLOWEST_S = 5


@pytest.fixture(params=["openat2", "one by one"])
def opened_how(request, monkeypatch):
    """Both ways to open: what the kernel offers, and what is done where it does not."""
    if request.param == "one by one":
        monkeypatch.setattr(images, "_opened_beneath", lambda folder, place: None)
    else:
        folder = os.open("/", os.O_RDONLY)
        beneath = images._opened_beneath(folder, "proc")
        os.close(folder)
        if beneath is None:
            pytest.skip("this kernel, or what contains this process, does not offer openat2")
        os.close(beneath)


def n_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_s01_no_hostile_path_is_opened(tmp_path, opened_how, record_property):
    root = lay_out(tmp_path)
    paths = [*hostile_paths(tmp_path), *CONTROLS, *SURROGATES]
    assert len(paths) >= 60
    began = time.monotonic()
    n_open = n_descriptors()
    for path in paths:
        with pytest.raises(OSError):
            open_image(str(root), path).close()
    assert n_descriptors() == n_open
    record_property("fault", ["paths", "not opened", len(paths)])
    assert time.monotonic() - began < SLOWEST_S
    with open_image(str(root), GOOD) as stream:
        assert Image.open(stream).size == (40, 30)


@pytest.mark.parametrize("swapped", ["val/0/a.png", "val/0", "val"])
def test_s05_a_swap_between_check_and_opening_lets_nothing_out(tmp_path, opened_how, swapped):
    """A thread puts a link in the place of the file, or of a folder above it, and takes it away."""
    root = lay_out(tmp_path)
    outside = tmp_path / "img-secret"
    (outside / "0").mkdir()
    shutil.copy(outside / "a.png", outside / "0" / "a.png")
    place, aside = root / swapped, root / "aside"
    target = {"a.png": outside / "a.png", "0": outside, "val": outside}[place.name]
    link = root / "link"
    inside = (root / GOOD).read_bytes()
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            link.symlink_to(target)
            place.rename(aside)
            link.rename(place)
            place.unlink()
            aside.rename(place)

    swapping = threading.Thread(target=swap)
    swapping.start()
    n_good = 0
    try:
        for n_tried in itertools.count():
            try:
                with open_image(str(root), GOOD) as stream:
                    assert stream.read() == inside
                n_good += 1
            except OSError:
                pass
            if n_tried > 3_000 and n_good:
                break
    finally:
        stop.set()
        swapping.join()
    assert n_good > 0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with a root, and a data folder whose images have hostile paths, each twice linked."""
    folder = tmp_path_factory.mktemp("paths")
    root = lay_out(folder)
    paths = [path for path in hostile_paths(folder) if path]
    half = len(paths) // 2
    rng = np.random.default_rng(0)
    for split, mine in (("train", [f"t/{i}" for i in range(40)]), ("val", [GOOD, *paths[:half]]),
                        ("v2", paths[half:])):  # fmt: skip
        lines = ["path,label,0,1"]
        for i, path in enumerate(mine):
            shown = path.replace('"', '""')
            a, b = rng.normal(size=2) + i % 2
            lines.append(f'"{shown}",{i % 2},{a:.4f},{b:.4f}')
        (folder / f"{split}_x.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = folder / "data"
    load(data, [folder / f"{split}_x.csv" for split in ("train", "val", "v2")], n_threads=1)
    analysis = Analysis(data)
    analysis.train(model="m", backbone="x", head="lda", params={}, seed=0)
    analysis.evaluate("m")
    link_images(data, [root])
    return folder


@pytest.fixture
def client(place):
    with TestClient(create_app(Settings(data=place / "data"), with_worker=False)) as client:
        assert client.get("/gap/m/images").status_code == 200
        yield client


def shows_the_secret(answer):
    """Whether an answer has a byte of what lies outside, as text or as picture."""
    if answer.headers.get("content-type", "").startswith("image/"):
        picture = np.asarray(Image.open(BytesIO(answer.content)).convert("RGB"), float)
        return bool(np.abs(picture.mean((0, 1)) - COLOUR).max() < 60)
    return CANARY.encode() in answer.content or b"root:x:0" in answer.content


def all_images(client):
    listed = client.get("/gap/m/images/list", params={"per_page": 200}).json()
    return {image["path"]: image["image_id"] for image in listed["images"]}


def test_s02_a_feature_file_with_hostile_paths_shows_nothing_from_outside(client, place):
    """As linked by the walk, and as a table of links says that another hand has changed."""
    ids = all_images(client)
    assert set(hostile_paths(place)) - {""} <= set(ids)
    linked = place / "data" / IMAGES / LINKED
    before = linked.read_bytes()
    shown = set()
    try:
        for changed in (False, True):
            if changed:
                splits = {i["path"]: i["split"] for i in client.get(
                    "/gap/m/images/list", params={"per_page": 200}).json()["images"]}  # fmt: skip
                columns = [[splits[p] for p in ids], list(ids), [str(place / "img")] * len(ids),
                           list(ids), [9] * len(ids)]  # fmt: skip
                pq.write_table(pa.table(columns, IMAGE_FILE_SCHEMA), linked)
            for address in ("/gap/m/images/list?per_page=200", "/view/m/images"):
                assert client.get(address).status_code == 200
            for i, (path, image_id) in enumerate(ids.items()):
                size = (160, 640)[i % 2]
                picture = f"/images/{image_id}/thumbnail?size={size}"
                said = [f"/gap/m/images/{image_id}", f"/view/m/images/{image_id}"]
                for address in (picture, *(said if i % 16 == 0 and not changed else [])):
                    began = time.monotonic()
                    answer = client.get(address)
                    assert time.monotonic() - began < SLOWEST_S, (path, address)
                    assert answer.status_code in (200, 404), (path, address, answer.text[:300])
                    assert not shows_the_secret(answer), (path, address)
                    if address == picture and answer.status_code == 200:
                        shown.add(path)
    finally:
        linked.write_bytes(before)
    # the walk finds the good image under some odd names: what they name is inside
    assert GOOD in shown


def addresses(client):
    """Method, template, and parameters of every route that takes a text, pages too."""
    pages = FastAPI()
    for route in page_router.routes:
        pages.add_api_route(route.path, route.endpoint, methods=route.methods)
    for schema in (client.get("/openapi.json").json(), pages.openapi()):
        for template, methods in schema["paths"].items():
            for method, operation in methods.items():
                taken = operation.get("parameters", [])
                if any(place["in"] == "path" or is_text(place) for place in taken):
                    yield method.upper(), template, taken


def is_text(place):
    schema = place["schema"]
    kinds = [schema, *schema.get("anyOf", [])]
    return place["in"] == "query" and any(k.get("type") == "string" for k in kinds)


async def asked(app, method, path, query):
    """Status and body, asked as a server asks: nothing between them tidies the path up."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": query.encode(), "client": ("127.0.0.1", 9), "server": ("127.0.0.1", 8000),
        "headers": [(b"host", b"127.0.0.1:8000"), (b"content-type", b"application/json")],
    }  # fmt: skip
    sent, body = [], iter([{"type": "http.request", "body": b"{}", "more_body": False}])

    async def receive():
        return next(body, None) or await asyncio.sleep(60) or {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_s03_no_address_leads_outside(client, place, record_property):
    """Each hostile name in each place of an address that takes a text, of every route."""
    names = [*hostile_paths(place), *CONTROLS]
    names = list(dict.fromkeys([*names, *map(unquote, names)]))
    found = list(addresses(client))
    wanted = {"/reports/{report}/report.html", "/view/{model}/part/{name}", "/static/{file}",
              "/gap/{model}/mask/{mask}", "/jobs/{job}", "/seals/{seal}"}  # fmt: skip
    assert wanted <= {template for _, template, _ in found}
    good = {"model": "m", "page": "classes", "job": "none", "image_id": "1", "name": "gap"}
    required = {"covariate": "x", "model": "m"}

    async def ask_all():
        n = 0
        turn = itertools.count()
        for method, template, taken in found:
            for place_ in taken:
                if place_["in"] != "path" and not is_text(place_):
                    continue
                # each name in each path; in queries every twelfth, others in the next one
                for name in names if place_["in"] == "path" else names[next(turn) % 12 :: 12]:
                    values = {p: good.get(p, "0") for p in re.findall(r"{(\w+)", template)}
                    query = {
                        p["name"]: required.get(p["name"], "0") for p in taken
                        if p["in"] == "query" and p.get("required")
                    }  # fmt: skip
                    (values if place_["in"] == "path" else query)[place_["name"]] = name
                    path, text = template.format(**values), urlencode(query)
                    began = time.monotonic()
                    status, body = await asked(client.app, method, path, text)
                    where = (method, template, place_["name"], name[:80])
                    assert status < 500, (where, body[:300])
                    assert CANARY.encode() not in body, where
                    assert b"root:x:0" not in body, where
                    assert time.monotonic() - began < SLOWEST_S, where
                    n += 1
        return n

    n_asked = asyncio.run(ask_all())
    record_property("fault", ["addresses", "nothing from outside", n_asked])
    assert n_asked > 100 * len(found)
