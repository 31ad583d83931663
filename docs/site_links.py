"""Builds pages of the site from Markdown files outside ``docs/``, and follows links out of it.

The files link to each other as they lie in the repository, so the links also work where the
repository is browsed. ``mkdocs.yml`` names this module as a hook.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

#: Pages of the site that lie elsewhere in the repository.
PAGES = {
    "recipes.md": "recipes/README.md",
    "benchmarks.md": "benchmarks/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_LINK = re.compile(r"\]\((?![a-z]+:)([^()#\s]+)(#[^()\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie elsewhere."""
    root = Path(config.config_file_path).parent
    for page, source in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(root / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """The text of a page with its links turned; MkDocs reports those that lead nowhere."""
    root = Path(config.config_file_path).parent
    here = PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {source: page for page, source in PAGES.items()} | {"README.md": "index.md"}

    def turn(link: re.Match[str]) -> str:
        target, anchor = link[1], link[2] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        if path.startswith("docs/"):
            found = path.removeprefix("docs/")
        elif path in pages:
            found = pages[path]
        elif (root / path).exists():
            kind = "tree" if (root / path).is_dir() else "blob"
            return f"]({config.extra['repository']}/{kind}/main/{path}{anchor})"
        else:
            return link[0]
        start = posixpath.dirname(page.file.src_uri)
        return f"]({posixpath.relpath(found, start or '.')}{anchor})"

    return _LINK.sub(turn, markdown)
