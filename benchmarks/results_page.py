"""Publish comparisons, and write docs/results.md and the tables of README.md from what is published.

    python benchmarks/results_page.py [OUT …] --docs docs/results.md --readme README.md

The rows of every folder OUT of ``airlora compare`` go to docs/results/NAME, NAME being that of the folder: seeds, jobs
and arms of several sittings add up. The page has a section for each, and its figure is drawn anew; sections of before
there were such rows stay as the page has them. Hand-written notes on comparison NAME are read from docs/notes/NAME.md;
docs/notes/introduction.md and docs/notes/appendix.md open and close the page. README.md has a table for a comparison
NAME where it has the lines <!-- results:NAME --> and <!-- /results -->; <!-- results:NAME ARM … --> shows some arms.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from airlora.compare.markdown import block_arms, replace_block, results_block, results_page
from airlora.compare.published import draw_published, publish


def main() -> None:
    """Read the command line and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outs", nargs="*", type=Path, metavar="OUT", help="a folder written by airlora compare")
    parser.add_argument("--docs", type=Path, required=True, help="the page to write, for example docs/results.md")
    parser.add_argument("--readme", type=Path, help="the file whose marked blocks are replaced")
    options = parser.parse_args()
    docs: Path = options.docs
    published, notes = docs.with_suffix(""), docs.parent / "notes"
    for out in options.outs:
        print(f"published {publish(out, published)}")
    folders = sorted(path.parent for path in published.glob("*/comparison.json"))
    for folder in folders:
        draw_published(folder)
    before = docs.read_text(encoding="utf-8") if docs.exists() else ""
    docs.write_text(results_page(folders, notes, before), encoding="utf-8")
    print(f"wrote {docs}")
    if options.readme:
        text = options.readme.read_text(encoding="utf-8")
        named = {folder: arms for folder in folders if (arms := block_arms(text, folder.name)) is not None}
        for folder, arms in named.items():
            text = replace_block(text, folder.name, results_block(folder, arms))
        options.readme.write_text(text, encoding="utf-8")
        print(f"replaced in {options.readme}: {', '.join(path.name for path in named) or 'no block has such a name'}")


if __name__ == "__main__":
    main()
