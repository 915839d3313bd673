"""README and changelog hold what they promise: links lead somewhere, files that the steps use are there."""

import re
import tomllib
from pathlib import Path

import pytest

import edgeproxy

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "document", ["README.md", "CHANGELOG.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
)
def test_links_to_files_lead_somewhere(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("document", ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))])
def test_links_to_headings_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for link, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", path.read_text(encoding="utf-8")):
        target = path.parent / link if link else path
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert anchor in {anchor_of(heading) for heading in headings}, (link, anchor)


def anchor_of(heading: str) -> str:
    """As the forges make them of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_files_that_the_deployment_steps_copy_are_part_of_the_repository() -> None:
    used = set(re.findall(r"/opt/edgeproxy/((?:systemd|conf)/[\w./-]+)", README))
    assert {"systemd/edgeproxy.service", "systemd/edgeproxy.logrotate", "conf/edgeproxy.env"} <= used
    assert [name for name in used if not (ROOT / name).is_file()] == []


def test_make_targets_that_the_readme_names_exist() -> None:
    named = set(re.findall(r"^make (?:-C \S+ )?(\w+)|`make (\w+)`", README, flags=re.MULTILINE))
    for target in {first or second for first, second in named}:
        assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE), target


def test_the_configuration_in_the_deployment_steps_is_valid_toml_with_an_origin() -> None:
    block = re.search(r"<<'TOML'\n(.*?)\n\s*TOML\n", README, flags=re.DOTALL)
    assert block
    document = tomllib.loads(block[1])
    assert document["origin"][0]["urls"]
    assert document["node"]["runtime_dir"] == "/run/edgeproxy"


def test_the_version_is_one_that_the_changelog_can_speak_of() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", edgeproxy.__version__)
    assert re.search(
        rf"^## \[(Unreleased|{re.escape(edgeproxy.__version__)})\]",
        (ROOT / "CHANGELOG.md").read_text(),
        flags=re.MULTILINE,
    )
