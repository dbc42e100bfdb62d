"""Training: one straight loop with a time budget, which resumes exactly.

Under `torchrun` it runs in several processes, each with its own windows.
"""

import contextlib
import csv
import io
import json
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from mhnet_video.config import TrainConfig
from mhnet_video.errors import ConfigError, MHNetVideoError, WriteError
from mhnet_video.media.output_file import check_destination, why_unwritable
from mhnet_video.model.network import FeatureFusion, MHNet, NAFBlock, NetworkConfig
from mhnet_video.model.weights import load_model, resolve_device, save_weights, training_of
from mhnet_video.system import ignore_ending_signals, replace_file
from mhnet_video.training.lessons import LESSONS
from mhnet_video.training.net2net import grow

WARM_UP_STEPS = 200
"""Steps over which the learning rate rises from 0."""
EMA_DECAY = 0.999
"""Decay of the exponential moving average of the weights, per step."""
SAVE_SECONDS = 300
"""Seconds between checkpoints."""
LOG_STEPS = 50
"""Steps between lines of the log."""
LOADER_SECONDS = 600
"""Timeout for the next batch. The loader's processes are forked from one with threads, and a lock
held at that moment can block them forever."""
COMPILED_MINUTES = 20
"""Budget in minutes from which the network is compiled. Compiling takes two minutes on a CPU; steps
then take 0.7 of the time."""
L1_WEIGHT = 100.0
"""Weight of the mean absolute error, in dB per unit. The logarithm alone gives hard pairs too
little weight."""
EDGE_WEIGHT = 100.0
"""Weight of `edge_loss`, in dB per unit. The edges of a faint rest of a streak make it visible."""
FLOOR = 5e-4
"""Mean squared error added to each pair's, 33 dB. With a lower one the network leaves faint streaks
and improves dry pixels beyond what can be seen."""
LATE = 0.6
"""Share of the budget after which crops are larger and more of the pictures are dry."""
BORROWED_SHARE = 0.5
"""Share of pictures whose global means are blended with those of another picture of the batch."""


def psnr_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Negative PSNR in dB, bounded by `FLOOR` and averaged over the pictures.

    Source: Chen et al., "HINet", CVPR Workshops 2021, equation 6.

    Args:
        restored: `[N, 3, H, W]` in [0, 1].
        clean: `[N, 3, H, W]` in [0, 1].

    Returns:
        A scalar.
    """
    error = (restored - clean).square().mean(dim=(1, 2, 3))
    return 10 / math.log(10) * (error + FLOOR).log().mean()


def edge_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error of the horizontal and of the vertical gradients.

    Args:
        restored: `[N, 3, H, W]` in [0, 1].
        clean: `[N, 3, H, W]` in [0, 1].

    Returns:
        The sum of both, a scalar.
    """
    error = restored - clean
    return error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()


class BorrowedMeans(torch.nn.Module):
    """Blends the global means of a network's channel attention with those of another picture.

    From its means a network can infer whether a picture is rainy, and then ignores the rain of a
    mostly dry frame. With means that partly belong to another picture, it learns to decide at each
    pixel. Only for training.

    Shape:
        - Input: `[N, C, 1, 1]`
        - Output: `[N, C, 1, 1]`
    """

    def __init__(self, network: MHNet) -> None:
        super().__init__()
        self.share = torch.zeros(1)
        for module in network.modules():
            if isinstance(module, NAFBlock):
                module.sca[0] = self  # replaces an identity: names of parameters stay
            elif isinstance(module, FeatureFusion):
                module.conv_du.register_forward_pre_hook(lambda _, means: self(means[0]))

    def draw(self, seed: int, like: Tensor) -> None:
        """Draw the blending weights of a step.

        Args:
            seed: Seed of the draw.
            like: The batch, `[N, ...]`; weights are `[N, 1, 1, 1]` on its device, 0 for half of
                the pictures and uniform in [0, 1] for the others.
        """
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(2, len(like), 1, 1, 1, generator=generator)
        self.share = ((uniform[0] < BORROWED_SHARE) * uniform[1]).to(like.device)

    def forward(self, means: Tensor) -> Tensor:
        """Blend each picture's means with those of the one before it in the batch."""
        return torch.lerp(means, means.roll(1, 0), self.share.to(means.dtype))


class Optimizer:
    """Muon for the weights of convolutions that mix channels, Adam for all other parameters.

    Muon orthogonalizes the update of a matrix. Its steps take longer than Adam's, but it reaches a
    lower loss in the same time. Source: Jordan et al., "Muon: An optimizer for hidden layers in
    neural networks", 2024. Source of the step size: Liu et al., "Muon is scalable for LLM
    training", arXiv 2502.16982, equation 4.

    Args:
        network: The network to train, in channels-last memory format.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        mixing: list[Tensor] = []
        others: list[Tensor] = []
        for parameter in network.parameters():
            mixes = parameter.ndim == 4 and min(parameter.shape[:2]) > 1
            (mixing if mixes else others).append(parameter)
        # torch.optim.Muon accepts matrices only: these are views of the weights' memory
        matrices = [_rows(weights.detach()).view(len(weights), -1) for weights in mixing]
        self._pairs = list(zip(matrices, mixing, strict=True))
        self._parts: tuple[Any, ...] = (
            torch.optim.Muon(matrices, weight_decay=1e-4, adjust_lr_fn="match_rms_adamw"),
            torch.optim.Adam(others, betas=(0.9, 0.95), fused=True),
        )

    def step(self, rate: float) -> None:
        """Update the parameters by their gradients, at one learning rate for both optimizers."""
        for matrix, weights in self._pairs:
            matrix.grad = None if weights.grad is None else _rows(weights.grad).flatten(1)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """State of both optimizers, to resume from."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Restore what `state_dict` returned."""
        for part, saved in zip(self._parts, state, strict=True):
            part.load_state_dict(saved)


def _rows(weights: Tensor) -> Tensor:
    """View `[O, I, h, w]` as `[O, h, w, I]`, contiguous in channels-last memory."""
    return weights.permute(0, 2, 3, 1)


class _Team:
    """The processes that train together: those that `torchrun` started, or only this one."""

    def __init__(self, device: str) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = resolve_device(device)
        on_gpu = self.device.type == "cuda"
        if self.size > 1:
            if on_gpu:
                self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
                torch.cuda.set_device(self.device)
            dist.init_process_group("nccl" if on_gpu else "gloo")

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in place."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors]) / self.size
        dist.all_reduce(flat)
        means = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    def close(self) -> None:
        """Wait for the other processes, and leave the group."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()


class _Batches(torch.utils.data.Sampler[list[int]]):
    """Indices of samples in order, from `first` on, so that a resumed run sees the same samples."""

    def __init__(self, first: int, size: int, team: _Team) -> None:
        self._first, self._size, self._stride = first + team.rank * size, size, team.size * size

    def __iter__(self) -> Any:
        index = self._first
        while True:
            yield list(range(index, index + self._size))
            index += self._stride


def train(
    config: TrainConfig,
    *,
    on_log: Callable[[int, float, float, float], None] | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Train, or resume training, until the budget is spent.

    Writes into the folder `config.output`: `checkpoint.pt`, from which a run resumes; `log.csv`;
    `curve.png`, a plot of the log; `strip.png`, rainy, restored and clean crops; and
    `weights.safetensors`, the moving average of the weights.

    Args:
        config: The settings. A checkpoint of other settings is refused.
        on_log: Called every `LOG_STEPS` steps with the step, the minutes spent, and the mean
            `psnr_loss` of the results and of the inputs since the last call, in dB.
        stop: Ends the run early when set; the checkpoint is saved.

    Returns:
        Path of the weights file.

    Raises:
        ReadError: There is no footage.
        ConfigError: The checkpoint is damaged, or that of a run with other settings.
        WriteError: The disk refuses a file; the last complete ones stay.
        MHNetVideoError: The gradient is no finite number any more; likewise.
    """
    team = _Team(config.device)
    device, leads = team.device, team.rank == 0
    torch.manual_seed(config.seed)
    network = _first_network(config)
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    lesson = LESSONS[config.task]
    means = BorrowedMeans(network) if lesson.borrows_means else None
    compute = network.residual
    if config.minutes >= COMPILED_MINUTES and (device.type == "cuda" or _has_compiler()):
        # two sizes at most; dynamic shapes fail to compile in some versions of PyTorch
        compute = torch.compile(compute, dynamic=False)
    optimizer = Optimizer(network)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    step, seen, spent = 0, 0, 0.0

    footage = lesson.footage(Path(config.data), config.frames)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / "checkpoint.pt"
    if leads:
        check_destination(checkpoint, overwrite=True)
    local_settings = ("minutes", "data", "device", "output")
    settings = {name: value for name, value in asdict(config).items() if name not in local_settings}
    about = {name: settings[name] for name in settings if name not in ("init", "description")}
    if config.init:
        about["before"] = training_of(config.init)
    if checkpoint.exists():
        saved = _load_checkpoint(checkpoint, device)
        # checkpoints from before these settings were trained without them
        before = {"align": False, "task": "derain", **json.loads(saved["settings"])}
        now = json.loads(json.dumps(settings))
        if before != now:
            others = [name for name in now if before.get(name) != now[name]] or ["version"]
            raise ConfigError(
                f"{checkpoint} belongs to a run with other settings ({', '.join(others)}); "
                "take those, or choose another folder"
            )
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average = saved["average"]
        step, seen, spent = saved["step"], saved["seen"], saved["spent"]

    def save() -> Path:
        state = {
            "settings": json.dumps(settings),
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
            "step": step,
            "seen": seen,
            "spent": spent,
        }
        # in memory first: of a disk that refuses, PyTorch tells a fault of its own
        whole = io.BytesIO()
        torch.save(state, whole)
        _write(checkpoint, whole.getbuffer())
        averaged = MHNet(network.config)
        averaged.task = network.task
        averaged.load_state_dict({name: value.float().cpu() for name, value in average.items()})
        return save_weights(
            averaged,
            output / "weights.safetensors",
            description=config.description,
            training={**about, "minutes": round(spent / 60, 1), "steps": step},
        )

    budget = config.minutes * 60
    frames, on_gpu = network.config.frames, device.type == "cuda"
    middle = 3 * (network.config.pictures // 2)
    saved_at, is_stopped = spent, False
    log_path = output / "log.csv"
    if leads and _cut_log(log_path, step):
        _append(log_path, _COLUMNS)
    losses, inputs = [], []
    while spent < budget and not is_stopped:
        is_late = spent >= LATE * budget
        until = budget if is_late else LATE * budget
        crop = config.final_crop if is_late else config.crop
        batch = max(min(2, config.batch), round(config.batch * (config.crop / crop) ** 2))
        windows = lesson.windows(
            footage, frames=frames, crop=crop, seed=config.seed, is_late=is_late
        )
        # rain is rendered on the GPU, or by the loader's process
        rain = partial(lesson.batch, frames=frames, device=device, aligns=config.align)
        loader = DataLoader(
            windows,
            batch_sampler=_Batches(seen, batch, team),
            collate_fn=list if on_gpu else rain,
            num_workers=min(8, os.cpu_count() or 1) if on_gpu else 1,
            worker_init_fn=_ignore_signals,
            prefetch_factor=4,
            timeout=LOADER_SECONDS,
        )
        mark = time.perf_counter()
        for pairs in _batches_of(loader):
            rainy, clean = rain(pairs) if on_gpu else pairs
            rainy = rainy.to(memory_format=torch.channels_last)
            share = min(1.0, spent / budget)
            rate = config.learning_rate * (0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * share)))
            rate *= min(1.0, (step + 1) / WARM_UP_STEPS)
            if means is not None:
                means.draw(seen + team.rank * len(rainy), rainy)
            with torch.autocast(device.type, torch.bfloat16):
                residual = compute(rainy)
            restored = rainy[:, middle : middle + 3] + residual.float()
            decibels = psnr_loss(restored, clean)
            loss = decibels + L1_WEIGHT * (restored - clean).abs().mean()
            loss = loss + EDGE_WEIGHT * edge_loss(restored, clean)
            network.zero_grad(set_to_none=True)
            loss.backward()
            team.average([p.grad for p in network.parameters() if p.grad is not None])
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            if not math.isfinite(norm):  # the same in all processes: a step would spoil the weights
                raise MHNetVideoError(
                    f"training has diverged at step {step + 1}: its gradient is no finite number. "
                    f"What {output} has of it stays; begin again in another folder, with a lower "
                    "--learning-rate."
                )
            optimizer.step(rate)
            step, seen = step + 1, seen + team.size * len(rainy)
            decay = min(EMA_DECAY, (step + 1) / (step + 10))
            torch._foreach_lerp_(
                list(average.values()), list(network.state_dict().values()), 1 - decay
            )
            with torch.no_grad():
                losses.append(decibels.item())
                inputs.append(psnr_loss(rainy[:, middle : middle + 3], clean).item())
            now = time.perf_counter()
            stops = float(stop is not None and stop.is_set())
            clock = torch.tensor([spent + now - mark, stops], device=device).double()
            mark = now
            team.average([clock])  # all must stop after the same step
            spent, is_stopped = float(clock[0]), bool(clock[1])
            if step % LOG_STEPS == 0:
                row = [sum(x) / len(x) for x in (losses, inputs)]
                if leads:
                    told = (f"{spent / 60:.2f}", f"{rate:.2e}", *(f"{x:.3f}" for x in row))
                    _append(log_path, (str(step), *told))
                    if on_log is not None:
                        on_log(step, spent / 60, *row)
                losses, inputs = [], []
            if spent - saved_at > SAVE_SECONDS:
                saved_at = spent
                if leads:
                    save()
                    save_curve(log_path, output / "curve.png")
                    _strip(output / "strip.png", rainy, restored, clean, middle)
            if spent >= until or is_stopped:
                break
    if leads:
        save()
        save_curve(log_path, output / "curve.png")
    team.close()
    return output / "weights.safetensors"


def _batches_of(loader: Iterable[Any]) -> Iterator[Any]:
    """Batches of a loader; kills its processes, including hanging ones, if it fails."""
    try:
        yield from loader
    except RuntimeError:
        for child in multiprocessing.active_children():
            with contextlib.suppress(RuntimeError):  # PyTorch reports killed workers
                child.kill()
                child.join()
        raise


def _ignore_signals(_: int) -> None:
    """Ignore signals in a process of the loader, which the training process ends.

    Terminals and `timeout` send signals to the whole process group. A worker that exited by itself
    would make the loader fail.
    """
    ignore_ending_signals()


def _load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Load a checkpoint.

    Raises:
        ConfigError: It is damaged, or from a version without Muon.
    """
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        if isinstance(saved["optimizer"], list):  # a single state until Muon came
            return cast("dict[str, Any]", saved)
    except Exception as error:
        raise ConfigError(f"{path} is damaged; remove it, or choose another folder") from error
    raise ConfigError(f"{path} is of an older version; begin with its weights by --init")


def _cut_log(path: Path, step: int) -> bool:
    """Remove the lines of a log after the checkpoint's step, and those that a full disk has torn.

    Returns:
        Whether the log is empty.

    Raises:
        WriteError: The disk refuses.
    """
    if not path.exists():
        return True
    lines = path.read_bytes().splitlines(keepends=True)
    whole = [
        line for line in lines if line.endswith(b"\n") and line.count(b",") == len(_COLUMNS) - 1
    ]
    kept = whole[:1] + [line for line in whole[1:] if int(line.partition(b",")[0]) <= step]
    if len(kept) < len(lines):
        _write(path, b"".join(kept))
    return not kept


def _append(log: Path, row: Iterable[str]) -> None:
    """Add a line to a log, which is created where there is none.

    Raises:
        WriteError: The disk refuses.
    """
    try:
        with log.open("a", newline="") as file:
            csv.writer(file).writerow(row)
    except OSError as error:
        raise WriteError(f"{log} cannot be written: {why_unwritable(error)}.") from error


def _write(path: Path, content: bytes | memoryview) -> None:
    """Create or replace a file, which has its name only when it is complete.

    Raises:
        WriteError: The disk refuses; nothing is left of the file.
    """
    partial = path.with_suffix(".new")
    try:
        partial.write_bytes(content)
        replace_file(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise WriteError(f"{path} cannot be written: {why_unwritable(error)}.") from error


def _has_compiler() -> bool:
    """Whether the C++ compiler that `torch.compile` needs on a CPU is installed."""
    from torch._inductor import exc
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True


def _first_network(config: TrainConfig) -> MHNet:
    """Build the network that training begins with.

    Raises:
        ConfigError: The weights of `init` cannot grow to these sizes.
    """
    sizes = NetworkConfig(
        width=config.width,
        encoder_blocks=config.encoder_blocks,
        decoder_blocks=config.decoder_blocks,
        group_blocks=config.group_blocks,
        frames=config.frames,
        patch=config.patch,
        align=config.align,
        glass=LESSONS[config.task].sees_glass,
    )
    if config.init:
        network = grow(load_model(config.init), sizes)
    else:
        network = MHNet(sizes)
        torch.nn.init.zeros_(network.ending.weight)  # begin as the identity
    network.task = config.task
    return network


def save_curve(log: Path, path: Path) -> None:
    """Plot the log of a run: PSNR of the results and of the inputs over the minutes.

    Args:
        log: `log.csv` of the run.
        path: PNG file to write; an existing one is replaced.
    """
    with log.open(newline="") as file:
        rows = [[float(row[name]) for name in _CURVES] for row in csv.DictReader(file)]
    if not rows:
        return
    minutes, *curves = (np.array(column) for column in zip(*rows, strict=True))
    curves = [_smooth(-curve) for curve in curves]
    low = math.floor(min(float(curve.min()) for curve in curves))
    high = math.ceil(max(float(curve.max()) for curve in curves) + 1e-9)
    height, width, left, bottom = 400, 720, 60, 40
    picture = np.full((height, width, 3), 255, np.uint8)

    def point(minute: float, decibels: float) -> tuple[int, int]:
        x = left + (width - left - 20) * minute / max(float(minutes[-1]), 1e-9)
        y = 30 + (height - bottom - 30) * (high - decibels) / (high - low)
        return round(x), round(y)

    def write(text: str, x: int, y: int, color: tuple[int, int, int] = (0, 0, 0)) -> None:
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, 1, cv2.LINE_AA)

    for decibels in range(low, high + 1):
        cv2.line(picture, point(0, decibels), point(minutes[-1], decibels), (225, 225, 225))
        write(str(decibels), left - 28, point(0, decibels)[1] + 4)
    for minute in np.linspace(0, minutes[-1], 7):
        write(
            f"{minute:.0f}" if minutes[-1] > 12 else f"{minute:.1f}", point(minute, low)[0] - 8, 378
        )
    write("minutes", width - 80, 395)
    write("PSNR, dB, of the windows' inputs", left, 18, _COLORS[1])
    write("and results", left + 182, 18, _COLORS[0])
    for curve, color in zip(curves, _COLORS, strict=True):
        points = [point(minute, decibels) for minute, decibels in zip(minutes, curve, strict=True)]
        cv2.polylines(picture, [np.array(points, np.int32)], False, color, 2, cv2.LINE_AA)
    _write_png(path, picture)


_COLUMNS = ("step", "minutes", "rate", "loss_db", "input_db")
"""Columns of the log."""
_CURVES = ("minutes", "loss_db", "input_db")
"""Columns of the log that are plotted: the abscissa, then the curves."""
_COLORS = ((180, 80, 20), (120, 120, 120))
"""Colours of the curves, BGR."""


def _smooth(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Moving average over up to 15 neighbours on each side."""
    reach = min(15, len(values) // 8)
    return np.array([values[max(0, i - reach) : i + reach + 1].mean() for i in range(len(values))])


def _strip(path: Path, rainy: Tensor, restored: Tensor, clean: Tensor, middle: int) -> None:
    """Write a PNG: one column per pair, rainy, restored and clean from top to bottom."""
    rows = (rainy[:, middle : middle + 3], restored.detach(), clean)
    picture = torch.cat([row.cpu().float().clamp(0, 1) for row in rows], dim=2)
    picture = torch.cat(list(picture), dim=2).permute(1, 2, 0)
    _write_png(path, (picture * 255).round().byte().numpy()[..., ::-1])


def _write_png(path: Path, picture: np.ndarray[Any, Any]) -> None:
    """Write a picture in BGR.

    Raises:
        WriteError: The disk refuses, of which OpenCV says nothing.
    """
    _write(path, cv2.imencode(".png", picture)[1].tobytes())
