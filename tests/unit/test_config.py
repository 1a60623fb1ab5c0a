"""Settings: which source wins, and what a wrong value prints."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest

from swarm import config
from swarm.errors import ConfigError

ROOT = Path(__file__).parents[2]


def load(
    tmp_path: Path, toml: str = "", env: dict[str, str] | None = None, **flags: str | int | None
) -> config.Settings:
    path = tmp_path / "swarm.toml"
    path.write_text(toml, encoding="utf-8")
    return config.load(flags, env=env or {}, user_file=path)


def test_defaults_are_what_the_packaged_file_says() -> None:
    assert asdict(config.defaults()) == tomllib.loads((ROOT / "swarm.toml").read_text(encoding="utf-8"))


def test_every_setting_has_a_line_of_why_above_it() -> None:
    lines = (ROOT / "swarm.toml").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if "=" in line and not line.startswith("#"):
            assert lines[number - 1].startswith("# "), line


@pytest.mark.parametrize(
    "text", ["\\u0000", "/models/\\u001b]0;PWNED\\u0007", "/a\\nb"], ids=["nothing", "title", "line"]
)
def test_a_text_with_control_characters_is_refused_before_it_is_shown_or_made(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"models_dir is '.*', with control characters") as told:
        load(tmp_path, f'models_dir = "{text}"\n')
    assert str(told.value).isprintable()
    with pytest.raises(ConfigError, match="SWARM_MODELS_DIR: models_dir is"):
        load(tmp_path, env={"SWARM_MODELS_DIR": "/a\x1b[31m"})
    assert load(tmp_path, 'models_dir = "/grüße/漢"\n').models_dir == "/grüße/漢"


def test_user_file_beats_default_environment_beats_file_and_flag_beats_all(tmp_path: Path) -> None:
    toml = "threads = 2\n"
    assert load(tmp_path).threads == 0
    assert load(tmp_path, toml).threads == 2
    assert load(tmp_path, toml, {"SWARM_THREADS": "3"}).threads == 3
    assert load(tmp_path, toml, {"SWARM_THREADS": "3"}, threads=4).threads == 4


def test_flags_that_were_not_given_and_empty_variables_change_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "threads = 2\n", {"SWARM_THREADS": ""}, threads=None).threads == 2


def test_a_missing_user_file_means_defaults(tmp_path: Path) -> None:
    assert config.load(env={}, user_file=tmp_path / "none.toml") == config.defaults()
    assert config.load(env={}, user_file=tmp_path / "none" / "none.toml") == config.defaults()


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("thread = 2\n", "there is no setting 'thread'; there are model, models_dir, threads"),
        ('threads = "2"\n', "threads must be a whole number, not '2'"),
        ("threads = true\n", "threads must be a whole number, not True"),
        ("kv = 16\n", 'kv must be a text in "quotes", not 16'),
        ('kv = "f32"\n', "kv is 'f32'; it must be one of f16, q8_0"),
        ("threads = -1\n", "threads is -1; it must be 0 (choose for me) or more"),
        ("threads =\n", "swarm.toml"),
        ("[network]\nport = 1\n", "there is no setting 'network'"),
        ("#" * 70_000, "larger than 65536 bytes"),
    ],
)
def test_a_wrong_user_file_gives_one_line_that_names_it(tmp_path: Path, toml: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_user_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "swarm.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"swarm\.toml"):
        config.load(env={}, user_file=path)


def test_a_directory_in_place_of_the_user_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(env={}, user_file=tmp_path)


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SWARM_THREADS is 'many'; it must be a whole number"):
        load(tmp_path, env={"SWARM_THREADS": "many"})


def test_a_choice_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="guess is 'always'; it must be one of auto, never"):
        load(tmp_path, env={"SWARM_GUESS": "always"})
    with pytest.raises(ConfigError, match="layout is 'cut'; it must be one of auto, pipeline, slices"):
        load(tmp_path, env={"SWARM_LAYOUT": "cut"})


def test_models_are_kept_where_the_setting_says(own_home: Path) -> None:
    assert config.load().models_path == own_home / ".cache" / "swarm" / "models"
    assert load(own_home, env={"SWARM_MODELS_DIR": "~/big"}).models_path == own_home / "big"


def test_settings_are_read_without_importing_anything_heavy() -> None:
    code = "import sys, swarm.config as c; c.load(); print(sorted({'numpy', 'rich', 'minijinja'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("6GiB", 6 * 2**30), ("800MB", 800_000_000), ("64", 64), ("2 kib", 2048), ("75%", 750)]
)
def test_sizes_are_read_as_people_write_them(text: str, n_bytes: int) -> None:
    assert config.parse_bytes("memory", text, of=1000) == n_bytes


@pytest.mark.parametrize("text", ["much", "-1GB", "101%", "1 GG", "1e9", "١GB", "9" * 40])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="memory is"):
        config.parse_bytes("memory", text, of=1000)


def test_the_hub_is_reached_as_its_own_tools_reach_it(tmp_path: Path) -> None:
    assert config.hub({"HF_HOME": str(tmp_path)}) == config.HubSettings("https://huggingface.co", "", False)
    told = config.hub({"HF_ENDPOINT": "https://mirror.example/hf/", "HF_TOKEN": " hf_x\n", "HF_HUB_OFFLINE": "1"})
    assert told == config.HubSettings("https://mirror.example/hf", "hf_x", True)
    assert "hf_x" not in repr(told)


def test_the_hubs_token_is_found_where_its_tools_keep_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_kept\n")
    assert config.hub({"HF_HOME": str(tmp_path)}).token == "hf_kept"
    assert config.hub({"HF_TOKEN_PATH": str(tmp_path / "token")}).token == "hf_kept"
    assert config.hub({"HF_TOKEN": "hf_said", "HF_HOME": str(tmp_path)}).token == "hf_said"


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"HF_ENDPOINT": "mirror.example"}, "HF_ENDPOINT is 'mirror.example'"),
        ({"HF_ENDPOINT": "ftp://x"}, "must be an address such as https://huggingface.co"),
        ({"HF_TOKEN": "a b"}, "token in HF_TOKEN is not one word"),
        ({"HF_TOKEN": "a\r\nHost: evil"}, "is not one word"),
    ],
)
def test_a_setting_of_the_hub_that_makes_no_sense_is_named(env: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.hub(env)
