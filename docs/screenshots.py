"""Take the screenshots of the README: the page with chapters, and the report.

    python docs/screenshots.py [PROJECT]

PROJECT is a project folder with a registered version and a report, as `make run` leaves it; by default, this one.
Needs Chromium (Debian: `apt install chromium`) and the extra `dev`. Writes docs/images/page.png and report.png.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

DOCS = Path(__file__).parent
TALK = DOCS / "examples/talk.vtt"
IMAGES = DOCS / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PATIENCE = 600  # seconds for the server to load a version, and for the chapters
MINUTES_PER_CHAPTER = "0.9"


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", nargs="?", type=Path, default=DOCS.parent)
    project = parser.parse_args().project.resolve()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("No Chromium is installed. On Debian: apt install chromium")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS, env={**os.environ, "HOME": home})
        take_report(browser, project / "reports/report.html", IMAGES / "report.png")
        with server(project) as address:
            take_page(browser, address, IMAGES / "page.png")
        browser.close()
    for image in (IMAGES / "page.png", IMAGES / "report.png"):
        print(f"{image}: {image.stat().st_size / 1000:.0f} kB")


def take_page(browser: Browser, address: str, image: Path) -> None:
    """Turn the example transcript into chapters on the page, and take a picture of it."""
    window = browser.new_page(viewport={"width": 1280, "height": 800})
    window.goto(f"{address}/page/")
    window.locator("input[type=file]").first.set_input_files(TALK)
    expect(window.locator("#status")).to_contain_text("lines read", timeout=PATIENCE * 1000)
    window.locator("input[type=number]").first.fill(MINUTES_PER_CHAPTER)
    window.get_by_role("button", name="Find chapters").click()
    expect(window.locator("#status")).to_contain_text(re.compile(r"\d chapters"), timeout=PATIENCE * 1000)
    window.get_by_role("radio", name="Chapter 2").check()
    window.wait_for_timeout(1000)  # for the table to be drawn
    window.screenshot(path=image)
    window.close()


def take_report(browser: Browser, report: Path, image: Path) -> None:
    """Take a picture of the upper part of the report."""
    if not report.exists():
        raise SystemExit(f"{report} is missing. Run `make run` in that project first.")
    window = browser.new_page(viewport={"width": 1280, "height": 900})
    window.goto(report.as_uri())
    window.screenshot(path=image)
    window.close()


@contextmanager
def server(project: Path) -> Iterator[str]:
    """Run `lectern serve` in `project` and yield its address once it has loaded a version."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "lectern", "serve", "--port", str(port)], cwd=project)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for_version(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _wait_for_version(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=10) as reply:
                if json.load(reply)["version"]:
                    return
        except (urllib.error.URLError, OSError):  # not up yet, or no version yet
            pass
        time.sleep(0.5)
    raise SystemExit("The server has no version to serve. Run `make run` in that project first.")


if __name__ == "__main__":
    main()
