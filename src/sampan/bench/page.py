"""A record as one HTML file: words, tables and bars, nothing loaded from elsewhere and no script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sampan.bench import report
from sampan.report.charts import Bar, Drawing, bars
from sampan.report.render import render
from sampan.units import format_bytes, format_seconds


def page(record: Mapping[str, Any]) -> str:
    """Return the whole file."""
    return render(
        "bench/page.html",
        title=f"sampan bench: {record['what']}",
        words=report.plain_words(record),
        facts=report.facts(record),
        parts=zip(report.tables(record), _charts(record), strict=True),
    )


def _charts(record: Mapping[str, Any]) -> list[list[Drawing]]:
    """Return the charts that stand above each table."""
    if "rows" in record:
        kinds = {"forward": "a forward pass", "step": "forward, backward and update"}
        rows = {words: [_block_bar(row, name) for row in record["rows"] if row[name]] for name, words in kinds.items()}
        return [[bars(f"time of {words}; shorter is faster", some) for words, some in rows.items() if some]]
    if "tolerance" in record:
        return [[] for _ in record["parts"]]
    first = record["ratios_to"]
    time = f"time of a step over that of {first}: median of the rounds and quartiles; shorter is faster"
    memory = "most memory in RAM, the program included"
    return [
        [bars(time, [_ratio_bar(row) for row in part["results"]]),
         bars(memory, [_memory_bar(row) for row in part["results"]])]
        for part in record["parts"].values()
    ]  # fmt: skip


def _block_bar(row: Mapping[str, Any], name: str) -> Bar:
    seconds = row[name]["seconds"]
    return _bar(f"{_side(row)}, {row['part']}", seconds, format_seconds(seconds["median"]))


def _ratio_bar(row: Mapping[str, Any]) -> Bar:
    ratio = row["ratio"]
    return _bar(_side(row), ratio, f"{ratio['median']:.2f}  ({format_seconds(row['step_s']['median'])})")


def _bar(name: str, quartiles: Mapping[str, float], text: str) -> Bar:
    return Bar(name=name, parts=[("", quartiles["median"])], text=text, interval=(quartiles["low"], quartiles["high"]))


def _memory_bar(row: Mapping[str, Any]) -> Bar:
    num_bytes = row["peak_rss_bytes"]
    return Bar(name=_side(row), parts=[("", num_bytes or 0)], text=format_bytes(num_bytes))


def _side(row: Mapping[str, Any]) -> str:
    return f"{row['framework']} {row['mode']}"
