"""The GGUF files of a repository as a person chooses among them: one variant for each quant, however many files it has.

Names tell the quant, and nothing else may be made of them: the header says what a file really is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarm.errors import ModelNotFound
from swarm.limits import MAX_SPLIT_FILES
from swarm.store.hub_names import QUANT_LABEL
from swarm.units import size_text

# Best first, among what the loss of quality beside the size says: a token costs the bytes of the file, so more than
# Q4_K_M is for those who ask for it; of labels of one size the one that loses least comes first.
PREFERENCE = ("Q4_K_M", "Q4_K_S", "IQ4_XS", "IQ4_NL", "Q3_K_L", "Q3_K_M", "Q4_0", "Q4_1", "Q3_K_S", "Q2_K")
LOSSY = ("Q3_K_S", "Q2_K")  # that somebody who did not ask for them is told about
SMALL_BYTES = 2_200_000_000  # a model whose Q8_0 is no larger is taken as Q8_0: it loses most and costs least
FALLBACKS = ("Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0", "Q5_0", "Q5_1", "BF16", "F16", "F32")  # where nothing else is there

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.ASCII)
_LABEL = re.compile(rf"(?:^|[-._])(?P<label>{QUANT_LABEL})(?=[-._]|$)", re.IGNORECASE)
_BESIDE = re.compile(r"mmproj|imatrix|^(mtp|eagle3|dflash|dspark)-|^ggml-vocab|(^|[-._])lora([-._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class RepoFile:
    """A file of a repository; `sha256` is "" where the hub does not say."""

    path: str
    n_bytes: int
    sha256: str = ""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Variant:
    """A whole model: its files in order, and the quant by which it is called ("" when its name tells none)."""

    label: str
    files: tuple[RepoFile, ...]

    @property
    def total_bytes(self) -> int:
        return sum(file.n_bytes for file in self.files)

    def __str__(self) -> str:
        parts = f" in {len(self.files)} files" if len(self.files) > 1 else ""
        return f"{self.label or self.files[0].path} {size_text(self.total_bytes)}{parts}"


def label_of(file_name: str) -> str:
    """The quant that a file's name tells, in capitals; "" for none."""
    stem = re.sub(r"\.gguf$", "", file_name, flags=re.IGNORECASE)
    split = _SPLIT.fullmatch(stem)
    found = [match["label"].upper() for match in _LABEL.finditer(split["stem"] if split else stem)]
    return found[-1] if found else ""


def variants(files: Iterable[RepoFile]) -> list[Variant]:
    """The models among the files of a repository, smallest first.

    Set aside: parts that see, matrices of importance, drafts, sets of split files with one missing. Of several files
    of one quant, the whole one before the split one, then the one nearest to the root.
    """
    models = [file for file in files if file.name.lower().endswith(".gguf") and not _BESIDE.search(file.name)]
    found = [Variant(label_of(file.name), (file,)) for file in models if _split_of(file) is None]
    sets: dict[tuple[str, str], list[RepoFile]] = {}
    for file in models:
        split = _split_of(file)
        if split is not None:
            sets.setdefault((split["stem"], split["count"]), []).append(file)
    found += [Variant(label_of(parts[0].name), parts) for parts in map(_whole_set, sets.values()) if parts]
    found.sort(key=lambda variant: (len(variant.files) > 1, variant.files[0].path.count("/"), variant.files[0].path))
    once: dict[str, Variant] = {}
    for variant in found:
        once.setdefault(variant.label or variant.files[0].path, variant)
    return sorted(once.values(), key=lambda variant: (variant.total_bytes, variant.label))


def of_quant(text: str, found: Sequence[Variant], where: str) -> Variant:
    """The variant that a quant names, in any case and with or without its lines. Raise ModelNotFound."""
    wanted = _letters(text)
    for label in (wanted, _SHORT.get(wanted, "")):
        for variant in found:
            if label and _letters(variant.label) == label:
                return variant
    raise ModelNotFound(f"{where} has no {text}; {what_there_is(found)}")


def of_file(path: str, found: Sequence[Variant], where: str) -> Variant:
    """The variant of which a file is named, by its path or its name in any case. Raise ModelNotFound."""
    by_path = {file.path.lower(): variant for variant in found for file in variant.files}
    by_name = {file.name.lower(): variant for variant in found for file in variant.files}
    meant = by_path.get(path.lower()) or by_name.get(path.lower())
    if meant is not None:
        return meant
    raise ModelNotFound(f"{where} has no file {path}; {what_there_is(found)}")


def by_preference(found: Sequence[Variant]) -> list[Variant]:
    """What is worth taking when nobody names a quant, best first."""
    by_label = {variant.label: variant for variant in found}
    q8_0 = by_label.get("Q8_0")
    order = [*PREFERENCE, *FALLBACKS]
    if q8_0 is not None and q8_0.total_bytes <= SMALL_BYTES:
        order.insert(0, "Q8_0")
    chosen = [by_label[label] for label in dict.fromkeys(order) if label in by_label]
    unnamed = [variant for variant in found if not variant.label]
    rest = unnamed or list(found)
    return chosen or (rest if len(rest) == 1 else [])


def what_there_is(found: Sequence[Variant]) -> str:
    """The variants in one line."""
    return f"there is {', '.join(map(str, found))}" if found else "it has no GGUF file of a model"


# Short words for a quant, as people type them and as some repositories name their files.
_SHORT = {
    "q2": "q2k",
    "q3": "q3km",
    "q3k": "q3km",
    "q4": "q4km",
    "q4k": "q4km",
    "q4km": "q4k",
    "q5": "q5km",
    "q5k": "q5km",
    "q5km": "q5k",
    "q6": "q6k",
    "q8": "q80",
}


def _letters(label: str) -> str:
    return re.sub(r"[^a-z0-9]", "", label.lower())


def _split_of(file: RepoFile) -> re.Match[str] | None:
    """The split name of a file's path; its stem tells the set, folder included."""
    return _SPLIT.fullmatch(re.sub(r"\.gguf$", "", file.path, flags=re.IGNORECASE))


def _whole_set(parts: list[RepoFile]) -> tuple[RepoFile, ...]:
    """The files of a split model in order; () when one of them is missing."""
    numbers = {}
    for file in parts:
        split = _split_of(file)
        assert split is not None
        numbers[int(split["number"])] = (file, int(split["count"]))
    n_files = next(iter(numbers.values()))[1]
    if n_files > MAX_SPLIT_FILES or sorted(numbers) != list(range(1, n_files + 1)):
        return ()
    return tuple(numbers[number][0] for number in range(1, n_files + 1))
