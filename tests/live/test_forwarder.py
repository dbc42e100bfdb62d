"""Frames that are sent to an address, and receivers that are away."""

import io
import re
import socket
import threading
import time
from types import SimpleNamespace

import av
import numpy as np
import pytest
from test_capture import free_port
from test_session import live_frame
from waiting import SECONDS, wait_until

import mhnet_video.live.forwarder
from mhnet_video.errors import ConfigError
from mhnet_video.live.forwarder import Forwarder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "udp", "http", "rtmp", "rtsp"])
def test_frames_are_sent_on(kind):
    url = f"{kind}://127.0.0.1:{free_port()}" + ("/live/x" if kind in ("rtmp", "rtsp") else "")
    listen = {"tcp": "?listen=1", "udp": ""}.get(kind, "")
    got = []

    def receive():
        options = {"listen": "1"} if kind in ("http", "rtmp") else {}
        if kind == "rtsp":
            options = {"rtsp_flags": "listen", "rtsp_transport": "tcp", "listen_timeout": "60"}
        with av.open(url + listen, options=options, timeout=SECONDS) as container:
            for frame in container.decode(video=0):
                if frame.time is None:
                    continue  # RTP tells the time from its second packet on
                got.append((float(frame.time), frame.to_ndarray()[:40, :40].mean()))
                if len(got) == 10:
                    return

    receiver = threading.Thread(target=receive, daemon=True)
    receiver.start()
    time.sleep(0.5)
    forwarder = Forwarder(url, fps=25)
    end = time.monotonic() + SECONDS
    index = 0
    while receiver.is_alive() and time.monotonic() < end:
        forwarder.put(live_frame(index * 0.04, 60 + index % 2 * 60))
        index += 1
        time.sleep(0.02)
    forwarder.close()
    assert len(got) == 10 and forwarder.frames >= 10
    steps = np.diff([when for when, _ in got])
    assert np.allclose(steps, 0.04, atol=0.003)
    assert {round(level / 60) for _, level in got} == {1, 2}


@pytest.mark.slow
def test_what_is_sent_is_whole_and_survives_a_source_that_is_away(monkeypatch):
    monkeypatch.setattr(mhnet_video.live.forwarder, "_STUCK_SECONDS", 0.5)
    got = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        forwarder = Forwarder(f"tcp://127.0.0.1:{server.getsockname()[1]}", fps=25)
        for index in range(25):
            forwarder.put(live_frame(index * 0.04, size=(64, 48)))
        server.settimeout(SECONDS)
        connection = server.accept()[0]
        thread = threading.Thread(
            target=lambda: got.extend(iter(lambda: connection.recv(4096), b""))
        )
        thread.start()
        time.sleep(1.5)  # the source gives nothing
        for index in range(25, 50):
            forwarder.put(live_frame(index * 0.04, 200, size=(128, 48)))
            time.sleep(0.01)
        assert forwarder.trouble == ""
        forwarder.close()
        thread.join(SECONDS)
        connection.close()
    assert forwarder.frames == 50
    with av.open(io.BytesIO(b"".join(got)), format="mpegts") as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    assert len(frames) == 50
    # 128x48 becomes 64x24, with black above and below
    assert abs(int(frames[-1][16:32].mean()) - 200) <= 4 and frames[-1][:8].mean() < 24


def test_the_end_of_a_relay_while_it_is_closed_is_no_fault(monkeypatch):
    relays = iter([SimpleNamespace(kill=lambda: None)])

    class Ending(Forwarder):
        """Whose relay is gone when it is looked at again."""

        _process = property(lambda self: next(relays, None), lambda self, process: None)

    monkeypatch.setattr(mhnet_video.live.forwarder, "SOCKET_SECONDS", 0)
    Ending("tcp://127.0.0.1:1", fps=25).close()


def test_a_receiver_that_is_not_there_is_tried_again():
    url = f"tcp://me:secret@127.0.0.1:{free_port()}/app/secret-key"
    forwarder = Forwarder(url, fps=25)

    def is_tried():
        forwarder.put(live_frame(0))
        return forwarder.trouble

    wait_until(is_tried)
    assert "takes nothing (connection refused); trying again." in forwarder.trouble
    assert "secret" not in forwarder.trouble
    assert forwarder.error is None
    forwarder.close()
    assert not forwarder._thread.is_alive()
    # what went into the pipe was not sent
    assert forwarder.frames == 0 and "nothing was sent" in str(forwarder.error)
    assert "secret" not in str(forwarder.error)
    with pytest.raises(ConfigError, match="frames are sent to standard output"):
        Forwarder("out.mp4", fps=25)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("404 Not Found", r"refuses the stream \(server returned 404 not found\)"),
        ("401 Unauthorized", r"refuses the stream \(.*401 unauthorized.*\)"),
    ],
)
def test_a_server_that_refuses_is_not_tried_again(status, said, monkeypatch):
    # however long it takes until the server is asked: what the pipe takes, no server has taken
    monkeypatch.setattr(mhnet_video.live.forwarder, "_SETTLED_SECONDS", 0.0)
    asked = []

    def serve():
        with server.accept()[0] as connection:
            while request := connection.recv(4096).decode():
                number = re.search(r"CSeq: (\d+)", request)
                if number is None:
                    continue  # the description that follows a request
                asked.append(request.split(maxsplit=1)[0])
                answer = "200 OK" if asked[-1] == "OPTIONS" else status
                connection.sendall(f"RTSP/1.0 {answer}\r\nCSeq: {number[1]}\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        forwarder = Forwarder(f"rtsp://me:secret@127.0.0.1:{port}/live/x", fps=25)

        def has_given_up():
            forwarder.put(live_frame(0))
            return forwarder.error

        wait_until(has_given_up)
        forwarder.close()
        thread.join()
    assert re.search(said, str(forwarder.error), re.IGNORECASE)
    assert "secret" not in str(forwarder.error) and asked[:2] == ["OPTIONS", "ANNOUNCE"]
