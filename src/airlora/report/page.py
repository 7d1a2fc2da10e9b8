"""The frame of a report page: document, style sheet, contents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

_STYLE = """
:root{--ink:#1b2733;--muted:#5b6875;--line:#dfe5ea;--paper:#fff;--wash:#f5f7f9;--accent:#0072B2}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--wash);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1160px;margin:0 auto;padding:28px 20px 56px}
h1{font-size:30px;line-height:1.15;margin:2px 0 10px;overflow-wrap:anywhere}
h2{font-size:21px;margin:0 0 4px}
h3{font-size:15px;margin:0;overflow-wrap:anywhere}
p{margin:0 0 10px}
code{background:var(--wash);padding:1px 5px;border-radius:4px;font-size:.92em}
.kicker{color:var(--muted);font-size:14px;margin:0}
.state{display:inline-block;border-radius:999px;padding:1px 11px;margin-left:6px;font-weight:600;font-size:13px}
.done{background:#dcf1e9;color:#00553f}.open{background:#fbe8d3;color:#7a3a00}
.facts{display:flex;flex-wrap:wrap;gap:6px;margin-bottom:16px}
.facts span{background:#fff;border:1px solid var(--line);border-radius:6px;padding:1px 9px;font-size:13.5px;
color:var(--muted);overflow-wrap:anywhere}
.notice{background:#fff8ec;border-left:4px solid #d08a1d;padding:8px 12px;font-size:14.5px}
.headline{font-size:21px;line-height:1.4;max-width:46em}
.headline strong{color:var(--accent)}
.cards{display:grid;grid-template-columns:minmax(250px,1.4fr) repeat(4,minmax(0,1fr));gap:12px;margin:18px 0 0}
.cards div{background:#fff;border:1px solid var(--line);border-radius:10px;padding:13px 15px}
.cards dt{color:var(--muted);font-size:13.5px}
.cards dd{margin:0;color:var(--muted);font-size:13px;line-height:1.4}
.cards .value{color:var(--ink);font-size:23px;white-space:nowrap;font-weight:650;letter-spacing:-.01em;line-height:1.35;
font-variant-numeric:tabular-nums}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;margin:22px 0 0;font-size:14.5px}
nav a{color:var(--accent);text-decoration:none}nav a:hover{text-decoration:underline}
section{background:#fff;border:1px solid var(--line);border-radius:12px;padding:20px 22px;margin-top:18px}
.lead{color:var(--muted);max-width:52em;font-size:15px}
.charts{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:24px 30px;margin-top:14px}
figure{margin:0;break-inside:avoid}
figcaption p{color:var(--muted);font-size:13.5px;line-height:1.4;margin:1px 0 6px}
svg{display:block;width:100%;height:auto}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif!important}
.scroll{overflow-x:auto;margin-top:8px}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 18px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:500;color:var(--muted)}thead th{font-weight:650;color:var(--ink)}
details table th,details table td{white-space:nowrap}
summary{cursor:pointer;color:var(--accent);font-size:15px}
.tables{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:24px 36px;margin-top:12px}
.tables .scroll{overflow-x:visible}.tables table{width:100%;table-layout:auto}
.tables td{overflow-wrap:anywhere}
@media screen and (max-width:760px){main{padding:18px 10px 40px}section{padding:16px 13px}
.charts{grid-template-columns:minmax(0,1fr)}
h1{font-size:25px}.headline{font-size:18.5px}.cards{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}
.cards div{padding:10px 12px}.cards div:first-child{grid-column:1/-1}.cards .value{font-size:21px}
.tables{grid-template-columns:minmax(0,1fr)}}
@media print{@page{margin:14mm}body{background:#fff;font-size:11pt}main{max-width:none;padding:0}nav{display:none}
section{border:0;padding:0;margin-top:22px}.charts{grid-template-columns:repeat(2,minmax(0,1fr));gap:16px}
h2,h3,.lead{break-after:avoid}.cards{grid-template-columns:repeat(3,minmax(0,1fr))}.cards div{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def document(title: str, header: str, sections: Sequence[str]) -> str:
    """A whole HTML document.

    Args:
        title: of the document; escaped here.
        header: markup above the contents.
        sections: markup of the sections, each ``<section id=…><h2>…</h2>…</section>``.
    """
    links = "".join(
        f'<a href="#{match[1]}">{match[2]}</a>'
        for match in (re.match(r'<section id="([^"]+)"><h2>([^<]+)</h2>', section) for section in sections)
        if match
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f'<body><main><header>{header}</header><nav aria-label="Contents">{links}</nav>\n'
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )
