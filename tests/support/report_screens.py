"""`python report_screens.py REPORT_FOLDER SCREENS_FOLDER`: a report in real Chromium.

It must render without a console error, ask the network for nothing, and be readable, that is never
wider than the window, at 400 and 1600 pixels, in light, in dark and on paper. Leaves screenshots.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from lora_jobs.reporting.render import HTML_NAME, JSON_NAME, read_report, render

WIDTHS = (400, 1600)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MAX_SCREEN_BYTES = 200_000


def main() -> None:
    """Check a report and keep its screens; exit 1 with what is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path, help="folder with report.json")
    parser.add_argument("screens", type=Path, help="folder for PNGs")
    arguments = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed; try: apt-get install chromium")
    render(read_report(arguments.report / JSON_NAME), arguments.report)
    arguments.screens.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        url = (arguments.report / HTML_NAME).resolve().as_uri()
        faults = [f for width in WIDTHS for f in _faults(browser, url, width, arguments.screens)]
        faults += _faults_on_paper(browser, url)
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


def _faults(browser: Browser, url: str, width: int, screens: Path) -> Iterator[str]:
    for scheme in ("light", "dark"):
        page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        found = _opened(page, url)
        where = f"{width} px, {scheme}"
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            found.append(f"the page is {wide} px wide")
        if not page.locator("h1 .verdict").is_visible():
            found.append("no verdict on the first screen")
        file = screens / f"report-{width}-{scheme}.png"
        page.screenshot(path=file)
        plots = page.locator("figure")
        if width == max(WIDTHS) and plots.count():
            plots.first.scroll_into_view_if_needed()
            page.screenshot(path=screens / f"plots-{width}-{scheme}.png")
        found += [
            f"{png.name} has {png.stat().st_size} bytes"
            for png in screens.glob(f"*-{width}-{scheme}.png")
            if png.stat().st_size > MAX_SCREEN_BYTES
        ]
        page.close()
        yield from (f"{where}: {fault}" for fault in found)


def _faults_on_paper(browser: Browser, url: str) -> list[str]:
    page = browser.new_page()
    found = _opened(page, url)
    page.emulate_media(media="print", color_scheme="dark")
    if page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)":
        found.append("paper is not white")
    if not page.pdf(format="A4").startswith(b"%PDF"):
        found.append("it does not print")
    page.close()
    return [f"print: {fault}" for fault in found]


def _opened(page: Page, url: str) -> list[str]:
    """Open a page; returns its console errors and every request but the page's own."""
    found: list[str] = []
    page.on("console", lambda m: found.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: found.append(f"script: {error}"))
    page.on(
        "request",
        lambda request: found.append(f"asks for {request.url}") if request.url != url else None,
    )
    page.goto(url)
    page.wait_for_load_state("networkidle")
    return found


if __name__ == "__main__":
    main()
