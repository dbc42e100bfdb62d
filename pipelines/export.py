"""The export pipeline: a model as an ONNX file that ONNX Runtime has run and compared."""

import os
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.errors import MHNetVideoError, WriteError
from mhnet_video.kernels.dispatch import off
from mhnet_video.locator import shown
from mhnet_video.media.output_file import OutputFile, check_destination, why_unwritable
from mhnet_video.model.network import MHNet
from mhnet_video.model.weights import MODELS, load_model, locate_weights
from mhnet_video.model.window import between, glass_statistics
from mhnet_video.pipelines.onnx_graph import ExportedNetwork, missing_packages, to_onnx

LEAST_SIDE = 64
"""Smallest height and width of an exported graph, in pixels. Below, the attention may have a single
pixel, whose scores are all equal, and engines break such ties in different ways."""
MAX_PIXELS = 4096 * 2304
"""Largest picture of an exported graph, in pixels; PyTorch runs it in one piece, too."""
WORST_ERROR = 1 / 1024
"""Largest difference from PyTorch in float32: a quarter of a level of 255."""
MOTION = 3
"""Pixels by which each frame of the tested windows moves."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """An ONNX file, and how far its results are from PyTorch's."""

    path: str
    size_bytes: int
    model: str
    size: tuple[int, int] | None
    """Width and height of its frames, in pixels; None for any multiples of `multiple`."""
    multiple: int
    """What the sides of the frames are multiples of, where there is no size."""
    pictures: int
    """Pictures of a window."""
    aligns: bool
    """Whether it aligns the neighbours."""
    expects_aligned: bool
    """Whether the neighbours must be aligned already."""
    worst_error: float
    """Largest difference from PyTorch in float32, of the residual and of the frame, in [0, 1]."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def export_model(
    model: str | PathLike[str],
    destination: str | PathLike[str],
    *,
    size: tuple[int, int] | None = (640, 480),
    aligns: bool = True,
    overwrite: bool = False,
) -> ExportReport:
    """Write a model as an ONNX file. ONNX Runtime runs it first.

    Args:
        model: What `load_model` takes.
        destination: The file to create, `.onnx`.
        size: Width and height of the frames, in pixels; None for a file that takes any multiples
            of the network's, 32 of those that ship.
        aligns: Whether the file aligns the neighbours, if the network wants them aligned.
        overwrite: Whether an existing file may be replaced.

    Raises:
        WeightsError: There is no such model, or it is damaged.
        WriteError: The file exists, or cannot be written, or there is none of that size.
        MHNetVideoError: A package is missing, or the results are not PyTorch's.
    """
    name = shown(destination)
    if missing := missing_packages():
        raise MHNetVideoError(
            f"an export needs packages that are not installed: {missing}; "
            "pip install 'mhnet-video[export]'"
        )
    if not name.lower().endswith(".onnx"):
        raise WriteError(f"{name} must end in .onnx.")
    check_destination(destination, overwrite=overwrite)
    _check_size(name, size)
    network = load_model(model, "cpu")
    config = network.config
    if size is None and aligns and config.align:
        raise WriteError(
            f"{name} cannot take any size and align the frames, because the steps of the alignment "
            "depend on the size; name a size, or add --no-align."
        )
    found = to_onnx(network, size, aligns=aligns, **_described(model, network))
    error = worst_error(found, network, size, aligns=aligns)
    if not error <= WORST_ERROR:
        raise MHNetVideoError(
            f"{name} is not written: its result differs from PyTorch's by {error:.2g}, more than "
            f"{WORST_ERROR:.2g}; please report it"
        )
    _write(destination, found, overwrite=overwrite)
    return ExportReport(
        path=name,
        size_bytes=len(found),
        model=str(model),
        size=size,
        multiple=config.multiple,
        pictures=config.pictures,
        aligns=aligns and config.align,
        expects_aligned=config.align and not aligns,
        worst_error=error,
    )


def _described(model: str | PathLike[str], network: MHNet) -> dict[str, str]:
    """What the file says of the model: no folder of this machine, and no licence but our own."""
    about = {"model": Path(model).name if os.path.exists(model) else str(model)}
    if locate_weights(model).parent == MODELS:
        about["license"] = "Apache-2.0"
    return {**about, "task": network.task}


def _check_size(name: str, size: tuple[int, int] | None) -> None:
    if size is None:
        return
    width, height = size
    if min(size) < LEAST_SIDE or width * height > MAX_PIXELS:
        raise WriteError(
            f"{name} cannot have frames of {width}x{height}: the sides are at least {LEAST_SIDE} "
            f"pixels, and there are at most {MAX_PIXELS // 1_000_000} megapixels."
        )


def worst_error(
    model: bytes, network: MHNet, size: tuple[int, int] | None, *, aligns: bool
) -> float:
    """Largest difference between the results of ONNX Runtime and PyTorch, in [0, 1].

    Args:
        model: The ONNX file, from `to_onnx`.
        network: The network that was exported.
        size: As for `to_onnx`; without one, three sizes are tried.
        aligns: As for `to_onnx`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of constants that it does not fold
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    multiple = network.config.multiple
    anything = [
        (2 * multiple, 3 * multiple),
        (5 * multiple, 2 * multiple),
        (4 * multiple, 3 * multiple),
    ]
    errors = []
    reference = ExportedNetwork(network, aligns=aligns).eval()
    for width, height in [size] if size else anything:
        window = _window(network, width, height)
        with off(), torch.inference_mode():
            expected = reference(window)
        results = session.run(["residual", "restored"], {"window": window.numpy()})
        errors += [
            float((torch.from_numpy(result) - wanted).abs().max())
            for result, wanted in zip(results, expected, strict=True)
        ]
    return max(errors)


def _window(network: MHNet, width: int, height: int) -> Tensor:
    """A window that shows a scene in motion: soft and coarse texture, and streaks of rain."""
    config = network.config
    generator = torch.Generator().manual_seed(0)
    around = MOTION * config.frames
    rows, columns = height + around, width + around
    coarse = torch.rand(1, 3, rows // 8 + 2, columns // 8 + 2, generator=generator)
    scene = F.interpolate(coarse, (rows, columns), mode="bicubic", align_corners=False)
    frames = [
        scene[0, :, shift : shift + height, shift : shift + width].clone()
        for shift in range(0, around, MOTION)
    ]
    for frame in frames:
        streaks = torch.rand(1, 1, height, width, generator=generator) > 0.995
        frame += 0.3 * F.max_pool2d(streaks.float(), (9, 1), 1, (4, 0))[0]
    window = torch.stack(frames).clamp(0, 1)
    if config.glass:
        window = between(glass_statistics(window, window[config.frames // 2]), window)
    return window.flatten(0, 1)[None].contiguous()


def _write(destination: str | PathLike[str], data: bytes, *, overwrite: bool) -> None:
    """Write a whole file under its name, or nothing.

    Raises:
        WriteError: The disk refuses.
    """
    file = OutputFile(destination, overwrite=overwrite)
    try:
        file.write(data)
    except OSError as error:
        file.discard()
        said = f"{shown(destination)} cannot be written: {why_unwritable(error)}."
        raise WriteError(said) from error
    file.commit()
