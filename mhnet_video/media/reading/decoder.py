"""From a file to its frames and the packets of its other streams, across what is damaged."""

from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from av.video.stream import VideoStream

from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.media.formats.nal_units import Units
from mhnet_video.media.frames.image_metadata import has_further_pictures, is_cut_short, is_jpeg_tiff
from mhnet_video.media.reading.damage_counter import DamageCounter
from mhnet_video.media.reading.frame_maker import FrameMaker
from mhnet_video.media.reading.hardware_decoder import HardwareDecoder, open_decoder
from mhnet_video.media.reading.source import Packet, is_end_mark, packets_of

Item = Frame | Packet

_MAX_READ_ERRORS = 64
"""Failures in a row, without a packet between them, after which a file has no more to read."""
_WITHOUT_PTS = ("avi",)
"""Formats that store decoding timestamps only."""
_OF_ONE_PICTURE = ("image2", "jpeg_pipe")
"""Formats of FFmpeg's whose packets are files of pictures."""


class Decoder:
    """Decodes one stream of a file, and passes on the packets of the others.

    Args:
        container: The file.
        stream: What to decode.
        name: What a person calls the file.
        fps: The stream's nominal rate.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, *, name: str, fps: Fraction
    ) -> None:
        self.container = container
        self.stream = stream
        self.name = name
        self.fps = fps
        self.time_base = Fraction(stream.time_base or Fraction(1, 90000))
        self.has_sought = False
        """Whether it does not begin where the file does."""
        self.is_at_end = False
        """Whether all has been read that there is."""
        self.is_stalled = False
        """Whether that is because nothing came for too long."""
        self.damage = DamageCounter(container, stream)
        """What is lost of the stream."""
        self.units = Units(stream.codec.name, stream.codec_context.extradata)
        """What is in the stream and decoders pass over."""
        self.picture_bytes = b""
        """The file, where that is one picture and passes through; empty before it does."""
        self.has_picture = False
        """Whether a picture came since the last seek."""
        self._hardware: HardwareDecoder | None = None
        self._maker = self._new_maker()

    def _new_maker(self) -> FrameMaker:
        stream = self.stream
        return FrameMaker(
            self.time_base,
            self.fps,
            pixel_format=stream.pix_fmt,
            codec=stream.codec.name,
            has_pts=self.container.format.name not in _WITHOUT_PTS,
        )

    def accelerate(self, index: int) -> None:
        """Decode on a GPU where that is possible; nothing changes where it is not.

        Args:
            index: The GPU's number.
        """
        self._hardware = open_decoder(self.container, self.stream, index, self._on_cpu)

    def close(self) -> None:
        """Release the GPU's decoder."""
        if self._hardware is not None:
            self._hardware.close()

    def items(self) -> Iterator[Item]:
        """Frames and packets in the order of the file; may be asked for again after a seek."""
        self._maker = self._new_maker()
        self.damage.restart()
        self.has_picture = False
        if self._hardware is not None:
            self._hardware.restart()
        for packet in self._packets():
            if packet is None or packet.stream_index == self.stream.index:
                for picture in self._decode(packet):
                    self.has_picture = True
                    yield self._frame(picture)
            elif packet.size:
                yield packet

    def _packets(self) -> Iterator[Packet | None]:
        """Packets to the end of the file, across what cannot be read, and None for the end."""
        self.damage.begin()
        failures = 0
        while failures < _MAX_READ_ERRORS:
            try:
                for packet in packets_of(self.container):
                    failures = 0
                    if not is_end_mark(packet):
                        yield packet
                break
            except (ExitError, TimeoutError):
                self.is_stalled = True
                break
            except (FFmpegError, OSError):
                failures += 1
                self.damage.fail()
        self.is_at_end = True
        if not self.has_sought and not self.is_stalled:
            self.damage.end_of_file()
        # what was read before is decoded to its last frame
        yield None

    def _decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        """The pictures that a packet, or None for the end, completes; damage is counted."""
        if packet is not None and not packet.size:
            # a decoder would take it for the end, and return nothing from there on
            self.damage.see_empty(packet)
            return []
        codec = self.stream.codec_context.name
        if packet is not None and codec == "tiff" and is_jpeg_tiff(bytes(packet)):
            raise ReadError(
                f"{self.name} is a TIFF compressed as JPEG, which FFmpeg cannot decode; "
                "save it with another compression first."
            )
        if packet is not None and self.container.format.name.endswith("_pipe"):
            if has_further_pictures(self.picture_bytes):
                return []  # the first one is the picture, as it is where the file has a name
            self.picture_bytes = self.picture_bytes or bytes(packet)
        if packet is not None:
            self.units.look(memoryview(packet))
            # a picture that ends early is decoded without a complaint, grey where nothing is left
            is_file = self.container.format.name in _OF_ONE_PICTURE
            is_cut = is_file and is_cut_short(bytes(packet))
            is_optional = self.has_sought and not self.has_picture
            self.damage.send(packet, is_cut=is_cut, is_optional=is_optional)
        decode = self._on_cpu if self._hardware is None else self._hardware.decode
        pictures = decode(packet)
        for picture in pictures:
            self.damage.come(picture)
        if packet is None:
            self.damage.end_of_pictures()
        return pictures

    def _on_cpu(self, packet: Packet | None) -> list[av.VideoFrame]:
        """The pictures that a packet, or None for the end, completes; failures are counted."""
        try:
            return self.stream.decode(packet)
        except EOFError:
            return []
        except (FFmpegError, ValueError, MemoryError):
            self.damage.fail()
            return []

    def _frame(self, picture: av.VideoFrame) -> Frame:
        try:
            # what the decoder says: the container's is that of the first picture
            return self._maker.frame(picture, self.stream.codec_context.sample_aspect_ratio)
        except ValueError as error:
            raise ReadError(
                f"{self.name} cannot be read, as {error}; convert it to yuv420p first."
            ) from error
