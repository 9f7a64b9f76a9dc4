"""Images as answers and as pages: pictures, filters in the address, names from files as text."""

import re
import shutil
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from etl import load
from etl.annotations import annotate_file
from etl.images import link_images
from service.analysis import Analysis
from service.app import create_app
from service.importing import import_predictions
from service.neighbours import OneByOne
from service.settings import Settings
from tests.world import make_world, write_csv

HOSTILE = "<script>alert(1)</script>"
GRID = "/view/m/images"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The toy world with odd names, some of whose images are linked, explained."""
    folder = tmp_path_factory.mktemp("pages")
    world = make_world()
    pictures = folder / "pictures"
    for split in ("train", "val", "v2"):
        rows = world[split, "toy"]
        if split == "v2":
            rows.paths[1] = f'v2/0/{HOSTILE}".png'
        write_csv(folder / "csv" / f"{split}_x.csv", rows)
        for path in rows.paths[:6]:
            if "<" not in path:
                (pictures / path).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (200, 100), (9, 99, 9)).save(pictures / path)
    (pictures / world["v2", "toy"].paths[3]).write_bytes(b"no image")
    names = folder / "names.csv"
    names.write_text(f'label,name\n0,{HOSTILE}\n1,"""><img src=x>"\n2,it\'s & co\n3,d\n')
    load(folder / "data", [folder / "csv"], n_threads=1, classes=names)
    votes = "".join(f"{path},{0.1 * (i % 9)}\n" for i, path in enumerate(world["val", "toy"].paths))
    (folder / "votes.csv").write_text("path,odd agreement\n" + votes)
    annotate_file(folder / "data", folder / "votes.csv", name=None, split=None)
    link_images(folder / "data", [pictures])
    analysis = Analysis(folder / "data")
    analysis.train(model="m", backbone="x", head="lda", params={}, seed=0)
    return folder / "data"


@pytest.fixture
def client(data):
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        client.get("/gap/m/images")  # computed and kept
        yield client


def listed(client, **query):
    return client.get("/gap/m/images/list", params={"per_page": 200, **query}).json()["images"]


def test_a_thumbnail_is_small_kept_and_asked_for_again(client, data):
    (image,) = [i for i in listed(client) if i["path"] == "val/0/0.png"]
    answer = client.get(f"/images/{image['image_id']}/thumbnail")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
    assert answer.headers["cache-control"] == "private, no-cache"
    assert len(list((data / "thumbnails").rglob("*.webp"))) >= 1
    again = client.get(
        f"/images/{image['image_id']}/thumbnail", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    large = client.get(f"/images/{image['image_id']}/thumbnail?size=640")
    assert large.headers["etag"] != answer.headers["etag"]


@pytest.mark.parametrize(
    ("path", "code"), [("v2/0/3.png", "not_an_image"), ("val/0/8.png", "not_linked")]
)
def test_what_cannot_be_shown_is_said(client, path, code):
    (image,) = [i for i in listed(client) if i["path"] == path]
    answer = client.get(f"/images/{image['image_id']}/thumbnail")
    assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/images/999999/thumbnail", 404),
        ("/images/x/thumbnail", 422),
        ("/images/-1/thumbnail", 422),
        ("/images/0/thumbnail?size=100000", 422),
        ("/images/99999999999999999999/thumbnail", 422),
        ("/gap/m/images/999999", 404),
        ("/gap/m/images/0?where=1=1", 404),
    ],
)
def test_no_such_image(client, address, status):
    assert client.get(address).status_code == status


def test_one_image_says_what_is_near_and_where_it_stands(client):
    where = "split = v2 and correct = true"
    found = listed(client, where=where, order="confidence desc")
    ids = [image["image_id"] for image in found]
    for place, image_id in [(0, ids[0]), (2, ids[2]), (len(ids) - 1, ids[-1])]:
        answer = client.get(
            f"/gap/m/images/{image_id}", params={"where": where, "order": "confidence desc"}
        ).json()
        assert answer["image"] == found[place]
        position = answer["position"]
        assert (position["position"], position["n"]) == (place + 1, len(ids))
        assert position["previous"] == (ids[place - 1] if place else None)
        assert position["next"] == (ids[place + 1] if place + 1 < len(ids) else None)
        first = answer["probabilities"][0]
        assert first["class_id"] == found[place]["predicted"]
        assert first["probability"] == pytest.approx(found[place]["confidence"], abs=1e-6)
        assert sum(p["probability"] for p in answer["probabilities"]) == pytest.approx(1)
    outside = client.get(f"/gap/m/images/{ids[0]}", params={"where": "split = val"}).json()
    assert outside["position"] is None
    refused = client.get(f"/gap/m/images/{ids[0]}", params={"where": "1=1"})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_filter")


def test_the_nearest_train_images_are_the_same_from_a_pass_and_from_the_kept_search(client, data):
    ids = [image["image_id"] for image in listed(client)][:4]
    passed = [client.get(f"/gap/m/images/{i}").json()["near_train"] for i in ids]
    assert not (data / "neighbours").exists()
    for near in passed:
        similar = [one["similarity"] for one in near]
        assert len(near) == 5
        assert similar == sorted(similar, reverse=True)
        assert all(one["split"] == "train" for one in near)
    client.get("/gap/m/leaks")  # searches train for all images, and keeps it
    kept = OneByOne(client.app.state.analysis.database)
    for image, near in zip(listed(client), passed, strict=False):
        found = kept._of_kept("x", image["split"], image["path"])
        assert found is not None
        # rows that are equally near may come in any order
        assert [one.similarity for one in found] == pytest.approx(
            [one["similarity"] for one in near], abs=1e-5
        )


def test_the_second_request_searches_nothing(client, monkeypatch):
    image_id = listed(client)[0]["image_id"]
    first = client.get(f"/gap/m/images/{image_id}").json()

    def never(*_, **__):
        raise AssertionError("searched again")

    monkeypatch.setattr(OneByOne, "_searched", never)
    monkeypatch.setattr(OneByOne, "_of_kept", never)
    assert client.get(f"/gap/m/images/{image_id}").json() == first


def ids_in(page):
    return [int(i) for i in re.findall(rf'<a href="{GRID}/(\d+)', page.split('id="grid"')[1])]


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ({"split": "v2"}, "split = v2"),
        ({"class_name": HOSTILE}, f"class_name = '{HOSTILE}'"),
        ({"class_name": "it's & co", "correct": "false"},
         "class_name = 'it''s & co' and correct = false"),
        ({"at_least": "29", "at_most": "95.5"}, "confidence >= 0.29 and confidence <= 0.955"),
        ({"field": "odd agreement", "op": ">", "value": ".3"}, '"odd agreement" > .3'),
        ({"predicted_name": "d", "more": "margin < 1 and label = 2"},
         "predicted_name = d and margin < 1 and label = 2"),
        ({}, None),
    ],
)  # fmt: skip
def test_the_form_leads_to_an_address_that_holds_it(client, form, where):
    blank = dict.fromkeys(("split", "class_name", "more", "at_least", "field", "value"), "")
    answer = client.get(
        f"{GRID}/filtered", params=blank | form | {"kind": "ambiguous"}, follow_redirects=False
    )
    assert answer.status_code == 303
    address = urlsplit(answer.headers["location"])
    asked = {name: values[0] for name, values in parse_qs(address.query).items()}
    assert address.path == GRID
    assert asked == {"kind": "ambiguous"} | ({"where": where} if where else {})
    page = client.get(answer.headers["location"])
    assert page.status_code == 200
    n = client.get("/gap/m/images/list", params=asked).json()["n"]
    assert f"{n} image" in page.text
    # the page's own form asks for the same again
    fields = dict(re.findall(r'<input name="(\w+)"[^>]* value="([^"]*)"', page.text))
    for name in ("at_least", "at_most"):
        assert fields[name] == form.get(name, "")


def test_the_grid_shows_what_the_list_holds_and_leads_on(client):
    page = client.get(GRID, params={"where": "split = val and correct = true"}).text
    found = listed(client, where="split = val and correct = true")
    assert ids_in(page) == [image["image_id"] for image in found][:24]
    assert "where=split+%3D+val" in page.split('id="grid"')[1]
    whole = client.get(GRID).text
    assert 'rel="next"' in whole
    second = client.get(f"{GRID}?page=2").text
    assert ids_in(whole) + ids_in(second) == [image["image_id"] for image in listed(client)]
    assert 'rel="prev"' in second
    assert 'rel="next"' not in second
    assert "No image on this page" in client.get(f"{GRID}?page=99").text


def test_conditions_that_are_none_are_said_in_the_page(client):
    answer = client.get(GRID, params={"where": "secret = '<b>'"})
    assert answer.status_code == 422
    assert "wanted a field" in answer.text
    assert "<b>'" not in answer.text
    assert 'value="secret = &#39;&lt;b&gt;&#39;"' in answer.text  # to be mended
    assert client.get(GRID, params={"order": "secret"}).status_code == 422
    assert client.get(GRID, params={"kind": "none"}).status_code == 422


def test_names_and_paths_are_text_and_pictures_only_where_there_are_files(client):
    images = {image["path"]: image for image in listed(client)}
    odd = images[f'v2/0/{HOSTILE}".png']
    addresses = [f"{GRID}?page=2", f"{GRID}?where=label < 2"]
    addresses += [f"{GRID}/{image['image_id']}" for image in [odd, *images.values()][:5]]
    pages = [client.get(address).text for address in addresses]
    for page in pages:
        assert HOSTILE not in page
        assert "<img src=x>" not in page
        assert "style=" not in page
        assert not re.search(r"<[^>]* on[a-z]+=", page.replace("&#34;", ""))
        assert "<script>" not in page
        assert "&lt;script&gt;" in page
    with_file, without = images["val/0/0.png"], images["val/0/8.png"]
    shown = client.get(f"{GRID}/{with_file['image_id']}").text
    assert f'src="/images/{with_file["image_id"]}/thumbnail?size=640"' in shown
    bare = client.get(f"{GRID}/{without['image_id']}").text
    assert f'src="/images/{without["image_id"]}/' not in bare
    assert "gapscope link-images" in bare
    assert "val/0/8.png" in bare


def test_without_any_file_there_are_paths(toy_data):
    with TestClient(create_app(Settings(data=toy_data), with_worker=False)) as client:
        client.get("/gap/mean/images")
        page = client.get("/view/mean/images").text
        assert "<img" not in page
        assert page.count("no-picture") == 24
        assert "val/0/0.png" in page


def test_predictions_alone_have_pages_that_say_what_is_not_known(data, tmp_path):
    here = shutil.copytree(data, tmp_path / "data")
    database = Analysis(here).database
    for split in ("val", "v2"):
        rows = database.rows("select path, class_id from image where split = ?", [split])
        lines = [
            f'"{row["path"].replace(chr(34), chr(34) * 2)}",{row["class_id"]},0' for row in rows
        ]
        (tmp_path / f"{split}.csv").write_text("\n".join(["path,label,top1", *lines]) + "\n")
    import_predictions(here, {s: tmp_path / f"{s}.csv" for s in ("val", "v2")}, model="zeros")
    with TestClient(create_app(Settings(data=here), with_worker=False)) as client:
        client.get("/gap/zeros/images")
        page = client.get("/view/zeros/images")
        assert page.status_code == 200
        assert "35 images, page 1 of 2" in page.text
        assert "Undecided" not in page.text.split('id="grid"')[0].split("</nav>")[1]
        asked = client.get("/view/zeros/images?kind=ambiguous").text
        assert "only predictions of this model are here" in asked
        (image_id,) = re.findall(r"/view/zeros/images/(\d+)", page.text)[:1]
        one = client.get(f"/view/zeros/images/{image_id}").text
        assert "The probabilities of other classes are not known" in one
        answer = client.get(f"/gap/zeros/images/{image_id}").json()
        assert answer["probabilities"] is None
        assert answer["near_train"] is None
        assert "no features" in answer["near_train_reason"]


def test_one_page_leads_to_its_neighbours_and_back(client):
    where = "split = v2"
    ids = [image["image_id"] for image in listed(client, where=where)]
    page = client.get(f"{GRID}/{ids[1]}", params={"where": where}).text
    assert re.search(rf'rel="prev" href="{GRID}/{ids[0]}\?where=split', page)
    assert re.search(rf'rel="next" href="{GRID}/{ids[2]}\?where=split', page)
    assert f"2 of {len(ids)}" in page
    assert page.count("<rect") == 4  # classes
    assert "The nearest train images" in page
    assert client.get(f"{GRID}/999999").status_code == 404


def test_what_is_not_computed_yet_is_asked_for(data):
    Analysis(data).train(model="fresh", backbone="x", head="nearest_mean", params={}, seed=0)
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        client.app.state.explainer = object()  # somebody would do it
        for address in ("/view/fresh/images", "/view/fresh/images/50"):
            page = client.get(address)
            assert page.status_code == 200
            assert "data-pending" in page.text
        (job,) = client.get("/jobs").json()
        assert (job["kind"], job["model"], job["state"]) == ("explain", "fresh", "queued")
        client.app.state.explainer = None
