"""Models by their names on the Hugging Face Hub, as `zai-org/GLM-Image`: found in the local cache, downloaded if allowed.

    $HF_HUB_CACHE/models--OWNER--NAME/       or $HF_HOME/hub, or ~/.cache/huggingface/hub
        refs/main                            the commit that a branch or tag was at
        snapshots/COMMIT/…                   the folder itself; its files are links to those in blobs/
        blobs/

`hf download OWNER/NAME` and every library of the Hub write that layout, which is documented, so that it is read here without
any of them. A download needs the package `huggingface_hub`. Nothing of a name that is also a folder here is looked up.
Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sampan.errors import CheckpointError
from sampan.models.build import PARTS
from sampan.units import format_bytes

_NAME = re.compile(r"(?P<owner>\w[\w.-]{0,95})/(?P<name>\w[\w.-]{0,95})(?:@(?P<revision>\w[\w./-]{0,250}))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FOLDERS = ("processor", "scheduler", "tokenizer", *dict.fromkeys(part.folder for part in PARTS.values()))
# what a model of the layout is made of, and nothing that loading could run
_WANTED = ("model_index.json", "sampan.json", "README.md", "LICENSE*", *(f"{folder}/*" for folder in _FOLDERS))
_UNWANTED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5", "*.onnx")
_FIRST_WITHOUT_ASKING = "--download fetches it without asking"


@dataclass(frozen=True)
class HubName:
    """A model on the Hub.

    Args:
        revision: Branch, tag or commit; None for `main`.
    """

    owner: str
    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")

    @property
    def repository(self) -> str:
        """Owner and name."""
        return f"{self.owner}/{self.name}"

    @property
    def command(self) -> str:
        """The command that downloads it, from anywhere."""
        return f"hf download {self.repository}" + (f" --revision {self.revision}" if self.revision else "")


def parse(path: Path | str) -> HubName | None:
    """Return the name on the Hub that a word can be, or None where it is none: a path that is there, or below one that is."""
    text = path.as_posix() if isinstance(path, Path) else path
    match = _NAME.fullmatch(text)
    if match is None or ".." in text or Path(text).exists() or Path(match["owner"]).is_dir():
        return None
    return HubName(match["owner"], match["name"], match["revision"])


def cache_folder() -> Path:
    """Return where the Hub's libraries keep what they downloaded, by the variables that they read."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    home = _expanded(os.environ.get("HF_HOME")) or usual
    return _expanded(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")) or home / "hub"


def cached(name: HubName) -> Path | None:
    """Return the folder of a model in the cache, or None. Whether it is whole is seen when it is opened."""
    repository = cache_folder() / f"models--{name.owner}--{name.name}"
    revision = name.revision or "main"
    commit = revision if _COMMIT.fullmatch(revision) else _commit_of(repository, revision)
    folder = None if commit is None else repository / "snapshots" / commit
    return folder if folder is not None and folder.is_dir() else None


def name_of(folder: Path) -> str | None:
    """Return the name on the Hub of a folder in a cache, or None for another folder."""
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/", 1)


def pinned(path: Path) -> str | None:
    """Return the name on the Hub with the commit that is cached, which stays the same model when the branch goes on."""
    name = parse(path)
    folder = None if name is None else cached(name)
    return f"{name.repository}@{folder.name}" if name and folder else None


def find(path: Path) -> Path:
    """Return the cached folder of a model that is named by its name on the Hub; every other path itself."""
    name = parse(path)
    return path if name is None else cached(name) or path


def not_here(name: HubName, *because: str, hint: str | None = None) -> CheckpointError:
    """Return the error for a model of the Hub that is not in the cache."""
    facts = (f"there is no such folder, and no such model in the Hub's cache `{cache_folder()}`", *because)
    fetch = f"`{name.command}` fetches it"
    return CheckpointError(f"the model `{name}` is not on this machine", facts, f"{fetch}; {hint}" if hint else fetch)


def download(name: HubName, *, ask: Callable[[str], bool] | None, say: Callable[[str], None], show_bars: bool) -> Path:
    """Download a model into the cache, after its size and licence were said, and return its folder.

    Args:
        ask: Asked with a question, whether to go on; None goes on.
        say: Takes lines for people.
        show_bars: Let the library draw its bars on stderr.

    Raises:
        CheckpointError: It cannot be reached, is no such model, or is not wanted; nothing is kept but whole files.
    """
    hub = _library(name)
    by_hand = "do that on a machine that has a connection, and copy its cache here"
    try:
        info = hub.HfApi().model_info(name.repository, revision=name.revision, files_metadata=True)
        files = {file.rfilename: file.size or 0 for file in info.siblings or () if _is_wanted(file.rfilename)}
    except Exception as error:  # the library's errors and those of what it speaks HTTP with have no common root
        raise not_here(name, f"the Hub was asked: {_first_line(error)}", hint=by_hand) from error
    if "model_index.json" not in files:
        raise CheckpointError(
            f"`{name}` is not a model that sampan runs",
            "it has no model_index.json, as folders in the layout of the GLM-Image release have",
            "nothing was downloaded; check the name",
        )
    total_bytes, folder = sum(files.values()), cache_folder()
    say(f"{name}: {len(files)} files, {format_bytes(total_bytes)}, licence {_licence(info)}; they go to {folder}")
    _check_room(name, folder, total_bytes)
    if ask is not None and not ask(f"Download {format_bytes(total_bytes)}?"):
        raise not_here(name, "it was not to be downloaded", hint=_FIRST_WITHOUT_ASKING)
    from huggingface_hub import utils

    was_off = utils.are_progress_bars_disabled()
    try:
        if not show_bars:
            utils.disable_progress_bars()
        return Path(
            hub.snapshot_download(
                name.repository, revision=name.revision, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED)
            )
        )
    except Exception as error:  # as above
        raise CheckpointError(
            f"the download of `{name}` did not end well",
            _first_line(error),
            "call again: what is whole stays, the rest is fetched",
        ) from error
    finally:
        if not show_bars and not was_off:
            utils.enable_progress_bars()


def fetch(path: Path | str, *, allowed: bool, console: Any) -> None:
    """See to it that a model which is named by its name on the Hub is in the cache; other paths are left alone.

    On a terminal one that is not there is asked about; elsewhere `allowed` decides.

    Args:
        allowed: Download without asking. What an earlier download left out is then fetched too.
        console: A rich console on stderr, for what is said.

    Raises:
        CheckpointError: It is not there and is not downloaded.
    """
    name = parse(path)
    if name is None:
        return
    folder = cached(name)
    if folder is not None and (not allowed or is_whole(folder)):
        return
    is_asked = not allowed and sys.stdin is not None and sys.stdin.isatty() and console.is_terminal

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    def ask(question: str) -> bool:
        console.print(f"{question} [y/N] ", end="", markup=False, highlight=False)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    if not allowed and not is_asked:
        raise not_here(name, hint="or pass --download")
    download(name, ask=ask if is_asked else None, say=say, show_bars=console.is_terminal and not console.quiet)


def is_whole(folder: Path) -> bool:
    """Say whether a cached folder has the files of every part."""
    from sampan.checkpoint import weights

    try:
        for part in PARTS.values():
            weights.weight_files(folder / part.folder, part.weights)
    except CheckpointError:
        return False
    return (folder / "model_index.json").is_file() and (folder / "processor" / "tokenizer.json").is_file()


def _library(name: HubName) -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise not_here(
            name,
            f"downloading needs the package `{error.name}`, which is missing",
            hint="or pip install 'sampan[hub]' and pass --download",
        ) from error
    return huggingface_hub


def _commit_of(repository: Path, revision: str) -> str | None:
    """Return the commit that a branch or tag was at; a commit by its first digits is found too."""
    if ".." in revision:
        return None
    reference = repository / "refs" / revision
    try:
        if reference.is_file():
            commit = reference.read_text(encoding="utf-8").strip()
            return commit if _COMMIT.fullmatch(commit) else None
        alike = [entry.name for entry in (repository / "snapshots").glob(f"{revision}*") if len(revision) >= 7]
    except (OSError, UnicodeDecodeError):
        return None
    return alike[0] if len(alike) == 1 and re.fullmatch(r"[0-9a-f]+", revision) else None


def _check_room(name: HubName, folder: Path, total_bytes: int) -> None:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < total_bytes:
        raise CheckpointError(
            f"`{name}` cannot be downloaded",
            f"it takes {format_bytes(total_bytes)}, and {format_bytes(free_bytes)} are free at `{there}`",
            "make room, or set HF_HOME to a folder on another disk",
        )


def _is_wanted(file: str) -> bool:
    return _matches(file, _WANTED) and not _matches(file, _UNWANTED)


def _matches(file: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


def _licence(info: Any) -> str:
    card = getattr(info, "card_data", None)
    stated = getattr(card, "license", None) or getattr(card, "license_name", None)
    tags = [tag.removeprefix("license:") for tag in getattr(info, "tags", None) or () if tag.startswith("license:")]
    return str(stated or ", ".join(tags) or "not stated")


def _expanded(text: str | None) -> Path | None:
    return Path(os.path.expandvars(text)).expanduser() if text else None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
