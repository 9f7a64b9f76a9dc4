"""Pages of images in a real browser: filtered, walked through by keys, shared by address."""

import shutil

import pytest
from PIL import Image

from etl.images import link_images
from tests.e2e.server import serving, wait_until


@pytest.fixture(scope="module")
def site(toy_data, world, tmp_path_factory):
    """A service whose images of val are linked."""
    folder = tmp_path_factory.mktemp("site")
    data = shutil.copytree(toy_data, folder / "data")
    for place, path in enumerate(world["val", "toy"].paths):
        file = folder / "pictures" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 200), (12 * place, 120, 200)).save(file)
    link_images(data, [folder / "pictures"])
    with serving(data) as (client, _):
        answer = client.get("/gap/logistic/images?wait=true", timeout=300)
        assert answer.status_code == 200, answer.text
        yield client


@pytest.fixture
def tab(site, open_tab):
    """A tab as narrow as a telephone; at the end its console has stayed empty."""
    tab = open_tab(str(site.base_url).rstrip("/"), width=400)
    tab.page.set_default_timeout(60_000)  # other tests may share the machine
    yield tab
    assert tab.errors == []


def test_images_are_filtered_and_the_address_holds_it(tab, site):
    page = tab.page
    tab.go("/view/logistic/images")
    page.get_by_text("Filter and order").click()
    form = page.locator("form.filter")
    form.locator("[name=split]").select_option("val")
    form.locator("[name=correct]").select_option("true")
    form.locator("[name=at_least]").fill("40")
    form.locator("[name=order]").select_option("confidence asc")
    form.get_by_role("button", name="Show").click()
    page.wait_for_url("**/view/logistic/images?*")
    where = "split = val and correct = true and confidence >= 0.4"
    found = site.get(
        "/gap/logistic/images/list", params={"where": where, "order": "confidence asc"}
    ).json()
    assert page.locator("#count").inner_text() == f"{found['n']} images."
    wanted = [f"/images/{image['image_id']}?" for image in found["images"]]
    links = page.locator("#grid a").evaluate_all("links => links.map((link) => link.href)")
    assert [one in link for one, link in zip(wanted, links, strict=True)] == [True] * len(wanted)
    address = page.url
    assert "predicted_name" not in address  # empty fields are no part of it
    page.goto("about:blank")
    page.goto(address)
    tab.keep("images")
    assert form.locator("[name=at_least]").input_value() == "40"
    assert form.locator("[name=order]").input_value() == "confidence asc"
    wait_until(
        lambda: page.evaluate("document.querySelector('#grid img').naturalWidth === 160"), 30
    )
    # on a telephone nothing is wider than the page
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_arrows_lead_through_grid_and_list(tab):
    page = tab.page
    tab.go("/view/logistic/images?where=split+%3D+val")
    links = page.locator("#grid a")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    focused = "document.activeElement.href"
    second = links.nth(1).evaluate("link => link.href")
    assert page.evaluate(focused) == second
    page.keyboard.press("ArrowDown")
    below = page.evaluate("document.activeElement.getBoundingClientRect().top")
    assert below > links.nth(1).evaluate("link => link.getBoundingClientRect().top")
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == second
    page.keyboard.press("Enter")
    page.wait_for_url(second)
    assert "2 of 20" in page.locator("main").inner_text()
    page.keyboard.press("ArrowRight")
    page.get_by_text("3 of 20").wait_for()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(second)
    page.keyboard.press("ArrowLeft")
    page.get_by_text("1 of 20").wait_for()
    page.keyboard.press("ArrowLeft")  # there is none before it
    assert "1 of 20" in page.locator("main").inner_text()
    assert page.locator(".picture img").evaluate("image => image.naturalWidth") == 300
    page.get_by_role("link", name="Back to the list").click()
    page.wait_for_url("**/view/logistic/images?where=*")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_there_is_no_serious_fault_for_readers_of_any_kind(tab, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = tab.page
    page.emulate_media(color_scheme=scheme)
    for address in ("", "?where=split+%3D+v2", "/50", "?where=1"):
        answer = page.request.get(f"{tab.base}/view/logistic/images{address}")
        if answer.status == 422:  # a browser notes it in its console, as it should
            assert address == "?where=1"
            page.set_content(answer.text())
        else:
            tab.go(f"/view/logistic/images{address}")
        found = Axe().run(page).response["violations"]
        serious = [one["id"] for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], found
