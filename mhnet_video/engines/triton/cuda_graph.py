"""CUDA graphs: work that is the same at each run is recorded once, and started as a whole."""

import logging
from collections.abc import Callable
from typing import Any

import torch

from mhnet_video.errors import first_line
from mhnet_video.memory import RECORDING, is_shortage

_log = logging.getLogger(__name__)


def record(work: Callable[[], Any], stream: torch.cuda.Stream) -> Callable[[], None]:
    """Record work as a CUDA graph.

    Args:
        work: What has run before, so that it neither compiles nor measures anything now.
        stream: Where it is recorded, with nothing left to do.

    Returns:
        What starts the graph, on the stream that is current then.

    Raises:
        RuntimeError: The work cannot be recorded, or the device has too little memory.
    """
    graph = torch.cuda.CUDAGraph()
    before = torch.cuda.current_stream(stream.device)
    try:
        # other threads may use the device meanwhile, but not record too
        with RECORDING, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
    finally:
        # a recording that fails would leave its stream as the thread's own
        torch.cuda.set_stream(before)
    return graph.replay


def recorded(
    work: Callable[[], None], device: torch.device, prepare: Callable[[], None] | None = None
) -> Callable[[], None] | None:
    """Run work once, then record it as a CUDA graph.

    Args:
        work: Steps on the device, the same at each run.
        device: A CUDA device.
        prepare: What is done ahead of the first run.

    Returns:
        What starts the graph. None where the work cannot be recorded, which the log says.

    Raises:
        torch.OutOfMemoryError: The device has too little memory.
        RuntimeError: Likewise, or the first run fails.
    """
    with torch.cuda.device(device), torch.inference_mode():
        stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        try:
            with torch.cuda.stream(stream):
                if prepare is not None:
                    prepare()
                work()
        finally:
            # after an error, too: what was begun uses memory that is given to others then
            stream.synchronize()
        try:
            return record(work, stream)
        except RuntimeError as error:
            if is_shortage(error):
                raise
            _log.warning("no CUDA graph (%s): steps are started one by one", first_line(error))
            return None
