"""A configuration file in a folder of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.config import Config, ConfigError, Problem, load

ORIGIN = '[[origin]]\nname = "app"\nurls = ["http://127.0.0.1:8000"]\n'


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "edgeproxy.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def loaded(config_file: Callable[[str | bytes], Path]) -> Callable[..., Config]:
    """The Config of a text with one origin in front of it."""

    def load_text(text: str = "", **environ: str) -> Config:
        return load(config_file(f"{ORIGIN}{text}"), environ)

    return load_text


@pytest.fixture
def problems(config_file: Callable[[str | bytes], Path]) -> Callable[..., list[Problem]]:
    """What is wrong with a text, taken as the whole file."""

    def of(text: str | bytes, **environ: str) -> list[Problem]:
        with pytest.raises(ConfigError) as caught:
            load(config_file(text), environ)
        return caught.value.problems

    return of
