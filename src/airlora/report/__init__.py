"""The report of a run: one offline HTML page, and the short table at the end of a run.

Both are made from the files of a run folder alone, so they can be drawn again at any time.
"""

from airlora.report.html import write_report
from airlora.report.terminal import summary_table

__all__ = ["summary_table", "write_report"]
