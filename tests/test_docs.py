"""Every Python example of the README and the documentation runs as it stands and prints what the page says.

The blocks of one page run one after the other in one namespace, in an empty folder. A `text` block that
directly follows a `python` block is its output. Code that is not meant to run stands in `py` blocks.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(page: Path) -> list[tuple[int, str, str | None]]:
    """The Python blocks of a page: line of the first statement, source, expected output."""
    text = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    found = []
    for index, block in enumerate(blocks):
        if block[1] != "python":
            continue
        output = None
        if index + 1 < len(blocks) and blocks[index + 1][1] == "text":
            if not text[block.end() : blocks[index + 1].start()].strip():
                output = blocks[index + 1][2]
        found.append((text.count("\n", 0, block.start(2)) + 1, block[2], output))
    return found


def run_page(page: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, source, expected in examples(page):
        # Blank lines in front give tracebacks the line numbers of the page.
        code = compile("\n" * (line - 1) + source, str(page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if expected is not None:
            assert printed.getvalue() == expected, f"{page.name}:{line}"


DOCUMENTS = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/**/*.md"))]
PAGES = [page for page in DOCUMENTS if examples(page)]


def test_some_pages_have_examples() -> None:
    assert {"formats.md", "boards.md"} <= {page.name for page in PAGES}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_examples_of_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page)


def test_a_wrong_output_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "# P\n\n```python\nx = 1\n```\n\n```py\nx = 2\n```\n\n```python\nprint(x)\n```\n"
    text += "\n```text\n{}\n```\n"
    page.write_text(text.format(1), encoding="utf-8")
    run_page(page)
    page.write_text(text.format(2), encoding="utf-8")
    with pytest.raises(AssertionError, match="page.md:12"):
        run_page(page)


def test_links_to_files_of_the_repository() -> None:
    """`mkdocs --strict` checks links inside the site; the README and files outside docs are checked here."""
    for page in (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (REPOSITORY / target).exists(), f"{page.name}: {target}"
