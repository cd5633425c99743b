"""The pages build into a site without a warning, and what they name is there."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ctscribe.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "LOG.md")
FRONT = [*ROOT.glob("*.md"), *(ROOT / "recipes").rglob("*.md")]
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
COMMAND = re.compile(r"(?:^|`|&& )ctscribe ([a-z-]+)", re.MULTILINE)
CALL = re.compile(r"(?<!import )\bctscribe(?:\.cli)? ([a-z-]+)([^#&\n]*)")
OPTION = re.compile(r"(?<= )--[a-z-]+")
SOURCE = re.compile(r"`([a-z_/]+\.(?:py|html))`")
ADDRESS = re.compile(r"<(\w+)\b[^>]*?\s(?:src|href)=\"?([^\">\s]+)")
needs_zensical = pytest.mark.skipif(
    find_spec("zensical") is None, reason="zensical, which builds the site, is not installed"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The pages and what they are made of, in a folder of their own."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    return tmp_path


def build(project: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


@needs_zensical
def test_the_site_builds_and_loads_nothing_from_elsewhere(project: Path) -> None:
    built = build(project)
    assert built.returncode == 0, built.stdout + built.stderr
    site = project / "site"
    addresses = {
        (page, tag, address.partition("#")[0].partition("?")[0])
        for page in site.rglob("*.html")
        if page.name != "404.html"  # its addresses begin at the server's root
        for tag, address in ADDRESS.findall(page.read_text(encoding="utf-8"))
        if not (address.startswith("data:") or (tag == "a" and "://" in address))
    }
    assert any(tag == "img" for _, tag, _ in addresses)
    missing = [one for one in addresses if one[2] and not (one[0].parent / one[2]).is_file()]
    assert missing == []


@needs_zensical
def test_a_broken_link_fails(project: Path) -> None:
    with (project / "docs/index.md").open("a", encoding="utf-8") as page:
        page.write("\n[x](nowhere.md), [x](scores.md#nowhere)\n")
    built = build(project)
    assert built.returncode != 0
    assert "page does not exist" in built.stdout + built.stderr
    assert "anchor does not exist" in built.stdout + built.stderr


@pytest.mark.parametrize("page", [*FRONT, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_files_commands_and_options_that_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []
    if page.name != "CHANGELOG.md":  # which names what has gone
        assert {name for name in COMMAND.findall(text) if name not in app} == set()
    for block in text.replace("\\\n", " ").split("```")[1::2]:
        for command, rest in CALL.findall(block):
            arguments = app[command].assemble_argument_collection()
            known = {name for argument in arguments for name in argument.names}
            assert set(OPTION.findall(rest)) <= known, f"{command}{rest}"


@pytest.mark.parametrize("name", ["docs/house.md", "CONTRIBUTING.md"])
def test_the_house_is_as_its_page_says(name: str) -> None:
    named = SOURCE.findall((ROOT / name).read_text(encoding="utf-8"))
    assert named
    package = ROOT / "src/ctscribe"
    missing = [
        path
        for path in named
        if not ((package / path).is_file() if "/" in path else any(package.rglob(path)))
    ]
    assert missing == []
