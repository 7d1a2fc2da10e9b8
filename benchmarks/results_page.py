"""Write docs/results.md and the tables of README.md from the folders of ``airlora compare``.

    python benchmarks/results_page.py OUT … --docs docs/results.md --readme README.md

Sections of comparisons that are not named stay as the page has them. Hand-written notes on the comparison in folder
NAME are read from docs/notes/NAME.md; docs/notes/introduction.md and docs/notes/appendix.md open and close the page.
README.md has a table for a comparison NAME where it has the lines <!-- results:NAME --> and <!-- /results -->.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from airlora.compare.markdown import replace_block, results_block, results_page


def main() -> None:
    """Read the command line and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outs", nargs="+", type=Path, metavar="OUT", help="a folder written by airlora compare")
    parser.add_argument("--docs", type=Path, help="the page to write, for example docs/results.md")
    parser.add_argument("--notes", type=Path, help="folder of hand-written notes [notes beside the page]")
    parser.add_argument("--readme", type=Path, help="the file whose marked blocks are replaced")
    options = parser.parse_args()
    if options.docs:
        notes = options.notes or options.docs.parent / "notes"
        before = options.docs.read_text(encoding="utf-8") if options.docs.exists() else ""
        options.docs.write_text(results_page(options.outs, notes, before), encoding="utf-8")
        print(f"wrote {options.docs}")
    if options.readme:
        text = options.readme.read_text(encoding="utf-8")
        names = {out.resolve().name: out for out in options.outs}
        named = [name for name in names if f"<!-- results:{name} -->" in text]
        for name in named:
            text = replace_block(text, name, results_block(names[name]))
        options.readme.write_text(text, encoding="utf-8")
        print(f"replaced in {options.readme}: {', '.join(named) or 'nothing, no block has such a name'}")


if __name__ == "__main__":
    main()
