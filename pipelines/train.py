"""Train weights: one straight loop, with a time budget, that resumes exactly."""

import csv
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mhnet_video.config import TrainConfig
from mhnet_video.dataset import RainyWindows, load_footage
from mhnet_video.errors import ConfigError
from mhnet_video.network import MHNet, NetworkConfig
from mhnet_video.restorer import resolve_device
from mhnet_video.weights import load_model, save_weights, training_of

WARM_UP_STEPS = 200
EMA_DECAY = 0.999
SAVE_SECONDS = 300
LOG_STEPS = 50
L1_WEIGHT = 60.0
"""Decibels per unit of absolute error: the logarithm alone gives hard pairs too little weight."""
FLOOR = 1.5e-4
"""Mean squared error, 38 dB, from which on a pair earns little more: a lower floor makes a network
that leaves faint streaks alone, to keep what it need not touch even closer than anyone can see."""


def psnr_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean over the pictures of the logarithm of their mean squared error, in dB.

    Args:
        restored: `[N, 3, H, W]` in [0, 1].
        clean: `[N, 3, H, W]` in [0, 1].

    Source: Chen et al., "HINet", CVPR Workshops 2021, equation 6.
    """
    error = (restored - clean).square().mean(dim=(1, 2, 3))
    return 10 / math.log(10) * (error + FLOOR).log().mean()


class _Batches(torch.utils.data.Sampler[list[int]]):
    """Indices in order from a step on, so that a resumed run sees what it would have seen."""

    def __init__(self, first: int, size: int) -> None:
        self._first, self._size = first, size

    def __iter__(self) -> Any:
        index = self._first
        while True:
            yield list(range(index, index + self._size))
            index += self._size


def train(
    config: TrainConfig, *, on_log: Callable[[int, float, float, float], None] | None = None
) -> Path:
    """Train, or go on training, until the budget is spent.

    The folder `config.output` gets `checkpoint.pt` (to resume), `log.csv`, `strip.png` (rainy,
    restored and clean crops) and `weights.safetensors` (the running average of the weights).

    Args:
        config: The settings. A run whose settings differ from its checkpoint's is refused.
        on_log: Called every 50 steps with the step, the minutes spent, and the mean error of the
            results and of the inputs since the last call, in dB.

    Returns:
        The weights file.

    Raises:
        ReadError: There is no footage.
        ConfigError: The folder holds a run of other settings.
    """
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    device = resolve_device(config.device)
    torch.manual_seed(config.seed)
    if config.init:
        network = load_model(config.init).requires_grad_(True)
    else:
        network = MHNet(
            NetworkConfig(
                width=config.width,
                encoder_blocks=config.encoder_blocks,
                decoder_blocks=config.decoder_blocks,
                group_blocks=config.group_blocks,
                frames=config.frames,
                patch=config.patch,
            )
        )
        torch.nn.init.zeros_(network.ending.weight)  # begin as the identity
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    decayed = [p for p in network.parameters() if p.ndim == 4 and p.shape[-1] * p.shape[1] > 1]
    others = [p for p in network.parameters() if not any(p is q for q in decayed)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    average = {name: value.clone() for name, value in network.state_dict().items()}
    step, seen, spent = 0, 0, 0.0

    checkpoint = output / "checkpoint.pt"
    places = ("minutes", "data", "device", "output")
    settings = {name: value for name, value in asdict(config).items() if name not in places}
    about = {name: settings[name] for name in settings if name not in ("init", "description")}
    if config.init:
        about["before"] = training_of(config.init)
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        if json.loads(saved["settings"]) != json.loads(json.dumps(settings)):
            raise ConfigError(f"{checkpoint} is of a run with other settings; take another folder")
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
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)
        averaged = MHNet(network.config)
        averaged.load_state_dict({name: value.float().cpu() for name, value in average.items()})
        return save_weights(
            averaged,
            output / "weights.safetensors",
            description=config.description,
            training={**about, "minutes": round(spent / 60, 1), "steps": step},
        )

    budget = config.minutes * 60
    footage = load_footage(Path(config.data), frames=network.config.frames)
    saved_at = spent
    log_path = output / "log.csv"
    fresh = not log_path.exists()
    with log_path.open("a", newline="") as log_file:
        log = csv.writer(log_file)
        if fresh:
            log.writerow(["step", "minutes", "rate", "loss_db", "input_db"])
        losses, inputs = [], []
        while spent < budget:
            large = spent >= 0.6 * budget
            crop = config.final_crop if large else config.crop
            batch = max(1, round(config.batch * (config.crop / crop) ** 2))
            windows = RainyWindows(
                footage, frames=network.config.frames, crop=crop, seed=config.seed
            )
            loader = DataLoader(
                windows, batch_sampler=_Batches(seen, batch), num_workers=1, prefetch_factor=4
            )
            mark = time.perf_counter()
            for rainy, clean in loader:
                rainy = rainy.to(device, memory_format=torch.channels_last)
                clean = clean.to(device)
                share = min(1.0, spent / budget)
                rate = config.learning_rate * (
                    0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * share))
                )
                rate *= min(1.0, (step + 1) / WARM_UP_STEPS)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                restored = network(rainy)
                decibels = psnr_loss(restored, clean)
                loss = decibels + L1_WEIGHT * (restored - clean).abs().mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                step, seen = step + 1, seen + len(rainy)
                decay = min(EMA_DECAY, (step + 1) / (step + 10))
                torch._foreach_lerp_(
                    list(average.values()), list(network.state_dict().values()), 1 - decay
                )
                middle = 3 * (network.config.frames // 2)
                with torch.no_grad():
                    losses.append(decibels.item())
                    inputs.append(psnr_loss(rainy[:, middle : middle + 3], clean).item())
                now = time.perf_counter()
                spent, mark = spent + now - mark, now
                if step % LOG_STEPS == 0:
                    row = [sum(x) / len(x) for x in (losses, inputs)]
                    log.writerow(
                        [step, f"{spent / 60:.2f}", f"{rate:.2e}", *(f"{x:.3f}" for x in row)]
                    )
                    log_file.flush()
                    if on_log is not None:
                        on_log(step, spent / 60, *row)
                    losses, inputs = [], []
                if spent - saved_at > SAVE_SECONDS:
                    saved_at = spent
                    save()
                    _strip(output / "strip.png", rainy, restored, clean)
                if spent >= budget or (not large and spent >= 0.6 * budget):
                    break
    return save()


def _strip(path: Path, rainy: Tensor, restored: Tensor, clean: Tensor) -> None:
    """Write rainy, restored and clean crops below one another."""
    middle = rainy.shape[1] // 6 * 3
    rows = (rainy[:, middle : middle + 3], restored.detach(), clean)
    picture = torch.cat([row.cpu().float().clamp(0, 1) for row in rows], dim=2)
    picture = torch.cat(list(picture), dim=2).permute(1, 2, 0)
    cv2.imwrite(str(path), (picture * 255).round().byte().numpy()[..., ::-1])
