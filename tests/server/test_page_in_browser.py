"""The page as a person uses it: with a mouse, a finger or a keyboard, in light and dark."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect, sync_playwright
from playwright.sync_api import Page as Window

from tests.server.page_server import Writer, page_server
from tests.server.running_server import BROWSER_FLAGS, write_captions

PATIENCE = 60_000  # milliseconds
NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1400, "height": 900}
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>${alert(3)}"

FAINT_TEXTS = """() => {
    const parse = colour => {
        const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
        return colour.startsWith("color(") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((each, n) => each * a + below[n] * (1 - a));
    const luminance = colour => {
        const [r, g, b] = colour.map(each => each / 255)
            .map(each => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = element => {
        if (!element) return [255, 255, 255];
        const own = parse(getComputedStyle(element).backgroundColor);
        return own[3] === 1 ? own.slice(0, 3) : over(own, background(element.parentElement));
    };
    const faint = [];
    for (const element of document.querySelectorAll("body *")) {
        const text = element.placeholder || [...element.childNodes]
            .filter(node => node.nodeType === Node.TEXT_NODE).map(node => node.data.trim()).join("");
        if (!text || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
        const below = background(element);
        const colour = getComputedStyle(element, element.placeholder ? "::placeholder" : null).color;
        const [light, dark] = [luminance(over(parse(colour), below)), luminance(below)].sort((a, b) => b - a);
        const ratio = (light + 0.05) / (dark + 0.05);
        if (ratio < 4.5) faint.push(`${ratio.toFixed(1)}: ${text.slice(0, 60)}`);
    }
    return faint;
}"""
"""Lists the visible texts whose contrast is below 4.5, as WCAG 2 computes it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Path:
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(empty_tracking, folder)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with page_server(Writer(), folder) as address:
        yield f"{address}/page/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """An installed Chromium, headless. On Debian: `apt install chromium`."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        chromium = playwright.chromium.launch(
            executable_path=path, args=BROWSER_FLAGS, env={**os.environ, "HOME": home}
        )
        yield chromium
        chromium.close()


@contextmanager
def _opened(browser: Browser, address: str, size: dict[str, int], scheme: str = "light") -> Iterator[Window]:
    """Open the page. It asks no other server for anything, and runs no script of a transcript."""
    context = browser.new_context(viewport=size, color_scheme=scheme, permissions=["clipboard-read"])
    window, strangers = context.new_page(), set()
    window.set_default_timeout(PATIENCE)
    own = (address, "data:", "blob:")
    window.on("request", lambda asked: asked.url.startswith(own) or strangers.add(asked.url))
    window.on("dialog", lambda dialog: (strangers.add(f"dialog {dialog.message}"), dialog.dismiss()))
    window.goto(address)
    yield window
    assert strangers == set()
    context.close()


def _try_example(window: Window) -> None:
    window.get_by_role("button", name="Try an example").click()
    expect(window.locator("#status")).to_contain_text("3 chapters")


def _in_view(part: Locator) -> bool:
    box, size = part.bounding_box(), part.page.viewport_size
    return box is not None and size is not None and box["y"] >= 0 and box["y"] + box["height"] <= size["height"]


def _write(window: Window, row: int, column: int, text: str) -> None:
    cell = window.get_by_test_id(f"cell-{row}-{column}")
    cell.dblclick()
    editor = cell.locator("input, textarea")
    editor.fill(text)
    editor.press("Enter")
    expect(cell).to_contain_text(text)


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
def test_the_example_shows_its_chapters_and_their_words(size: dict[str, int], browser: Browser, address: str) -> None:
    with _opened(browser, address, size) as window:
        assert _in_view(window.get_by_role("button", name="Try an example"))
        _try_example(window)
        words = window.locator("#timeline article:visible")
        expect(words).to_contain_text("making bread")
        window.wait_for_function("scrollY > 100")
        assert _in_view(window.get_by_role("heading", name="Chapters"))
        assert _in_view(window.get_by_test_id("cell-2-1")), "the chapters are below the fold"
        window.get_by_role("radio", name="Chapter 2").click()
        expect(words).to_contain_text("telescope")
        window.get_by_test_id("cell-2-1").click()
        expect(words).to_contain_text("vegetable garden")
        assert _in_view(words.locator(".words p").first)
        assert window.evaluate("document.documentElement.scrollWidth") <= size["width"]
        table, title = window.locator("#chapters").bounding_box(), window.get_by_test_id("cell-0-1").bounding_box()
        assert table is not None
        assert title is not None
        assert title["width"] > 0.6 * table["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(scheme: str, browser: Browser, address: str) -> None:
    with _opened(browser, address, WIDE, scheme) as window:
        expect(window.locator("#served")).to_contain_text("titles/1")
        assert window.evaluate(FAINT_TEXTS) == []
        _try_example(window)
        window.get_by_role("button", name="Compare with").click()
        expect(window.get_by_label("baseline: first-words")).to_be_visible()
        window.get_by_role("button", name="Compare titles").click()
        expect(window.get_by_test_id("toast-text").first).to_contain_text("No model is chosen")
        window.wait_for_timeout(500)  # for the message to appear and the buttons to change colour
        assert window.evaluate(FAINT_TEXTS) == []


def test_the_keyboard_reaches_everything(browser: Browser, address: str) -> None:
    with _opened(browser, address, WIDE) as window:
        example = window.get_by_role("button", name="Try an example")
        example.focus()
        window.keyboard.press("Enter")
        expect(window.get_by_role("heading", name="Chapters")).to_be_focused()
        reached = []
        for _ in range(14):
            window.keyboard.press("Tab")
            reached.append(
                window.evaluate(
                    "(e => e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || e.tagName)(document.activeElement)"
                )
            )
            if reached[-1].startswith("Chapter 1,"):
                window.keyboard.press("ArrowRight")
                expect(window.locator("#timeline article:visible")).to_contain_text("telescope")
        wanted = ["0:00", "Chapter 1", "Words of", "Suggest", "Course", "Lesson", "Format", "Copy", "Download", "Save"]
        assert [name for name in wanted if not any(each.startswith(name) for each in reached)] == [], reached
        window.get_by_test_id("cell-0-0").focus()
        window.keyboard.press("ArrowDown")
        expect(window.get_by_test_id("cell-1-0")).to_be_focused()
        window.keyboard.press("Enter")
        expect(window.get_by_label("Edit cell")).to_be_focused()
        window.keyboard.press("Control+a")
        window.keyboard.type("1:40")
        window.keyboard.press("Enter")
        expect(window.get_by_label("Chapter 2, 1:40")).to_be_attached()
        expect(window.locator("#timeline article:visible")).to_contain_text("1:40 to")


def test_a_person_drops_files_corrects_copies_and_downloads(browser: Browser, address: str, tmp_path: Path) -> None:
    files = [write_captions(tmp_path / "talk.vtt"), tmp_path / "other.txt"]
    files[1].write_text(f"0:00 {EVIL}\n0:30 you", encoding="utf-8")
    with _opened(browser, address, WIDE) as window:
        outcome = window.locator("#outcome")
        window.locator("input[type=file]").first.set_input_files(files)
        expect(window.locator("#status")).to_contain_text("2 talks: 38 lines read.")
        expect(window.get_by_label("Talk")).to_have_value("1. talk.vtt, 3:36")
        window.get_by_role("button", name="Find chapters").click()
        expect(window.locator("#status")).to_contain_text("3 chapters")
        _write(window, 0, 1, EVIL)
        _write(window, 1, 0, "<b>${alert(4)}")
        expect(outcome).to_contain_text("Row 2: '<b>${alert(4)}' is not a time. Write h:mm:ss or mm:ss.")
        window.get_by_role("button", name="Download", exact=True).click()
        expect(window.get_by_test_id("toast-text").first).to_contain_text("'<b>${alert(4)}' is not a time")
        _write(window, 1, 0, "1:20")
        expect(window.locator("#timeline article").first).to_contain_text(EVIL)
        with window.expect_download() as download:
            window.get_by_role("button", name="Download", exact=True).click()
        assert download.value.suggested_filename == "talk-1.txt"
        text = Path(download.value.path()).read_text(encoding="utf-8")
        assert text.startswith("0:00 ‹img src=x")
        window.get_by_role("button", name="Copy").click()
        expect(outcome).to_contain_text("Copied 3 chapters.")
        window.wait_for_function("async text => await navigator.clipboard.readText() === text", arg=text)
        window.get_by_role("button", name="Compare with").click()
        window.get_by_label("baseline: first-words").check()
        window.get_by_role("button", name="Compare titles").click()
        expect(window.locator("#compared")).to_contain_text(EVIL)
        window.get_by_label("Talk").click()
        window.get_by_role("option", name="2. other.txt").click()
        window.get_by_role("button", name="Find chapters").click()
        expect(window.locator("#status")).to_contain_text("1 chapter")
        expect(window.locator("#timeline article").first).to_contain_text(f"0:00 {EVIL}")
        assert window.locator("img[src=x]").count() == 0
