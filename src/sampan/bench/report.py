"""What was measured, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sampan.units import format_bytes, format_count, format_flops, format_flops_per_s, format_seconds

CPU_SAYS_NOTHING = (
    "This was measured on a CPU. CPU times and ratios say nothing about Ascend, or about any other accelerator."
)


def lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a record of any of the three measurements, with its tables in columns."""
    yield record["what"]
    yield from facts(record)
    for title, table in tables(record):
        yield ""
        yield title
        yield from columns(table)
    if words := plain_words(record):
        yield ""
        yield from words


def plain_words(record: Mapping[str, Any]) -> list[str]:
    """Return what a reader must not miss."""
    words = [*record["notes"], *record.get("left_out", ())]
    if any(backend["device"] == "cpu" for backend in _backends(record)):
        words.append(CPU_SAYS_NOTHING)
    return words


def facts(record: Mapping[str, Any]) -> list[str]:
    """Return the conditions of a measurement, a line each."""
    machine, load = record["machine"], record["load_average"]
    backends = _backends(record)
    first = backends[0]
    known = [
        f"date      {record['date']}, sampan {machine['sampan']}, Python {machine['python']}, {machine['system']}",
        f"machine   {machine['cpu'] or 'unknown'}, {machine['usable_cores']} of {machine['cores']} cores",
        f"device    {first['device_name'] or first['device']}, {first['dtype']}",
        f"load      {_load(load['before'])} before, {_load(load['after'])} after (average of a minute)",
    ]
    if "shape" in record:
        shape = record["shape"]
        sizes = ", ".join(f"{count} of {part}" for part, count in shape["micro_batch_size"].items())
        known.append(f"size      {shape['origin']}: preset {shape['preset']}, {shape['px']} px; micro-batch {sizes}")
    if "rounds" in record:
        dropped = " and ".join(f"{count} {mode}" for mode, count in record["warm_up_steps"].items())
        known.append(f"rounds    {record['rounds']}, interleaved, after {dropped} steps that do not count")
    if "tolerance" in record:
        known.append(f"steps     {record['steps']}; allowed is a difference of {record['tolerance']:.0e}")
    if "budget_s" in record:
        known.append(f"time      at most about {format_seconds(record['budget_s'])}")
    for backend in backends:
        threads = f"{backend['threads']} thread{'' if backend['threads'] == 1 else 's'}"
        known.append(f"framework {backend['framework']} {backend['version']}, {threads}")
    return list(dict.fromkeys(known))


def tables(record: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Return the tables of a record: a title, and rows of which the first is the head."""
    if "rows" in record:
        return [("one block, median of its repeats", _block_table(record["rows"]))]
    if "tolerance" in record:
        return [(_difference(part, found), _lockstep_table(found)) for part, found in record["parts"].items()]
    return [(_title(part, found), _timing_table(record["ratios_to"], found)) for part, found in record["parts"].items()]


def columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines with columns under one another."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]


def _backends(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return record.get("sides", record.get("rows", ()))


def _title(part: str, measured: Mapping[str, Any]) -> str:
    counted = "not counted" if measured["flops_per_step"] is None else format_flops(measured["flops_per_step"])
    by = f" (counted by {measured['flops_counted_by']})" if measured["flops_counted_by"] else ""
    return (
        f"{part}: {format_count(measured['num_parameters'])} parameters, {counted} a step{by}; "
        f"matrices are multiplied at {format_flops_per_s(measured['peak_flops_per_s'])}"
    )


def _timing_table(first: str, measured: Mapping[str, Any]) -> list[list[str]]:
    head = ["side", "step", f"over {first} (quartiles)", "CPU time", "first step", "memory", "MFU", "differs by"]
    rows = [head]
    for row in measured["results"]:
        device = row["peak_device_bytes"]
        rows.append([
            f"{row['framework']} {row['mode']}",
            format_seconds(row["step_s"]["median"]),
            _quartiles(row["ratio"]),
            "unknown" if row["cpu_ratio"] is None else f"{row['cpu_ratio']['median']:.2f}",
            format_seconds(row["first_step_s"]),
            format_bytes(row["peak_rss_bytes"]) + ("" if device is None else f" + {format_bytes(device)} on it"),
            _share(row["mfu"]),
            "reference" if row["error"] is None else f"{max(row['error']['loss'], row['error']['gradient']):.0e}",
        ])  # fmt: skip
    return rows


def _block_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    table = [["side", "block", "tokens", "forward", "MFU", "with backward and update", "MFU", "repeats", "memory"]]
    for row in rows:
        cells = [f"{row['framework']} {row['mode']}", row["part"], str(row["tokens"])]
        passes = [row["forward"], row["step"]]
        for timed in passes:
            cells += [format_seconds(timed["seconds"]["median"]), _share(timed["mfu"])] if timed else ["-", "-"]
        cells.append(", ".join(str(timed["repeats"]) for timed in passes if timed))
        on_device = row["peak_device_bytes"]
        table.append([*cells, format_bytes(row["peak_rss_bytes"] if on_device is None else on_device)])
    return table


def _difference(part: str, compared: Mapping[str, Any]) -> str:
    if compared["parted"]:
        return f"{part} parts at {compared['said']}"
    seen = f", {compared['num_calls']} operations in each," if compared["num_calls"] else ""
    return f"{part}: no difference past the tolerance in {len(compared['steps'])} steps{seen} was found"


def _lockstep_table(compared: Mapping[str, Any]) -> list[list[str]]:
    kinds = ("operation", "loss", "gradient", "weights")
    rows = [[str(row["step"]), *(_error(row.get(kind)) for kind in kinds)] for row in compared["steps"]]
    return [["step", *kinds], *rows]


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.0e}"


def _quartiles(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"


def _share(share: float | None) -> str:
    return "N/A" if share is None else f"{share:.1%}"


def _load(load: float | None) -> str:
    return "unknown" if load is None else f"{load:.2f}"
