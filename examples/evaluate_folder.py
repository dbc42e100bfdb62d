"""Measure a model on a folder of rainy pictures or clips and its clean twin, and list the worst.

python examples/evaluate_folder.py rainy/ clean/
"""

import math
import sys

from mhnet_video.pipelines.evaluate import evaluate


def main(rainy: str, clean: str, model: str = "realtime") -> float:
    """Print the rows from the smallest gain to the largest; the mean gain in dB.

    A picture that equals the clean one, before or after, has no finite gain, and is left out.
    """
    result = evaluate(rainy, clean, model=model)
    gains = {
        row.name: row.restored.psnr_y - row.rainy.psnr_y
        for row in result.rows
        if row.restored is not None
        and math.isfinite(row.restored.psnr_y)
        and math.isfinite(row.rainy.psnr_y)
    }
    for name, gain in sorted(gains.items(), key=lambda item: item[1]):
        print(f"{gain:+6.2f} dB  {name}")
    mean = sum(gains.values()) / max(1, len(gains))
    print(f"{mean:+6.2f} dB  mean of {len(gains)}")
    return mean


if __name__ == "__main__":
    main(*sys.argv[1:])
