"""The files of a checkpoint from the hub, for `swarm convert`: into a folder, verified, what has come is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from swarm.errors import DownloadError, ModelNotFound
from swarm.files import check_space, disk_errors, locked
from swarm.store import hub
from swarm.store.download import download
from swarm.store.fetching import StepProgress, file_sha256
from swarm.store.hub_names import HubName
from swarm.store.kept_pieces import KeptPieces
from swarm.store.variants import RepoFile
from swarm.store.web_file import Web, WebFile

# What a conversion reads beside the weights; all of it at the top of the repository.
TEXT_FILES = frozenset(
    {"config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"}
    | {"chat_template.jinja", "chat_template.json", "added_tokens.json", "special_tokens_map.json"}
)
_WEIGHTS = re.compile(r"(model(-\d{5}-of-\d{5})?)\.safetensors")
REMEDY = "free some space, or set models_dir to another disk"


def get_checkpoint(
    name: HubName, folder: Path, web: Web, progress: StepProgress, judge: Callable[[Path], None]
) -> Path:
    """Have a repository's checkpoint in a folder of its own below `folder`; return that.

    judge: is shown the folder when it has all but the weights; it raises ModelError for what cannot be converted.
    Raise DiskFull before the first byte of weights, DownloadError; what has come is kept for the next time.
    """
    progress("Looking what there is", 0, 0)
    repository = hub.repository(web, name)
    text, weights = wanted_files(repository.name, repository.files)
    source_of = partial(hub.file_of, web, repository.name, repository.commit)
    target = folder / repository.name.replace("/", "_")
    with disk_errors(folder, "models_dir"):
        target.mkdir(parents=True, exist_ok=True)
        lock = folder / f".{target.name}.lock"
        with locked(lock, waiting=lambda: progress("Waiting for another swarm that is downloading", 0, 0)):
            for file in text:
                _bring(source_of(file), target / file.name, file, progress)
            judge(target)
            missing = sum(file.n_bytes for file in weights if not is_whole(target / file.name, file, quick=True))
            check_space(target, missing, REMEDY)
            for number, file in enumerate(weights, 1):
                what = f"Downloading {number} of {len(weights)}"
                _bring(source_of(file), target / file.name, file, progress, what)
    return target


def wanted_files(place: str, files: Sequence[RepoFile]) -> tuple[list[RepoFile], list[RepoFile]]:
    """What a conversion reads: small files, and weights. ModelNotFound for a repository without a checkpoint."""
    text = [file for file in files if file.path in TEXT_FILES and file.n_bytes]
    weights = [file for file in files if _WEIGHTS.fullmatch(file.path) and file.n_bytes]
    if not weights or not any(file.path == "config.json" for file in text):
        has_gguf = any(file.path.lower().endswith(".gguf") for file in files)
        hint = f"; it has model files: `swarm pull {place}`" if has_gguf else ""
        raise ModelNotFound(f"{place} has no checkpoint (config.json and model.safetensors){hint}")
    return text, weights


def is_whole(path: Path, file: RepoFile, *, quick: bool = False) -> bool:
    """Whether the file is here. Its hash is compared where the hub tells one; `quick`: only its size."""
    if not path.is_file() or path.stat().st_size != file.n_bytes:
        return False
    return quick or not file.sha256 or file_sha256(path, lambda done: None) == file.sha256


def _bring(source: WebFile, path: Path, file: RepoFile, progress: StepProgress, what: str = "") -> None:
    if is_whole(path, file, quick=bool(what)):  # what got its name was verified; small files may have changed
        return
    pieces = KeptPieces(path, file.n_bytes, file.sha256 or source.url)
    try:
        told = what or "Reading what the model is"
        download(
            source,
            pieces,
            lambda done, total: progress(told, done, total),
            lambda why: progress(f"{why[:1].upper()}{why[1:]}", 0, 0),
        )
        actual = pieces.sha256(lambda done, total: progress("Verifying", done, total))
        if file.sha256 and actual != file.sha256:
            pieces.discard()
            raise DownloadError(
                f"{file.path}: what came has SHA-256 {actual[:12]}..., and the hub says {file.sha256[:12]}...; it was "
                "thrown away: try again, and if that happens twice, take another repository"
            )
        pieces.publish()
    finally:
        pieces.close()
