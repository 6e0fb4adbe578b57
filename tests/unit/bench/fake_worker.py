"""Speaks as sampan.bench.worker does and computes nothing: python fake_worker.py BEHAVIOUR FRAMEWORK.

Behaviours: `right`, `slow`, `wrong` (a gradient), `missing` (a gradient), `nan`, `skipped`, `dies`, `refuses`, `elsewhere`
(on another device), and `noisy` (writes to its own stdout's neighbour, stderr).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

SECONDS = {"slow": 0.4}


def answer(behaviour: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a request."""
    match request["do"]:
        case "describe":
            device = "npu" if behaviour == "elsewhere" else "cpu"
            facts = {"version": "1.0", "device": device, "device_name": None, "dtype": "fp32", "threads": 1}
            return {**facts, "dtype": facts["dtype"]}
        case "load":
            assert request["compiled"] in (True, False) and request["seed"] == 0
            if behaviour == "refuses":
                return {"error": {"what": "this cannot be loaded", "because": ["it is a test"], "hint": "try another"}}
            return {"num_parameters": 12}
        case "step":
            if behaviour == "dies":
                sys.exit("out of memory, or something like it")
            if "gradients" in request:
                assert request["lr"] == 0
                gradients = {"layer.weight": np.arange(12.0).reshape(3, 4), "layer.bias": np.ones(3)}
                if behaviour == "wrong":
                    gradients["layer.weight"][2, 3] += 0.5
                if behaviour == "nan":
                    gradients["layer.bias"][0] = np.nan
                if behaviour == "missing":
                    del gradients["layer.bias"]
                np.savez(request["gradients"], **gradients)
            seconds = SECONDS.get(behaviour, 0.2)
            return {"loss": 2.0, "skipped": behaviour == "skipped", "seconds": seconds, "cpu_seconds": seconds / 2}
        case "evaluate":
            return {"loss": 2.0, "seconds": 0.1, "cpu_seconds": 0.1}
        case "memory":
            return {"peak_rss_bytes": 2**30, "peak_device_bytes": None}
        case "flops":
            return {"forward_flops": 10**9, "step_flops": 3 * 10**9}
        case "rate":
            return {"flops_per_s": 10**11}
    raise ValueError(request["do"])


def main(behaviour: str) -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(behaviour, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
