"""The page in a real browser, where Playwright and Chromium are at hand."""

import contextlib
import re
import shutil
import socket
import threading
import time

import pytest
from test_page import Source, make_page

from mhnet_video.config import LiveConfig, LiveOutputs
from mhnet_video.pipelines.live import run_live

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


# the mean luma of what is drawn, of its left and of its right half
LUMAS = """() => {
  const canvas = document.getElementById("picture"), context = canvas.getContext("2d");
  const mean = from => {
    const data = context.getImageData(from, 0, canvas.width / 2, canvas.height).data;
    let sum = 0;
    for (let i = 0; i < data.length; i += 4)
      sum += 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
    return sum / (data.length / 4);
  };
  return [mean(0), mean(canvas.width / 2)];
}"""


def wait_for(what, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := what():
            return result
        time.sleep(0.1)
    raise AssertionError("it did not come about")


@contextlib.contextmanager
def chromium(*words):
    """A browser."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-dev-shm-usage", *words],
            timeout=90_000,
        )
        try:
            yield browser
        finally:
            browser.close()


def test_the_page_in_chromium():
    source = Source()
    # dark before, and so bright after
    source.level = lambda number: 40
    source.start()
    served = make_page(source)
    said = []
    try:
        with chromium() as browser:
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
    finally:
        served.close()
        source.close()
    # what this test itself makes the browser say: it reads the canvas, and ends the server
    ours = ("willReadFrequently", "Failed to load", "ERR_")
    assert [text for text in said if not any(each in text for each in ours)] == []


@contextlib.contextmanager
def visited(host="127.0.0.1"):
    """A run that restores visitors' cameras; gives its link."""
    stop, links, told = threading.Event(), [], []

    def run():
        outputs = LiveOutputs(has_window=False, serve=f"{host}:0", view="side")
        config = LiveConfig(scale=1.0, fps=10.0)
        told.append(run_live("visitor", config, outputs, on_message=links.append, stop=stop))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: links)
        yield re.search("http.*", links[0])[0]
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive() and told[0].interrupted


def is_restored(page):
    """Whether the stand-in has turned the luma of the right half upside down."""
    before, after = page.evaluate(LUMAS)
    return abs(before + after - 255) < 30 and abs(before - after) > 20


FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


def test_a_visitors_own_camera(standin):
    """It comes back restored, to this visitor alone, and one visitor is served at a time."""
    said = []
    with visited() as link, chromium(*FAKE_CAMERA) as browser:
        pages = [browser.new_page(viewport={"width": 900, "height": 700}) for _ in range(2)]
        for page in pages:
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(link, timeout=60_000)
        first, second = pages
        assert "None is kept" in first.locator("#explanation").inner_text()
        first.get_by_text("use my camera").click()
        wait_for(lambda: first.locator("#picture").get_attribute("width") == "1280")
        wait_for(lambda: first.locator("#before").is_visible())
        wait_for(lambda: is_restored(first))
        assert not first.locator("#invitation").is_visible()
        wait_for(lambda: "of 10.0 fps" in first.locator("#statistics").inner_text())
        # nobody else gets anything of it, nor a turn
        wait_for(lambda: "Another visitor's" in second.locator("#explanation").inner_text())
        assert second.locator("#begin").is_disabled()
        statuses = (
            "async () => [(await fetch('snapshot.jpg')).status, (await fetch('camera/begin', "
        )
        statuses += (
            "{method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{}'})).status]"
        )
        assert second.evaluate(statuses) == [503, 409]
        # until it is over
        first.get_by_text("stop my camera").click()
        wait_for(lambda: first.locator("#invitation").is_visible())
        wait_for(lambda: not first.locator("#before").is_visible())
        wait_for(lambda: second.locator("#begin").is_enabled())
        second.get_by_text("use my camera").click()
        wait_for(lambda: second.locator("#before").is_visible())
        # a page that is closed makes room at once
        second.close()
        wait_for(lambda: first.locator("#begin").is_enabled(), 4)
    assert said == []


def test_a_visitor_without_a_camera_is_told_so(standin):
    with visited() as link, chromium() as browser:
        page = browser.new_page()
        page.goto(link, timeout=60_000)
        page.get_by_text("use my camera").click()
        wait_for(lambda: "no camera on this device" in page.locator("#explanation").inner_text())
        assert page.locator("#begin").is_enabled()


def own_address():
    """The address of this machine that others know; skips where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.200", 9))
        except OSError:
            pytest.skip("this machine has no network")
        host = probe.getsockname()[0]
    if host.startswith("127."):
        pytest.skip("this machine has no network")
    return host


def test_other_machines_get_webrtc():
    """What is drawn is the same, and the picture can be frozen."""
    host = own_address()
    source = Source(size=(320, 240))
    source.level = lambda number: 40
    source.start()
    served = make_page(source, host)
    said = []
    try:
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 800, "height": 600})
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(f"http://{host}:{served.port}/?token={served.token}", timeout=60_000)

            def text():
                return page.locator("#statistics").inner_text()

            wait_for(lambda: "by WebRTC" in text())
            assert served.webrtc.peers == 1 and served.pictures.watchers == 0
            assert page.locator("#picture").get_attribute("width") == "640"

            def is_right():
                before, after = page.evaluate(LUMAS)
                # 40 of limited range, and its opposite
                return abs(before - 28) < 6 and abs(after - 232) < 6

            wait_for(is_right)
            wait_for(lambda: float(re.search(r"here ([\d.]+) by", text())[1]) > 15)
            page.keyboard.press(" ")
            wait_for(lambda: "frozen" in text())
            source.level = lambda number: 200
            time.sleep(1)
            assert is_right()
            page.keyboard.press(" ")
            wait_for(lambda: page.evaluate(LUMAS)[0] > 180)
            assert len(source.shown) > 20
            page.close()
            wait_for(lambda: served.webrtc.peers == 0)
            # where it does not get through, pictures come as JPEG
            page = browser.new_page()
            page.add_init_script(
                "window.RTCPeerConnection.prototype.setRemoteDescription = "
                "() => new Promise(resolve => setTimeout(resolve, 100))"
            )
            page.goto(f"http://{host}:{served.port}/?token={served.token}", timeout=60_000)
            wait_for(lambda: "by JPEG" in text() and served.pictures.watchers == 1)
            wait_for(lambda: page.evaluate(LUMAS)[0] > 180)
            wait_for(lambda: served.webrtc.peers == 0)
    finally:
        served.close()
        source.close()
    assert said == []


def test_a_visitor_from_another_machine(standin):
    """A browser gives no camera to a page that is not secure; where it does, WebRTC brings it."""
    with visited(own_address()) as link:
        with chromium(*FAKE_CAMERA) as browser:
            page = browser.new_page()
            page.goto(link, timeout=60_000)
            page.get_by_text("use my camera").click()
            wait_for(lambda: "pages with TLS" in page.locator("#explanation").inner_text())
        origin = link.partition("/?")[0]
        with chromium(*FAKE_CAMERA, f"--unsafely-treat-insecure-origin-as-secure={origin}") as two:
            page = two.new_page()
            page.goto(link, timeout=60_000)
            page.get_by_text("use my camera").click()
            wait_for(lambda: page.locator("#before").is_visible())
            wait_for(lambda: is_restored(page))
            wait_for(lambda: "by WebRTC" in page.locator("#statistics").inner_text())
