"""One walk through the demo as a newcomer takes it, in a real browser, wide and narrow."""

import re
import shutil

import pytest

from service.jobs import Jobs
from service.schemas import TrainIn
from tests.e2e.conftest import NARROW, WIDE
from tests.e2e.server import serving

MODEL = "pixels-logistic"
PAGES = ["", "/classes", "/classes/3", "/features", "/features/38", "/map", "/difficulty",
         "/images", "/images?kind=twins", "/line", "/hypotheses", "/training", "/report",
         "/part/leaks"]  # fmt: skip


@pytest.fixture(scope="module")
def site(demo_as_loaded, tmp_path_factory):
    """The demo as `make up` serves it, its explanations computed."""
    data = shutil.copytree(demo_as_loaded, tmp_path_factory.mktemp("walk") / "data")
    with serving(data) as (client, _):
        assert client.get(f"/gap/{MODEL}", timeout=300).status_code == 200
        yield client


def base_of(client) -> str:
    return str(client.base_url).rstrip("/")


def is_clean(tab, site) -> bool:
    assert tab.errors == []
    assert tab.hosts <= {base_of(site).split("//")[1]}
    return True


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (WIDE, "light"),
        (NARROW, "light"),
        pytest.param(WIDE, "dark", marks=pytest.mark.long),
    ],
)
def test_every_page_is_drawn_fits_and_can_be_read_by_all(site, open_tab, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    tab = open_tab(base_of(site), width, scheme)
    for path in PAGES:
        tab.go(f"/view/{MODEL}{path}")
        name = re.sub(r"\W+", "-", path).strip("-") or "overview"
        tab.keep(f"{name}-{width}-{scheme}")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, path
        for violation in Axe().run(tab.page).response["violations"]:
            assert violation["impact"] not in ("serious", "critical"), (path, violation)
    for path in ("/view/train", "/view/data"):
        tab.go(path)
        tab.keep(f"{path.split('/')[-1]}-{width}-{scheme}")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, path
    assert is_clean(tab, site)


def test_within_a_minute_one_knows_gap_parts_and_what_to_try(site, open_tab):
    """All three stand on the first page, above its lists of models and splits."""
    tab = open_tab(base_of(site))
    tab.go("/")
    answer = site.get(f"/gap/{MODEL}").json()
    body = tab.page.locator("main").inner_text()
    assert f"{answer['gap']['estimate'] * 100:.1f} points of gap" in body
    for sentence in answer["ledger"]["summary"]:
        assert sentence in body
    for finding in answer["findings"]:
        assert finding["sentence"] in body
    assert body.index("What to try next") < body.index("Three gaps")
    links = tab.page.locator("#findings a")
    assert links.count() == len(answer["findings"])
    for href in links.evaluate_all("links => links.map((link) => link.getAttribute('href'))"):
        assert site.get(href).status_code == 200
    assert is_clean(tab, site)


def test_train_from_the_form_and_watch(site, open_tab):
    tab = open_tab(base_of(site))
    page = tab.page
    tab.go("/view/train")
    page.locator("[name=head]").select_option("lda")
    page.get_by_label("Name").fill("from-the-form")
    page.get_by_role("button", name="Train").click()
    page.locator(".job", has_text="from-the-form").wait_for()
    # the page loads itself again when the job is over, and shows the model
    page.locator("#models a", has_text="from-the-form").wait_for(timeout=120_000)
    job = next(job for job in site.get("/jobs").json() if job["model"] == "from-the-form")
    assert job["state"] == "done"
    tab.go("/view/from-the-form/training")
    assert page.locator("#leaderboard tr[aria-current]").count() == 1
    tab.go("/view/train")  # a name that is taken is refused in words, and nothing is lost
    page.get_by_label("Name").fill("from-the-form")
    tab.errors.clear()
    page.get_by_role("button", name="Train").click()
    page.locator("[data-said].error").wait_for()
    assert "from-the-form" in page.locator("[data-said]").inner_text()
    assert page.get_by_label("Name").input_value() == "from-the-form"
    tab.errors.clear()  # the browser reports the 409 itself
    assert is_clean(tab, site)


def test_a_job_is_cancelled_on_the_page(site, open_tab):
    tab = open_tab(base_of(site))
    asked = {"backbone": "tf_efficientnet_lite0", "head": "auto", "seed": 1, "name": "long"}
    site.post("/train", json=asked)
    tab.page.goto(base_of(site) + "/view/train")
    tab.page.get_by_role("button", name="Cancel the training of long").click()
    tab.page.locator(".job", has_text="long").wait_for(state="hidden", timeout=60_000)
    job = next(job for job in site.get("/jobs").json() if job["model"] == "long")
    assert job["state"] == "cancelled"
    assert is_clean(tab, site)


def test_an_interrupted_job_goes_on_by_a_click(toy_data, tmp_path, open_tab):
    data = tmp_path / "data"  # without the jobs that other tests left waiting
    shutil.copytree(toy_data, data, ignore=shutil.ignore_patterns("jobs.sqlite*"))
    asked = TrainIn(backbone="toy", head="lda", seed=0).model_dump(exclude={"name", "resume"})
    jobs = Jobs(data)
    jobs.submit({**asked, "model": "again"}, "again", resumes=0)
    jobs.claim()
    jobs.end_running()
    with serving(data) as (client, _):
        tab = open_tab(base_of(client))
        tab.go("/view/train")
        tab.page.get_by_role("button", name="Go on with the training of again").click()
        tab.page.locator("#models a", has_text="again").wait_for(timeout=120_000)
        assert is_clean(tab, client)


def test_what_is_half_written_outlives_a_job_that_ends(site, open_tab):
    """Nobody is interrupted, and a page that is loaded again has what was written."""
    tab = open_tab(base_of(site))
    page = tab.page
    asked = {"backbone": "tf_efficientnet_lite0", "head": "auto", "seed": 2, "name": "meanwhile"}
    job = site.post("/train", json=asked).json()["job"]
    page.goto(base_of(site) + f"/view/{MODEL}/report")
    page.get_by_label("Title", exact=True).fill("Half a title")
    page.get_by_label("Authors").fill("Ada Example; 1; 100")
    site.delete(f"/jobs/{job}")  # ends now, while somebody writes
    page.get_by_role("link", name="Show what is new").click(timeout=120_000)
    page.get_by_role("link", name="Show what is new").wait_for(state="hidden")
    assert page.get_by_label("Title", exact=True).input_value() == "Half a title"
    assert page.get_by_label("Authors").input_value() == "Ada Example; 1; 100"
    assert is_clean(tab, site)


def test_whoever_leaves_as_a_job_ends_arrives(site, open_tab):
    """The load that shows what is new must not overtake the way to another page."""
    tab = open_tab(base_of(site))
    page = tab.page
    page.add_init_script(
        "window.EventSource = class extends EventTarget {"
        " constructor() { super(); window.told = this; } close() {} };"
    )
    asked = {"backbone": "tf_efficientnet_lite0", "head": "auto", "seed": 3, "name": "leaving"}
    job = site.post("/train", json=asked).json()["job"]
    page.goto(base_of(site) + "/view/train")
    page.evaluate(
        "address => { location.assign(address); told.dispatchEvent(new Event('idle')); }",
        f"/view/{MODEL}/images",
    )
    page.wait_for_url(f"**/view/{MODEL}/images")
    site.delete(f"/jobs/{job}")
    assert is_clean(tab, site)


def test_charts_are_saved_as_svg_png_csv_and_spec(site, open_tab, tmp_path):
    tab = open_tab(base_of(site))
    tab.go(f"/view/{MODEL}/classes")
    figure = tab.page.locator("figure.chart-figure").first
    begins = {"SVG": b"<svg", "PNG": b"\x89PNG", "CSV": b"name,", "Vega-Lite": b"{"}
    for shown, start in begins.items():
        with tab.page.expect_download() as saved:
            figure.get_by_role("link", name=shown, exact=True).click()
        file = tmp_path / saved.value.suggested_filename
        saved.value.save_as(file)
        assert file.read_bytes().startswith(start), shown
    figure.get_by_text("Data as a table").click()
    n_classes = len(site.get(f"/gap/{MODEL}/classes").json()["classes"])
    assert figure.locator("tbody tr").count() == n_classes
    assert figure.locator(".chart").get_attribute("aria-label").startswith("Chart: Accuracy")
    assert is_clean(tab, site)


def test_a_table_is_sorted_and_searched(site, open_tab):
    tab = open_tab(base_of(site))
    tab.go(f"/view/{MODEL}/classes")
    rows = tab.page.locator("#classes tbody tr")
    first = site.get(f"/gap/{MODEL}/classes").json()["classes"][0]["class_name"]
    assert first in rows.first.inner_text()
    tab.page.get_by_role("button", name="Raw gap").click()
    raw = rows.locator("td:nth-child(4)").all_inner_texts()
    values = [float(text) for text in raw if text != "–"]
    assert values == sorted(values, reverse=True)
    tab.page.get_by_label("Search classes").fill("ei")
    shown = tab.page.locator("#classes tbody tr:visible")
    assert shown.all_inner_texts()
    assert all("ei" in text.lower() for text in shown.all_inner_texts())
    assert is_clean(tab, site)


def test_what_a_word_means_is_shown_on_focus(site, open_tab):
    tab = open_tab(base_of(site))
    tab.go("/")
    word = tab.page.locator(".term").first
    word.focus()
    shown = word.evaluate("word => getComputedStyle(word, '::after').content")
    assert word.get_attribute("data-tip") in shown
    assert is_clean(tab, site)
