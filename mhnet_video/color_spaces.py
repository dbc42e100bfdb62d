"""The colour matrices between RGB and YUV: their names, numbers and weights.

The numbers of ITU-T H.273 are those of FFmpeg's AVColorSpace and, as far as it knows them,
swscale's. They stand in the ground because files (`media`), the network's luma (`model`) and
training data all need them, and none of those may import another.
"""

LUMA_WEIGHTS = {
    "bt601": (0.299, 0.587, 0.114),
    "bt709": (0.2126, 0.7152, 0.0722),
    "bt2020": (0.2627, 0.678, 0.0593),
    "fcc": (0.30, 0.59, 0.11),
    "smpte240m": (0.212, 0.701, 0.087),
}
"""Weights of red, green and blue in luma, by the matrix's name. Source: ITU-T H.273, table 4."""

MATRIX_NUMBERS = {"bt601": 5, "bt709": 1, "bt2020": 9, "fcc": 4, "smpte240m": 7}
"""H.273's number of each matrix that has weights of luma."""

MATRIX_NAMES = {number: name for name, number in MATRIX_NUMBERS.items()}
"""The name of each matrix that is told by a file, by H.273's number."""
# the same weights with other primaries, YCgCo, and BT.2020 with constant luminance
MATRIX_NAMES |= {6: "bt601", 8: "ycgco", 10: "bt2020"}

UNSPECIFIED = 2
"""H.273's number for a matrix, primaries or a transfer that is not told."""

LIMITED_RANGE = 1
"""FFmpeg's AVCOL_RANGE_MPEG: luma of 8 bits spans 16 to 235."""
FULL_RANGE = 2
"""FFmpeg's AVCOL_RANGE_JPEG: luma of 8 bits spans 0 to 255."""

_HD_HEIGHT = 720
"""Rows from which on video is taken for high definition."""


def usual_matrix(height: int) -> str:
    """The matrix of video that does not tell it, by its height in pixels."""
    return "bt601" if height < _HD_HEIGHT else "bt709"
