"""The page in a real browser: charts are drawn, from this service alone."""

import re
import shutil
import subprocess

import pytest

from tests.e2e.server import serving

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=10000", "--dump-dom",
]  # fmt: skip


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_first_page_draws_its_charts(toy_data, tmp_path):
    data = shutil.copytree(toy_data, tmp_path / "data")
    with serving(data) as (client, _):
        url = f"{client.base_url}/?model=logistic"
        done = subprocess.run(
            [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}/profile", url],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    page = done.stdout
    assert page.count("<svg") >= 4, done.stderr[-2000:]
    assert "could not be drawn" not in page
    for said in ("points of gap", "logistic", "val", "v2", "internal validation"):
        assert said.lower() in page.lower()


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
