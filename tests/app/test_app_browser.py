"""The page for files in a real browser, where Playwright and Chromium are at hand."""

import contextlib
from dataclasses import replace

import pytest
from clips import Clip, Video, every
from test_app import Restoring, app_page
from test_browser import chromium, sync_api, wait_for

from mhnet_video.config import Box

assert sync_api  # this file is skipped without it, as that one is
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default::ResourceWarning"),
]

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name in ("one.mp4", "two.mp4"):
        Clip(name=name, video=(Video(width=320, height=240, times=every(40, 8)),)).make(folder)
    return folder


@contextlib.contextmanager
def visited(folder, restoring, size):
    """A page in a browser, and what went wrong in it."""
    said = []
    with app_page(folder, restoring) as served, chromium() as browser:
        page = browser.new_page(viewport=size)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(served.link, timeout=60_000)
        yield page, served
    assert said == []


def rows(page):
    """The names and states of the list."""
    found = page.evaluate(
        "[...document.querySelectorAll('#clips li')]"
        ".map(row => [row.querySelector('.name').textContent, row.className.split(' ')[0]])"
    )
    return [tuple(each) for each in found]


def drag(page, begin, end):
    box = page.locator("#picture").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (begin, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1])
    page.mouse.up()


def test_clips_are_dropped_compared_and_downloaded(tmp_path, files):
    restoring = Restoring()
    size = {"width": 1200, "height": 800}
    with visited(tmp_path, restoring, size) as (page, _):
        page.set_input_files("#files", [files / "one.mp4", files / "two.mp4"])
        wait_for(lambda: rows(page) == [("one.mp4", "ready"), ("two.mp4", "ready")])
        wait_for(lambda: page.locator("#picture").get_attribute("width") == "320")
        assert not page.locator("#divider").is_visible()
        # a box by the mouse, one by the keyboard, and one that does not fit
        page.get_by_role("button", name="draw a box").click()
        drag(page, (0.25, 0.5), (0.5, 0.75))
        page.get_by_label("x, y, width, height").fill("0, 0, 32, 24")
        page.keyboard.press("Enter")
        page.get_by_label("x, y, width, height").fill("300, 0, 32, 24")
        page.get_by_role("button", name="add").click()
        assert "within the picture of 320" in page.get_by_role("alert").inner_text()
        assert page.locator("#boxes li").count() == page.locator(".box").count() == 2
        page.get_by_label("Take out").select_option("raindrop")
        page.get_by_label("Strength").fill("60")
        restoring.may_end.clear()
        page.get_by_role("button", name="restore all 2").click()
        wait_for(lambda: [state for _, state in rows(page)] == ["running", "waiting"])
        wait_for(lambda: "31 %" in page.locator("#clips li .said").first.inner_text())
        _, config = restoring.begun[0]
        drawn, typed = config.keep
        assert (config.task, config.strength, typed) == ("raindrop", 0.6, Box(0, 0, 32, 24))
        assert all(abs(a - b) <= 2 for a, b in zip(drawn, (80, 120, 80, 60), strict=True))
        # the second is cancelled, and the first ends
        page.get_by_role("button", name="cancel two.mp4").click()
        wait_for(lambda: rows(page)[1] == ("two.mp4", "ready"))
        restoring.may_end.set()
        wait_for(lambda: rows(page)[0] == ("one.mp4", "done"))
        wait_for(lambda: page.locator("#divider").is_visible())
        assert "a subtitle is lost" in page.locator("#lost").inner_text()
        page.locator("#divider").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#divider").get_attribute("aria-valuenow") == "52"
        drag(page, (0.5, 0.5), (0.9, 0.5))
        assert page.locator("#divider").get_attribute("aria-valuenow") == "90"
        with page.expect_download() as download:
            page.get_by_role("link", name="download one.mp4").click()
        assert download.value.suggested_filename == "one-restored.mp4"
        with open(download.value.path(), "rb") as file:
            assert file.read() == (files / "one.mp4").read_bytes()
        page.get_by_role("button", name="remove one.mp4").click()
        wait_for(lambda: rows(page) == [("two.mp4", "ready")])
        wait_for(lambda: page.locator("#title").inner_text() == "two.mp4")


def test_each_clip_tells_what_its_own_result_lacks(tmp_path, files):
    class Telling(Restoring):
        def __call__(self, clip, on_position):
            outcome = super().__call__(clip, on_position)
            return replace(outcome, lost=(f"a subtitle of {clip.name} is lost",))

    with visited(tmp_path, Telling(), {"width": 1200, "height": 800}) as (page, _):
        page.set_input_files("#files", [files / "one.mp4", files / "two.mp4"])
        wait_for(lambda: rows(page) == [("one.mp4", "ready"), ("two.mp4", "ready")])
        page.get_by_role("button", name="restore all 2").click()
        wait_for(lambda: rows(page) == [("one.mp4", "done"), ("two.mp4", "done")])
        for name in ("two.mp4", "one.mp4"):
            page.get_by_role("button", name=name, exact=True).click()
            assert page.locator("#title").inner_text() == name
            assert page.locator("#lost").inner_text() == f"a subtitle of {name} is lost"


def test_bad_uploads_are_said_on_the_page(tmp_path):
    size = {"width": 1200, "height": 800}
    with visited(tmp_path, Restoring(), size) as (page, _):
        # dropped, as from a file manager
        page.evaluate(
            """() => {
              const data = new DataTransfer();
              data.items.add(new File(["hello"], "text.mp4"));
              data.items.add(new File([], "empty.mp4"));
              data.items.add(new File([], "void.mp4"));
              const options = { dataTransfer: data, bubbles: true, cancelable: true };
              document.body.dispatchEvent(new DragEvent("drop", options));
            }"""
        )
        wait_for(lambda: rows(page) == [("text.mp4", "failed")])
        assert "text.mp4 is not a video" in page.locator("#clips .said").inner_text()
        wait_for(lambda: "void.mp4 is empty" in page.get_by_role("alert").inner_text())
        assert "empty.mp4 is empty" in page.get_by_role("alert").inner_text()
        page.get_by_role("button", name="close").click()
        assert not page.get_by_role("alert").is_visible()
        assert not page.locator("#settings").is_visible()
        page.get_by_role("button", name="remove text.mp4").click()
        wait_for(lambda: rows(page) == [])


def test_an_upload_is_cancelled(tmp_path, files):
    size = {"width": 1200, "height": 800}
    large = tmp_path / "large.mp4"
    with open(large, "wb") as file:
        file.truncate(200 << 20)
    with visited(tmp_path / "work", Restoring(), size) as (page, served):
        # the line is slow
        session = page.context.new_cdp_session(page)
        slow = {"offline": False, "latency": 0, "downloadThroughput": -1}
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": 1 << 20})
        page.set_input_files("#files", [large, files / "one.mp4"])
        wait_for(lambda: rows(page)[:1] == [("large.mp4", "uploading")])
        page.get_by_role("button", name="cancel large.mp4").click()
        session.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
        wait_for(lambda: rows(page) == [("one.mp4", "ready")])
        wait_for(lambda: len([each for each in served.path.iterdir() if each.is_dir()]) == 1)
        assert not page.get_by_role("alert").is_visible()


def test_a_phone(tmp_path, files):
    """All of it is as wide as the screen, and can be reached."""
    with visited(tmp_path, Restoring(), PHONE) as (page, _):
        page.set_input_files("#files", [files / "one.mp4"])
        wait_for(lambda: rows(page) == [("one.mp4", "ready")])
        wait_for(lambda: page.locator("#picture").get_attribute("width") == "320")
        # what is said covers nothing that cannot be scrolled to
        page.get_by_role("button", name="add").click()
        assert page.get_by_role("alert").is_visible()
        page.get_by_role("button", name="restore this clip").click()
        wait_for(lambda: page.locator("#divider").is_visible())
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        for control in page.locator("button, .button, select, input, #frame").all():
            if control.is_visible():
                box = control.bounding_box()
                assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


def test_an_opened_page_begins_at_its_top_and_keeps_the_place_of_the_picture(tmp_path, files):
    with visited(tmp_path, Restoring(), PHONE) as (page, _):
        page.set_input_files("#files", [files / "one.mp4"])
        wait_for(lambda: page.locator("#picture").get_attribute("width") == "320")
        height = page.locator("#frame").bounding_box()["height"]
        page.route("**/picture.jpg*", lambda route: None)  # which never comes
        page.reload()
        wait_for(lambda: page.locator("#settings").is_visible())
        assert page.locator("#frame").bounding_box()["height"] == height
        assert page.locator("#clock").inner_text() == "0:00.2"
        assert page.evaluate("scrollY") == 0


def test_a_reload_forgets_neither_the_chosen_clip_nor_its_boxes(tmp_path, files):
    with visited(tmp_path, Restoring(), {"width": 1200, "height": 800}) as (page, _):
        page.set_input_files("#files", [files / "one.mp4", files / "two.mp4"])
        wait_for(lambda: rows(page) == [("one.mp4", "ready"), ("two.mp4", "ready")])
        page.get_by_role("button", name="two.mp4", exact=True).click()
        for place in ("0, 0, 32, 24", "32, 0, 32, 24"):
            page.get_by_label("x, y, width, height").fill(place)
            page.keyboard.press("Enter")
        page.get_by_role("button", name="remove the box 0, 0, 32, 24").click()
        page.reload()
        wait_for(lambda: page.locator("#settings").is_visible())
        assert page.locator("#title").inner_text() == "two.mp4"
        assert page.locator("#boxes li").all_inner_texts() == ["32, 0, 32, 24\u00d7"]


def test_each_control_has_a_name(tmp_path, files):
    size = {"width": 1200, "height": 800}
    with visited(tmp_path, Restoring(), size) as (page, _):
        page.set_input_files("#files", [files / "one.mp4"])
        wait_for(lambda: page.locator("#settings").is_visible())
        wait_for(lambda: page.locator("#picture").get_attribute("width") == "320")
        told = page.locator("body").aria_snapshot()
        for name in (
            'button "draw a box"',
            'button "remove one.mp4"',
            'combobox "Take out"',
            'slider "time"',
            'slider "Strength',
            'textbox "or x, y, width, height in pixels"',
            'img "The clip\'s picture"',
            'list "Clips"',
        ):
            assert name in told, told
        # without a mouse: the keys reach what the mouse reaches
        reached = set()
        for _ in range(20):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate("document.activeElement.id || document.activeElement.className")
            )
        assert {"files", "time", "task", "strength", "draw", "box", "add", "restore"} <= reached
