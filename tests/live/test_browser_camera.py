"""Visitors' own cameras: one at a time, limits on what they send, and their pictures for them only.

The browser's side of it is in test_browser.py.
"""

import asyncio
import http.client
import json
from contextlib import closing
from types import SimpleNamespace

import aiortc
import av
import pytest
from test_page import Source, decoded
from test_session import live_frame
from waiting import Clock, wait_until

import mhnet_video.live.browser_camera
import mhnet_video.live.web.webrtc
from mhnet_video.cli.main import main
from mhnet_video.errors import MHNetVideoError
from mhnet_video.live.browser_camera import KEY_TAG, Visitors
from mhnet_video.live.capture import Camera
from mhnet_video.live.connection import _jpeg_decoder
from mhnet_video.live.exchange import Latest
from mhnet_video.live.rendering import JpegEncoder
from mhnet_video.live.source_address import resolve_address
from mhnet_video.live.web.page import Page
from mhnet_video.live.web.server import PageServer
from mhnet_video.live.web.webrtc import WebRtc
from mhnet_video.media.frames.image_metadata import picture_size
from mhnet_video.web.access import ListenAddress


@pytest.fixture
def clock(monkeypatch):
    """The clock of visitors, which stands still."""
    clock = Clock()
    monkeypatch.setattr(mhnet_video.live.browser_camera, "time", SimpleNamespace(monotonic=clock))
    return clock


def jpeg(level=100, size=(64, 48)):
    return JpegEncoder().encode([live_frame(0, level, size)], size)


def test_the_size_of_a_picture_is_known_before_it_is_decoded():
    data = jpeg(size=(96, 64))
    assert picture_size(data) == (96, 64)
    for wrong in (b"", b"\xff\xd8", data[:12], b"RIFF" + data, bytes(500)):
        assert picture_size(wrong) is None


def test_one_visitor_at_a_time(clock):
    visitors = Visitors()
    assert not visitors.is_taken and not visitors.is_present("")
    key = visitors.enter()
    assert len(key) > 20 and visitors.enter() == "" and visitors.is_taken
    assert not visitors.put("another", jpeg(), 0) and not visitors.put("", jpeg(), 0)
    visitors.leave("another")
    assert visitors.is_present(key)
    visitors.leave(key)
    assert not visitors.is_present(key) and not visitors.put(key, jpeg(), 0)
    # who says nothing for a while has gone
    first = visitors.enter()
    clock.now += 4.9
    assert visitors.enter() == "" and visitors.is_present(first)
    clock.now += 0.2
    second = visitors.enter()
    assert second and second != first
    assert not visitors.put(first, jpeg(), 0) and visitors.put(second, jpeg(), 0)


def test_the_newest_picture_is_taken_once():
    visitors = Visitors()
    key = visitors.enter()
    assert visitors.get(0.01) is None
    pictures = [jpeg(level) for level in (50, 100, 150)]
    assert visitors.put(key, pictures[0], 0) and visitors.put(key, pictures[2], 2)
    # it was overtaken on its way
    assert visitors.put(key, pictures[1], 1)
    sent = visitors.get(0.01)
    assert sent.jpeg == pictures[2] and sent.key == key
    assert visitors.get(0.01) is None
    # what the one before left behind is not for the next
    visitors.put(key, pictures[0], 3)
    visitors.leave(key)
    visitors.enter()
    assert visitors.get(0.01) is None


def test_limits_of_pictures(clock):
    visitors = Visitors()
    key = visitors.enter()
    for wrong in (b"", b"nonsense", jpeg(size=(8, 8)), jpeg(size=(2048, 1088))):
        assert not visitors.put(key, wrong, 0)
    assert visitors.get(0.01) is None
    # each other size costs seconds: one that changes all the time is not followed
    for number in range(10):
        visitors.put(key, jpeg(size=(64, 48 + 16 * number)), number)
    assert picture_size(visitors.get(0.01).jpeg) == (64, 48)
    clock.now += 3.1
    visitors.put(key, jpeg(size=(48, 64)), 99)
    assert picture_size(visitors.get(0.01).jpeg) == (48, 64)


def test_a_damaged_picture_shows_nothing_of_the_one_before():
    """FFmpeg fills the missing part of a picture with what was in its memory."""
    decoder = _jpeg_decoder()
    for level in (60, 200):
        assert len(decoder.decode(av.Packet(jpeg(level)))) == 1
        whole = jpeg(level, (320, 240))
        with pytest.raises(av.FFmpegError):
            decoder.decode(av.Packet(whole[: len(whole) * 3 // 5]))


def test_each_visitor_has_a_decoder_of_his_own(monkeypatch):
    made = []

    def make():
        made.append(_jpeg_decoder())
        return made[-1]

    monkeypatch.setattr(mhnet_video.live.connection, "_jpeg_decoder", make)
    visitors = Visitors()
    with Camera(resolve_address("visitor"), visitors=visitors):
        for number in range(2):
            key = visitors.enter()
            for _ in range(3):
                visitors.put(key, jpeg(80 + number), number)
                wait_until(lambda: visitors._newest is None)  # the camera has it
            visitors.leave(key)
    assert len(made) == 3


def test_visitors_are_no_neighbours():
    """No window has the frames of two, each knows whose it is, and damage is passed over."""
    visitors = Visitors()
    with Camera(resolve_address("visitor"), visitors=visitors) as camera:
        got, keys = [], []

        def take():
            window = camera.newest(0)
            got.extend([window] if window is not None else [])
            return any(each.captured.frame.tags[KEY_TAG] == keys[-1] for each in got)

        for level in (50, 200):
            keys.append(visitors.enter())
            for number in range(8):
                picture = jpeg(level)
                if number == 3:
                    # its header promises what does not follow
                    picture = picture[:200]
                assert visitors.put(keys[-1], picture, number)
                wait_until(lambda: visitors._newest is None)  # the camera has it
                take()
            wait_until(take)
            visitors.leave(keys[-1])
        assert camera.trouble == ""
    assert {window.captured.frame.tags[KEY_TAG] for window in got} == set(keys)
    for window in got:
        assert len({frame.tags[KEY_TAG] for frame in window.frames}) == 1
    # a window of the second begins without what came before
    assert any(len(window.frames) == 2 for window in got)


@pytest.fixture
def visited():
    source, visitors = Source(), Visitors()
    page = Page(
        frames=source.frames,
        statistics=lambda: source.statistics,
        cameras=visitors,
        camera_size=(320, 240),
        camera_fps=15.0,
    )
    with closing(PageServer(ListenAddress("127.0.0.1", 0), page)) as served:
        yield served, visitors, source
    source.close()


def send(page, path, body=b"{}", kind="application/json", method="POST", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    with closing(connection):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Content-Type": kind} | headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_pictures_come_over_http(visited):
    page, visitors, _ = visited
    picture = jpeg()
    status, body = send(page, "/camera/begin")
    key = json.loads(body)["visitor"]
    assert status == 200 and visitors.is_present(key)
    assert send(page, "/camera/begin")[0] == 409

    def put(body=picture, kind="image/jpeg", **headers):
        return send(page, "/camera", body, kind, **({"X_Visitor": key, "X_Number": "0"} | headers))[
            0
        ]

    assert put() == 204 and visitors.get(0).jpeg == picture
    assert put(X_Visitor="x") == 403 and put(X_Visitor="é".encode("latin-1")) == 403
    assert put(X_Number="x") == 400 and put(X_Number="9" * 40) == 400
    assert put(kind="text/plain") == 415
    # it is not even read
    assert put(body=b"", Content_Length=str(mhnet_video.live.browser_camera.MAX_BYTES + 1)) == 413
    assert put(body=b"x" * 100, X_Number="5") == 400
    assert put(Origin="http://evil.example") == 403
    assert visitors.get(0) is None
    assert send(page, "/camera/end", b"{}")[0] == 204 and visitors.is_present(key)
    assert send(page, "/camera/end", json.dumps({"visitor": key}))[0] == 204
    assert not visitors.is_taken
    # no picture is no trouble where nobody sends any
    assert send(page, "/healthz", method="GET")[0] == 200


def test_a_visitors_picture_is_for_nobody_else(visited):
    page, visitors, source = visited
    key = visitors.enter()

    def ask(path):
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=3)
        with closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    source.tags = {KEY_TAG: key}
    source.put()
    assert ask("/snapshot.jpg")[0] == ask("/snapshot.jpg?visitor=x")[0] == 503
    status, body = ask(f"/snapshot.jpg?visitor={key}")
    assert status == 200 and decoded(body).shape == (48, 64)
    source.start()
    for path, is_for in (("/stream.mjpg", False), (f"/stream.mjpg?visitor={key}", True)):
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=1)
        with closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            if is_for:
                assert b"image/jpeg" in answer.read(200)
            else:
                with pytest.raises(TimeoutError):
                    answer.read(1)
    # nor for himself, once he has gone: the page may be another's by then
    visitors.leave(key)
    assert ask(f"/snapshot.jpg?visitor={key}")[0] == 503


def test_other_pages_take_no_pictures():
    source = Source()
    shown = Page(frames=source.frames, statistics=lambda: source.statistics)
    with closing(PageServer(ListenAddress("127.0.0.1", 0), shown)) as page:
        assert send(page, "/camera/begin")[0] == 404
        assert send(page, "/camera", b"", "image/jpeg", X_Visitor="", X_Number="0")[0] == 403
        assert send(page, "/webrtc", b'{"sdp": ""}')[0] == 404


def test_the_command_line(capsys):
    assert main(["live", "visitor"]) == 2
    assert "say --serve PORT too" in capsys.readouterr().err
    for more in (["--record", "out.mp4"], ["--output", "udp://127.0.0.1:9"]):
        assert main(["live", "visitor", "--serve", "0", *more]) == 2
        assert "for themselves" in capsys.readouterr().err


# WebRTC


def answers(*offers):
    """Of a WebRTC that is asked for each of these, one after the other; None for a refusal."""

    async def ask():
        made = WebRtc(Latest(), is_for=lambda *_: True, shown=lambda _: None, max_size=(1280, 1280))
        got, refusals = [], []
        for offer in offers:
            try:
                got.append(await made.answer(offer))
            except MHNetVideoError as error:
                refusals.append(str(error))
        assert made.peers == len(got)
        await made.close()
        assert made.peers == 0
        return got, refusals

    return asyncio.run(ask())


def test_offers_that_do_not_serve():
    audio = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"
    offers = ("", "nonsense", audio, audio.replace("audio", "video"), "m=video\r\n" * 3)
    got, refusals = answers(*offers)
    assert got == [] and len(refusals) == len(offers)


def test_a_few_peers_are_enough():
    async def offer():
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        peer.addTransceiver("video", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        sdp = peer.localDescription.sdp
        await peer.close()
        return sdp

    count = mhnet_video.live.web.webrtc._MAX_PEERS
    got, refusals = answers(*[asyncio.run(offer())] * (count + 1))
    assert len(got) == count
    for answer in got:
        assert "H264" in answer and "VP8" not in answer and "a=sendonly" in answer
    assert refusals == ["there are enough visitors over WebRTC"]
