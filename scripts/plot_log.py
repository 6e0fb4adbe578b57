"""Draw the loss curves of a run, one panel a stage, from its log.jsonl.

python scripts/plot_log.py RUN OUT.png
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

STAGES = ("vae", "tokenizer", "glyph", "ar", "decoder")


def main(run: Path, out: Path) -> None:
    """Write the picture: each step pale, the mean of 20 steps on top."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        curves[row["stage"]].append((row["step"], row["loss"]))
    curves = dict(sorted(curves.items(), key=lambda item: STAGES.index(item[0])))
    figure, panels = plt.subplots(1, len(curves), figsize=(3.2 * len(curves), 2.8), squeeze=False)
    for panel, (stage, points) in zip(panels[0], curves.items(), strict=True):
        steps, losses = np.array(points).T
        panel.plot(steps, losses, color="0.75", linewidth=0.8)
        width = min(20, len(losses))
        smooth = np.convolve(losses, np.ones(width) / width, "valid")
        panel.plot(steps[width - 1 :], smooth, color="tab:blue", linewidth=1.6)
        panel.set(title=stage, xlabel="step", ylabel="loss" if panel is panels[0][0] else "")
        panel.set_ylim(min(0, smooth.min()), np.percentile(losses, 99) * 1.05)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python scripts/plot_log.py RUN OUT.png")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
