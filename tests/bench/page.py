"""First paint and bytes of every page at ImageNet's size, in Chromium: `make bench-full`.

The world is that of `tests.bench.explain`: 60,000 test images, 1,000 classes, 1,024 features. Its
explanations are computed first, as a service has them computed when a page asks.
"""

import argparse
import os
import platform
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from etl import load
from service.analysis import Analysis
from service.gap.explaining import Question
from tests.bench.explain import write
from tests.e2e.conftest import CHROMIUM, FLAGS
from tests.e2e.server import serving

PAGES = ["/", "/view/m/classes", "/view/m/classes/0", "/view/m/features", "/view/m/features/0",
         "/view/m/map", "/view/m/difficulty", "/view/m/images", "/view/m/line",
         "/view/m/hypotheses", "/view/m/training", "/view/m/report", "/view/train",
         "/view/data"]  # fmt: skip
TIMES = 5
_PAINT = """() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"""
_SIZES = """() => [...performance.getEntriesByType('navigation'),
                   ...performance.getEntriesByType('resource')]
    .map(one => [one.name, one.transferSize])"""


def make(data: Path, share: float) -> None:
    """Load the world, train, explain."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), share)
        load(data, [Path(name)])
    analysis = Analysis(data)
    analysis.train(model="m", backbone="wide", head="lda", params={"shrinkage": 0.1}, seed=0)


def measure(page: Page, address: str) -> tuple[float, list[tuple[str, int]]]:
    """Milliseconds to the first paint (the median), and the bytes of each request."""
    times, sizes = [], []
    for _ in range(TIMES):
        page.goto(address)
        while page.evaluate(f"({_PAINT})() === undefined"):
            page.wait_for_timeout(10)
        times.append(float(page.evaluate(_PAINT)))
        for chart in page.query_selector_all(".chart"):
            chart.scroll_into_view_if_needed()
        page.wait_for_load_state("networkidle")
        sizes += page.evaluate(_SIZES)
    return sorted(times)[len(times) // 2], sizes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, for a quick look")
    parser.add_argument("--data", type=Path, help="a folder to make the world in, and to keep")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        data = arguments.data or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (data / "gap.duckdb").exists():
            make(data, arguments.share)
        Question(Analysis(data), "m", None, None).compute()
        client, _ = stack.enter_context(serving(data))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        print(
            f"{os.cpu_count()} cores, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}\n\n"
            "| page | first paint, ms | largest request, kB | which |\n| --- | ---: | ---: | --- |"
        )
        for path in PAGES:
            paint, sizes = measure(browser.new_page(), f"{str(client.base_url).rstrip('/')}{path}")
            name, largest = max(sizes, key=lambda one: one[1])
            what = name.split("/", 3)[3].split("?")[0] or "the page"
            print(f"| {path} | {paint:.0f} | {largest / 1e3:.0f} | {what} |", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
