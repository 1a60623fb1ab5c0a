"""`swarm pull`: fetch a model from the hub or the web, and verify it."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from swarm import config
from swarm.cli import import_, local, pulling
from swarm.cli.progress import ProgressBar
from swarm.cli.terminal import harmless, note
from swarm.errors import ConfigError, ModelNotFound
from swarm.units import size_text

HELP = """Fetch a model: by a name of the table, from a repository of the hub, or from an address of the web.

What was cut off goes on where it stopped. HF_TOKEN opens repositories that want a login, HF_ENDPOINT names a mirror,
HF_HUB_OFFLINE=1 asks nobody."""
EXAMPLES = """\
  swarm pull                                       the table of names
  swarm pull glm-4-9b                              the best quant that fits the memory here
  swarm pull qwen3-8b:Q5_K_M                       that quant
  swarm pull hf.co/unsloth/GLM-Z1-9B-0414-GGUF:Q4_K_M
  swarm pull bartowski/Qwen_Qwen3-4B-GGUF          USER/REPO is enough
  swarm pull https://example.org/models/my-model.gguf
  swarm pull /media/usb                            all models of a stick, as swarm import
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a name of the table, USER/REPO or hf.co/USER/REPO with :QUANT or :FILE.gguf behind it where you want a "
        "certain one, the https address of a GGUF file, or a file or folder; without it, the table is shown",
    )
    parser.add_argument("--revision", metavar="REV", help="a commit, branch or tag of the repository (the newest)")
    parser.add_argument(
        "--here", action="store_true", help="as one file on this device, also where several could each bring a part"
    )
    parser.add_argument("--home", metavar="DIR", help="of this device's node, when several run here")


def run(args: argparse.Namespace) -> int:
    if args.model is None:
        print("\n".join(table()))
        return 0
    settings = config.load({"home": args.home})
    lying = path_of(args.model)
    if lying is not None:
        return import_.copy_models([lying], settings)
    node = local.find(settings)
    told = together(args.model, node) if node is not None and not args.here and args.revision is None else ""
    if told:
        print(told)
        return 0
    try:
        path = pull(args.model, args.revision, settings)
    except KeyboardInterrupt:
        note("swarm: stopped; what has come is kept, and the same command goes on there")
        raise
    size = sum(part.stat().st_size for part in _files(path))
    print(f"{harmless(args.model)} is here and verified: {path} ({size_text(size)})")
    if node is not None:
        offered = node.post("/swarm/models", {"path": str(path)}, local.IMPORT_S)
        print(f"the swarm has it as {harmless(str(offered['name']))}")
    return 0


def path_of(text: str) -> Path | None:
    """The file or folder of this device that a text means; a bare word means a model, whatever lies under that name."""
    from swarm.store.keeping import file_at

    if os.sep in text and Path(text).is_dir():
        return Path(text)
    return Path(text) if file_at(text) is not None else None


def together(text: str, node: local.LocalNode) -> str:
    """Have the devices of the swarm bring the model, each its own part; say what became of that.

    "" where one device is enough, or the model does not lie on the hub.
    """
    from swarm.store.fetching import DOWNLOADS
    from swarm.store.naming import remote_of

    if text.lower() in DOWNLOADS or remote_of(text) is None:
        return ""
    try:
        model = node.post("/swarm/model", {"model": text}, local.IMPORT_S)
        return f"the swarm has it already, as {harmless(str(model['name']))}"
    except ModelNotFound:
        pass
    with ProgressBar() as bar:
        model_id = pulling.bring_together(node, text, bar)
    return f"{harmless(text)} is in the swarm and verified; `swarm list` shows where" if model_id else ""


def pull(text: str, revision: str | None, settings: config.Settings) -> Path:
    """Have the model that a text means; raise SwarmError."""
    from swarm.store.fetching import DOWNLOADS, fetch
    from swarm.store.hub_names import HubName
    from swarm.store.naming import no_model, remote_of

    with ProgressBar() as bar:
        download = DOWNLOADS.get(text.lower())
        if download is not None and revision is None:
            return fetch(download, settings.models_path, bar)
        remote = remote_of(text)
        if remote is None:
            raise ModelNotFound(no_model(text, settings.models_path))
        if revision is not None:
            if not isinstance(remote, HubName):
                raise ConfigError("--revision needs a repository: swarm pull USER/REPO --revision REV")
            remote = replace(remote, revision=revision)
        return pulling.bring(remote, settings, bar)


def table() -> list[str]:
    """The models that have names, those that run first."""
    from swarm.store.model_table import TABLE

    width = max(len(model.name) for model in TABLE)
    rows = [
        f"  {model.name:<{width}}  {size_text(model.q4_bytes):>8}  {model.context:>7,}  {model.licence:<15}"
        f"  {model.repositories[0]}"
        for model in TABLE
        if model.runs
    ]
    others = [f"{model.name} ({model.architecture})" for model in TABLE if not model.runs]
    head = f"  {'name':<{width}}  {'Q4_K_M':>8}  {'context':>7}  {'licence':<15}  first place that is asked"
    refused = [f"known, and of a kind that Swarm does not run: {', '.join(others)}"] if others else []
    return [head, *rows, *refused, "any other GGUF repository of the hub: swarm pull hf.co/USER/REPO[:QUANT]"]


def _files(path: Path) -> list[Path]:
    from swarm.store.split_names import split_paths

    return split_paths(path)
