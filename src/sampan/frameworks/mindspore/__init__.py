"""The seam on MindSpore, for CPU and Ascend.

Importing the package sets what MindSpore reads once, at its own import: only errors are logged, and what a failed compilation
writes goes to the system's folder for temporary files instead of the current one. Both give way to what the user has set.
"""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("MS_OM_PATH", tempfile.gettempdir())
