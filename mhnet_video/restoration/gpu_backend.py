"""A device with queues, as the GPU pipeline uses it, and CUDA's."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from mhnet_video.engines.triton.cuda_graph import recorded


class DeviceEvent(Protocol):
    """A point in a queue's work."""

    def query(self) -> bool:
        """Whether the work up to there is done."""

    def synchronize(self) -> None:
        """Wait until it is."""


class DeviceQueue(Protocol):
    """Work of a device that is done in order, at some time."""

    def run(self, work: Callable[[], None]) -> None:
        """Add work."""

    def wait(self, event: Any) -> None:
        """Let what is added from now on wait for another queue's work."""

    def wait_for_decoder(self) -> None:
        """Let what is added from now on wait for all that decoders have begun to write."""

    def record(self) -> DeviceEvent:
        """The point behind what has been added."""


class DeviceBackend(Protocol):
    """A device with queues, and memory on both sides of the bus."""

    def pinned(self, *size: int, dtype: torch.dtype) -> Tensor:
        """Memory of the host that the device can read and write by itself."""

    def allocate(self, *size: int, dtype: torch.dtype) -> Tensor:
        """Memory of the device."""

    def queue(self) -> DeviceQueue:
        """Another queue."""

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Work that is the same at each run, made ready to be started at once; it runs meanwhile.

        Raises:
            torch.OutOfMemoryError: The device has too little memory.
        """


class _CudaQueue:
    """A CUDA stream."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # memory that was made until now is filled on another one
        self._stream.wait_stream(torch.cuda.current_stream(device))

    def run(self, work: Callable[[], None]) -> None:
        with torch.cuda.stream(self._stream), torch.inference_mode():
            work()

    def wait(self, event: Any) -> None:
        self._stream.wait_event(event)

    def wait_for_decoder(self) -> None:
        # FFmpeg fills its pictures on the context's own stream, which is PyTorch's default one
        self._stream.wait_stream(torch.cuda.default_stream(self._stream.device))

    def record(self) -> DeviceEvent:
        event: DeviceEvent = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)  # type: ignore[attr-defined]
        return event


class CudaBackend:
    """A CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def pinned(self, *size: int, dtype: torch.dtype) -> Tensor:
        """Memory of the host that the device can read and write by itself."""
        with torch.cuda.device(self.device):  # or another one would get a context for it
            return torch.zeros(size, dtype=dtype, pin_memory=True)

    def allocate(self, *size: int, dtype: torch.dtype) -> Tensor:
        """Memory of the device."""
        return torch.zeros(size, dtype=dtype, device=self.device)

    def queue(self) -> DeviceQueue:
        """Another queue."""
        return _CudaQueue(self.device)

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph of some work, or the work itself where it cannot be recorded."""
        return recorded(work, self.device) or work


class _HostQueue:
    """Work that is done before anything else is added; also each point behind it."""

    def run(self, work: Callable[[], None]) -> None:
        with torch.inference_mode():
            work()

    def wait(self, event: Any) -> None:
        pass

    def wait_for_decoder(self) -> None:
        pass

    def record(self) -> DeviceEvent:
        return self

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


class HostBackend:
    """The host as a device, for dry runs: all work is done at once."""

    def pinned(self, *size: int, dtype: torch.dtype) -> Tensor:
        """Memory of the host."""
        return torch.zeros(size, dtype=dtype)

    def allocate(self, *size: int, dtype: torch.dtype) -> Tensor:
        """Memory of the host."""
        return torch.zeros(size, dtype=dtype)

    def queue(self) -> DeviceQueue:
        """Another queue."""
        return _HostQueue()

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """The work itself."""
        return work
