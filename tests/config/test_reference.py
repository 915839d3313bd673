"""The commented reference and the page say what the types say."""

import re
import tomllib
from pathlib import Path

import pytest

from edgeproxy.config import Config, ConfigError, EnvFileError, Origin, Route, RouteCache, load, read_env_file
from edgeproxy.config.reference import main, page, toml_reference
from edgeproxy.config.schema import Key, keys_of
from edgeproxy.config.variables import VARIABLES
from edgeproxy.proxy.routing import Routes

ROOT = Path(__file__).parents[2]
TABLES = {name: key.table for name, key in keys_of(Config).items() if key.table is not None}
KEYS = {
    f"{name}.{key.name}": key
    for name, table in [*TABLES.items(), ("route.cache", RouteCache)]
    for key in keys_of(table).values()
}
SECONDS = re.compile(r"(.*_)?(timeout|ttl)(_min|_max)?|stale_.*")


def test_the_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"], ROOT) == 0, capsys.readouterr().err


def test_a_file_that_is_out_of_date_is_named_and_then_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "conf" / "edgeproxy.toml", tmp_path / "docs" / "configuration.md"]
    assert main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err == "".join(f"{path} is out of date: run `make reference`\n" for path in files)
    assert not any(path.exists() for path in files)
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    files[1].write_text(page() + "more", encoding="utf-8")
    capsys.readouterr()
    assert main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err == f"{files[1]} is out of date: run `make reference`\n"


def test_other_arguments_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--chekc"], tmp_path) == 2
    assert capsys.readouterr().err.startswith("usage: ")
    assert list(tmp_path.iterdir()) == []


def test_the_reference_loads_and_is_the_defaults_but_for_its_example() -> None:
    config = load(ROOT / "conf" / "edgeproxy.toml", {})
    assert config == Config(
        origin=[Origin(name="app", urls=["http://127.0.0.1:8000"])],
        route=[Route(match="/*", origin="app")],
    )


def whole_reference() -> str:
    """The reference with what is commented out, since it has no default, in force."""
    text = toml_reference()
    for name in (key.name for key in keys_of(RouteCache).values() if key.default is None):
        assert f"\n# {name} = " in text
        text = text.replace(f"\n# {name} = ", f"\n{name} = ")
    return text


def test_the_reference_has_every_key() -> None:
    tables = tomllib.loads(whole_reference())
    assert list(tables) == list(TABLES)
    for name, table in TABLES.items():
        found = tables[name][0] if isinstance(tables[name], list) else tables[name]
        assert list(found) == list(keys_of(table))
    assert list(tables["route"][0]["cache"]) == list(keys_of(RouteCache))


def test_what_is_commented_out_in_the_reference_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "edgeproxy.toml"
    path.write_text(whole_reference(), encoding="utf-8")
    cache = load(path, {}).route[0].cache
    assert (cache.max_object_bytes, cache.ttl) == (8 * 1024 * 1024, 60.0)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_every_key_has_a_sentence_that_both_files_show(key: Key) -> None:
    assert key.sentence[:1].isupper()
    assert key.sentence.endswith(".")
    assert " ".join(key.sentence.split()) in " ".join(toml_reference().replace("\n#", "").split())
    if key.table is None:
        assert key.sentence.replace("|", "\\|") in page()
        assert key.expected in page()


def test_seconds_and_bytes_say_so() -> None:
    for name, key in KEYS.items():
        if key.values is None:
            assert (SECONDS.fullmatch(key.name) is not None) == (key.unit == "seconds"), name
        assert name.endswith("_bytes") == (key.unit == "bytes"), name
        if key.unit:
            assert f"of {key.unit}" in key.expected


def test_the_page_has_every_variable() -> None:
    for variable in VARIABLES.values():
        assert f"| `{variable.name}` |" in page()


def test_the_errors_on_the_page_are_what_edgeproxy_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("edgeproxy.toml").write_text(
        "[[origin]]\nname='a'\nurls=['http://a']\n[limits]\nheader_bytes='x'", encoding="utf-8"
    )
    Path("edgeproxy.env").write_text("# toggle\n\nEDGEPROXY_TRACING=maybe\n", encoding="utf-8")
    with pytest.raises(ConfigError) as config_error:
        load(Path("edgeproxy.toml"), {})
    with pytest.raises(EnvFileError) as env_error:
        read_env_file(Path("edgeproxy.env"))
    for error in (config_error.value, env_error.value):
        assert f"```\n{error}\n```" in page()


def test_the_least_configuration_on_the_page_works(tmp_path: Path) -> None:
    path = tmp_path / "edgeproxy.toml"
    path.write_text(page().split("```toml\n")[1].split("```")[0], encoding="utf-8")
    assert load(path, {}).origin == [Origin(name="app", urls=["http://127.0.0.1:8000"])]


def test_the_keys_on_the_page_are_what_the_route_on_it_makes(tmp_path: Path) -> None:
    text = page().partition("\n## Keys\n")[2].partition("\n## ")[0]
    path = tmp_path / "edgeproxy.toml"
    cache = text.split("```toml\n")[1].split("```")[0]
    path.write_text(f'[[origin]]\nname = "a"\nurls = ["http://a"]\n[[route]]\nmatch = "/*"\n{cache}', encoding="utf-8")
    target = Routes(load(path, {})).find(b"a.test", b"/")
    assert target is not None
    rows = re.findall(r"^\| `(/.*?)` \| `(/.*?)` \|$", text, re.MULTILINE)
    assert len(rows) == 7
    assert {asked: target.key.target(asked.encode()).decode() for asked, _ in rows} == dict(rows)
