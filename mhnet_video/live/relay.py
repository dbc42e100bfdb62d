"""Relays a stream from standard input to an address; run as a process of its own.

Its arguments are FFmpeg's name of the muxer, and options of it as NAME=VALUE.

The address is the first line of standard input, as it may hold a password.

PyAV connects to where it writes while it holds Python's lock, so that a server that does not answer
would stop every thread of the process. Imports nothing of this package.
"""

import os
import sys

import av
import av.logging
from av.error import FFmpegError, HTTPClientError, ProtocolNotFoundError

NO_PROTOCOL = 3
"""Exit status where FFmpeg lacks the protocol of the address."""

ACCEPTED = b"+"
"""What is written to standard output when the server has taken the first packet."""
REFUSED = 4
"""Exit status where the server says that it does not take the stream."""


def relay(url: str, muxer: str, muxer_options: dict[str, str]) -> None:
    """Copy the streams of standard input to an address until their end."""
    av.logging.set_level(None)
    options = {"probesize": "65536", "analyzeduration": "0", "fpsprobesize": "0"}
    with (
        av.open("pipe:0", format="nut", container_options=options) as source,
        av.open(
            url,
            "w",
            format=muxer,
            container_options={
                "flush_packets": "1",
                # as long as the encoder's, which has put the packets in order
                "max_interleave_delta": "100000",
                **muxer_options,
            },
        ) as target,
    ):
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        has_told = False
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                target.mux_one(packet)  # the first one connects
                if not has_told:
                    os.write(1, ACCEPTED)
                    has_told = True


def _first_line() -> str:
    """The first line of standard input; no byte more is read, as FFmpeg reads on from there."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return os.fsdecode(line)


def main() -> int:
    """Relay, and say in one line on standard error what is wrong; the exit status."""
    try:
        options = dict(word.split("=", 1) for word in sys.argv[2:])
        relay(_first_line(), sys.argv[1], options)
    except ProtocolNotFoundError:
        return NO_PROTOCOL
    except HTTPClientError as error:
        sys.stderr.write(str(error.strerror))
        return REFUSED
    except (FFmpegError, OSError, ValueError) as error:
        sys.stderr.write(str(getattr(error, "strerror", None) or error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
