"""Video restoration as a stream: decode, MHNet, encode.

The names below are the public API; everything else may change without notice.
They load on first use, so `mhnet-video --help` does not wait for PyTorch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mhnet_video.config import Box, LiveConfig, LiveOutputs, RestoreConfig
    from mhnet_video.errors import (
        ConfigError,
        MHNetVideoError,
        ReadError,
        WeightsError,
        WriteError,
    )
    from mhnet_video.frame import Frame, Pair, PixelLayout
    from mhnet_video.live.live_frame import LiveFrame
    from mhnet_video.live.session import Live
    from mhnet_video.live.statistics import LiveStatistics
    from mhnet_video.media.fidelity import Loss
    from mhnet_video.media.reading.reader import VideoReader
    from mhnet_video.model.network import MHNet, NetworkConfig
    from mhnet_video.model.weights import load_model, push_to_hub, save_pretrained
    from mhnet_video.pipelines.live import LiveReport, run_live
    from mhnet_video.pipelines.restore import Progress, Report, ScaleShare, restore_video
    from mhnet_video.pipelines.segments import restore_in_segments
    from mhnet_video.restoration.restorer import Restorer

__version__ = "0.2.0"

# PyTorch's idle threads spin for their next operation, on the cores that the decoder, the encoder
# and the CPU engine work on: a frame takes twice the time. A short spin costs PyTorch itself
# nothing that can be measured. It must be said before PyTorch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
# PyTorch's large tensors come in pages of 2 MB, so that a new one does not cost as much as its use
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_HOMES = {
    "Box": "mhnet_video.config",
    "ConfigError": "mhnet_video.errors",
    "Frame": "mhnet_video.frame",
    "Live": "mhnet_video.live.session",
    "LiveConfig": "mhnet_video.config",
    "LiveFrame": "mhnet_video.live.live_frame",
    "LiveOutputs": "mhnet_video.config",
    "LiveReport": "mhnet_video.pipelines.live",
    "LiveStatistics": "mhnet_video.live.statistics",
    "Loss": "mhnet_video.media.fidelity",
    "MHNet": "mhnet_video.model.network",
    "MHNetVideoError": "mhnet_video.errors",
    "NetworkConfig": "mhnet_video.model.network",
    "Pair": "mhnet_video.frame",
    "PixelLayout": "mhnet_video.frame",
    "Progress": "mhnet_video.pipelines.restore",
    "ReadError": "mhnet_video.errors",
    "Report": "mhnet_video.pipelines.restore",
    "RestoreConfig": "mhnet_video.config",
    "Restorer": "mhnet_video.restoration.restorer",
    "ScaleShare": "mhnet_video.pipelines.restore",
    "VideoReader": "mhnet_video.media.reading.reader",
    "WeightsError": "mhnet_video.errors",
    "WriteError": "mhnet_video.errors",
    "load_model": "mhnet_video.model.weights",
    "push_to_hub": "mhnet_video.model.weights",
    "restore_in_segments": "mhnet_video.pipelines.segments",
    "restore_video": "mhnet_video.pipelines.restore",
    "run_live": "mhnet_video.pipelines.live",
    "save_pretrained": "mhnet_video.model.weights",
}

__all__ = [
    "Box",
    "ConfigError",
    "Frame",
    "Live",
    "LiveConfig",
    "LiveFrame",
    "LiveOutputs",
    "LiveReport",
    "LiveStatistics",
    "Loss",
    "MHNet",
    "MHNetVideoError",
    "NetworkConfig",
    "Pair",
    "PixelLayout",
    "Progress",
    "ReadError",
    "Report",
    "RestoreConfig",
    "Restorer",
    "ScaleShare",
    "VideoReader",
    "WeightsError",
    "WriteError",
    "__version__",
    "load_model",
    "push_to_hub",
    "restore_in_segments",
    "restore_video",
    "run_live",
    "save_pretrained",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
