"""The page for files: uploads, what is refused, the queue, and what is left at the end."""

import contextlib
import errno
import http.client
import io
import json
import os
import shutil
import socket
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import av
import batch_restorers
import pytest
from clips import Clip, Video, every, rotation
from waiting import SECONDS, wait_until

import mhnet_video.app.clips
import mhnet_video.app.routes
import mhnet_video.pipelines.app
from mhnet_video.app.clip_files import move_beside_others, result_name, shown_name, upload_name
from mhnet_video.app.clips import Clips, Outcome, Quota
from mhnet_video.app.pictures import coded_box
from mhnet_video.app.restoring import RestoringQueue
from mhnet_video.app.routes import AppServer
from mhnet_video.app.workspace import Workspace
from mhnet_video.batch.rows import Row, Status
from mhnet_video.cli.main import main
from mhnet_video.config import AppConfig, Box, RestoreConfig
from mhnet_video.errors import WriteError
from mhnet_video.pipelines.app import run_app
from mhnet_video.pipelines.batch_tally import BatchReport
from mhnet_video.web.access import ListenAddress

pytestmark = pytest.mark.beside

SHORT = (Video(times=every(40, 8)),)


class Restoring:
    """Stands in for the batch: gives the upload itself, when it may."""

    def __init__(self):
        self.may_end = threading.Event()
        self.may_end.set()
        self.error = None
        self.begun = []

    def __call__(self, clip, on_position):
        self.begun.append((clip.name, clip.config))
        on_position(0.1)
        while not self.may_end.wait(0.02):
            if clip.stop.is_set():
                return Outcome(is_cancelled=True)
        if self.error is not None:
            raise self.error
        out = clip.folder / "restored"
        out.mkdir(exist_ok=True)
        return Outcome(result=Path(shutil.copy(clip.source, out)), lost=("a subtitle is lost",))


@contextlib.contextmanager
def app_page(folder, restore, *, keep_in=None, quota=None):
    """A page whose clips are restored by a function."""
    with contextlib.ExitStack() as ends:
        workspace = ends.enter_context(Workspace(folder))
        clips = Clips(workspace.path, RestoreConfig(), quota)
        ends.enter_context(RestoringQueue(clips, restore, keep_in))
        server = ends.enter_context(AppServer(ListenAddress("127.0.0.1", 0), clips, keep_in))
        yield SimpleNamespace(port=server.port, link=server.link, path=workspace.path)


@pytest.fixture
def restoring():
    return Restoring()


@pytest.fixture
def page(tmp_path, restoring):
    with app_page(tmp_path / "work", restoring) as made:
        yield made


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The bytes of a short clip."""
    return Clip(video=SHORT).make(tmp_path_factory.mktemp("clip")).read_bytes()


def ask(page, path, method="GET", body=None, kind="application/json", **headers):
    """The status, the body and the headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=SECONDS)
    with contextlib.closing(connection):
        if body is not None:
            headers["Content-Type"] = kind
        if isinstance(body, dict):
            body = json.dumps(body)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers


def announce(page, name, size):
    return ask(page, "/clips", "POST", {"name": name, "bytes": size})


def upload(page, name, data):
    """The ID of a clip whose upload was taken, whatever became of it."""
    status, body, _ = announce(page, name, len(data))
    assert status == 200, body
    clip_id = json.loads(body)["id"]
    ask(page, f"/clips/{clip_id}", "PUT", data, "application/octet-stream")
    return clip_id


def state_of(page, clip_id):
    clips = json.loads(ask(page, "/status.json")[1])["clips"]
    return next((each for each in clips if each["id"] == clip_id), None)


def restore(page, clip_id, **changes):
    wish = {"task": "derain", "strength": 1, "keep": []} | changes
    return ask(page, f"/clips/{clip_id}/restore", "POST", wish)


def wait_for_state(page, clip_id, state):
    wait_until(lambda: state_of(page, clip_id)["state"] == state)


def files_below(path):
    return sorted(str(each.relative_to(path)) for each in path.rglob("*") if each.is_file())


def test_a_clip_comes_back_restored(page, restoring, clip):
    clip_id = upload(page, "Drive 1.MP4", clip)
    told = state_of(page, clip_id)
    assert (told["name"], told["state"], told["size"]) == ("Drive 1.MP4", "ready", [64, 48])
    assert told["seconds"] == pytest.approx(0.32)
    assert restore(page, clip_id, task="raindrop", strength=0.5, keep=[[2, 4, 8, 6]])[0] == 204
    wait_for_state(page, clip_id, "done")
    name, config = restoring.begun[0]
    assert name == "Drive 1.MP4"
    assert config == RestoreConfig(task="raindrop", strength=0.5, keep=(Box(2, 4, 8, 6),))
    assert state_of(page, clip_id)["lost"] == ["a subtitle is lost"]
    status, body, headers = ask(page, f"/clips/{clip_id}/result")
    assert status == 200 and body == clip
    assert 'attachment; filename="Drive 1-restored.mp4"' in headers["Content-Disposition"]
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Content-Type-Options"] == "nosniff"
    # what was cut off in the middle goes on
    status, body, _ = ask(page, f"/clips/{clip_id}/result", Range="bytes=100-")
    assert status == 206 and body == clip[100:]


def test_a_result_keeps_its_settings_while_it_is_there(page, restoring, clip):
    clip_id = upload(page, "a.mp4", clip)
    restore(page, clip_id, task="raindrop", strength=0.5)
    wait_for_state(page, clip_id, "done")
    restoring.may_end.clear()
    restore(page, clip_id, strength=0.25)
    wait_for_state(page, clip_id, "running")
    told = state_of(page, clip_id)
    assert (told["task"], told["strength"], told["lost"]) == ("derain", 0.25, [])
    ask(page, f"/clips/{clip_id}/cancel", "POST", {})
    wait_for_state(page, clip_id, "done")
    told = state_of(page, clip_id)
    assert (told["task"], told["strength"]) == ("raindrop", 0.5)
    assert told["lost"] == ["a subtitle is lost"]
    restoring.may_end.set()
    restore(page, clip_id, strength=0.25)
    wait_until(lambda: state_of(page, clip_id)["runs"] == 2)
    assert state_of(page, clip_id)["strength"] == 0.25


def width_of(jpeg):
    with av.open(io.BytesIO(jpeg)) as container:
        return container.streams.video[0].width


def test_moments_before_and_after(page, clip):
    clip_id = upload(page, "a.mp4", clip)
    path = f"/clips/{clip_id}/picture.jpg"
    first, later = (ask(page, f"{path}?at={at}")[1] for at in ("0", "0.2"))
    assert width_of(first) == width_of(later) == 64 and first != later
    # behind the end there is the last, as sound may be longer
    assert ask(page, f"{path}?at=100")[0] == 200
    for at in ("-1", "nan", "inf"):
        assert ask(page, f"{path}?at={at}")[0] == 400
    restore(page, clip_id)
    wait_for_state(page, clip_id, "done")
    assert width_of(ask(page, f"{path}?at=0.2")[1]) == 128
    assert width_of(ask(page, f"{path}?at=0.2&view=before")[1]) == 64


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("text.mp4", b"hello", "text.mp4 is not a video, or is damaged"),
        # lists of other files, which must not be opened
        ("list.m3u8", PLAYLIST, "list.m3u8 is not a video"),
        ("list.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n", "list.mp4 is not a video"),
    ],
)
def test_what_is_no_video_is_said_on_the_page(page, name, data, said):
    clip_id = upload(page, name, data)
    told = state_of(page, clip_id)
    assert told["state"] == "failed" and told["reason"].startswith(said)
    assert str(page.path) not in told["reason"]
    assert files_below(page.path) == ["lock"]
    assert restore(page, clip_id)[0] == 422
    assert ask(page, f"/clips/{clip_id}", "DELETE")[0] == 204
    assert state_of(page, clip_id) is None


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "a.mp4 is empty; copy it again"),
        (-5, "a.mp4 is empty"),
        ((4 << 30) + 1, "a.mp4 is too large: 4 GiB may be uploaded; cut it first.\n"),
        (3 << 30, "a.mp4 is too large for the disk, which has 2.1 GB left; remove clips"),
    ],
)
def test_what_is_refused_before_it_comes(tmp_path, restoring, monkeypatch, size, said):
    usage = SimpleNamespace(free=2 << 30)
    monkeypatch.setattr(mhnet_video.app.clips.shutil, "disk_usage", lambda path: usage)
    with app_page(tmp_path, restoring, quota=Quota(max_bytes=4 << 30)) as page:
        status, body, _ = announce(page, "a.mp4", size)
        assert status == 422 and body.decode().startswith(said)
        # uploads that are on their way have room of their own
        assert announce(page, "b.mp4", 900 << 20)[0] == 200
        assert announce(page, "c.mp4", 900 << 20)[0] == 422
        assert announce(page, "d.mp4", 100 << 20)[0] == 200


def test_one_clip_too_many(tmp_path, restoring, clip):
    with app_page(tmp_path, restoring, quota=Quota(max_clips=2)) as page:
        first, _ = (upload(page, f"{name}.mp4", clip) for name in "ab")
        status, body, _ = announce(page, "c.mp4", 10)
        assert status == 422
        assert body == b"c.mp4 is one too many: remove one of the 2 clips first.\n"
        ask(page, f"/clips/{first}", "DELETE")
        assert announce(page, "c.mp4", 10)[0] == 200


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("odd\nmore")])
def test_a_clip_that_cannot_be_opened_for_whatever_reason_can_be_removed(
    page, clip, monkeypatch, error
):
    def fail(path, seconds):
        raise error

    monkeypatch.setattr(mhnet_video.app.clips, "frame_at", fail)
    clip_id = upload(page, "a.mp4", clip)
    state = state_of(page, clip_id)
    assert state["state"] == "failed" and type(error).__name__ in state["reason"]
    ask(page, f"/clips/{clip_id}", "DELETE")
    assert state_of(page, clip_id) is None and files_below(page.path) == ["lock"]


def test_a_disk_that_fills_up_is_said_in_a_sentence(page, clip, monkeypatch):
    def refuse(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    full = type("Full", (io.BytesIO,), {"write": refuse})
    monkeypatch.setattr(mhnet_video.app.routes, "open", lambda *_, **__: full(), raising=False)
    status, body, _ = announce(page, "a.mp4", len(clip))
    clip_id = json.loads(body)["id"]
    status, body, _ = ask(page, f"/clips/{clip_id}", "PUT", clip, "application/octet-stream")
    said = "a.mp4 was not uploaded: the disk is full; free some space or name another disk."
    assert (status, body.decode()) == (507, said + "\n")
    assert state_of(page, clip_id)["reason"] == said
    assert files_below(page.path) == ["lock"]


@pytest.mark.parametrize("end", ["cut off", "cancel", "silent"])
def test_an_upload_that_ends_in_the_middle_leaves_nothing(page, monkeypatch, end):
    if end == "silent":
        monkeypatch.setattr(mhnet_video.app.routes, "SILENCE_SECONDS", 0.3)
    clip_id = json.loads(announce(page, "a.mp4", 1_000_000)[1])["id"]
    head = f"PUT /clips/{clip_id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
    head += "Content-Type: application/octet-stream\r\n\r\n"
    with socket.create_connection(("127.0.0.1", page.port), SECONDS) as connection:
        connection.sendall(head.encode() + bytes(300_000))
        if end != "silent":
            wait_until(lambda: state_of(page, clip_id)["received"] == 300_000)
        if end == "cancel":
            assert ask(page, f"/clips/{clip_id}/cancel", "POST", {})[0] == 204
            connection.sendall(b"x")
            assert connection.recv(100).startswith(b"HTTP/1.1 410")
        if end == "silent":
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
    wait_until(lambda: state_of(page, clip_id) is None)
    wait_until(lambda: files_below(page.path) == ["lock"])


def test_what_never_comes_is_forgotten(page, monkeypatch):
    clip_id = json.loads(announce(page, "a.mp4", 1000)[1])["id"]
    assert state_of(page, clip_id)["state"] == "uploading"
    monkeypatch.setattr(mhnet_video.app.clips, "SILENCE_SECONDS", 0.0)
    assert state_of(page, clip_id) is None


def test_an_upload_has_the_size_that_was_announced_and_comes_once(page, clip):
    clip_id = json.loads(announce(page, "a.mp4", len(clip))[1])["id"]
    path, kind = f"/clips/{clip_id}", "application/octet-stream"
    assert ask(page, path, "PUT", clip + b"x", kind)[0] == 400
    assert ask(page, path, "PUT", clip, "video/mp4")[0] == 415
    assert ask(page, path, "PUT", clip, kind)[0] == 204
    assert ask(page, path, "PUT", clip, kind)[0] == 409
    assert state_of(page, clip_id)["state"] == "ready"


def test_a_second_upload_of_a_clip_leaves_the_first_alone(page, clip):
    clip_id = json.loads(announce(page, "a.mp4", len(clip))[1])["id"]
    head = f"PUT /clips/{clip_id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(clip)}\r\n"
    head += "Content-Type: application/octet-stream\r\n\r\n"
    with socket.create_connection(("127.0.0.1", page.port), SECONDS) as connection:
        connection.sendall(head.encode())
        wait_until((page.path / clip_id / "clip.mp4").exists)
        again = ask(page, f"/clips/{clip_id}", "PUT", clip, "application/octet-stream")
        assert again[:2] == (409, b"a.mp4 is being uploaded already\n")
        connection.sendall(clip)
        assert connection.recv(100).startswith(b"HTTP/1.1 204")
    assert state_of(page, clip_id)["state"] == "ready"


def test_the_queue(page, restoring, clip):
    """One at a time, in order; a clip that waits, and one that runs, can be cancelled."""
    first, second, third = (upload(page, f"{name}.mp4", clip) for name in "abc")
    restoring.may_end.clear()
    for clip_id in (first, second, third):
        assert restore(page, clip_id)[0] == 204
    wait_for_state(page, first, "running")
    wait_until(lambda: state_of(page, first)["position"] == 0.1)
    assert [state_of(page, each)["state"] for each in (second, third)] == ["waiting"] * 2
    assert restore(page, second)[1] == b"b.mp4 cannot be restored now.\n"
    ask(page, f"/clips/{second}/cancel", "POST", {})
    assert state_of(page, second)["state"] == "ready"
    ask(page, f"/clips/{first}/cancel", "POST", {})
    wait_for_state(page, first, "ready")
    wait_for_state(page, third, "running")
    # which goes away with its files when nobody works on it any more
    ask(page, f"/clips/{third}", "DELETE")
    assert state_of(page, third) is None
    wait_until(lambda: not (page.path / third).exists())
    restoring.may_end.set()
    restore(page, second)
    wait_for_state(page, second, "done")
    assert [name for name, _ in restoring.begun] == ["a.mp4", "c.mp4", "b.mp4"]


def test_a_clip_that_cannot_be_restored_stops_no_other(page, restoring, clip):
    first, second, third = (upload(page, f"{name}.mp4", clip) for name in "abc")
    restoring.error = WriteError("a.mp4 cannot be written: the disk is full.")
    restore(page, first)
    wait_for_state(page, first, "failed")
    assert state_of(page, first)["reason"] == "a.mp4 cannot be written: the disk is full."
    restoring.error = RuntimeError("boom")
    restore(page, second)
    wait_for_state(page, second, "failed")
    assert "a fault in this program, RuntimeError: boom" in state_of(page, second)["reason"]
    restoring.error = None
    for clip_id in (first, third):
        restore(page, clip_id)
        wait_for_state(page, clip_id, "done")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "desnow"}, "task must be one of"),
        ({"task": 3}, "task must be a name"),
        ({"strength": 2}, "strength must be between 0 and 1"),
        ({"strength": "x"}, "strength must be a number"),
        ({"strength": None}, "strength must be a number"),
        ({"strength": True}, "strength must be a number"),
        ({"strength": float("nan")}, "strength must be between 0 and 1"),
        ({"strength": 10**400}, "strength must be between 0 and 1"),
        ({"keep": [[0, 0, 65, 1]]}, "outside the picture of 64x48"),
        ({"keep": [[0, 0, 0, 1]]}, "a box to keep is X,Y,W,H in pixels"),
        ({"keep": [[0.5, 0, 1, 1]]}, "a box to keep is X,Y,W,H in pixels"),
        ({"keep": ["abcd"]}, "a box must be four numbers"),
        ({"keep": [[0, 0, 1, 1]] * 51}, "at most 50 boxes"),
    ],
)
def test_wrong_settings_are_refused(page, restoring, clip, changes, said):
    clip_id = upload(page, "a.mp4", clip)
    status, body, _ = restore(page, clip_id, **changes)
    assert status == 422 and said in body.decode()
    assert state_of(page, clip_id)["state"] == "ready" and restoring.begun == []


def test_who_may_not_ask(page, clip):
    body = {"name": "a.mp4", "bytes": 10}
    assert ask(page, "/clips", "POST", body, Origin="http://evil.example")[0] == 403
    assert ask(page, "/clips", "POST", body, "text/plain")[0] == 415
    assert ask(page, "/status.json", Host="evil.example")[0] == 403
    for wrong in ({"name": 1, "bytes": 1}, {"name": "a", "bytes": "1"}, {"bytes": True}):
        assert ask(page, "/clips", "POST", wrong)[0] == 400
    for path in ("/clips/x/result", "/clips/../../etc/passwd", "/clips/%2e%2e/result"):
        assert ask(page, path)[0] == 404
    clip_id = upload(page, "a.mp4", clip)
    assert ask(page, f"/clips/{clip_id}/result")[0] == 404
    assert ask(page, f"/clips/{clip_id}", "DELETE", Origin="http://evil.example")[0] == 403


def test_the_page_is_one_file(page):
    status, body, headers = ask(page, "/")
    assert status == 200 and b"rain and drops on the glass" in body
    assert b"http://" not in body and b"https://" not in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]


NAMES = [
    "../../etc/passwd",
    "C:\\x\\a.mp4",
    "",
    ".",
    "a\nb\u202e.mp4",
    "x" * 500 + ".mp4",
    "\ud800.mp4",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_never_trusted(page, clip, name):
    clip_id = upload(page, name, clip)
    assert set(files_below(page.path)) - {"lock"} <= {f"{clip_id}/clip.mp4", f"{clip_id}/clip"}
    shown = state_of(page, clip_id)["name"]
    assert shown and len(shown) <= 120 and shown.isprintable() and "/" not in shown
    restore(page, clip_id)
    wait_for_state(page, clip_id, "done")
    assert ask(page, f"/clips/{clip_id}/result")[0] == 200


def test_names():
    assert shown_name("a/b\\ c  d.mp4") == "c d.mp4"
    assert upload_name("x.MP4") == "clip.mp4" and upload_name("x.m p") == "clip"
    assert upload_name("x.mp4/..") == "clip"
    assert result_name('a:"b".mov', ".mkv") == "a__b_-restored.mkv"
    assert result_name("..", ".mp4") == "clip-restored.mp4"
    assert len(result_name("é" * 300, ".mp4").encode()) < 255


def test_results_are_kept_and_replace_nothing(tmp_path, restoring, clip):
    keep_in = tmp_path / "kept"
    with app_page(keep_in, restoring, keep_in=keep_in) as page:
        for _ in range(2):
            clip_id = upload(page, "a.mp4", clip)
            restore(page, clip_id)
            wait_for_state(page, clip_id, "done")
        assert state_of(page, clip_id)["result"] == "a-restored-2.mp4"
        answer = ask(page, f"/clips/{clip_id}/result")
        assert answer[1] == clip and 'filename="a-restored-2.mp4"' in str(answer[2])
        assert json.loads(ask(page, "/status.json")[1])["keep_in"] == str(keep_in)
        ask(page, f"/clips/{clip_id}", "DELETE")
    # nothing else is left at the end
    assert files_below(keep_in) == ["a-restored-2.mp4", "a-restored.mp4"]
    assert sorted(os.listdir(keep_in)) == files_below(keep_in)


def test_moving_beside_others(tmp_path):
    for number in range(3):
        (tmp_path / "new").write_text(str(number))
        move_beside_others(tmp_path / "new", tmp_path, "a.mp4")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"a.mp4": "0", "a-2.mp4": "1", "a-3.mp4": "2"}


def test_what_a_killed_run_has_left_is_removed(tmp_path):
    with Workspace(tmp_path) as running:
        left = tmp_path / ".mhnet-video-app-left"
        left.mkdir()
        (left / "lock").touch()
        (left / "clip.mp4").touch()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "mine").touch()
        (tmp_path / ".mhnet-video-app-link").symlink_to(elsewhere)
        with Workspace(tmp_path) as second:
            assert running.path.is_dir() and second.path.is_dir() and not left.exists()
            assert (elsewhere / "mine").exists() and not (elsewhere / "lock").exists()
    assert not running.path.exists() and not second.path.exists()


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_boxes_are_drawn_on_the_upright_picture(page, restoring, tmp_path, degrees):
    path = Clip(video=(Video(times=every(40, 8), matrix=rotation(degrees)),)).make(tmp_path)
    clip_id = upload(page, "a.mp4", path.read_bytes())
    width, height = state_of(page, clip_id)["size"]
    assert (width, height) == ((64, 48) if degrees % 180 == 0 else (48, 64))
    assert restore(page, clip_id, keep=[[0, 0, 10, 6]])[0] == 204
    wait_for_state(page, clip_id, "done")
    (box,) = restoring.begun[0][1].keep
    # the corner that is shown at the top left
    corners = {
        0: (0, 0, 10, 6),
        90: (0, 48 - 10, 6, 10),
        180: (54, 42, 10, 6),
        270: (64 - 6, 0, 6, 10),
    }
    with av.open(str(path)) as container:
        clockwise = -next(container.decode(video=0)).rotation % 360
    assert box == corners[clockwise]


def test_boxes_turn_back():
    box = Box(1, 2, 3, 4)
    assert coded_box(box, (64, 48), 0) == box
    assert coded_box(coded_box(box, (64, 48), 180), (64, 48), 180) == box
    assert coded_box(coded_box(box, (48, 64), 90), (64, 48), 270) == box


def test_what_a_result_lacks_is_told_when_it_is_asked_for_again(tmp_path, clip, monkeypatch):
    lost = ("a subtitle is lost",)
    rows = iter(
        [
            Row(status=Status.DONE, output="clip.mp4", sources=(), lost=lost, has_drops=True),
            Row(status=Status.BEFORE, output="clip.mp4", sources=()),
        ]
    )

    def run_batch(sources, out, *_, **__):
        out.mkdir(exist_ok=True)
        shutil.copy(sources[0], out)
        return BatchReport(rows=(next(rows),), seconds=1.0, jobs=1, interrupted=False)

    monkeypatch.setattr(mhnet_video.pipelines.app, "run_batch", run_batch)
    restore_one = partial(mhnet_video.pipelines.app._restore, None)
    with app_page(tmp_path / "work", restore_one) as page:
        clip_id = upload(page, "a.mp4", clip)
        told = []
        for runs in (1, 2):
            restore(page, clip_id)
            wait_until(lambda runs=runs: state_of(page, clip_id)["runs"] == runs)
            told.append(state_of(page, clip_id)["lost"])
    assert told[0] == told[1] and told[0][0] == lost[0] and "drops are left" in told[0][1]


@pytest.mark.slow
@pytest.mark.alone  # processes that start while it waits
def test_clips_go_through_the_batch(tmp_path, clip):
    """With its workers: what was restored, what has failed, and the end in the middle."""
    stop, links = threading.Event(), []
    config = RestoreConfig(preset="ultrafast")
    notes = tmp_path / "notes"
    notes.touch()

    def run(make_restorer):
        run_app(
            config,
            AppConfig(serve="0", folder=str(tmp_path / "kept")),
            on_message=links.append,
            stop=stop,
            make_restorer=make_restorer,
        )

    def started(make_restorer):
        stop.clear()
        thread = threading.Thread(target=run, args=(make_restorer,), daemon=True)
        count = len(links)
        thread.start()
        wait_until(lambda: len(links) > count)
        port = int(links[-1].rpartition(":")[2].strip("/"))
        return thread, SimpleNamespace(port=port)

    thread, page = started(partial(batch_restorers.counted, notes))
    clip_id = upload(page, "a.mp4", clip)
    restore(page, clip_id)
    wait_for_state(page, clip_id, "done")
    assert ask(page, f"/clips/{clip_id}/picture.jpg?at=0.1")[0] == 200
    stop.set()
    thread.join(SECONDS)
    kept = tmp_path / "kept"
    assert files_below(kept) == ["a-restored.mp4"] and len(list(kept.iterdir())) == 1
    with av.open(str(kept / "a-restored.mp4")) as container:
        assert len(list(container.decode(video=0))) == 8

    thread, page = started(batch_restorers.on_a_full_disk)
    clip_id = upload(page, "b.mp4", clip)
    restore(page, clip_id)
    wait_for_state(page, clip_id, "failed")
    assert "the disk is full" in state_of(page, clip_id)["reason"]
    assert str(tmp_path) not in state_of(page, clip_id)["reason"]
    stop.set()
    thread.join(SECONDS)

    thread, page = started(partial(batch_restorers.held, notes, tmp_path, "notes", 0))
    clip_id = upload(page, "c.mp4", clip)
    restore(page, clip_id)
    wait_for_state(page, clip_id, "running")
    ask(page, f"/clips/{clip_id}/cancel", "POST", {})
    wait_for_state(page, clip_id, "ready")
    stop.set()
    thread.join(SECONDS)
    assert not thread.is_alive() and len(list(kept.iterdir())) == 1


def test_a_page_that_cannot_begin_is_said_in_a_sentence(tmp_path, capsys, page):
    assert main(["app", "--serve", "here"]) == 2
    assert "a page is served at PORT or HOST:PORT" in capsys.readouterr().err
    taken = ["app", "--serve", str(page.port), "--folder", str(tmp_path / "new")]
    assert main(taken) == 1
    assert "name another port or address" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["app", "--serve", "0", "--folder", str(tmp_path / "file")]) == 1
    said = capsys.readouterr().err
    assert "cannot be written: it is a file and no folder; name another" in said
    assert main(["app", "--serve", "0", "--device", "cuda:99"]) == 2
    said = capsys.readouterr().err
    assert "device cuda:99 is not on this machine" in said and "the page is at" not in said
