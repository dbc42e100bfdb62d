"""The page in a real browser, where Playwright and Chromium are at hand."""

import shutil
import time

import pytest
from test_page import Source, make_page

sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
    pytest.mark.filterwarnings("default::ResourceWarning"),
]

# the mean of red over the left and the right quarter of what is drawn
HALVES = """() => {
  const canvas = document.getElementById("picture"), context = canvas.getContext("2d");
  const mean = from => {
    const data = context.getImageData(from, 0, canvas.width / 4, canvas.height).data;
    return data.filter((_, index) => index % 4 === 0).reduce((a, b) => a + b) / (data.length / 4);
  };
  return [mean(0), mean(Math.floor(3 * canvas.width / 4))];
}"""


def wait_for(what, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := what():
            return result
        time.sleep(0.1)
    raise AssertionError("it did not come about")


def test_the_page_in_chromium():
    source = Source()
    # dark before, and so bright after
    source.level = lambda number: 40
    source.start()
    served = make_page(source)
    said = []
    try:
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            page = browser.new_page(viewport={"width": 800, "height": 600})
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(served.link, timeout=60_000)

            def text():
                return page.locator("#statistics").inner_text()

            def dark(value):
                return value < 60

            def halves():
                return [dark(value) for value in page.evaluate(HALVES)]

            # it begins side by side, as it was told
            wait_for(lambda: "24.5 of 25.0 fps" in text())
            wait_for(lambda: halves() == [True, False])
            assert page.locator("#picture").get_attribute("width") == "128"
            page.keyboard.press("s")
            wait_for(lambda: halves() == [False, False])
            page.keyboard.press("s")
            wait_for(lambda: halves() == [True, True])
            page.keyboard.press("s")
            wait_for(lambda: halves() == [True, False])
            assert page.locator("#picture").get_attribute("width") == "64"
            # the line is dragged to the right edge
            box = page.locator("#picture").bounding_box()
            middle = box["y"] + box["height"] / 2
            page.mouse.move(box["x"] + box["width"] / 2, middle)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] - 1, middle)
            page.mouse.up()
            wait_for(lambda: halves() == [True, True])
            page.keyboard.press("+")
            page.get_by_text("record").click()
            wait_for(lambda: source.pressed == ["+", "r"])
            page.keyboard.press(" ")
            wait_for(lambda: "frozen" in text())
            # what the server says is text, never markup
            assert "<b>" in text()
            page.keyboard.press("i")
            assert not page.locator("#statistics").is_visible()
            served.close()
            alert = page.locator("#trouble")
            wait_for(lambda: "does not answer" in alert.inner_text())
            browser.close()
    finally:
        served.close()
        source.close()
    # what this test itself makes the browser say: it reads the canvas, and ends the server
    ours = ("willReadFrequently", "Failed to load", "ERR_")
    assert [text for text in said if not any(each in text for each in ours)] == []
