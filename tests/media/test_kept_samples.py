"""At strength 0, and in boxes that are kept, every sample stays."""

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import probe
import pytest
import torch
from clips import Audio, Clip, every, uneven
from promises import (
    REAL,
    Promise,
    assert_same_times,
    audio,
    color,
    identical,
    keep,
    run,
    times,
    video,
)
from standin import StandIn

from mhnet_video.config import Box, RestoreConfig
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.model.weights import save_weights
from mhnet_video.pipelines.restore import restore_video
from mhnet_video.restoration.restorer import Restorer

PLANAR = (
    *("yuv420p", "yuv422p", "yuv444p", "yuv410p", "yuv411p", "yuv440p", "gray"),
    *("yuv420p10le", "yuv422p10le", "yuv444p10le", "gray10le", "gray16le"),
    *("yuv420p12le", "yuv444p12le", "yuv422p16le", "yuva420p", "yuva444p10le"),
    *("gbrp10le", "gbrp16le"),
)
PACKED = (
    *("gbrp", "gbrap", "nv12", "nv21", "yuyv422", "uyvy422"),
    *("rgb24", "bgr24", "bgr0", "0rgb", "rgba", "bgra", "rgb48le", "gray16be", "pal8"),
)
LOSSLESS: dict[str, Any] = {"strength": 0.0, "encoder": "ffv1"}


@cache
def untouching() -> Restorer:
    """The real restorer at strength 0, built once for all rows."""
    return Restorer(strength=0.0)


IDENTICAL = [
    *(
        Promise(
            f"{name} at {width}x{height}",
            Clip(
                name="clip.mkv",
                video=video(
                    codec="ffv1", pixel_format=name, width=width, height=height, times=every(40, 4)
                ),
            ),
            "out.mkv",
            (times, identical, color),
            LOSSLESS,
            untouching,
        )
        for name in PLANAR
        for width, height in ((64, 48), (63, 47))
    ),
    *(
        Promise(
            f"{name} at {width}x{height}",
            Clip(
                name="clip.nut",
                video=video(
                    codec="rawvideo",
                    pixel_format=name,
                    width=width,
                    height=height,
                    times=every(40, 4),
                ),
            ),
            "out.mkv",
            (times, identical),
            LOSSLESS,
            untouching,
        )
        for name in PACKED
        for width, height in ((64, 48), (63, 47))
        # a packed pair of columns has no odd width
        if width % 2 == 0 or name not in ("yuyv422", "uyvy422")
    ),
    *(
        Promise(
            f"H.264 {name} with B-frames in {extension}",
            Clip(
                name=f"clip.{extension}",
                video=video(pixel_format=name, b_frames=2, times=uneven(10)),
                audio=(Audio(codec="ac3"),),
            ),
            "out.mkv",
            (times, identical, audio),
            LOSSLESS,
            untouching,
        )
        for name, extension in (
            ("yuv420p", "mp4"),
            ("yuv420p10le", "mov"),
            ("yuv444p", "mkv"),
            ("yuv422p10le", "ts"),
        )
    ),
    Promise(
        "JPEGs of a webcam",
        Clip(name="clip.avi", video=video(codec="mjpeg", pixel_format="yuvj422p")),
        "out.mkv",
        (times, identical),
        LOSSLESS,
        None,
    ),
    Promise("FFV1 in MP4", Clip(), "out.mp4", (times, identical), LOSSLESS, None),
    Promise(
        "FFV1 in AVI",
        Clip(video=video(pixel_format="yuv422p10le")),
        "out.avi",
        (times, identical),
        LOSSLESS,
        None,
    ),
]


@pytest.mark.parametrize("promise", IDENTICAL, ids=lambda promise: promise.name)
def test_samples_stay(promise: Promise, tmp_path: Path) -> None:
    keep(promise, tmp_path)


@pytest.fixture(scope="module")
def loud_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that leaves no sample as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        none = (0, 0, 0, 0)
        network = MHNet(
            NetworkConfig(
                width=8,
                encoder_blocks=none,
                decoder_blocks=none,
                group_blocks=none,
                frames=3,
                patch=2,
            )
        )
    with torch.no_grad():
        network.ending.weight *= 8
    path = tmp_path_factory.mktemp("weights") / "loud.safetensors"
    return save_weights(network, path, description="for a test", training={})


SAMPLES_OF_A_BOX = [
    ("yuv420p", 64, 48, Box(10, 8, 20, 16)),
    ("yuv420p", 63, 47, Box(11, 7, 13, 9)),
    ("yuv420p", 64, 48, Box(0, 0, 64, 8)),
    ("yuv420p", 63, 47, Box(62, 46, 1, 1)),
    ("yuv420p", 64, 48, Box(50, 40, 100, 100)),
    ("yuv422p", 64, 48, Box(11, 7, 13, 9)),
    ("yuv444p", 64, 48, Box(11, 7, 13, 9)),
    ("yuv420p10le", 64, 48, Box(11, 7, 13, 9)),
    ("yuv444p12le", 64, 48, Box(11, 7, 13, 9)),
    ("yuv411p", 64, 48, Box(11, 7, 13, 9)),
    ("gray", 64, 48, Box(11, 7, 13, 9)),
    ("gray16le", 64, 48, Box(11, 7, 13, 9)),
    ("gbrp10le", 64, 48, Box(11, 7, 13, 9)),
]


def planes(row: Any, pixel_format: str, width: int, height: int) -> list[Any]:
    """One frame's planes, cut from its bytes."""
    layout = av.VideoFormat(pixel_format, width, height)
    dtype = np.dtype("u1" if layout.components[0].bits == 8 else "<u2")
    found = []
    position = 0
    for component in layout.components:
        shape = (height, width)
        if component.is_chroma:
            shape = (layout.chroma_height(height), layout.chroma_width(width))
        length = shape[0] * shape[1] * dtype.itemsize
        found.append(row[position : position + length].view(dtype).reshape(shape))
        position += length
    assert position == len(row)
    return found


@pytest.mark.parametrize(
    ("pixel_format", "width", "height", "box"),
    SAMPLES_OF_A_BOX,
    ids=[f"{name} {width}x{height} {tuple(box)}" for name, width, height, box in SAMPLES_OF_A_BOX],
)
def test_a_kept_box_stays(
    pixel_format: str, width: int, height: int, box: Box, loud_weights: Path, tmp_path: Path
) -> None:
    clip = Clip(
        name="clip.mkv",
        video=video(
            codec="ffv1",
            pixel_format=pixel_format,
            width=width,
            height=height,
            times=every(40, 4),
        ),
    )
    config = {"encoder": "ffv1", "keep": (box,), "weights": str(loud_weights)}
    promise = Promise("", clip, "out.mkv", (), config, None)
    case = run(promise, tmp_path)
    times(case)
    rows = (probe.pictures(item.path) for item in (case.source, case.output))
    changed = total = 0
    for before, after in zip(*rows, strict=True):
        pairs = zip(
            planes(before, pixel_format, width, height),
            planes(after, pixel_format, width, height),
            strict=True,
        )
        for one, other in pairs:
            # every sample that has a part in the box, chroma on its edge included
            x, y = width / one.shape[1], height / one.shape[0]
            step_x, step_y = round(x), round(y)
            inside = (
                slice(box.y // step_y, -(-(box.y + box.height) // step_y)),
                slice(box.x // step_x, -(-(box.x + box.width) // step_x)),
            )
            assert np.array_equal(one[inside], other[inside])
            changed += int(np.count_nonzero(one != other))
            total += one.size - one[inside].size
    # the network must have done something everywhere else, or nothing was shown
    assert changed > 0.5 * total


@pytest.mark.parametrize("name", REAL)
def test_a_real_clip_stays(name: str, data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "dev" / "real" / name
    output = tmp_path / "out.mkv"
    config = RestoreConfig(**LOSSLESS, duration=0.6)
    restore_video(source, output, config, restorer=StandIn())
    after = probe.pictures(output)
    before = probe.pictures(source, first=len(after))
    assert len(after) > 10
    assert np.array_equal(before, after)
    assert_same_times(
        probe.probe(source).video.times[: len(after)],
        probe.probe(output).video.times,
        Fraction(1, 1000),
        Fraction(0),
    )
