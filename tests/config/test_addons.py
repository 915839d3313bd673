"""What may stand in [addons], which scripts and filters go together, and what is shown of it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.config import Addons, Config, ConfigError, Problem, effective, load, toml_value

type Load = Callable[..., Config]
type Problems = Callable[..., list[Problem]]
ORIGIN = '[[origin]]\nname = "app"\nurls = ["http://127.0.0.1:8000"]\n'
FILTER = 'expected a filter expression of mitmproxy, such as "~u /api & ~m POST"'
OPTION = "expected true or false, a number, text or a list of texts"


@pytest.fixture
def scripts(tmp_path: Path) -> list[str]:
    """Two scripts that are there, by their paths."""
    paths = [tmp_path / "ab_test.py", tmp_path / "香 'quoted\".py"]
    for path in paths:
        path.write_text("def request(flow): ...\n", encoding="utf-8")
    return [str(path) for path in paths]


def test_without_the_table_there_is_no_script_and_failures_stop_nobody(loaded: Load) -> None:
    addons = loaded().addons
    assert addons == Addons()
    assert (addons.scripts, addons.filter, addons.filters, addons.options) == ([], "", {}, {})
    assert (addons.on_error, addons.timeout, addons.body_bytes, addons.hits) == ("continue", 5.0, 10 << 20, True)


def test_all_that_can_be_said_of_scripts_is_in_the_config_and_said_again(
    loaded: Load, scripts: list[str], tmp_path: Path
) -> None:
    config = loaded(f"""
        [addons]
        scripts = {toml_value(scripts)}
        filter = "~u /api & !(~m POST | ~m PUT)"
        on_error = "refuse"
        timeout = 0.25
        body_bytes = 0
        hits = false
        [addons.filters]
        {toml_value(scripts[0])} = "~u /shop"
        {toml_value(scripts[1])} = ""
        [addons.options]
        ab_share = 0.5
        ab_on = true
        ab_count = -3
        ab_name = "new\\nline"
        ab_groups = ["a", "b"]
        ab_none = []
    """)
    addons = config.addons
    assert addons.scripts == scripts
    assert addons.filters == {scripts[0]: "~u /shop", scripts[1]: ""}
    assert addons.options == {
        "ab_share": 0.5,
        "ab_on": True,
        "ab_count": -3,
        "ab_name": "new\nline",
        "ab_groups": ["a", "b"],
        "ab_none": [],
    }
    assert (addons.on_error, addons.timeout, addons.body_bytes, addons.hits) == ("refuse", 0.25, 0, False)
    path = tmp_path / "again.toml"
    path.write_text(effective(config), encoding="utf-8")
    assert load(path, {}) == config
    assert Config.from_json(config.to_json()) == config


def test_many_parentheses_take_no_time(loaded: Load) -> None:
    expression = f"{'(' * 12}~q & ~u x{')' * 12}"
    assert loaded(f'[addons]\nfilter = "{expression}"').addons.filter == expression


def test_an_option_stays_of_the_type_that_it_was_written_with(loaded: Load) -> None:
    options = loaded("[addons.options]\na = 1\nb = 1.0\nc = true\nd = 9223372036854775807").addons.options
    worker = Config.from_json(Config(addons=Addons(options=options)).to_json()).addons.options
    assert [type(value) for value in worker.values()] == [int, float, bool, int]


WRONG_VALUES = {  # key, value, what it says of it
    "a script that is not there": ("scripts", '["/nowhere/a.py"]', "expected a file that is there and can be read"),
    "a folder": ("scripts", '["/"]', "expected a file that is there and can be read"),
    "no path": ("scripts", '[""]', "expected a file that is there and can be read"),
    "no list": (
        "scripts",
        '"/a.py"',
        "expected a list, each a file that is there and can be read",
    ),
    "an expression that ends too early": ("filter", '"~u"', f'{FILTER}; or ""'),
    "an operator that there is not": ("filter", '"~nothing"', f'{FILTER}; or ""'),
    "parentheses in hundreds": ("filter", f'"{"(" * 300}~q{")" * 300}"', f'{FILTER}; or ""'),
    "a pattern that is none": ("filter", "\"~u '['\"", f'{FILTER}; or ""'),
    "blanks": ("filter", '"  "', f'{FILTER}; or ""'),
    "a number for an expression": ("filter", "1", f'{FILTER}; or ""'),
    "an unknown word for failures": ("on_error", '"ignore"', 'expected "continue" or "refuse"'),
    "no time at all": ("timeout", "0", "expected a number of seconds, more than 0 and at most 86400"),
    "a size below 0": ("body_bytes", "-1", "expected an integer of bytes, 0 or more"),
    "a text for a switch": ("hits", '"on"', "expected true or false"),
    "options in a list": ("options", "[1]", "expected a table, its keys the name of an option"),
}


@pytest.mark.parametrize(("key", "value", "says"), WRONG_VALUES.values(), ids=WRONG_VALUES.keys())
def test_a_wrong_value_is_named_with_what_is_allowed(problems: Problems, key: str, value: str, says: str) -> None:
    (problem,) = problems(f"{ORIGIN}[addons]\n{key} = {value}")
    assert problem.key == (f"addons.{key}[0]" if value.startswith('["') else f"addons.{key}")
    assert problem.reason.startswith(says)


WRONG_OPTIONS = {  # the name and value of an option, what it says of it
    "a name with a dash": (
        "ab-share",
        "1",
        "unknown key; expected the name of an option: letters, digits, underscores",
    ),
    "no name": ('""', "1", "unknown key; expected the name of an option: letters, digits, underscores"),
    "a table": ("a", "{ b = 1 }", OPTION),
    "a day": ("a", "2026-01-01", OPTION),
    "an endless number": ("a", "inf", OPTION),
    "no number at all": ("a", "nan", OPTION),
    "a number beyond 64 bits": ("a", "9223372036854775808", OPTION),
}


@pytest.mark.parametrize(("name", "value", "says"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS.keys())
def test_an_option_that_no_script_can_be_given(problems: Problems, name: str, value: str, says: str) -> None:
    (problem,) = problems(f"{ORIGIN}[addons.options]\n{name} = {value}")
    assert (problem.key, problem.reason) == (f"addons.options.{name}", says)


def test_a_list_of_an_option_holds_texts_alone(problems: Problems) -> None:
    (problem,) = problems(f'{ORIGIN}[addons.options]\na = ["b", 1]')
    assert (problem.key, problem.reason) == ("addons.options.a[1]", "expected text")


FLAWS = {  # what stands in the file, what is said of it
    "a line that is no Python": (b"import os\n\ndef request(flow)\n", "expected a Python script: line 3: expected ':'"),
    "a block that is not moved in": (
        b"if True:\nx = 1\n",
        "expected a Python script: line 2: expected an indented block",
    ),
    "bytes that are no text": (b"x = '\xff'\n", "expected a Python script: "),
    "a zero byte": (b"x = 1\0\n", "expected a Python script: "),
}


@pytest.mark.parametrize(("text", "says"), FLAWS.values(), ids=FLAWS.keys())
def test_a_script_that_python_cannot_read_is_told_before_it_runs(
    problems: Problems, tmp_path: Path, text: bytes, says: str
) -> None:
    script = tmp_path / "broken.py"
    script.write_bytes(text)
    (problem,) = problems(f"{ORIGIN}[addons]\nscripts = {toml_value([str(script)])}")
    assert problem.key == "addons.scripts[0]"
    assert problem.reason.startswith(says)


def test_a_script_stands_there_once_however_its_path_is_written(problems: Problems, scripts: list[str]) -> None:
    again = f"{Path(scripts[0]).parent}/./{Path(scripts[0]).name}"
    (problem,) = problems(f"{ORIGIN}[addons]\nscripts = {toml_value([*scripts, again])}")
    assert problem.key == "addons.scripts[2]"
    assert problem.reason == "expected each script once: addons.scripts[0] is this one"


def test_a_filter_for_a_script_that_there_is_not_names_those_there_are(problems: Problems, scripts: list[str]) -> None:
    names = f"{toml_value(scripts[0])} or {toml_value(scripts[1])}"
    (problem,) = problems(
        f'{ORIGIN}[addons]\nscripts = {toml_value(scripts)}\n[addons.filters]\n"ab_test.py" = "~u /shop"'
    )
    assert problem.key == 'addons.filters."ab_test.py"'
    assert problem.reason == f"this is not one of addons.scripts; expected {names}"
    (problem,) = problems(f'{ORIGIN}[addons.filters]\n"ab_test.py" = "~u /shop"')
    assert problem.reason == "this is not one of addons.scripts; there are none"


def test_a_scripts_own_filter_must_be_an_expression_as_well(problems: Problems, scripts: list[str]) -> None:
    (problem,) = problems(
        f'{ORIGIN}[addons]\nscripts = {toml_value(scripts)}\n[addons.filters]\n{toml_value(scripts[0])} = "~u"'
    )
    assert problem.key == f"addons.filters.{toml_value(scripts[0])}"
    assert problem.reason == f'{FILTER}; or ""'


def test_what_has_the_wrong_type_is_told_once(problems: Problems) -> None:
    found = problems(f'{ORIGIN}[addons]\nscripts = [1, 1]\nfilters = ["a"]')
    assert [problem.key for problem in found] == ["addons.scripts[0]", "addons.scripts[1]", "addons.filters"]


def test_a_relative_path_starts_in_the_working_directory(
    loaded: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "a.py").touch()
    monkeypatch.chdir(folder)
    assert loaded('[addons]\nscripts = ["a.py"]').addons.scripts == ["a.py"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="expected a file that is there"):
        loaded('[addons]\nscripts = ["a.py"]')


def test_secrets_of_options_are_not_shown(loaded: Load) -> None:
    config = loaded("""
        [addons.options]
        url_secret = "s3cr3t"
        HMAC_KEYS = ["s3cr3t"]
        api_token = ""
        header = "X-Group"
    """)
    lines = effective(config).splitlines()
    (shown,) = (line for line in lines if line.startswith("options = "))
    assert shown == 'options = { url_secret = "(hidden)", HMAC_KEYS = "(hidden)", api_token = "", header = "X-Group" }'


IMPORTED = """
import sys
from pathlib import Path
from edgeproxy.config import load
load(Path(sys.argv[1]), {})
print("mitmproxy" in sys.modules)
"""


@pytest.mark.parametrize(("expression", "imported"), [("", "False"), ("~u /api", "True")])
def test_mitmproxy_is_imported_only_where_there_is_an_expression(
    config_file: Callable[[str], Path], scripts: list[str], expression: str, imported: str
) -> None:
    path = config_file(f'{ORIGIN}[addons]\nscripts = {toml_value(scripts)}\nfilter = "{expression}"')
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, path], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == imported
