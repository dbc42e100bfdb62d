"""A network as an ONNX graph, for other engines and for the benchmark that compares them.

The packages are those of the extra `export`.
"""

import importlib.util
import json
import logging
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhnet_video.kernels.dispatch import off
from mhnet_video.model.align import align
from mhnet_video.model.network import MHNet

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Modules that the extra `export` installs."""

OPSET = 18
"""The ONNX operator set that PyTorch's exporter writes without converting."""


def missing_packages(names: tuple[str, ...] = PACKAGES) -> str:
    """The modules that are not installed, with commas between them; empty if all are."""
    return ", ".join(name for name in names if importlib.util.find_spec(name) is None)


class ExportedNetwork(nn.Module):
    """What a graph computes: what the program does between RGB and the residual.

    Args:
        network: On the CPU.
        aligns: Whether the neighbours are aligned inside, if the network wants them so. Else they
            must be aligned already.

    Shape:
        - Input: `[1, 3 * pictures, H, W]`, as for `MHNet`
        - Output: the residual of the middle frame, and that frame restored, `[1, 3, H, W]` each,
          the latter in about [0, 1], not clamped
    """

    def __init__(self, network: MHNet, *, aligns: bool) -> None:
        super().__init__()
        self.network = network
        self.aligns = aligns and network.config.align

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Restore the middle frame."""
        config = self.network.config
        height, width = window.shape[-2:]
        middle = 3 * (config.pictures // 2)
        frame = window[:, middle : middle + 3]
        # as the program pads: the network sees a scene that goes on, and not a black bar
        padding = (0, -width % config.multiple, 0, -height % config.multiple)
        padded = F.pad(window, padding, mode="replicate")
        if self.aligns:
            edge = 3 * config.glass
            before, frames, after = torch.split(padded, [edge, 3 * config.frames, edge], 1)
            frames = frames.reshape(1, config.frames, 3, *padded.shape[2:])
            moved = align(frames, moves_all=config.glass).flatten(1, 2)
            padded = torch.cat([before, moved, after], 1)
        residual = self.network.residual(padded)[..., :height, :width]
        return residual, frame + residual


def to_onnx(
    network: MHNet, size: tuple[int, int] | None, *, aligns: bool, **metadata: str
) -> bytes:
    """A network as an ONNX model.

    Args:
        network: On the CPU.
        size: Width and height of the frames, in pixels; None for a graph that takes any multiples
            of the network's.
        aligns: As for `ExportedNetwork`. The number of pyramid levels depends on the size, so that
            an aligned graph has one size.
        metadata: Further entries of the model's metadata.

    Returns:
        A serialized model. Its input is `window`, `[1, 3 * pictures, H, W]` float32. Its outputs
        are `residual` and `restored`, `[1, 3, H, W]` float32.
    """
    width, height = size or (2 * network.config.multiple, 3 * network.config.multiple)
    window = torch.rand(1, 3 * network.config.pictures, height, width)
    # any other size would have the exporter reason about paddings, for minutes
    rows, columns = (torch.export.Dim(name, min=2, max=512) for name in ("rows", "columns"))
    sides: Any = {2: network.config.multiple * rows, 3: network.config.multiple * columns}
    dynamic = {"window": {} if size else sides}
    with off(), torch.no_grad(), warnings.catch_warnings():
        # the exporter's warnings about its own code, and that torchvision is not installed
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        module = ExportedNetwork(network, aligns=aligns).eval()
        program = torch.export.export(module, (window,), dynamic_shapes=dynamic)
        program = program.run_decompositions({torch.ops.aten.linalg_solve_ex.default: _solved})
        model = torch.onnx.export(
            program,
            input_names=["window"],
            output_names=["residual", "restored"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            # minutes of work with the alignment, which engines do when they load a graph
            optimize=not module.aligns,
        )
    assert model is not None  # there is one without a file name
    proto = model.model_proto
    for key, value in {"config": json.dumps(network.config.to_dict()), **metadata}.items():
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString()


def _solved(
    left: Tensor, right: Tensor, *, left_side: bool = True, check_errors: bool = False
) -> tuple[Tensor, Tensor]:
    """Solve symmetric, damped systems by elimination: ONNX has no operator for that.

    Args:
        left: `[..., n, n]`, repeated where `right` has more systems.
        right: `[..., n, 1]`.
        left_side: Whether the unknown stands on the right, as here.
        check_errors: What PyTorch's operation has, too.

    Returns:
        The solution `[..., n, 1]`, and zeros in place of the errors.
    """
    n = left.shape[-1]
    shape = right.shape[:-2]
    system = torch.cat([left.expand(*shape, n, n), right.expand(*shape, n, right.shape[-1])], -1)
    unit = torch.eye(n)
    for pivot in range(n):
        row = system[..., pivot : pivot + 1, :] / system[..., pivot : pivot + 1, pivot : pivot + 1]
        # the pivot's own row becomes `row`, all others lose their share of it
        factors = system[..., pivot : pivot + 1] - unit[:, pivot : pivot + 1]
        system = system - factors * row
    errors = torch.zeros(shape, dtype=torch.int32)
    return system[..., n:], errors
