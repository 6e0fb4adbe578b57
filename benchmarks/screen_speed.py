"""How many questions a second `sampan screen` answers on one core: every rule's own two questions, in turn.

python benchmarks/screen_speed.py [--seconds S]
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

from sampan.report import results
from sampan.screen.matching import load_matcher
from sampan.screen.query import read_query

ROOT = Path(__file__).resolve().parent.parent
BAR_PER_S = 10_000


def main() -> None:
    """Measure five rounds, print the middle one and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round; default: 2")
    arguments = parser.parse_args()
    matcher = load_matcher()
    rules = matcher.rules.rules
    queries = [read_query(facts, matcher.rules) for rule in rules for facts in (rule.matches, rule.differs)]
    rates = []
    for _ in range(5):
        count, begun = 0, time.perf_counter()
        for query in itertools.cycle(queries):
            matcher(query)
            count += 1
            if count % 256 == 0 and time.perf_counter() - begun > arguments.seconds:
                break
        rates.append(count / (time.perf_counter() - begun))
    middle = sorted(rates)[2]
    print(f"{middle:,.0f} questions a second, of {len(queries)} different ones, {len(rules)} rules; bar {BAR_PER_S:,}")
    record = {
        "what": "sampan screen, questions a second", "machine": results.machine(),
        "num_rules": len(rules), "num_questions": len(queries), "per_s": {"median": middle, "each": rates},
        "bar_per_s": BAR_PER_S,
    }  # fmt: skip
    print(results.add("screen-speed", record, ROOT / "results"))


if __name__ == "__main__":
    main()
