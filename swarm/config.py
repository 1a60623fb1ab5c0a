"""Settings: swarm.toml, then the user's file, then SWARM_* in the environment, then flags; the later wins.

This is the only module that reads setting files and the environment. Everything below takes plain values.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

from swarm.errors import ConfigError
from swarm.limits import MAX_CONFIG_BYTES, MAX_TOKEN_FILE_BYTES
from swarm.units import parse_size

Value = str | int
DEFAULTS_FILE = Path(__file__).with_name("swarm.toml")
KV_TYPES = ("f16", "q8_0")
PACKED_CHOICES = ("auto", "always", "never")
GUESS_CHOICES = ("auto", "never")
LAYOUT_CHOICES = ("auto", "pipeline", "slices")
PAUSE_CHOICES = ("never", "battery", "use", "both")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """One value per line of swarm.toml, which says what each is for."""

    model: str
    models_dir: str
    threads: int
    cpu: str
    context: int
    packed: str
    kv: str
    guess: str
    draft: str
    layout: str
    home: str
    name: str
    memory: str
    disk: str
    kv_disk: str
    port: int
    api_port: int
    pause: str

    def __post_init__(self) -> None:
        if self.kv not in KV_TYPES:
            raise ConfigError(f"kv is {self.kv!r}; it must be one of {', '.join(KV_TYPES)}")
        choices_of = {
            "packed": PACKED_CHOICES,
            "guess": GUESS_CHOICES,
            "layout": LAYOUT_CHOICES,
            "pause": PAUSE_CHOICES,
        }
        for name, choices in choices_of.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")
        for name in ("threads", "context"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 (choose for me) or more")
        for name in ("port", "api_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be from 0 (choose for me) to 65535")
        for name in ("memory", "disk", "kv_disk"):
            if getattr(self, name):
                parse_bytes(name, getattr(self, name), of=0)

    @property
    def models_path(self) -> Path:
        """The directory of downloaded models; it may not exist yet."""
        return Path(self.models_dir).expanduser() if self.models_dir else user_cache_dir() / "models"

    @property
    def home_path(self) -> Path:
        """The directory of this device's node: keys, chunks of models, log. It may not exist yet."""
        return Path(self.home).expanduser() if self.home else user_data_dir() / "node"


def load(
    flags: Mapping[str, Value | None] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    user_file: Path | None = None,
) -> Settings:
    """Return the settings in force; raise ConfigError naming the file or variable that cannot be used.

    `flags` holds values from the command line; None means that the flag was not given.
    """
    env = os.environ if env is None else env
    settings = defaults()
    settings = _with(settings, _read_user_file(user_file or user_config_file()))
    settings = _with(settings, _read_environment(env))
    return _with(settings, {name: value for name, value in (flags or {}).items() if value is not None})


@cache
def defaults() -> Settings:
    """The settings of the packaged swarm.toml."""
    return Settings(**tomllib.loads(DEFAULTS_FILE.read_text(encoding="utf-8")))


def parse_bytes(name: str, text: str, *, of: int) -> int:
    """Bytes from `6GiB`, `800MiB`, `64000000` or a share such as `75%` of `of`; ConfigError naming `name`."""
    share = _SHARE.fullmatch(text.strip())
    n_bytes = int(float(share[1]) / 100 * of) if share else parse_size(text)
    if n_bytes is None or (share and float(share[1]) > 100):
        raise ConfigError(f"{name} is {text!r}; it must be a size such as 6GiB, 800MiB or 75%")
    return n_bytes


@dataclass(frozen=True)
class HubSettings:
    """How the hub that models come from is reached: the variables that all its clients obey."""

    endpoint: str = "https://huggingface.co"  # without a / at its end
    token: str = dataclasses.field(default="", repr=False)
    offline: bool = False


def hub(env: Mapping[str, str] | None = None) -> HubSettings:
    """HF_ENDPOINT, HF_TOKEN (or the file that the hub's own tools keep it in) and HF_HUB_OFFLINE; raise ConfigError."""
    env = os.environ if env is None else env
    endpoint = env.get("HF_ENDPOINT", "").strip().rstrip("/") or HubSettings.endpoint
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", endpoint):
        raise ConfigError(f"HF_ENDPOINT is {endpoint[:80]!r}; it must be an address such as {HubSettings.endpoint}")
    is_set = [env.get(name, "").strip().upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")]
    return HubSettings(endpoint, _hub_token(env), any(value in ("1", "ON", "YES", "TRUE") for value in is_set))


def _hub_token(env: Mapping[str, str]) -> str:
    """The token of this user; "" for none."""
    named = env.get("HF_TOKEN") or env.get("HUGGING_FACE_HUB_TOKEN")
    token, where = named or "", "HF_TOKEN"
    if not token:
        cache = Path(env.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        home = Path(env.get("HF_HOME") or cache / "huggingface").expanduser()
        path = Path(env.get("HF_TOKEN_PATH") or home / "token").expanduser()
        where = str(path)
        try:
            with path.open("rb") as file:
                token = file.read(MAX_TOKEN_FILE_BYTES).decode("ascii", errors="replace")
        except OSError:
            return ""
    token = token.strip()
    if not re.fullmatch(r"[!-~]*", token):
        raise ConfigError(f"the hub's token in {where} is not one word of plain letters; write it again")
    return token


def spare_blas_threads() -> None:
    """Have NumPy begin no threads when it is imported, unless its user says how many.

    It multiplies nothing for us, and they spin as they begin: half the CPU time of importing it.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def debug() -> bool:
    """True when SWARM_DEBUG asks for tracebacks."""
    return os.environ.get("SWARM_DEBUG", "") not in ("", "0")


def color() -> bool:
    """False when NO_COLOR (https://no-color.org) or a dumb terminal asks for plain text."""
    return not os.environ.get("NO_COLOR") and moves_cursor()


def moves_cursor() -> bool:
    """False for a dumb terminal: nothing on it can be written over."""
    return os.environ.get("TERM") != "dumb"


def machine_root() -> Path:
    """Below which /sys, /proc and /run of this machine lie: another folder only in tests (SWARM_MACHINE_ROOT)."""
    return Path(os.environ.get("SWARM_MACHINE_ROOT") or "/")


def over_ssh() -> bool:
    """True in a window that ends with its connection."""
    return bool(os.environ.get("SSH_CONNECTION"))


def editor() -> str:
    """The command of the user's editor; empty where none is set."""
    return os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""


def has_screen() -> bool:
    """Whether a window could be seen: a text browser in a terminal cannot show a page with scripts."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def notify_socket() -> str:
    """Where the service manager wants to hear of this process (sd_notify(3)); "" where none does."""
    return os.environ.get("NOTIFY_SOCKET", "")


def watchdog_s() -> float:
    """After how long without a sign of life the service manager ends this process; 0 for never."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdecimal() else 0.0


def settings_of_environment() -> dict[str, str]:
    """The SWARM_* variables that set something, for a service that gets no environment of its user."""
    names = (f"SWARM_{field.name.upper()}" for field in fields(Settings))
    return {name: value for name in names if (value := os.environ.get(name, ""))}


def user_units_dir() -> Path:
    """~/.config/systemd/user, where a user's service manager looks."""
    from platformdirs import user_config_path

    return user_config_path("systemd") / "user"


def user_config_file() -> Path:
    """~/.config/swarm/swarm.toml, or its like on this system."""
    from platformdirs import user_config_path

    return user_config_path("swarm") / "swarm.toml"


def user_cache_dir() -> Path:
    """~/.cache/swarm, or its like on this system."""
    from platformdirs import user_cache_path

    return user_cache_path("swarm")


def user_data_dir() -> Path:
    """~/.local/share/swarm, or its like on this system: saved chats and the history of the prompt."""
    from platformdirs import user_data_path

    return user_data_path("swarm")


def _with(settings: Settings, values: Mapping[str, Value]) -> Settings:
    return replace(settings, **values)  # type: ignore[arg-type]  # names and types were checked where they were read


def _read_user_file(path: Path) -> dict[str, Value]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
        if len(raw) > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes; this is not a settings file")
        table = tomllib.loads(raw.decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # bad UTF-8 or bad TOML
        raise ConfigError(f"{path}: {error}") from error
    return {name: _checked(name, value, str(path)) for name, value in table.items()}


def _checked(name: str, value: object, where: str) -> Value:
    settings = {field.name: getattr(defaults(), field.name) for field in fields(Settings)}
    if name not in settings:
        raise ConfigError(f"{where}: there is no setting {name!r}; there are {', '.join(settings)}")
    kind = type(settings[name])
    if type(value) is not kind:
        raise ConfigError(f"{where}: {name} must be {_article(kind)}, not {value!r}")
    assert isinstance(value, (str, int))
    return _seen(name, value, where)


def _seen(name: str, value: Value, where: str) -> Value:
    """A value as it is; a text must not hold what nobody sees: it would move the cursor wherever it is shown."""
    if isinstance(value, str) and any(unicodedata.category(char) == "Cc" for char in value):
        raise ConfigError(f"{where}: {name} is {value!r}, with control characters; write it again")
    return value


def _read_environment(env: Mapping[str, str]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for field in fields(Settings):
        text = env.get(f"SWARM_{field.name.upper()}", "")
        if text:
            values[field.name] = _parsed(field.name, text)
    return values


def _parsed(name: str, text: str) -> Value:
    if isinstance(getattr(defaults(), name), str):
        return _seen(name, text, f"SWARM_{name.upper()}")
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"SWARM_{name.upper()} is {text!r}; it must be a whole number") from None


def _article(kind: type) -> str:
    return "a whole number" if kind is int else 'a text in "quotes"'
