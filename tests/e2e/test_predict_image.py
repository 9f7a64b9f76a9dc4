"""One image through the network behind a model, and everything that is wrong with either."""

import io
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from models.backbones import network
from service import backbones, cli
from service.analysis import Analysis
from service.app import create_app
from service.looks import Look
from service.settings import Settings
from tests.e2e.test_extraction import MODEL, NAME, paint

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folder with images, their features as files, and a data folder with a model of them."""
    folder = tmp_path_factory.mktemp("images")
    for i, split in enumerate(("train", "val")):
        paint(folder / split, 8, seed=i)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAP_DATA", str(folder / "data"))
        for split in ("train", "val"):
            line = ["extract", "--split", split, "--images", str(folder / split), "--model", MODEL]
            line += ["--weights", "random", "--workers", "0", "--device", "cpu"]
            assert cli.main([*line, "--out", str(folder / "out")]) == 0
        assert cli.main(["load", str(folder / "out")]) == 0
        assert cli.main(["train", NAME, "--head", "lda", "--name", "m"]) == 0
    return folder


@pytest.fixture
def client(world, tmp_path):
    data = shutil.copytree(world / "data", tmp_path / "data")
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        client.app.state.analysis.evaluate("m")
        yield client


def image(world):
    return next((world / "val").rglob("*.png")).read_bytes()


def as_bytes(picture, form="PNG", **how):
    sink = io.BytesIO()
    picture.save(sink, form, **how)
    return sink.getvalue()


def test_the_features_are_those_that_were_extracted(world):
    """The load found the record beside the feature file."""
    analysis = Analysis(world / "data")
    rows = analysis.database.test_rows(NAME, "val", look=Look(None, "evaluate"))
    sha = analysis.results.card("m")["train_sha256"]
    for row in (0, 10, 23):
        content = (world / rows.paths[row]).read_bytes()
        found = analysis.backbones.features(backbones.decoded(content), NAME, sha)
        np.testing.assert_allclose(found[0], rows.features[row], atol=1e-4, rtol=1e-5)


def test_the_network_is_opened_once_and_kept(client, world, monkeypatch):
    opened = []
    whole = backbones.open_backbone
    monkeypatch.setattr(
        backbones, "open_backbone", lambda *a, **k: opened.append(a) or whole(*a, **k)
    )
    answers = [
        client.post("/predict/image?model=m", content=image(world), headers=PNG) for _ in range(3)
    ]
    assert [a.status_code for a in answers] == [200] * 3
    assert answers[0].json() == answers[2].json()
    assert len(opened) == 1


def test_without_a_record_it_is_looked_for_beside_the_file_and_else_refused(client, world):
    data = client.app.state.analysis.data
    record = data / "backbones" / f"{NAME}.json"
    assert json.loads(record.read_text())["splits"].keys() == {"train", "val"}
    record.unlink()  # as after python -m etl
    answer = client.post("/predict/image?model=m", content=image(world), headers=PNG)
    assert answer.status_code == 200
    record.write_text("damaged")
    moved = (world / "out").rename(world / "elsewhere")
    try:
        answer = client.post("/predict/image?model=m", content=image(world), headers=PNG)
    finally:
        moved.rename(world / "out")
    assert (answer.status_code, answer.json()["code"]) == (409, "backbone_not_here")
    assert "gapscope extract" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights_file": "/nowhere/weights.pth", "random_seed": None}, "cannot be had here"),
        ({"random_seed": None}, "not tried here"),
        ({"random_seed": 1}, "got others"),
        ({"settings": {"model": "no_such_model"}}, "cannot be had here"),
        ({"settings": {"layer": "no_such_layer"}}, "cannot be had here"),
    ],
)
def test_a_network_that_cannot_be_run_is_409_with_the_reason(client, world, change, said):
    """Nothing is downloaded while someone waits for the answer."""
    record = client.app.state.analysis.data / "backbones" / f"{NAME}.json"
    known = json.loads(record.read_text())
    for split in known["splits"].values():
        settings = {**split["how"]["settings"], **change.get("settings", {})}
        split["how"] = {**split["how"], **change, "settings": settings}
    record.write_text(json.dumps(known))
    answer = client.post("/predict/image?model=m", content=image(world), headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (409, "backbone_not_here"), answer.text
    assert said in answer.json()["detail"]
    assert "POST /predict" in answer.json()["detail"]


def test_features_extracted_into_the_database_are_recorded(tmp_path, world, monkeypatch):
    monkeypatch.setenv("GAP_DATA", str(tmp_path / "data"))
    for split in ("train", "val"):
        line = ["extract", "--split", split, "--images", str(world / split), "--model", MODEL]
        line += ["--weights", "random", "--workers", "0", "--format", "database"]
        assert cli.main([*line, "--out", str(tmp_path / "out")]) == 0
    shutil.rmtree(tmp_path / "out")
    assert cli.main(["train", NAME, "--head", "lda", "--name", "m"]) == 0
    answer = Analysis(tmp_path / "data").predict_image("m", image(world))
    assert answer.n_features > 0


def test_a_checkpoint_that_was_named_is_found_again(tmp_path, world, monkeypatch):
    import torch

    opened = network.open_backbone(MODEL, random_seed=7, device="cpu")
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = timm.create_model(MODEL, pretrained=False)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    monkeypatch.setenv("GAP_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        line = ["extract", "--split", split, "--images", str(world / split), "--model", MODEL]
        line += ["--weights", "mine.pth", "--workers", "0", "--format", "database"]
        assert cli.main([*line, "--backbone", "mine"]) == 0
    assert cli.main(["train", "mine", "--head", "lda", "--name", "m"]) == 0
    monkeypatch.chdir("/")
    analysis = Analysis(tmp_path / "data")
    answer = analysis.predict_image("m", image(world))
    assert answer.n_features == opened.n_features


def bomb():
    """A PNG of a kilobyte that says it has 60,000 × 60,000 pixels."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + content + chunk(b"IEND", b"")


PICTURE = Image.new("RGB", (40, 30), (200, 10, 90))
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an image",
        SVG,
        b"%PDF-1.4",
        as_bytes(PICTURE, "GIF"),
        as_bytes(PICTURE, "BMP"),
        as_bytes(PICTURE, "TIFF"),
        as_bytes(PICTURE, "PPM"),
        as_bytes(PICTURE, "EPS"),
        as_bytes(PICTURE, "ICO"),
        as_bytes(PICTURE, "PDF"),
        b"8BPS\0\1" + bytes(26),
        as_bytes(Image.new("1", (1, 100_000))),
        as_bytes(Image.new("L", (60_000, 599)), "JPEG"),
        as_bytes(PICTURE)[:60],
        as_bytes(PICTURE, "JPEG")[:300],
        as_bytes(PICTURE, "WEBP")[:30],
        bomb(),
    ],
)
def test_what_is_no_image_of_these_formats_is_422(client, content, record_property):
    record_property("fault", ["images", "refused with 422", 1])
    answer = client.post("/predict/image?model=m", content=content, headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (422, "unreadable_image")
    assert "JPEG, PNG, WEBP" in answer.json()["detail"]
    assert "0x" not in answer.json()["detail"]
    assert ("an empty body" in answer.json()["detail"]) == (content == b"")


def test_no_damage_is_a_fault_of_ours(client, world, record_property):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    n_refused = 0
    for n in range(150):
        body = bytearray(as_bytes(noise, ("JPEG", "PNG", "WEBP")[n % 3]))
        at = int(rng.integers(len(body)))
        match n % 2:
            case 0:
                body[at : at + 4] = rng.bytes(4)
            case 1:
                del body[at:]
        answer = client.post("/predict/image?model=m", content=bytes(body), headers=PNG)
        assert answer.status_code in (200, 422), answer.text
        n_refused += answer.status_code == 422
    assert n_refused > 60
    record_property("fault", ["images at random", "200 or 422", 150])


def test_more_pixels_than_pillow_takes_for_safe_are_refused(client, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1199)
    answer = client.post("/predict/image?model=m", content=as_bytes(PICTURE), headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (422, "unreadable_image")
    assert "40 × 30 pixels" in answer.json()["detail"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_any_kind_of_pixel_is_read_as_extraction_reads_it(client, world, mode):
    picture = Image.new(mode, (40, 30)) if mode == "I;16" else PICTURE.convert(mode)
    form = "JPEG" if mode == "CMYK" else "PNG"
    answer = client.post("/predict/image?model=m", content=as_bytes(picture, form), headers=PNG)
    assert answer.status_code == 200, answer.text


def test_only_the_first_frame_of_an_animation_counts(client):
    other = Image.new("RGB", (40, 30), (0, 250, 0))
    moving = as_bytes(PICTURE, "WEBP", save_all=True, append_images=[other], lossless=True)
    still = as_bytes(PICTURE, "WEBP", lossless=True)
    one, two = (
        client.post("/predict/image?model=m", content=c, headers={"content-type": "image/webp"})
        for c in (moving, still)
    )
    assert one.json() == two.json()


@pytest.mark.parametrize(
    ("query", "kind", "status", "code"),
    [
        ("model=none", "image/png", 404, "not_found"),
        ("", "image/png", 422, "invalid_request"),
        ("model=m", "image/svg+xml", 415, "wrong_content_type"),
        ("model=m", "multipart/form-data; boundary=x", 415, "wrong_content_type"),
        ("model=m", "text/html", 415, "wrong_content_type"),
    ],
)
def test_a_refusal_is_a_problem_with_a_code(client, world, query, kind, status, code):
    headers = {"content-type": kind}
    answer = client.post(f"/predict/image?{query}", content=image(world), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
