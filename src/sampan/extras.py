"""The optional packages: which extra of this project brings each, and what is said where one is missing or broken.

An extra is what stands in brackets in `pip install 'sampan[hub]'`; pyproject.toml says which versions it takes. Nothing
here loads a package before it is asked to.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from importlib import import_module

from sampan.errors import SampanError

EXTRAS = {
    "torch": ("torch",),
    "mindspore": ("mindspore", "ml_dtypes"),
    "tensorflow": ("tensorflow",),
    "data": ("emoji", "uharfbuzz"),
    "hub": ("pyarrow", "datasets"),
    "logs": ("matplotlib", "tensorboard"),
    "wandb": ("wandb",),
    "serve": ("fastapi", "uvicorn", "python_multipart", "prometheus_client"),
}
"""By extra: the packages that sampan imports of it, as Python names them."""
_PARTS = {
    "pyarrow": ("pyarrow.compute", "pyarrow.ipc", "pyarrow.parquet"),
    "matplotlib": ("matplotlib.backends.backend_agg", "matplotlib.figure"),
    "tensorboard": ("tensorboard.compat.proto.event_pb2", "tensorboard.summary.writer.record_writer"),
}
"""By package: what is used of it and does not come with the package itself."""
_DISTRIBUTIONS = {"tensorflow": ("tensorflow", "tensorflow-cpu")}  # where a package has several names on the index
_NEWEST_PYTHON = {"mindspore": (3, 12)}  # MindSpore 2.10 has builds up to this one
# what an import raises that finds a library missing, or compiled for another version of NumPy
_FAILURES = (ImportError, OSError, AttributeError, RuntimeError, SystemError, TypeError, ValueError)


def install(*extras: str) -> str:
    """Return the command that installs extras, and what it needs where this Python is too new for one."""
    command = f"pip install 'sampan[{','.join(extras)}]'"
    newest = min((_NEWEST_PYTHON[name] for name in extras if name in _NEWEST_PYTHON), default=sys.version_info[:2])
    if newest >= sys.version_info[:2]:
        return command
    here, there = (".".join(map(str, version)) for version in (sys.version_info[:2], newest))
    return f"{command} on Python {there}: there is no build for {here}"


def is_installed(package: str) -> bool:
    """Say whether a package lies on Python's path, without loading it; a folder that merely has its name is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def version(package: str) -> str | None:
    """Return the version of an installed package, or None where it is not installed."""
    import importlib.metadata  # here, because it takes a tenth of what `sampan --help` does

    for distribution in _DISTRIBUTIONS.get(package, (package,)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def require(extra: str, *packages: str, failed: str, error: type[SampanError], otherwise: Iterable[str] = ()) -> None:
    """Import packages of an extra, and what is used of them, so that a plain import works afterwards.

    Args:
        packages: Those of EXTRAS, or modules that import one of them.
        failed: What cannot be done without them, as the first line of the error.
        error: The kind of error that is raised.
        otherwise: What else the user can do than install something.

    Raises:
        SampanError: Of the kind `error`: one is missing, or is there and cannot be imported.
    """
    for module in (part for package in packages for part in (package, *_PARTS.get(package, ()))):
        package = module.partition(".")[0]
        try:
            if package not in sys.modules and not is_installed(package):  # a folder of that name would be imported
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
            import_module(module)
        except _FAILURES as problem:
            because, hint = _explain(extra, module, problem)
            raise error(failed, because, " or ".join([hint, *otherwise])) from problem


def problem_of(extra: str) -> str | None:
    """Import all that sampan uses of an extra; return in words why that fails and what to do, or None."""
    try:
        require(extra, *EXTRAS[extra], failed="", error=SampanError)
    except SampanError as error:
        return f"{'; '.join(error.because)} ({error.hint})"
    return None


def _explain(extra: str, module: str, problem: BaseException) -> tuple[tuple[str, ...], str]:
    """Return why an import failed, with versions, and what to do."""
    if isinstance(problem, ModuleNotFoundError):
        return (f"the package `{problem.name}` is missing",), install(extra)
    # in one line: some packages explain at length what others were compiled with
    said = " ".join(str(problem).split())
    packages = [*EXTRAS[extra], "numpy"]  # compiled packages have to agree with NumPy
    versions = [f"{package} {number}" for package in packages if (number := version(package))]
    # what is asked for together is chosen to go together: the command has to name the frameworks that are here too
    here = [name for name in ("torch", "mindspore") if name != extra and is_installed(name)]
    return (
        f"importing {module} failed: {type(problem).__name__}: {said[:500]}",
        f"here are {', '.join(versions)}, Python {'.'.join(map(str, sys.version_info[:3]))}",
    ), f"{install(*here, extra)} brings versions that go together"
