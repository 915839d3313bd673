import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.config import Config, load

Check = Callable[..., subprocess.CompletedProcess[str]]
GOOD = """
[node]
workers = 3
[[origin]]
name = "app"
urls = ["http://10.0.0.1:8000"]
[[route]]
match = "/api/*"
cache = { enabled = false }
[tracing]
ratio = 0.5
"""


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def run(text: str, env_text: str | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        config = tmp_path / "edgeproxy.toml"
        config.write_text(text)
        if env_text is not None:
            (tmp_path / "edgeproxy.env").write_text(env_text)
        else:
            environ.setdefault("EDGEPROXY_ENV_FILE", str(tmp_path / "none.env"))
        return subprocess.run(
            [sys.executable, "-m", "edgeproxy", "check", "-c", str(config)],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", **environ},
            timeout=60,
            check=False,
        )

    return run


class TestAValidConfiguration:
    def test_is_printed_as_toml_that_means_the_same(self, check: Check, tmp_path: Path) -> None:
        done = check(GOOD)
        assert (done.returncode, done.stderr) == (0, "")
        (tmp_path / "printed.toml").write_text(done.stdout)
        assert load(tmp_path / "printed.toml", {}) == load(tmp_path / "edgeproxy.toml", {})

    def test_is_printed_with_every_key_and_its_default(self, check: Check) -> None:
        shown = tomllib.loads(check(GOOD).stdout)
        assert shown["limits"]["header_timeout"] == Config().limits.header_timeout
        assert shown["cache"]["store"] == "embedded"
        assert shown["origin"][0]["connect_timeout"] == 5.0
        assert shown["route"][0]["cache"]["enabled"] is False

    def test_has_its_workers_counted(self, check: Check) -> None:
        done = check(GOOD.replace("workers = 3", 'workers = "auto"'))
        shown = tomllib.loads(done.stdout)
        assert shown["node"]["workers"] >= 1
        assert '# node.workers: one for each processor, instead of "auto"' in done.stdout

    def test_names_the_environment_file_and_whether_it_is_there(self, check: Check, tmp_path: Path) -> None:
        assert (
            "conf/edgeproxy.env (there is none now)" in check(GOOD, EDGEPROXY_ENV_FILE="/no/conf/edgeproxy.env").stdout
        )
        assert f"Environment file: {tmp_path}/edgeproxy.env.\n" in check(GOOD, "").stdout


class TestScripts:
    def test_are_printed_with_their_options_but_without_secrets(self, check: Check, tmp_path: Path) -> None:
        script = tmp_path / "ab_test.py"
        script.touch()
        options = '[addons.options]\nab_share = 0.5\nurl_secret = "s3cr3t"\n'
        done = check(f'{GOOD}[addons]\nscripts = ["{script}"]\nfilter = "~u /shop"\n{options}')
        assert (done.returncode, done.stderr) == (0, "")
        addons = tomllib.loads(done.stdout)["addons"]
        assert (addons["scripts"], addons["filter"], addons["on_error"]) == ([str(script)], "~u /shop", "continue")
        assert addons["options"] == {"ab_share": 0.5, "url_secret": "(hidden)"}
        assert "s3cr3t" not in done.stdout

    def test_that_are_wrong_are_named_one_by_one(self, check: Check, tmp_path: Path) -> None:
        done = check(f'{GOOD}[addons]\nscripts = ["{tmp_path}/none.py"]\nfilter = "~u"\ntimeout = 0\n')
        assert (done.returncode, done.stdout) == (2, "")
        for key in (f'addons.scripts[0] = "{tmp_path}/none.py"', 'addons.filter = "~u"', "addons.timeout = 0"):
            assert f"edgeproxy.toml: {key}: expected " in done.stderr


class TestTheEnvironment:
    def test_wins_over_the_file_and_is_named(self, check: Check) -> None:
        done = check(GOOD, OTEL_TRACES_SAMPLER_ARG="0.25", OTEL_SERVICE_NAME="edge-hk", EDGEPROXY_TRACING="off")
        tracing = tomllib.loads(done.stdout)["tracing"]
        assert (tracing["ratio"], tracing["service_name"], tracing["enabled"]) == (0.25, "edge-hk", False)
        assert "# tracing.ratio: from the environment, instead of 0.5" in done.stdout
        assert '# tracing.service_name: from the environment, instead of "edgeproxy"' in done.stdout

    def test_is_overruled_by_the_environment_file(self, check: Check) -> None:
        done = check(
            GOOD, "EDGEPROXY_TRACING=on\nOTEL_EXPORTER_OTLP_ENDPOINT=http://otel:4318\n", EDGEPROXY_TRACING="off"
        )
        tracing = tomllib.loads(done.stdout)["tracing"]
        assert (tracing["enabled"], tracing["otlp_endpoint"]) == (True, "http://otel:4318")


class TestAnInvalidConfiguration:
    def test_has_every_problem_named_with_file_key_value_and_what_is_allowed(
        self, check: Check, tmp_path: Path
    ) -> None:
        done = check(GOOD + "[limits]\nheaders = 0\nheadres = 5\n[cache]\nstore = 'tape'\n")
        assert (done.returncode, done.stdout) == (2, "")
        lines = done.stderr.splitlines()
        assert len(lines) == 3
        assert all(line.startswith(f"edgeproxy: {tmp_path}/edgeproxy.toml: ") for line in lines)
        assert any("limits.headers = 0" in line and "1 or more" in line for line in lines)
        assert any("limits.headres" in line and "headers" in line for line in lines)
        assert any('cache.store = "tape"' in line and "embedded" in line for line in lines)

    def test_has_a_route_to_nowhere_named_with_the_origins_there_are(self, check: Check) -> None:
        done = check(GOOD.replace("match", 'origin = "ap"\nmatch'))
        assert done.returncode == 2
        assert 'route[0].origin = "ap"' in done.stderr
        assert '"app"' in done.stderr

    @pytest.mark.parametrize(
        ("environ", "named"),
        [
            ({"OTEL_TRACES_SAMPLER": "sometimes"}, 'OTEL_TRACES_SAMPLER = "sometimes"'),
            ({"EDGEPROXY_TRACING": "perhaps"}, 'EDGEPROXY_TRACING = "perhaps"'),
        ],
        ids=["sampler", "toggle"],
    )
    def test_may_be_the_environments_fault(self, check: Check, environ: dict[str, str], named: str) -> None:
        done = check(GOOD, **environ)
        assert done.returncode == 2
        assert f"environment: {named}" in done.stderr

    def test_may_be_the_environment_files_fault(self, check: Check, tmp_path: Path) -> None:
        done = check(GOOD, "# tracing\nEDGEPROXY_TRACING=perhaps\n")
        assert done.returncode == 2
        assert f"{tmp_path}/edgeproxy.env:2: EDGEPROXY_TRACING" in done.stderr

    def test_may_be_no_toml_at_all(self, check: Check) -> None:
        done = check("[node\n")
        assert done.returncode == 2
        assert "edgeproxy.toml: line 1" in done.stderr

    def test_may_not_be_there(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "edgeproxy", "check", "-c", str(tmp_path / "none.toml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert f"{tmp_path}/none.toml: there is no such file" in done.stderr

    def test_must_be_named(self) -> None:
        command = [sys.executable, "-m", "edgeproxy", "check"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "--config" in done.stderr
