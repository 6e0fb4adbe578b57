"""Looking into a model folder or a run folder: what is there, what is missing, what does not fit; it never gives up.

A folder that cannot be run is still reported, part by part; only a place that holds nothing of a model is an error. Where
no framework is installed, what is there is reported and not compared with what should be; a run's LoRA files need one.
"""

# over 400 lines because what is found of a folder and how it is shown are read together

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sampan import frameworks
from sampan.checkpoint import detect_layout, lora_contents, own_file, run, sealed, weights
from sampan.checkpoint import folder as layout
from sampan.checkpoint.knowledge import ModelKnowledge, read_knowledge
from sampan.checkpoint.provenance import in_words, place_of, versions_of
from sampan.checkpoint.run_metadata import read_log
from sampan.errors import CheckpointError
from sampan.models.build import PARTS
from sampan.units import format_bytes, format_count

_SECTION_OF = {"ar": "ar", "tokenizer": "ar", "decoder": "dit", "vae": "vae", "glyph": "glyph"}
_KINDS = {"missing": "missing", "unexpected": "unexpected", "wrong_shape": "of another shape"}
_NAMES_SHOWN = 5
_EXAMPLES_SHOWN = 3
_NO_FRAMEWORK = "no framework is installed, so it is not compared with what should be there"
_SOFTWARE = ("sampan", "python", "numpy")
_OF_A_SESSION = (
    "from_step", "to_step", "framework", "device", "dtype", "threads", "ranks", "versions", "machine", "started", "ended",
)  # fmt: skip


def inspect(directory: Path) -> dict[str, Any]:
    """Return what a model folder or a run folder holds, as plain values.

    Keys: `folder`; `complete` (sampan can run it); `problems` (config and tokenizer, in words); `hash` and
    `hash_covers` (None when not complete); `geometry`; `painting`; `knows` (`subjects`,
    `languages`, `examples`; None where it says nothing); `written_by` (sampan version and provenance,
    or None); `parts` by name with `folder`, `num_parameters`, `bytes`, `dtypes` (dtype to bytes), `missing`,
    `unexpected`, `wrong_shape`, `problem`; `files` with `path`, `bytes`, `sha256` and `as_written` (None where no hash was
    recorded);
    a file that is not as written is a problem, and the model not complete; `num_parameters` and `bytes` in all;
    `run` for a run folder (else None), with `stages` and `finished`. A stage's
    `sessions` are the processes that took its steps: `from_step`, `to_step`, `framework`, `device`, `dtype`, `threads`,
    `ranks`, `versions`, `machine`, `started`, `ended` (None: not recorded). A run that is not finished has no `parts`.
    `lora`, of a run that trained LoRA adapters (else None), has the `model` that they are for and their `files` with
    `path`, `bytes`, `sha256`, `num_layers`, `ranks`, `num_parameters` and `as_written` (None where it has no hash).

    Raises:
        CheckpointError: There is no such folder, or nothing in it is of a model.
    """
    try:
        return _inspect(directory)
    except OSError as error:
        raise CheckpointError(f"`{directory}` cannot be read", str(error)) from error


def _inspect(directory: Path) -> dict[str, Any]:
    where: dict[str, Any] = {"folder": str(directory), "run": None, "lora": None}
    if directory.is_dir() and detect_layout.is_run(directory):
        where["run"] = _run(directory)
        if found := detect_layout.find_lora_run(directory):
            where["lora"] = {"model": str(found[0]), "files": _adapter_files(found[1])}
        if where["lora"] or not where["run"]["finished"]:
            empty = {
                "num_parameters": 0,
                "bytes": 0,
                "parts": {},
                "files": [],
                "problems": [],
                "geometry": None,
                "painting": None,
                "prompt": None,
                "knows": None,
            }
            return {**where, **empty, "complete": False, "hash": None, "hash_covers": None, "written_by": None}
    return {**where, **_model(detect_layout.resolve(directory))}


def _model(path: Path) -> dict[str, Any]:
    detect_layout.check_class(path)
    if not any((path / part.folder).is_dir() for part in PARTS.values()):
        raise detect_layout.explain(path, layout.missing_configs(path))
    problems: list[str] = []
    sections: dict[str, Any] = {}
    for section in layout.SECTIONS:
        try:
            sections[section] = layout.read_section(path, section)
        except CheckpointError as error:
            if (problem := _in_words(error)) not in problems:  # two sections are read from one file
                problems.append(problem)
    knows = ModelKnowledge()
    try:
        knows = read_knowledge(path)
    except CheckpointError as error:
        if (problem := _in_words(error)) not in problems:
            problems.append(problem)
    parts = {part: _part(path, part, sections) for part in PARTS}
    opened = None
    if len(sections) == len(layout.SECTIONS) and not problems:
        try:
            opened = layout.open_folder(path)
            opened.prompt_tokenizer()
        except CheckpointError as error:
            problems.append(_in_words(error))
    broken = any(p["problem"] or p["missing"] or p["unexpected"] or p["wrong_shape"] for p in parts.values())
    complete = opened is not None and not problems and not broken
    own, hashes = _own(path), {}
    if opened is not None:  # else sampan.json may be what cannot be read, which is among the problems
        try:
            if wrong := sealed.defect(own, required="format" in own):
                problems.append(f"{own_file.OWN_FILE}: {wrong}")
            hashes = own_file.recorded_hashes(own)
        except CheckpointError as error:
            problems.append(_in_words(error))
    stored = _files(path, hashes)
    if changed := [file["path"] for file in stored if file["as_written"] is False]:
        names = ", ".join(f"`{name}`" for name in changed[:_NAMES_SHOWN])
        more = f" and {len(changed) - _NAMES_SHOWN} more" if len(changed) > _NAMES_SHOWN else ""
        problems.append(f"not as written, by the hashes in {own_file.OWN_FILE}: {names}{more}")
    complete = complete and not problems
    return {
        "complete": complete,
        "problems": problems,
        "hash": opened.hash if complete and opened else None,
        "hash_covers": opened.hash_covers if complete and opened else None,
        "geometry": sections["geometry"].to_json() if "geometry" in sections else None,
        "painting": sections["painting"].to_json() if "painting" in sections else None,
        "prompt": sections["prompt"].to_json() if "prompt" in sections else None,
        "knows": knows.to_json() if knows else None,
        "written_by": {"sampan": own.get("sampan"), "provenance": own.get("provenance")} if own else None,
        "num_parameters": sum(part["num_parameters"] for part in parts.values()),
        "bytes": sum(part["bytes"] for part in parts.values()),
        "parts": parts,
        "files": stored,
    }


def _part(path: Path, part: str, sections: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "folder": PARTS[part].folder,
        "num_parameters": 0,
        "bytes": 0,
        "dtypes": {},
        "missing": [],
        "unexpected": [],
        "wrong_shape": [],
        "problem": None,
    }
    try:
        found = layout.stored_tensors(path, part)
    except CheckpointError as error:
        return {**facts, "problem": _in_words(error)}
    sizes: Counter[str] = Counter()
    for stored in found.values():
        sizes[stored.dtype] += stored.num_bytes or 0
    facts |= {
        "num_parameters": sum(stored.num_elements for stored in found.values()),
        "bytes": sum(sizes.values()),
        "dtypes": dict(sizes),
    }
    if _SECTION_OF[part] not in sections:
        return {**facts, "problem": "its config cannot be read, so what should be there is not known"}
    # a part is built from its own section alone: a folder that lacks another part can be looked into too
    config: Any = SimpleNamespace(**sections)
    if frameworks.default() is None:
        return {**facts, "problem": f"{_NO_FRAMEWORK} ({' or '.join(frameworks.FRAMEWORKS.values())})"}

    from sampan.checkpoint.expected import differences, expected_shapes  # here, because it loads a framework

    different = differences(expected_shapes(part, config), found)
    return facts | {
        "missing": list(different.missing),
        "unexpected": list(different.unexpected),
        "wrong_shape": [
            {"name": name, "found": list(shape), "expected": list(wanted)}
            for name, (shape, wanted) in different.wrong_shape.items()
        ],
    }


def _own(path: Path) -> dict[str, Any]:
    try:
        return own_file.read(path)
    except CheckpointError:
        return {}  # already among the problems: the geometry is read from the same file


def _files(path: Path, recorded: dict[str, str]) -> list[dict[str, Any]]:
    """Return every weight file, and those recorded when the folder was written, be they gone."""
    names = {name for name in recorded if (path / name).is_file()} | {
        file.relative_to(path).as_posix()
        for part in PARTS.values()
        for file in (path / part.folder).glob("*.safetensors")
        if file.is_file()
    }
    facts = []
    for name in sorted(names | set(recorded)):
        if name not in names:
            facts.append({"path": name, "bytes": None, "sha256": None, "as_written": False})
            continue
        sha256 = weights.file_digest(path / name)
        as_written = recorded[name] == sha256 if name in recorded else None
        facts.append({"path": name, "bytes": (path / name).stat().st_size, "sha256": sha256, "as_written": as_written})
    return facts


def _run(path: Path) -> dict[str, Any]:
    """Return where a training has been: its stages in order, with the last step logged and the last one saved."""
    logged = read_log(path / "log.jsonl")
    folders = (entry.name for entry in (path / "stages").glob("*") if entry.is_dir())
    stages = {}
    for stage in dict.fromkeys([*logged, *sorted(folders)]):
        saved = run.steps(path, stage)
        facts = logged.get(stage, {"first_loss": None, "last_step": None, "last_loss": None})
        stages[stage] = {
            **facts,
            "last_saved": saved[-1].name if saved else None,
            "finished": run.final(path, stage) is not None,
            "sessions": _sessions(saved[-1]) if saved else [],
        }
    return {"finished": (path / "model").is_dir(), "stages": stages}


def _sessions(folder: Path) -> list[dict[str, Any]]:
    """Return who took the steps that led to a checkpoint, oldest first."""
    return [
        {**{key: entry.get(key) for key in _OF_A_SESSION}, "versions": versions_of(entry)}
        for entry in run.state_of(folder).get("history", ())
    ]


def _adapter_files(folder: Path) -> list[dict[str, Any]]:
    """Return the files with a run's LoRA adapters."""
    from sampan.checkpoint import lora  # here, because it loads model code, and with it a framework
    from sampan.models.lora import FACTORS

    facts = []
    for file in lora.find_files(folder):
        header = weights.read_header(file)
        firsts = {name: stored for name, stored in header.items() if name.endswith(FACTORS[0])}
        facts.append(
            {
                "path": file.relative_to(folder.parent).as_posix(),
                "bytes": file.stat().st_size,
                "sha256": weights.file_digest(file),
                "num_layers": len(firsts),
                "ranks": sorted({stored.shape[0] for stored in firsts.values()}),
                "num_parameters": sum(stored.num_elements for stored in header.values()),
                "as_written": _as_written(file),
            }
        )
    return facts


def _as_written(file: Path) -> bool | None:
    try:
        return lora_contents.check(file) or None
    except CheckpointError:
        return False


def _in_words(error: CheckpointError) -> str:
    return ": ".join([error.what, "; ".join(error.because)]) if error.because else error.what


def show(report: dict[str, Any], console: Any) -> None:
    """Print a report of `inspect` for people."""
    from rich.markup import escape
    from rich.table import Table

    def say(text: str) -> None:
        console.print(escape(text), soft_wrap=True, highlight=False)

    say(f"{report['folder']}: {_verdict(report)}")
    if report["run"]:
        table = Table("stage", "last step", "first loss", "last loss", "last saved", "finished")
        for name, stage in report["run"]["stages"].items():
            table.add_row(
                name,
                _or_dash(stage["last_step"]),
                _number(stage["first_loss"]),
                _number(stage["last_loss"]),
                _or_dash(stage["last_saved"]),
                "yes" if stage["finished"] else "no",
            )
        console.print(table)
        if any(stage["sessions"] for stage in report["run"]["stages"].values()):
            say("where it has been:")
            for line in _been(report["run"]["stages"]):
                say(f"  {line}")
    if report["parts"]:
        table = Table("part", "folder", "parameters", "size", "dtypes", "state")
        for name, part in report["parts"].items():
            dtypes = ", ".join(sorted(part["dtypes"]))
            sizes = format_count(part["num_parameters"]), format_bytes(part["bytes"])
            table.add_row(name, part["folder"], *sizes, dtypes, _state(part))
        table.add_section()
        table.add_row("all", "", format_count(report["num_parameters"]), format_bytes(report["bytes"]), "", "")
        console.print(table)
    for name, part in report["parts"].items():
        for line in _details(part):
            say(f"{name}: {line}")
    for problem in report["problems"]:
        say(problem)
    for file in report["lora"]["files"] if report["lora"] else ():
        ranks = ", ".join(map(str, file["ranks"]))
        size = f"{format_bytes(file['bytes']):>10}  {file['path']}"
        note = {True: ", as written", False: ", changed since it was written", None: ""}[file["as_written"]]
        say(f"{file['sha256']}  {size}  {file['num_layers']} layers of rank {ranks}{note}")
    for file in report["files"]:
        if file["sha256"] is None:
            say(f"{'missing':64}  {'':10}  {file['path']}")
            continue
        if file["as_written"] and not file["path"].endswith(weights.ENDING):
            continue  # of the small files only those are shown that differ
        note = {True: "as written", False: "changed since it was written", None: ""}[file["as_written"]]
        say(f"{file['sha256']}  {format_bytes(file['bytes']):>10}  {file['path']}  {note}".rstrip())
    if report["geometry"]:
        geometry = report["geometry"]
        say(
            f"geometry: {geometry['prior_px']} px per prior token, a preview of about {geometry['preview_side']} x "
            f"{geometry['preview_side']} tokens, {geometry['default_px']} px unless asked otherwise"
        )
    if report["painting"]:
        painting = report["painting"]
        say(f"guidance: {painting['guidance_scale']}, {painting['num_inference_steps']} steps, unless asked otherwise")
    if report["prompt"]:
        say(f"quotation marks of a prompt: {report['prompt']['quotation_marks']}")
    if report["knows"]:
        knows = report["knows"]
        languages = f" in {', '.join(knows['languages'])}" if knows["languages"] else ""
        examples = f"; such as {' · '.join(knows['examples'][:_EXAMPLES_SHOWN])}" if knows["examples"] else ""
        say(f"knows: {len(knows['subjects'])} subjects{languages}{examples}")
    if report["hash"]:
        say(f"hash: {report['hash']} (over configs, tokenizer, and the weights' {report['hash_covers']})")
    if report["written_by"]:
        say(f"written by: sampan {report['written_by']['sampan']}")


def _been(stages: dict[str, Any]) -> list[str]:
    """Return in lines where a run has been: stage, steps, what did the arithmetic, versions, machine, when."""
    rows = []
    for name, stage in stages.items():
        for number, session in enumerate(stage["sessions"]):
            versions, machine = session["versions"], session["machine"] or {}
            steps = f"{session['from_step'] + 1}-{session['to_step']}"
            ranks = f", {session['ranks']} ranks" if (session["ranks"] or 1) > 1 else ""
            software = [f"{package} {versions[package]}" for package in _SOFTWARE if versions.get(package)]
            rest = [
                in_words(place_of(session)) + ranks,
                ", ".join(software),
                ", ".join(filter(None, (machine.get("host"), machine.get("processor")))),
                _span(session["started"], session["ended"]),
            ]
            rows.append(("" if number else name, steps, " · ".join(filter(None, rest))))
    names, steps = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    return [f"{stage:<{names}}  {taken:>{steps}}  {rest}" for stage, taken, rest in rows]


def _span(started: str | None, ended: str | None) -> str:
    """Return when a session was, as "2026-11-23 18:04:05 to 18:09:30": the day once where it is the same."""
    if not started or not ended:
        return ""
    (day, begun), (last_day, over) = (when.split("+")[0].split("T") for when in (started, ended))
    return f"{day} {begun} to {over}" if day == last_day else f"{day} {begun} to {last_day} {over}"


def _verdict(report: dict[str, Any]) -> str:
    if report["lora"]:
        return f"low-rank additions to `{report['lora']['model']}`"
    if report["run"] and not report["run"]["finished"]:
        return "a training that is not finished"
    kind = "the model of a finished training" if report["run"] else "a model"
    return f"{kind}, whole" if report["complete"] else f"{kind} that cannot be run as it is"


def _state(part: dict[str, Any]) -> str:
    if part["problem"]:
        return "not compared" if part["problem"].startswith(_NO_FRAMEWORK) else "broken"
    counts = {kind: len(part[key]) for key, kind in _KINDS.items() if part[key]}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "whole"


def _details(part: dict[str, Any]) -> list[str]:
    lines = [part["problem"]] if part["problem"] else []
    for key, kind in _KINDS.items():
        if part[key]:
            names = [
                f"{item['name']} {item['found']} instead of {item['expected']}" if isinstance(item, dict) else item
                for item in part[key][:_NAMES_SHOWN]
            ]
            more = len(part[key]) - _NAMES_SHOWN
            lines.append(f"{kind}: {', '.join(names)}" + (f" and {more} more" if more > 0 else ""))
    return lines


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"
