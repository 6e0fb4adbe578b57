"""What TensorFlow sees of this machine: its version, its threads, and the devices that it may have."""

from __future__ import annotations

import warnings
from typing import Any

import tensorflow as tf

from sampan.bench.tensorflow import device as dev


def probe() -> dict[str, Any]:
    """Return plain values: `version`, `cuda` (whether it was built for it: its version, or None), `threads`, `devices`, and
    `notes` (what is to be known about what was seen).

    A device has the keys of the other frameworks' probes; None is what is not told. The CPU's memory is the machine's and
    is left to the caller. Nothing is computed, so that the number of threads can still be set afterwards.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build = tf.sysconfig.get_build_info()
        others = [found.name for found in tf.config.list_physical_devices() if found.device_type != "CPU"]
    if others:
        notes.append(f"TensorFlow sees {', '.join(others)}; sampan uses it on the CPU only")
    notes += [str(warning.message).strip().splitlines()[0] for warning in caught]
    facts = dict.fromkeys(("name", "capability", "memory_bytes", "free_bytes", "bf16"))
    return {
        "version": tf.__version__,
        "cuda": build.get("cuda_version"),
        "threads": dev.set_threads(None),
        "devices": [{"device": kind, **facts, "dtype": dev.resolve_dtype("auto", kind)} for kind in dev.available()],
        "notes": list(dict.fromkeys(notes)),
    }
