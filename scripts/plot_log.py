"""Draw the loss curves of a run, also of one that is still training. A finished one has them as loss.png.

python scripts/plot_log.py RUN OUT.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from sampan.errors import SampanError
from sampan.train import plot

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python scripts/plot_log.py RUN OUT.png")
    try:
        plot.draw(Path(sys.argv[1]) / "log.jsonl", Path(sys.argv[2]))
    except SampanError as error:
        sys.exit(str(error))
