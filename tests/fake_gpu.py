"""A decoder and an encoder that work on a GPU, played by the CPU's."""

import contextlib
from types import SimpleNamespace

import av
from av.video.reformatter import VideoReformatter

from mhnet_video.media.encoders import encoder_surfaces
from mhnet_video.media.reading.source import open_source

TWINS = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}


class Picture:
    """What NVDEC gives: two planes, and everything else that a decoded picture has."""

    def __init__(self, inner):
        self.inner = inner
        self.format = SimpleNamespace(name="cuda")
        self.sw_format = inner.format

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def reformat(self, *, format):
        assert format == self.inner.format.name
        return self.inner


class Context:
    """A decoder that fails at one of its packets."""

    is_hwaccel = True

    def __init__(self, inner, gpu):
        self.inner, self.gpu = inner, gpu
        self.packets = 0
        self.reformatter = VideoReformatter()

    def decode(self, packet):
        self.packets += 1
        if self.packets == self.gpu.fails_at:
            raise av.error.ExternalError(1, "no surface is left")
        return [self._picture(each) for each in self.inner.decode(packet)]

    def _picture(self, picture):
        twin = self.gpu.twin or TWINS[picture.format.name]
        made = Picture(self.reformatter.reformat(picture, format=twin))
        self.gpu.touch(made)
        return made

    def flush_buffers(self):
        self.packets = 0
        self.inner.flush_buffers()


class Container:
    """A source that is open a second time."""

    def __init__(self, inner, gpu):
        self.inner, self.is_closed = inner, False
        self.streams = [
            SimpleNamespace(codec_context=Context(each.codec_context, gpu), index=each.index)
            for each in inner.streams
        ]
        gpu.opened.append(self)

    def demux(self, stream):
        return self.inner.demux(self.inner.streams[stream.index])

    def close(self):
        self.is_closed = True
        self.inner.close()


class Gpu:
    """What the tests tell the GPU to do, and see of it."""

    def __init__(self):
        self.fails_at = None
        """Number of the packet, from 1, that its decoder fails at, after the first picture."""
        self.twin = None
        """Format of its pictures; that of the source if None."""
        self.touch = lambda picture: None
        """Called with every picture that it decodes."""
        self.opened = []

    def open(self, name, index):
        container = Container(open_source(name), self)
        return container


class Surfaces(encoder_surfaces.Surfaces):
    """Frames of the host's memory handed to an encoder that takes two planes."""

    pixel_format = "nv12"
    given = 0

    def __init__(self, first):
        super().__init__(first)
        self._context = None

    def picture(self, frame):
        Surfaces.given += 1
        return super().picture(frame)

    def ready(self):
        return contextlib.nullcontext()
