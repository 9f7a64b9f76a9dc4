"""A real browser: Debian's Chromium, without its own calls to other hosts."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDE, NARROW = 1280, 400


class Tab:
    """One page of the browser, and what went wrong on it."""

    def __init__(self, page, base: str) -> None:
        self.page, self.base = page, base
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def _heard(self, message) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.text} {message.location.get('url')}")

    def go(self, path: str) -> None:
        """Open a path and wait until nothing of it is pending and all its charts are drawn."""
        self.page.goto(self.base + path)
        # not wait_for_function: it makes a script of text, which the page's policy forbids
        pending = self.page.locator("[data-pending]")
        while True:  # a page that loads itself again is empty for a moment, and may be pending then
            pending.first.wait_for(state="detached", timeout=120_000)
            self.page.wait_for_load_state()
            if not pending.count():
                break
        self.draw()

    def draw(self) -> None:
        """Scroll past every chart and wait until it is drawn."""
        places = self.page.locator(".chart:not([data-own])")
        for i in range(places.count()):
            places.nth(i).scroll_into_view_if_needed()
            places.nth(i).locator("svg, :scope[data-done]").first.wait_for(timeout=60_000)
        self.page.wait_for_load_state("networkidle")

    def said(self) -> str:
        """Return what the page shows as text, and what went wrong on it."""
        return "\n".join([self.page.locator("body").inner_text(timeout=5_000), *self.errors])

    def keep(self, name: str) -> None:
        """Keep a picture of the whole page where CI looks for artefacts."""
        folder = os.environ.get("GAPSCOPE_SHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.evaluate("scrollTo(0, 0)")
            self.page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


_TABS = pytest.StashKey[list[Tab]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Say of a test that failed what its tabs showed."""
    report = yield
    if report.when == "call" and report.failed:
        for tab in item.stash.get(_TABS, []):
            report.sections.append((f"tab at {tab.page.url}", tab.said()))
    return report


@pytest.fixture
def open_tab(chromium, request):
    """Give a function that opens a tab of a width on a service."""
    contexts = []
    tabs = request.node.stash[_TABS] = []

    def open_one(base: str, width: int = WIDE, scheme: str = "light") -> Tab:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        contexts.append(context)
        tabs.append(Tab(context.new_page(), base))
        return tabs[-1]

    yield open_one
    for context in contexts:
        context.close()
