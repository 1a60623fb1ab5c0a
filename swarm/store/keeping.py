"""Model files on this device: what a path leads to, and what lies in the directory of models."""

from __future__ import annotations

from pathlib import Path

from swarm.errors import BadModelFile, ModelNotFound
from swarm.store.hub_names import hub_or_web
from swarm.store.split_names import split_paths


def kept_models(folder: Path) -> list[Path]:
    """The GGUF files in the directory of models, by name, the first one of each split model; it need not exist."""
    return [path for path in sorted(folder.glob("*.gguf")) if _is_first(path)] if folder.is_dir() else []


def _is_first(path: Path) -> bool:
    """False for a later file of a split model."""
    try:
        return split_paths(path)[0] == path
    except BadModelFile:
        return True


def file_at(text: str) -> Path | None:
    """The file that `text` is the path of; None for what can only be a name. Raise ModelNotFound for any other path."""
    try:
        path = Path(text).expanduser()
        if path.exists() and not path.is_dir():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, no permission, ~nobody, a zero byte
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelNotFound(f"{text[:200]!r} is not a path that can be read ({reason})") from error
    if not is_path(text):
        return None
    if path.is_dir():
        raise ModelNotFound(what_a_directory_holds(path))
    raise ModelNotFound(f"there is no file {text}; give the path of a GGUF file, or the name of a model")


def is_path(text: str) -> bool:
    """True for what can be no model's name, nor where one lies on the hub or the web."""
    if text in ("", ".", "..") or text.startswith(("/", "./", "../", "~")):
        return True
    return "/" in text and hub_or_web(text) is None


def what_a_directory_holds(folder: Path) -> str:
    """What to tell somebody who named a directory."""
    files = [path.name for path in kept_models(folder)]
    inside = f"it holds {', '.join(files[:4])}" if files else "and it holds no .gguf file"
    return f"{folder} is a directory; name one GGUF file ({inside})"
