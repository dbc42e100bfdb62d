"""The one type that travels through a pipeline, and how its planes are laid out."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

Plane = NDArray[Any]
"""`[h, w]` of uint8 (8 bits) or uint16 (9 to 16 bits); rows may be strided."""


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """What the planes of a picture hold. All layouts are planar and little-endian."""

    name: str
    """FFmpeg's name of the pixel format, such as `yuv420p10le`."""
    kind: Literal["yuv", "gray", "rgb"]
    """Planes are Y, U, V; or Y; or G, B, R (FFmpeg's order)."""
    bits: int
    """Bits of a sample, 8 to 16."""
    chroma_shift_x: int = 0
    """log2 of how many luma columns share a chroma column."""
    chroma_shift_y: int = 0
    """log2 of how many luma rows share a chroma row."""
    has_alpha: bool = False
    """Whether an alpha plane of full size stands last."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture as it was decoded, and when it is shown."""

    planes: tuple[Plane, ...]
    """The samples, in the order of `layout.kind`, then alpha. Never written to in place."""
    layout: PixelLayout
    pts: int
    """Presentation time, in units of `time_base`."""
    time_base: Fraction
    """Length of one pts unit, in seconds."""
    matrix: str = "bt601"
    """Luma coefficients for the way to RGB: `bt601`, `bt709`, `bt2020`, `fcc`, `smpte240m` or
    `ycgco`."""
    full_range: bool = False
    """Whether Y spans 0 to 255 (scaled to the bits), not 16 to 235."""
    rotation: int = 0
    """Degrees clockwise, 0, 90, 180 or 270, by which a player turns the picture to show it."""
    duration: int = 0
    """How long it is shown, in units of `time_base`; 0 where the source does not say."""
    is_still: bool = False
    """Whether it is a picture of its own, so that the one before it may show anything."""
    tags: dict[str, Any] = field(default_factory=dict, repr=False)
    """What the writer copies to the encoded frame: `color_range`, `colorspace`,
    `color_primaries` and `color_trc` (ints), `interlaced` and so on."""

    @property
    def height(self) -> int:
        """Rows of the first plane."""
        return int(self.planes[0].shape[0])

    @property
    def width(self) -> int:
        """Columns of the first plane."""
        return int(self.planes[0].shape[1])

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as it is shown."""
        size = self.width, self.height
        return size if self.rotation % 180 == 0 else size[::-1]

    @property
    def num_bytes(self) -> int:
        """Memory that the samples hold."""
        return sum(plane.nbytes for plane in self.planes)

    def __repr__(self) -> str:
        """Show the shape, not the samples."""
        size = f"{self.width}x{self.height}"
        return f"Frame({size} {self.layout.name}, {float(self.pts * self.time_base):.3f} s)"


class Pair(NamedTuple):
    """A frame as it was decoded, and restored."""

    source: Frame
    restored: Frame


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DeviceFrame(Frame):
    """A picture whose samples are in a GPU's memory, in two planes as its decoder left them.

    `planes` is empty: whoever wants samples on the host asks `device_frames.on_host` for them.
    """

    luma: Any
    """`[h, w]` uint8, or int16 with the bits of uint16, a tensor; rows may be strided."""
    chroma: Any
    """`[h / 2, w / 2, 2]`, likewise."""
    bits_down: int
    """Unused bits below a sample's: 6 in P010."""
    picture: Any
    """FFmpeg's picture as it was decoded, in the GPU's memory too."""

    @property
    def height(self) -> int:
        """Rows of luma."""
        return int(self.luma.shape[0])

    @property
    def width(self) -> int:
        """Columns of luma."""
        return int(self.luma.shape[1])

    @property
    def num_bytes(self) -> int:
        """Memory that the samples hold."""
        return int(self.height * self.width * 3 // 2 * self.luma.element_size())
