"""Models from the hub and the web: from what somebody asked for to files that are whole, verified and in place.

    look(...)   asks the hub what there is, reads the header of what suits best, and decides which quant to take
    get(...)    checks the disk, brings the files piece by piece, verifies them, and gives them their names

Nothing of the weights is asked for before the header was read and found to be of a model that runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.errors import DownloadError, ModelNotFound, UnsupportedQuant
from swarm.files import check_space, disk_errors, locked
from swarm.limits import FIRST_HEADER_BYTES
from swarm.store import hub, origins
from swarm.store.download import download
from swarm.store.fetching import StepProgress, file_sha256
from swarm.store.gguf_header import GGUFTensor
from swarm.store.gguf_metadata import Metadata
from swarm.store.hub_names import HubName, WebAddress
from swarm.store.kept_pieces import KeptPieces, kept_beginning
from swarm.store.model_table import NamedModel, refuse_unless_run
from swarm.store.origins import Origin, Remote
from swarm.store.remote_gguf import RemoteGGUF, RemotePart, read_remote
from swarm.store.variants import RepoFile, Variant, by_preference, label_of, of_file, of_quant, variants, what_there_is
from swarm.store.web_file import Web, WebFile
from swarm.units import size_text

Judge = Callable[[Metadata, Mapping[str, GGUFTensor]], int]

REMEDY = "free some space, or set models_dir to another disk"


@dataclass(frozen=True)
class Room:
    """What a model may take where it will run. `judge` gives the bytes that a header's model needs beside its weights.

    It raises ModelError for a model that Swarm does not run.
    """

    memory_bytes: int
    where: str
    judge: Judge


@dataclass(frozen=True)
class Listing:
    """What a place offers."""

    place: str
    commit: str
    variants: tuple[Variant, ...]
    wanted: tuple[Variant, ...]  # what may be taken, best first
    is_named: bool  # somebody said which


@dataclass(frozen=True)
class Found:
    """A model that can be got: its files, and its header, which was read already."""

    listing: Listing
    variant: Variant
    header: RemoteGGUF
    need_bytes: int  # of memory, to run
    name: str = ""  # in the table

    @property
    def place(self) -> str:
        return self.listing.place

    def __str__(self) -> str:
        return f"{self.name or self.place.rpartition('/')[2]} {self.variant}"


# ---- what there is


def look(remote: Remote, web: Web, room: Room, *, must_fit: bool = True, folder: Path | None = None) -> Found:
    """Decide what to take of a model, and read its header; in `folder` may lie what came of it before.

    `must_fit`: where no quant is named and none fits, that is an error; otherwise the best is taken all the same.
    Raise UnsupportedModel and its like before anything large is asked, ModelNotFound, DownloadError.
    """
    if isinstance(remote, NamedModel):
        refuse_unless_run(remote)
    listing = list_place(remote, web)
    name = remote.row.name if isinstance(remote, NamedModel) else ""
    first = listing.wanted[0]
    header = _header_that_runs(listing, first, web, folder)
    beside = room.judge(header.metadata, header.tensors)
    if listing.is_named:
        return Found(listing, first, header, first.total_bytes + _growth(header) + beside, name)
    fitting = [variant for variant in listing.wanted if variant.total_bytes + beside <= room.memory_bytes]
    if not fitting and not must_fit:
        fitting = [first]
    if not fitting:
        smallest = min(listing.wanted, key=lambda variant: variant.total_bytes)
        raise DownloadError(
            f"{listing.place}: nothing fits {room.where}, which has {size_text(room.memory_bytes)} of memory for it; "
            f"the smallest, {smallest.label}, needs {size_text(smallest.total_bytes + beside)}. To have it all the "
            f"same, name a quant: {what_there_is(listing.variants)}"
        )
    if fitting[0] is not first:
        header = _header_that_runs(listing, fitting[0], web, folder)
        room.judge(header.metadata, header.tensors)
    return Found(listing, fitting[0], header, fitting[0].total_bytes + _growth(header) + beside, name)


def _growth(header: RemoteGGUF) -> int:
    """Bytes that a model has more in memory than in its file."""
    return sum(
        tensor.n_bytes // tensor.quant.block_bytes * (tensor.quant.packed_block_bytes - tensor.quant.block_bytes)
        for tensor in header.tensors.values()
    )


def list_place(remote: Remote, web: Web) -> Listing:
    """What the hub has under a name, or what an address is of. Raise ModelNotFound, DownloadError."""
    if isinstance(remote, WebAddress):
        parts = tuple(RepoFile(name, 0) for name in _split_names(remote.file_name))
        only = Variant(label_of(remote.file_name), parts)
        return Listing(remote.url, "", (only,), (only,), is_named=True)
    if isinstance(remote, HubName):
        return _list_repository(remote, web)
    refusals: list[str] = []
    for repository in remote.repositories:
        try:
            return _list_repository(repository, web)
        except (hub.NoSuchRepository, ModelNotFound) as error:
            refusals.append(str(error))
    raise ModelNotFound(f"{remote}: {'; '.join(refusals)}")


def header_of(listing: Listing, variant: Variant, web: Web, folder: Path | None = None) -> RemoteGGUF:
    """The header of a variant, read by ranges, and from what came of it before."""
    files = []
    for file in variant.files:
        if listing.commit:
            files.append((file.path, hub.file_of(web, listing.place, listing.commit, file)))
        else:
            files.append((file.path, WebFile(web, listing.place.rpartition("/")[0] + "/" + file.path)))
    if not listing.commit and len(files) == 1:
        files = [(variant.files[0].path, WebFile(web, listing.place))]

    def kept(number: int) -> bytes:
        file = variant.files[number]
        return kept_beginning(folder / file.name, file.sha256, FIRST_HEADER_BYTES) if folder and file.sha256 else b""

    return read_remote(listing.place, files, web, kept=kept)


def _header_that_runs(listing: Listing, variant: Variant, web: Web, folder: Path | None) -> RemoteGGUF:
    """The header; of one in a type that does not run, the error also says what else of the model there is."""
    try:
        return header_of(listing, variant, web, folder)
    except UnsupportedQuant as error:
        others = by_preference([other for other in listing.variants if other is not variant])
        if not others:
            raise
        raise UnsupportedQuant(f"{error}; {listing.place} also has {', '.join(map(str, others[:3]))}") from None


def _list_repository(name: HubName, web: Web) -> Listing:
    repository = hub.repository(web, name)
    found = variants(repository.files)
    if name.file:
        wanted = [of_file(name.file, found, repository.name)]
    elif name.quant:
        wanted = [of_quant(name.quant, found, repository.name)]
    else:
        wanted = by_preference(found)
    if not wanted:
        raise ModelNotFound(f"{repository.name}: {_nothing_to_take(repository.files, found)}")
    return Listing(repository.name, repository.commit, tuple(found), tuple(wanted), bool(name.file or name.quant))


def _nothing_to_take(files: Sequence[RepoFile], found: Sequence[Variant]) -> str:
    if found:
        return f"say which file, as in USER/REPO:FILE.gguf; {what_there_is(found)}"
    if any(file.name.endswith(".safetensors") for file in files):
        return "it holds safetensors and no GGUF file; look for a repository of the same name that ends with -GGUF"
    return "it holds no GGUF file of a model"


def _split_names(name: str) -> list[str]:
    """The names of all files of a model of which one is called so."""
    match = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})\.gguf", name, re.IGNORECASE)
    if match is None or not 1 <= int(match[2]) <= int(match[3]) <= 256:
        return [name]
    return [f"{match[1]}-{number:05d}-of-{match[3]}.gguf" for number in range(1, int(match[3]) + 1)]


# ---- bringing it


def get(found: Found, folder: Path, web: Web, progress: StepProgress) -> Path:
    """Have the files of a model in `folder`; the first one is returned. What came before is not asked for again.

    Raise DiskFull before the first byte, DownloadError; what has come is kept for the next time.
    """
    with disk_errors(folder, "models_dir"):
        folder.mkdir(parents=True, exist_ok=True)
        targets = target_paths(found, folder)
        lock = folder / f".{targets[0].name}.lock"
        with locked(lock, waiting=lambda: progress("Waiting for another swarm that is downloading", 0, 0)):
            _get_locked(found, targets, web, progress)
    return targets[0]


def target_paths(found: Found, folder: Path) -> list[Path]:
    """Where the files of a model go: by their own names, unless those say nothing or are taken by another model."""
    names = [file.name for file in found.variant.files]
    owner, _, repo = found.place.rpartition("/")
    if re.match(r"(ggml-)?model\b", names[0], re.IGNORECASE) and found.listing.commit:
        names = [f"{re.sub('-gguf$', '', repo, flags=re.IGNORECASE)}-{name}" for name in names]
    taken = [path for name in names if (path := folder / name).exists() and not _is_of(path, found)]
    prefix = f"{owner.rpartition('/')[2]}_" if taken else ""
    return [folder / f"{prefix}{name}" for name in names]


def is_here(found: Found, folder: Path) -> Path | None:
    """The first file, when all files are in `folder` and are those that would be fetched."""
    targets = target_paths(found, folder)
    whole = all(_is_whole(path, file) for path, file in zip(targets, found.variant.files, strict=True))
    return targets[0] if whole else None


def _is_of(path: Path, found: Found) -> bool:
    """True for a file that came from the same place, or is what would be fetched."""
    origin = origins.origin_of(path)
    if origin is not None:
        return origin.place == found.place
    return any(file.name == path.name and file.n_bytes == path.stat().st_size for file in found.variant.files)


def _is_whole(path: Path, file: RepoFile) -> bool:
    origin = origins.origin_of(path)
    return origin is not None and bool(file.sha256) and origin.sha256 == file.sha256


def _get_locked(found: Found, targets: Sequence[Path], web: Web, progress: StepProgress) -> None:
    files, parts = found.variant.files, found.header.parts
    todo = [
        (path, file, part)
        for path, file, part in zip(targets, files, parts, strict=True)
        if not _is_whole(path, file) and not _adopt(path, file, found, progress)
    ]
    arriving = [KeptPieces(path, part.file.n_bytes, _origin_text(found, file)) for path, file, part in todo]
    try:
        missing = sum(pieces.n_bytes - pieces.kept_bytes for pieces in arriving)
        try:
            check_space(targets[0].parent, missing, REMEDY)
        except Exception:
            _drop_empty(arriving)
            raise
        total = sum(part.file.n_bytes for part in parts)
        done = total - sum(pieces.n_bytes for pieces in arriving)
        for pieces, (_, _, part) in zip(arriving, todo, strict=True):
            _bring(pieces, part, web, lambda n, done=done: progress("Downloading", done + n, total), progress)  # type: ignore[misc]
            done += pieces.n_bytes
        hashes = [_verify(pieces, part, progress) for pieces, (_, _, part) in zip(arriving, todo, strict=True)]
        # The first file last: by it the model is found.
        for pieces, (path, file, _), sha256 in reversed(list(zip(arriving, todo, hashes, strict=True))):
            origins.record(
                path, Origin(found.place, file.path, pieces.n_bytes, sha256, found.listing.commit, found.name)
            )
            pieces.publish()
    finally:
        for pieces in arriving:
            pieces.close()


def _bring(pieces: KeptPieces, part: RemotePart, web: Web, told: Callable[[int], None], progress: StepProgress) -> None:
    """Have all pieces of one file; those of the header are here."""
    told(pieces.kept_bytes)
    for number in range(len(pieces.have)):
        place = pieces.piece(number)
        if place.stop > len(part.beginning):
            break
        if not pieces.have[number]:
            pieces.put(number, part.beginning[place.start : place.stop])
    if not pieces.have.all():
        download(part.file, pieces, lambda done, _: told(done), lambda why: progress(_sentence(why), 0, 0))


def _verify(pieces: KeptPieces, part: RemotePart, progress: StepProgress) -> str:
    """The SHA-256 of a file that has come; raise DownloadError when it is not the one that the hub promised."""
    actual = pieces.sha256(lambda done, total: progress("Verifying", done, total))
    promised = part.file.sha256
    if promised and actual != promised:
        pieces.discard()
        raise DownloadError(
            f"{part.name}: what came has SHA-256 {actual[:12]}..., and the hub says {promised[:12]}...; it was thrown "
            "away: pull it again, and if that happens twice, take another repository"
        )
    return actual


def _adopt(path: Path, file: RepoFile, found: Found, progress: StepProgress) -> bool:
    """Take a file that lies there under that name, without a record, when it is the very one."""
    if not file.sha256 or not path.is_file() or path.stat().st_size != file.n_bytes:
        return False
    if file_sha256(path, lambda done: progress("Verifying", done, file.n_bytes)) != file.sha256:
        return False
    origins.record(path, Origin(found.place, file.path, file.n_bytes, file.sha256, found.listing.commit, found.name))
    return True


def _origin_text(found: Found, file: RepoFile) -> str:
    """What pieces must be of to be kept: the content where its hash is known, else the place."""
    return file.sha256 or json.dumps([found.place, file.path])


def _drop_empty(arriving: Sequence[KeptPieces]) -> None:
    """Leave nothing behind of what could not begin."""
    for pieces in arriving:
        if not pieces.kept_bytes:
            pieces.discard()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
