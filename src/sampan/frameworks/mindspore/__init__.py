"""The framework interface on MindSpore, for CPU and Ascend.

Importing the package sets what MindSpore reads once, at its own import: only errors are logged; what a failed compilation
writes goes to the system's folder for temporary files instead of the current one; and ranks wait for one another as long as
rank 0 may take to encode pictures or to draw a grid (30 s is MindSpore's own limit on a CPU, half an hour HCCL's). All of it
gives way to what the user has set.
"""

from __future__ import annotations

import os
import tempfile

import numpy as np

if int(np.__version__.partition(".")[0]) >= 2:
    # MindSpore 2.10 imports all the same, and raises SystemError at its first product: findings/mindspore-numpy2.sh
    raise ImportError(f"MindSpore is compiled for NumPy 1, and NumPy {np.__version__} is here")
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("MS_OM_PATH", tempfile.gettempdir())
os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", "7200")  # seconds
os.environ.setdefault("HCCL_EXEC_TIMEOUT", "17340")  # seconds; the most it takes
