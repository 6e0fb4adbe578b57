"""The hashes that a LoRA file of sampan carries: of its own tensors and settings, and of the config that lies beside it.

They stand in the header's `sampan`, which diffusers and PEFT do not look at, as `contents` and `config`; that JSON has a
checksum of its own. A file of another tool, or of sampan before there were such hashes, has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sampan import documents
from sampan.checkpoint import sealed, weights
from sampan.checkpoint.json_files import read_json
from sampan.checkpoint.lora_settings import CONFIG_FILE, PEFT_FILE, PROVENANCE_KEY
from sampan.errors import BadDocumentError, CheckpointError

_KEY, _CONFIG_KEY = "contents", "config"


def provenance(file: Path, facts: Mapping[str, Any]) -> str:
    """Return the text of the header's `sampan` for a file whose tensors, settings and config are written already."""
    hashes = {_KEY: _hash(file, weights.read_metadata(file))}
    if file.name == PEFT_FILE:
        hashes[_CONFIG_KEY] = sealed.content_hash(read_json(file.parent / CONFIG_FILE))
    return json.dumps(sealed.seal({**facts, **hashes}))


def check(file: Path) -> bool:
    """Check a LoRA file against the hash in its header, and say whether it has one.

    Raises:
        CheckpointError: It, or the config beside it, is not what was written.
    """
    metadata = weights.read_metadata(file)
    text = metadata.get(PROVENANCE_KEY)
    if text is None:
        return False
    try:
        facts = documents.parse_json(text)
    except BadDocumentError:
        facts = None
    if not isinstance(facts, dict):
        raise _changed(file, f"`{PROVENANCE_KEY}` in its header cannot be read")
    if _KEY not in facts and not sealed.is_sealed(facts):
        return False
    if problem := sealed.defect(facts, required=True):
        raise _changed(file, f"`{PROVENANCE_KEY}` in its header: {problem}")
    if facts.get(_KEY) != _hash(file, metadata):
        raise _changed(file, "its tensors or its settings are not those of the hash in its header")
    config = file.parent / CONFIG_FILE
    if _CONFIG_KEY in facts and config.is_file() and facts[_CONFIG_KEY] != sealed.content_hash(read_json(config)):
        raise _changed(file, f"`{CONFIG_FILE}` beside it is not that of the hash in its header")
    return True


def _hash(file: Path, metadata: Mapping[str, str]) -> str:
    settings = {key: text for key, text in metadata.items() if key != PROVENANCE_KEY}
    return sealed.content_hash({"settings": settings, "tensors": weights.tensor_digests(file)})


def _changed(file: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"the LoRA `{file}` is not the one that was written",
        why,
        "copy it again, or let `sampan train JOB --resume` write it again; if a tool changed it on purpose, take "
        f"`{PROVENANCE_KEY}` out of its header",
    )
