"""The pages in a real browser: what is drawn, from this service alone."""

import re
import shutil

from service.pages.rendering import static_address
from tests.e2e.server import serving


def test_the_first_page_draws_its_charts(toy_data, tmp_path, open_tab):
    data = shutil.copytree(toy_data, tmp_path / "data")
    with serving(data) as (client, _):
        client.get("/gap/logistic", timeout=120)  # all parts are there
        tab = open_tab(str(client.base_url).rstrip("/"))
        tab.go("/?model=logistic")
        assert tab.page.locator(".chart svg").count() >= 2
        text = tab.page.inner_text("body").lower()
        for said in ("points of gap", "logistic", "val", "v2", "internal validation"):
            assert said in text
        assert tab.errors == []


def test_the_page_asks_no_other_host(client):
    page = client.get("/").text
    assert "http://" not in page
    assert "https://" not in page
    # a chart page holds all that it needs, so that it can be kept as a file
    chart = client.get("/gap/logistic/chart/gap?format=html").text
    assert not re.search(r"<(script|link)[^>]* (src|href)=\"(?!data:)", chart)
    assert "vegaEmbed" in chart
    assert client.get("/static/page.js").status_code == 200
    assert "vegaEmbed" in client.get("/static/vega.js").text


def test_a_module_has_one_address(client):
    """Under two it would be run twice: every form sent twice, every chart drawn twice."""
    imported = 0
    for name in ("hypotheses.js", "reports.js", "map.js"):
        for address in re.findall(r'import .* from "(.*)"', client.get(f"/static/{name}").text):
            imported += 1
            assert address == static_address(address.split("/")[-1].split("?")[0])
            assert client.get(address).status_code == 200
    assert imported == 3


def test_an_address_that_is_no_page_is_refused_by_a_page(client):
    for path in ("/view/logistic/none", "/view/none", "/view/logistic/classes/x"):
        answer = client.get(path)
        assert answer.status_code in (404, 422), path
        assert answer.headers["content-type"].startswith("text/html")
        assert "This does not work" in answer.text
        assert "wanted" in answer.text or "valid integer" in answer.text


def test_names_from_files_are_text_not_markup(tmp_path, world):
    from fastapi.testclient import TestClient

    from etl import load
    from service.app import create_app
    from service.settings import Settings
    from tests.world import write_csv

    for split in ("train", "val", "v2"):
        write_csv(tmp_path / f"{split}_x.csv", world[split, "toy"])
    names = tmp_path / "names.csv"
    names.write_text('label,name\n0,</script><script>x\n1,"""><img>"\n2,c\n3,d\n')
    load(
        tmp_path / "data", [tmp_path / f"{s}_x.csv" for s in ("train", "val", "v2")], classes=names
    )
    with TestClient(create_app(Settings(data=tmp_path / "data"), with_worker=False)) as client:
        client.app.state.analysis.train(model="m", backbone="x", head="lda", params={}, seed=0)
        for path in ("/", "/gap/m/chart/classes?format=html"):
            text = client.get(path).text
            assert "<script>x" not in text
            assert "<img>" not in text
