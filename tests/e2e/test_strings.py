"""Names and texts of strangers are text wherever they are shown (Output injection).

In a real browser, in charts and reports, in spreadsheets and in log lines.
"""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from urllib.parse import quote

import pytest
from pypdf import PdfReader

from service.report.document import plain
from tests.e2e.hostile import MODEL, NAMES, REPORT, SEEN, make_hostile
from tests.e2e.server import serving
from tests.faults.strings import STRINGS

pytestmark = pytest.mark.long

VIEW = f"/view/{MODEL}"
# nothing that a page may hold: its own scripts come from /static, and it has no handlers
_MADE = (
    "script:not([src^='/static/']):not([type='application/json']), marquee, svg[onload], "
    "img[src='x'], [onerror], [onload], [onfocus], [onmouseover], [autofocus], "
    "[href^='javascript' i], [href^='http']:not([href^='http://127.0.0.1:']), "
    "[src^='http'], [src^='//'], base, object, iframe"
)
_TEXTS = """() => {
  const found = [], walk = document.createTreeWalker(document, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) found.push(walk.currentNode.nodeValue);
  return found;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The service over hostile names, and the file with its log."""
    folder = tmp_path_factory.mktemp("strings")
    data = make_hostile(folder)
    with (folder / "log").open("w") as log, serving(data, {"GAP_LOG": "debug"}, log) as run:
        yield run[0], folder / "log"


@pytest.fixture
def tab(site, open_tab):
    """A tab in which nothing has run that should not, whatever it opened."""
    tab = open_tab(str(site[0].base_url).rstrip("/"))

    def asked(dialog):
        tab.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    tab.page.on("dialog", asked)
    yield tab
    assert tab.errors == []
    assert tab.hosts <= {tab.base.split("//")[1]}


def as_shown(text):
    """Text as HTML has it: its line ends are all alike."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def texts_of(tab, path=None):
    """Open a page; return its texts, having found nothing on it but text."""
    if path is not None:
        tab.go(path)
    made = tab.page.locator(_MADE).evaluate_all("found => found.map((one) => one.outerHTML)")
    assert made == [], path
    assert tab.page.evaluate("typeof window.hacked") == "undefined", path
    assert tab.page.evaluate("typeof ({}).hacked") == "undefined", path
    return tab.page.evaluate(_TEXTS)


def missing(texts, wanted):
    return [text for text in wanted if as_shown(text) not in texts]


def test_there_are_forty():
    assert len(set(STRINGS.values())) == 40


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("", []),
        ("/classes", NAMES + [f"of {name}".strip() for name in NAMES]),
        ("/features", SEEN),
        ("/hypotheses", [name[:200] for name in NAMES]),
        ("/difficulty", []),
        ("/map", []),
        ("/training", []),
        ("/line", []),
        ("/report", [NAMES[0]]),
        ("/part/leaks", []),
        ("/part/slices", []),
    ],
)
def test_a_page_shows_them_as_text(tab, path, wanted):
    texts = texts_of(tab, VIEW + path)
    assert missing(texts, wanted) == []
    for details in tab.page.locator("figure .data > summary").all():
        details.click()
    texts_of(tab)


def test_images_show_paths_and_classes_as_text(tab):
    texts = [text for i in range(1, 5) for text in texts_of(tab, f"{VIEW}/images?page={i}")]
    assert missing(texts, SEEN + NAMES) == []


@pytest.mark.parametrize("at", [0, 9, 16, 25, 33])
def test_pages_of_one_class_one_feature_one_image(tab, site, at):
    listed = site[0].get(f"/gap/{MODEL}/images/list?per_page=200").json()["images"]
    ids = {image["path"]: image["image_id"] for image in listed}
    for i in range(at, at + 8, 2):
        texts = texts_of(tab, f"{VIEW}/classes/{i}")
        assert missing(texts, [NAMES[i]]) == []
        assert tab.page.title().startswith(" ".join(re.split("[\x00-\x20]+", NAMES[i])).strip())
        if i < len(SEEN):
            texts_of(tab, f"{VIEW}/images/{ids[SEEN[i]]}")
            assert SEEN[i] in tab.page.locator("p.lead code").all_text_contents()
    feature = min(at, len(SEEN) - 1)
    texts = texts_of(tab, f"{VIEW}/features/{feature}?class={at}")
    assert missing(texts, [f"Feature {SEEN[feature]}", NAMES[at]]) == []


def test_a_chart_says_them_as_text_in_every_form(site, tab):
    client, _ = site
    names = ("classes", "class_scatter", "superclasses", "features", "feature_scatter",
             "separation", "class_shift", "confusions", "waterfall")  # fmt: skip
    for address in [f"/gap/{MODEL}/chart/{name}" for name in names] + [
        *(
            f"/gap/{MODEL}/features/{i}/distribution/chart?class={i}"
            for i in range(0, len(SEEN), 5)
        ),
        f"/gap/{MODEL}/map/chart",
        "/hypotheses/chart",
    ]:
        mark = "&" if "?" in address else "?"
        spec = client.get(f"{address}{mark}format=json")
        if spec.status_code == 409:  # such as no confusions
            continue
        assert spec.status_code == 200, (address, spec.text)
        drawn = client.get(f"{address}{mark}format=svg").text
        tags = {node.tag.split("}")[1] for node in ET.fromstring(drawn).iter()}
        assert tags <= {"svg", "g", "rect", "path", "text", "tspan", "line", "defs", "clipPath",
                        "linearGradient", "stop"}, address  # fmt: skip
        rows = csv.reader(io.StringIO(client.get(f"{address}{mark}format=csv").text, newline=""))
        for cell in (cell for row in rows for cell in row):
            assert not re.match("[=+@\t\r-]", cell) or re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)
    said = {text for node in ET.fromstring(
        client.get(f"/gap/{MODEL}/chart/classes?format=svg").text
    ).iter() for text in [node.text]}  # fmt: skip
    for name in ("script", "template", "formula", "Vega", "constructor", "comment", "SQL"):
        assert STRINGS[name] in said
    for name in ("classes", "features"):
        texts_of_kept_page(tab, f"/gap/{MODEL}/chart/{name}?format=html")


def texts_of_kept_page(tab, address):
    """Open a chart's own page, whose scripts stand in it."""
    tab.page.goto(tab.base + address)
    tab.page.locator(".chart svg").first.wait_for()
    assert tab.page.evaluate("typeof window.hacked") == "undefined"
    assert tab.page.locator("script").count() == 3
    assert tab.page.locator("marquee, [onerror], [onload], svg svg, img").count() == 0


def test_a_report_has_them_as_text(site, tab):
    client, _ = site
    tab.page.goto(f"{tab.base}/reports/{REPORT}/report.html")
    page = client.get(f"/reports/{REPORT}/report.html").text
    assert "<script" not in page
    assert not re.search(r"<(marquee|img src=x|svg onload|base|object|iframe|a href=.http)", page)
    shown = tab.page.locator("body").evaluate("body => body.textContent")
    # what is between words is the page's own
    shown = "".join(shown.split())
    for text in NAMES:
        assert "".join(plain(text[:300]).split()) in shown
    pdf = PdfReader(io.BytesIO(client.get(f"/reports/{REPORT}/report.pdf").content))
    words = "".join(one.extract_text() for one in pdf.pages)
    words = re.sub(r"[\s\u200b\u00ad]", "", words)
    for name, text in STRINGS.items():
        if text.isascii() and name not in ("ANSI", "long"):
            assert "".join(text.split()) in words, name
    assert not any(page.get("/Annots") and "http" in str(page["/Annots"]) for page in pdf.pages)


def test_no_model_is_called_so_and_a_log_line_stays_one_line(site):
    client, log = site
    for name in NAMES:
        for answer in (
            client.post("/train", json={"backbone": name, "head": name, "name": name}),
            client.get(f"/models/{quote(name, safe='')}"),
            client.get(f"/gap/{quote(name, safe='')}/classes"),
            client.get(f"/view/{quote(name, safe='')}"),
            client.get(f"{VIEW}/images", params={"where": name, "order": name}),
        ):
            assert answer.status_code in (200, 404, 414, 422), (name, answer.text)
            if answer.status_code == 200:
                assert name in ("constructor", "__proto__")
    said = log.read_bytes().split(b"\n")[:-1]
    assert len(said) > 3 * len(NAMES)
    for line in said:
        assert not re.search(rb"[\x00-\x1f\x7f-\xff]", line)
        assert isinstance(json.loads(line), dict)
