"""The environment file: how it is read, edited and found."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.config import EnvFileError, env_file_path, read_env_file, set_env_value

type Write = Callable[[str | bytes], Path]
SHIPPED = Path(__file__).parents[2] / "conf" / "edgeproxy.env"


@pytest.fixture
def env_file(tmp_path: Path) -> Write:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "edgeproxy.env"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


READ = {
    "one value": ("EDGEPROXY_TRACING=off\n", {"EDGEPROXY_TRACING": "off"}),
    "no line break at the end": ("A=1", {"A": "1"}),
    "nothing": ("", {}),
    "blank lines": ("\n\n  \nA=1\n\n", {"A": "1"}),
    "an empty value": ("A=\nB=1\n", {"A": "", "B": "1"}),
    "CRLF": ("A=1\r\n\r\nB=2\r\n", {"A": "1", "B": "2"}),
    "a byte order mark": ("\ufeffA=1\n", {"A": "1"}),
    "double quotes": ('A="x # y"\n', {"A": "x # y"}),
    "single quotes": ("A='x \"y\"'\n", {"A": 'x "y"'}),
    "escapes in double quotes": (r'A="x\"y\\z"' + "\n", {"A": 'x"y\\z'}),
    "export": ("export A=1\n  export\tB=2\n", {"A": "1", "B": "2"}),
    "a name that begins like export": ("exported=1\n", {"exported": "1"}),
    "spaces around the equals sign": ("A = 1 \n", {"A": "1"}),
    "a comment": ("# A=1\n  # B=2\nC=3\n", {"C": "3"}),
    "a comment with a semicolon": ("; A=1\n  ;B\nC=3\n", {"C": "3"}),
    "a comment behind a value": ("A=1 # why\nB=2\t#\n", {"A": "1", "B": "2"}),
    "a hash in a value": ("A=x#y\n", {"A": "x#y"}),
    "an equals sign in a value": ("A=x=y\n", {"A": "x=y"}),
    "a value of several lines": ('A="x\ny"\nB=1\n', {"A": "x\ny", "B": "1"}),
    "a dollar is a dollar": ('A=$HOME\nB="${HOME}"\n', {"A": "$HOME", "B": "${HOME}"}),
    "the last line counts": ("A=1\nB=2\nA=3\n", {"A": "3", "B": "2"}),
    "letters beyond ASCII": ("A=香港\n", {"A": "香港"}),
}


@pytest.mark.parametrize(("content", "values"), READ.values(), ids=READ.keys())
def test_what_a_file_says(env_file: Write, content: str, values: dict[str, str]) -> None:
    assert read_env_file(env_file(content)) == values


def test_a_missing_file_says_nothing(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / "none.env") == {}


SYNTAX = "expected NAME=value, with quotes closed, or a comment that begins with #"
CONTINUED = "expected the value on one line: systemd would join the next one to it"
SWITCH = "expected on or off (or true, false, 1, 0)"
BROKEN = {
    # the file, the line, what the error shows, the code
    "no equals sign": ("EDGEPROXY_TRACING off\n", 1, f'"EDGEPROXY_TRACING off": {SYNTAX}', "env_file_syntax"),
    "a name alone": ("A=1\nEDGEPROXY_TRACING\n", 2, f'"EDGEPROXY_TRACING": {SYNTAX}', "env_file_syntax"),
    "behind blank lines": ("\n\n\nEDGEPROXY_TRACING\n", 4, f'"EDGEPROXY_TRACING": {SYNTAX}', "env_file_syntax"),
    "behind comments": ("# a\n\n  ; b c\n!\n", 4, f'"!": {SYNTAX}', "env_file_syntax"),
    "behind comments, CRLF": ("# a\r\n\r\n; b c\r\n; d\r\n!\r\n", 5, f'"!": {SYNTAX}', "env_file_syntax"),
    "behind a value of several lines": ('A="x\ny"\n\n!\n', 4, f'"!": {SYNTAX}', "env_file_syntax"),
    "a quote left open": ('A="x\nB=1\n', 1, f'"A=\\"x": {SYNTAX}', "env_file_syntax"),
    "a single quote left open": ("B=1\nA='x\n", 2, f'"A=\'x": {SYNTAX}', "env_file_syntax"),
    "text behind a quote": ('A="x"y\n', 1, f'"A=\\"x\\"y": {SYNTAX}', "env_file_syntax"),
    "a quote that begins in a comment": (';A="x\ny"\n', 1, f'";A=\\"x\\ny\\"": {SYNTAX}', "env_file_syntax"),
    "a name with a dash": ("A-B=1\n", 1, f'"A-B=1": {SYNTAX}', "env_file_syntax"),
    "a name that begins with a digit": ("1A=1\n", 1, f'"1A=1": {SYNTAX}', "env_file_syntax"),
    "a name in quotes": ("'A'=1\n", 1, f"\"'A'=1\": {SYNTAX}", "env_file_syntax"),
    "no name": ("=1\n", 1, f'"=1": {SYNTAX}', "env_file_syntax"),
    "set in front": ("set A=1\n", 1, f'"set A=1": {SYNTAX}', "env_file_syntax"),
    "a zero byte": ("A=x\0y\n", 1, f'"A=x\\u0000y": {SYNTAX}', "env_file_syntax"),
    "a line continued": ("A=1\\\nB=2\n", 1, f'"A=1\\\\": {CONTINUED}', "env_file_syntax"),
    "no UTF-8": (b"A=1\r\n\r\nB=\xff\n", 3, "expected text in UTF-8", "env_file_syntax"),
    "a wrong switch": ("\nEDGEPROXY_TRACING=maybe\n", 2, f'EDGEPROXY_TRACING = "maybe": {SWITCH}', "env_file_value"),
    "an empty switch": ("EDGEPROXY_TRACING=\n", 1, f'EDGEPROXY_TRACING = "": {SWITCH}', "env_file_value"),
    "a wrong argument": (
        "OTEL_TRACES_SAMPLER_ARG=2\n",
        1,
        'OTEL_TRACES_SAMPLER_ARG = "2": expected a number, 0 to 1',
        "env_file_value",
    ),
    "a secret with a quote left open": (
        'OTEL_EXPORTER_OTLP_HEADERS="authorization=mine\n',
        1,
        f"(hidden): {SYNTAX}",
        "env_file_syntax",
    ),
    "a secret with a line end": (
        "OTEL_EXPORTER_OTLP_HEADERS=authorization=mine%0A\n",
        1,
        'OTEL_EXPORTER_OTLP_HEADERS = (hidden): expected "name=value,name=value", with "%" and "," percent-encoded',
        "env_file_value",
    ),
}


@pytest.mark.parametrize(("content", "line", "reason", "code"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_named_with_its_line_and_what_is_allowed(
    env_file: Write, content: str | bytes, line: int, reason: str, code: str
) -> None:
    path = env_file(content)
    with pytest.raises(EnvFileError) as caught:
        read_env_file(path)
    assert str(caught.value) == f"{path}:{line}: {reason}"
    assert (caught.value.code, caught.value.line, caught.value.path) == (code, line, path)


def test_a_directory_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(EnvFileError) as caught:
        read_env_file(tmp_path)
    assert (caught.value.code, str(caught.value)) == (
        "env_file_unreadable",
        f"{tmp_path}: can't be read: Is a directory",
    )


# --- editing ---------------------------------------------------------------------------------------------------------

EDITED = {
    # before, name and value, after
    "the value alone changes": (
        "# toggle\n\nEDGEPROXY_TRACING=on\nA=1\n",
        ("EDGEPROXY_TRACING", "off"),
        "# toggle\n\nEDGEPROXY_TRACING=off\nA=1\n",
    ),
    "a name that is not there yet": ("A=1\n", ("B", "2"), "A=1\nB=2\n"),
    "behind a line that does not end": ("A=1", ("B", "2"), "A=1\nB=2\n"),
    "in an empty file": ("", ("B", "2"), "B=2\n"),
    "a line that does not end": ("B=1", ("B", "2"), "B=2\n"),
    "a commented line stays": ("#B=1\n", ("B", "2"), "#B=1\nB=2\n"),
    "a name within another": ("AB=1\nB_=1\n", ("B", "2"), "AB=1\nB_=1\nB=2\n"),
    "the line that counts": ("B=1\nB=3\n", ("B", "2"), "B=1\nB=2\n"),
    "export stays": ("export  B=1\n", ("B", "2"), "export  B=2\n"),
    "CRLF stays": ("A=1\r\nB=1\r\n", ("B", "2"), "A=1\r\nB=2\r\n"),
    "CRLF is taken up": ("A=1\r\n", ("B", "2"), "A=1\r\nB=2\r\n"),
    "spaces before it stay": ("\n  B = 1\n", ("B", "2"), "\n  B=2\n"),
    "several lines become one": ('B="1\n2"\nC=3\n', ("B", "2"), "B=2\nC=3\n"),
    "quotes where it needs them": ("B=1\n", ("B", "a b"), 'B="a b"\n'),
    "escapes where it needs them": ("B=1\n", ("B", 'a"b\\c'), 'B="a\\"b\\\\c"\n'),
    "an empty value": ("B=1\n", ("B", ""), "B=\n"),
    "a wrong value is what it is there to mend": (
        "EDGEPROXY_TRACING=maybe\n",
        ("EDGEPROXY_TRACING", "on"),
        "EDGEPROXY_TRACING=on\n",
    ),
}


@pytest.mark.parametrize(("before", "change", "after"), EDITED.values(), ids=EDITED.keys())
def test_an_edit_changes_one_line(env_file: Write, before: str, change: tuple[str, str], after: str) -> None:
    path = env_file(before)
    set_env_value(path, *change)
    assert path.read_bytes().decode() == after
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_missing_file_is_created(tmp_path: Path) -> None:
    path = tmp_path / "edgeproxy.env"
    set_env_value(path, "EDGEPROXY_TRACING", "off")
    assert path.read_text(encoding="utf-8") == "EDGEPROXY_TRACING=off\n"
    assert stat.S_IMODE(path.stat().st_mode) & ~0o644 == 0


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_mode_stays(env_file: Write, mode: int) -> None:
    path = env_file("A=1\n")
    path.chmod(mode)
    set_env_value(path, "A", "2")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_the_owner_stays(env_file: Write) -> None:
    path = env_file("A=1\n")
    os.chown(path, 12345, 54321)
    path.chmod(0o640)
    set_env_value(path, "A", "2")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 54321, 0o640)


def test_a_symbolic_link_stays_one(env_file: Write, tmp_path: Path) -> None:
    path = env_file("A=1\n")
    folder = tmp_path / "etc"
    folder.mkdir()
    link = folder / "edgeproxy.env"
    link.symlink_to(path)
    set_env_value(link, "A", "2")
    assert link.is_symlink()
    assert path.read_text(encoding="utf-8") == "A=2\n"


def test_the_file_is_replaced_not_written_into(env_file: Write) -> None:
    path = env_file("A=1\n")
    with path.open(encoding="utf-8") as reader:
        set_env_value(path, "A", "2")
        assert reader.read() == "A=1\n"
    assert path.read_text(encoding="utf-8") == "A=2\n"


def test_a_broken_file_is_not_edited(env_file: Write) -> None:
    path = env_file("A=1\n!\n")
    with pytest.raises(EnvFileError, match=r":2: ") as caught:
        set_env_value(path, "A", "2")
    assert caught.value.code == "env_file_syntax"
    assert path.read_text(encoding="utf-8") == "A=1\n!\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [("A B", "1"), ("", "1"), ("1A", "1"), ("A", "x\ny"), ("A", "x\0"), ("A", "x\x1b"), ("A", "\udcff")],
    ids=["space", "empty", "digit", "line break", "zero byte", "escape", "no UTF-8"],
)
def test_what_one_line_cannot_hold_is_refused(env_file: Write, name: str, value: str) -> None:
    path = env_file("A=1\n")
    with pytest.raises(EnvFileError) as caught:
        set_env_value(path, name, value)
    assert caught.value.code == "env_file_value"
    assert str(caught.value).isprintable()
    assert path.read_text(encoding="utf-8") == "A=1\n"


def test_a_failure_leaves_the_file_and_nothing_else(env_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = env_file("A=1\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvFileError) as caught:
        set_env_value(path, "A", "2")
    assert (caught.value.code, str(caught.value)) == (
        "env_file_unwritable",
        f"{path}: can't be written: No space left on device",
    )
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.read_text(encoding="utf-8") == "A=1\n"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EnvFileError) as caught:
        set_env_value(tmp_path / "none" / "edgeproxy.env", "A", "1")
    assert caught.value.code == "env_file_unwritable"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "edgeproxy.env"
    os.mkfifo(path)
    with pytest.raises(EnvFileError, match="can't be written: it is no regular file"):
        set_env_value(path, "A", "1")
    assert path.is_fifo()


def test_edits_at_the_same_time_all_hold_and_no_reader_sees_half_a_file(env_file: Write) -> None:
    path = env_file("START=1\n" + "# filler\n" * 200)
    halves: list[dict[str, str]] = []
    done = threading.Event()

    def edit(writer: int) -> None:
        for number in range(8):
            set_env_value(path, f"W{writer}", str(number))
            set_env_value(path, f"W{writer}_{number}", "x")

    def read() -> None:
        while not done.is_set():
            values = read_env_file(path)
            if "START" not in values:
                halves.append(values)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=edit, args=(writer,)) for writer in range(3)]
    for thread in [reader, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert halves == []
    values = read_env_file(path)
    assert {values[f"W{writer}"] for writer in range(3)} == {"7"}
    assert len(values) == 1 + 3 * 9


PRINTABLE = st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"], include_characters=" "), max_size=30)


@given(value=PRINTABLE, before=st.sampled_from(["", "A=0\n", "A='0' # x\nB=1", 'export A="x\ny"\r\nB=1\r\n']))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_what_is_read(tmp_path: Path, value: str, before: str) -> None:
    path = tmp_path / "edgeproxy.env"
    path.write_bytes(before.encode())
    others = {name: text for name, text in read_env_file(path).items() if name != "A"}
    set_env_value(path, "A", value)
    assert read_env_file(path) == others | {"A": value}


@given(content=st.binary(max_size=40) | st.text("AB=\"'\\#;\r\n x", max_size=30).map(str.encode))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_bytes_an_edit_holds_or_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "edgeproxy.env"
    path.write_bytes(content)
    try:
        before = read_env_file(path)
    except EnvFileError:
        with pytest.raises(EnvFileError):
            set_env_value(path, "C", "1")
        assert path.read_bytes() == content
    else:
        set_env_value(path, "C", "1")
        assert read_env_file(path) == before | {"C": "1"}


# --- where it is -----------------------------------------------------------------------------------------------------


def test_the_variable_names_it(tmp_path: Path) -> None:
    (tmp_path / "edgeproxy.env").touch()
    named = tmp_path / "other.env"
    assert env_file_path(tmp_path / "edgeproxy.toml", {"EDGEPROXY_ENV_FILE": str(named)}) == named
    assert env_file_path(None, {"EDGEPROXY_ENV_FILE": "x.env"}) == Path("x.env")


def test_it_is_beside_the_configuration_if_it_is_there(tmp_path: Path) -> None:
    config = tmp_path / "edgeproxy.toml"
    assert env_file_path(config, {}) == Path("conf/edgeproxy.env")
    (tmp_path / "edgeproxy.env").touch()
    assert env_file_path(config, {}) == tmp_path / "edgeproxy.env"
    assert env_file_path(config, {"EDGEPROXY_ENV_FILE": ""}) == tmp_path / "edgeproxy.env"


def test_without_a_configuration_it_is_in_the_working_directory() -> None:
    assert env_file_path(None, {}) == Path("conf/edgeproxy.env")


def test_the_shipped_file_switches_tracing_on_and_says_no_more() -> None:
    assert read_env_file(SHIPPED) == {"EDGEPROXY_TRACING": "on"}


def test_what_the_shipped_file_has_commented_out_is_valid(env_file: Write) -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    examples = [line.removeprefix("#") for line in lines if "=" in line and not line.startswith("# ")]
    assert len(read_env_file(env_file("\n".join(examples)))) == len(examples) == 7
