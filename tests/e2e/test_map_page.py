"""The map in a real browser: what is brushed is listed, by mouse and by keyboard."""

import re
import shutil
from urllib.parse import parse_qs, urlparse

import pytest

from tests.e2e.conftest import NARROW
from tests.e2e.server import serving


@pytest.fixture(scope="module")
def site(toy_data, tmp_path_factory):
    """Address of a service over the toy world whose parts are computed."""
    data = shutil.copytree(toy_data, tmp_path_factory.mktemp("map") / "data")
    with serving(data) as (client, _):
        for part in ("map", "features"):
            assert client.get(f"/gap/logistic/{part}?wait=true").status_code == 200
        yield str(client.base_url).rstrip("/")


@pytest.fixture
def tab(site, open_tab):
    """A tab on which nothing goes wrong but that images are not linked."""
    tab = open_tab(site)
    tab.page.set_default_timeout(60_000)
    yield tab
    assert [error for error in tab.errors if "/thumbnail" not in error] == []


def drag(page):
    """Draw a rectangle over the middle of the map."""
    plot = page.locator("#map svg .background").first
    plot.scroll_into_view_if_needed()
    box = page.locator("#map svg").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.15 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.4 * box["height"], steps=5)
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.6 * box["height"], steps=5)
    page.mouse.up()


def test_what_is_brushed_is_listed_and_has_a_link(tab):
    page = tab.page
    tab.go("/view/logistic/map")
    page.wait_for_selector("#map svg")
    drag(page)
    page.wait_for_selector("#selected .card")
    asked = parse_qs(urlparse(page.url).query)
    assert {"x_from", "x_to", "y_from", "y_to"} <= set(asked)
    title = page.inner_text("#selected-title")
    n = int(title.split()[0])
    assert 0 < n < 83
    assert page.locator("#selected .card").count() == min(n, 24)
    for name in ("x_from", "y_to"):
        assert page.input_value(f"#rectangle [name={name}]") == asked[name][0]
    page.reload()  # the link shows the same
    assert page.inner_text("#selected-title") == title


def test_colours_change_without_a_load_and_the_downloads_with_them(tab):
    page = tab.page
    tab.go("/view/logistic/map")
    page.wait_for_selector("#map svg")
    page.select_option("#view [name=colour]", "answer")
    page.locator("#map .caption", has_text="is right and where").wait_for()
    page.wait_for_selector("#map svg")
    link = page.get_attribute("#map [data-format=csv]", "href")
    assert "colour=answer" in link
    assert (
        page.request.get(tab.base + link if link.startswith("/") else link)
        .text()
        .startswith("x,y,answer")
    )


def test_a_cluster_is_chosen_by_keyboard(tab):
    page = tab.page
    tab.go("/view/logistic/map")
    link = page.locator("[data-cluster]").first
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#selected .card")
    assert f"of cluster {link.get_attribute('data-cluster')}" in page.inner_text("#selected-title")
    page.fill("#rectangle [name=x_from]", "-1000")
    page.keyboard.press("Enter")
    page.locator("#selected-title", has_text=re.compile("^83 images")).wait_for()


def test_one_feature_is_drawn_for_all_images_and_for_a_class(tab):
    page = tab.page
    tab.go("/view/logistic/features")
    page.click("#features tbody a >> nth=0")
    page.wait_for_selector(".chart svg")
    page.select_option("[name=class]", "1")
    page.click("form.filter button")
    page.wait_for_selector("h2#class ~ figure .chart svg")
    assert "class=1" in page.url


@pytest.mark.parametrize("path", ["features", "features/0?class=1", "map?cluster=0"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_and_fit_a_telephone(site, open_tab, path, scheme):
    from axe_playwright_python.sync_playwright import Axe

    tab = open_tab(site, NARROW, scheme)
    page = tab.page
    tab.go(f"/view/logistic/{path}")
    page.wait_for_selector(".chart svg")
    tab.keep(f"{path.split('?')[0].replace('/', '-')}-{scheme}-{NARROW}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious] == []
