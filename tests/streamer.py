"""A camera on the loopback, as a process of its own: sends moving texture until it is ended.

python tests/streamer.py URL [--size 64x48] [--fps 25] [--codec libx264] [--seconds 30]
"""

import argparse
import contextlib
import itertools
import socket
import struct
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urlsplit

import av
from av.error import FFmpegError
from clips import make_frame


def send(target: Any, size: tuple[int, int], fps: int, codec: str, seconds: float) -> None:
    """Write MPEG-TS at its own speed to an address or a file."""
    with av.open(
        target, "w", format="mpegts", container_options={"flush_packets": "1"}
    ) as container:
        extra = {"preset": "ultrafast", "tune": "zerolatency"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=fps, options=extra)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = max(1, fps // 2)
        stream.codec_context.max_b_frames = 0
        stream.codec_context.thread_count = 1
        pictures = [make_frame(index, "yuv420p", *size) for index in range(fps)]
        begin = time.monotonic()
        index = 0
        while time.monotonic() - begin < seconds:
            picture = pictures[index % fps]
            picture.pict_type = 0
            picture.pts, picture.time_base = index, Fraction(1, fps)
            for packet in stream.encode(picture):
                container.mux_one(packet)
            index += 1
            time.sleep(max(0.0, begin + index / fps - time.monotonic()))


def serve(port: int, path: str, stream: Callable[[Any], None], status: int) -> None:
    """Answer one request over HTTP after another."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == path else 404)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            if status == 200 and self.path == path:
                with contextlib.suppress(OSError, FFmpegError):
                    stream(self.wfile)

        def log_message(self, *_: Any) -> None:
            pass

    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


class RtpOverTcp:
    """Takes MPEG-TS as a file does, and sends it as RTP inside an RTSP connection."""

    # seven packets of MPEG-TS, as is usual
    _SIZE = 7 * 188

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held = b""
        self._numbers = itertools.count()

    def write(self, data: bytes) -> int:
        self._held += data
        while self._held:
            payload, self._held = self._held[: self._SIZE], self._held[self._SIZE :]
            number, clock = next(self._numbers), round(time.monotonic() * 90_000)
            head = struct.pack(">BBHII", 0x80, 33, number % 2**16, clock % 2**32, 1)
            self._connection.sendall(
                b"$\0" + struct.pack(">H", len(head + payload)) + head + payload
            )
        return len(data)


def serve_rtsp(port: int, stream: Callable[[Any], None]) -> None:
    """Answer one RTSP client after another, as far as a player asks."""
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError, FFmpegError):
                talk(connection, stream)


def talk(connection: socket.socket, stream: Callable[[Any], None]) -> None:
    requests = connection.makefile("rb")
    sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\n"
    while line := requests.readline():
        headers = {}
        while header := requests.readline().strip():
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        method = line.split()[0].decode()
        body = sdp if method == "DESCRIBE" else ""
        answer = [f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}"]
        if method == "OPTIONS":
            answer += ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"]
        elif method == "DESCRIBE":
            answer += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method in ("SETUP", "PLAY"):
            answer += ["Session: 1"]
            if method == "SETUP":
                answer += [f"Transport: {headers['transport']}"]
        connection.sendall(("\r\n".join(answer) + "\r\n\r\n" + body).encode())
        if method == "PLAY":
            stream(RtpOverTcp(connection))
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--size", default="64x48")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--codec", default="libx264")
    parser.add_argument("--status", type=int, default=200, help="what HTTP answers")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))

    def stream(target: Any) -> None:
        send(target, (width, height), options.fps, options.codec, options.seconds)

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    url = urlsplit(options.url)
    if url.scheme == "http":
        serve(url.port or 80, url.path, stream, options.status)
    elif url.scheme == "rtsp":
        serve_rtsp(url.port or 554, stream)
    else:
        stream(options.url)


if __name__ == "__main__":
    main()
