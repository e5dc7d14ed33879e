"""What mkdocs does to the pages: files outside `docs/` that they link to, and formulas.

Pages are written to be read in the repository as well, where `../benchmarks/cost.csv` is a file.
The site gets a copy of every such file, at the place it has in the repository; Markdown becomes a
page, and README.md the first one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
_FORMULA = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md, what pages link to, and what that links to."""
    pages = [Path(f.abs_src_path) for f in files.documentation_pages() if f.abs_src_path]
    waiting, seen = [ROOT / "README.md", *_outside(pages, config)], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            files.append(File.generated(config, _uri(path, config), abs_src_path=str(path)))
            waiting += _outside([path] if path.suffix == ".md" else [], config)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links follow the files that were brought in; formulas become MathML."""
    source = Path(page.file.abs_src_path or page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        target = _file(source, found[2])
        if target is None:
            return found[0]
        path = os.path.relpath(_uri(target, config), Path(page.file.src_uri).parent)
        return f"{found[1]}{path}{found[3]}"

    def formula(found: re.Match[str]) -> str:
        return convert(found[1].strip(), display="block")

    return _FORMULA.sub(formula, _LINK.sub(link, markdown))


def _outside(pages: Iterable[Path], config: MkDocsConfig) -> list[Path]:
    """Files of the repository, outside `docs/`, that pages link to."""
    links = ((page, link[2]) for page in pages for link in _LINK.finditer(page.read_text()))
    found = (_file(page, link) for page, link in links)
    return [path for path in found if path and Path(config.docs_dir) not in path.parents]


def _file(page: Path, link: str) -> Path | None:
    """The file of the repository that a link means, None for everything else."""
    path = (page.parent / link).resolve()
    return path if "://" not in link and path.is_file() and ROOT in path.parents else None


def _uri(path: Path, config: MkDocsConfig) -> str:
    """Where a file of the repository lies on the site."""
    docs = Path(config.docs_dir)
    if path == ROOT / "README.md":
        return "index.md"
    return path.relative_to(docs if docs in path.parents else ROOT).as_posix()
