"""requirements.lock: what every machine installs, the same bytes everywhere, from whatever index that machine uses."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DECLARED = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]

PINNED = [line.replace("\\\n", " ").split() for line in re.split(r"\n(?=\S)", LOCK.strip())]
"""Each requirement of the lock as its words: the pin, perhaps a marker, the hashes."""


def pins(name: str) -> list[Version]:
    wanted = canonicalize_name(name)
    found = (words[0].split("==") for words in PINNED)
    return [Version(version) for package, version in found if canonicalize_name(package) == wanted]


def test_every_package_is_pinned_and_has_hashes() -> None:
    for words in PINNED:
        assert "==" in words[0], words[0]
        hashes = [word for word in words if word.startswith("--hash=sha256:")]
        assert hashes, f"{words[0]} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes), words[0]


@pytest.mark.parametrize(
    "trace", ["://", "--index", "--extra-index", "--find-links", "-i ", "file:", " @ ", "/home", "/root", "/opt"]
)
def test_no_index_host_or_path_of_the_machine_that_made_it_is_in_it(trace: str) -> None:
    assert trace not in LOCK


@pytest.mark.parametrize("declared", DECLARED, ids=lambda text: Requirement(text).name)
def test_what_pyproject_asks_for_is_locked_at_a_version_that_it_allows(declared: str) -> None:
    requirement = Requirement(declared)
    versions = pins(requirement.name)
    assert versions, f"{requirement.name} is not in requirements.lock: run make lock"
    assert all(requirement.specifier.contains(version, prereleases=True) for version in versions)


@pytest.mark.parametrize("package", ["hatchling", "editables"])
def test_the_package_itself_can_be_installed_without_fetching_a_build_tool(package: str) -> None:
    assert pins(package)


def test_dependencies_are_declared_by_range() -> None:
    for declared in DECLARED:
        operators = {specifier.operator for specifier in Requirement(declared).specifier}
        assert ">=" in operators, declared
        assert not operators & {"==", "==="}, declared


def test_what_npm_installs_is_pinned_by_hash_from_whatever_registry() -> None:
    text = (ROOT / "tests/tracing/origins/package-lock.json").read_text(encoding="utf-8")
    packages = {name: package for name, package in json.loads(text)["packages"].items() if name}
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
        assert not package.get("hasInstallScript"), name
