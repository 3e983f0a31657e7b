"""`tickpath run --paper`: what of a config it changes, so that a market is traded without an order leaving the machine."""

import socket
from pathlib import Path
from typing import Any

import msgspec

from engine.runtime.config import ConfigError


def overrides(config: Path) -> tuple[dict[str, Any], list[str]]:
    """The venue becomes a simulated one on this machine, and its login one by chance. Sentences about it. ConfigError.

    The feed stays what it is: a market on the network, a capture or a file.
    """
    try:
        raw = msgspec.toml.decode(config.read_bytes())
    except OSError as error:
        raise ConfigError(f"config={config}: cannot read it: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config={config}: not TOML: {error}") from None
    changed: dict[str, Any] = {
        "exchange.flow": "paper", "exchange.symbols": [], "exchange.path": "", "gateway.credentials": "",
        "gateway.address": f"127.0.0.1:{_free_port()}",
    }  # fmt: skip
    processes = raw.get("process", [])
    if not any("exchange" in entry.get("stages", []) for entry in processes):
        changed["process"] = [*processes, {"name": "paper_venue", "stages": ["exchange"]}]
    return changed, ["PAPER: orders meet the market in a book of our own, and none leaves this machine"]


def of_file(path: Path, speed: float) -> dict[str, Any]:
    """The market is an ITCH file, read by the feed handler at its own times."""
    return {"feed.source": "file", "feed.path": str(path.resolve()), "feed.speed": speed}


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
