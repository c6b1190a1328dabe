"""The style sheet: two palettes with the same names, one type scale, and rules for paper.

Every colour of a line has a contrast of 4.5 or more with its page, so its label can wear it. The
ten were picked to lie far apart to normal, deuteranopic and protanopic eyes alike (least distance
in OKLab 0.069 in light and 0.088 in dark, simulated as in Machado, Oliveira and Fernandes 2009).
"""

from __future__ import annotations

from collections.abc import Mapping

LIGHT: Mapping[str, str] = {
    "page": "#ffffff",
    "panel": "#f5f6f8",
    "ink": "#1b2127",
    "muted": "#57616b",
    "rule": "#cfd5db",
    "grid": "#e7eaee",
    "tint": "#e3f0e9",
    "link": "#0b5cad",
    "c0": "#0b5cad",
    "c1": "#9c3d04",
    "c2": "#047650",
    "c3": "#631763",
    "c4": "#897604",
    "c5": "#7663d5",
    "c6": "#89173d",
    "c7": "#9c6389",
    "c8": "#3d2a9c",
    "c9": "#632a04",
    "cx": "#5f6973",
}
DARK: Mapping[str, str] = {
    "page": "#14181d",
    "panel": "#1c2228",
    "ink": "#e7eaee",
    "muted": "#a5b0bb",
    "rule": "#3d4650",
    "grid": "#272e36",
    "tint": "#1d3a2e",
    "link": "#7ab4f5",
    "c0": "#6aaef7",
    "c1": "#d56304",
    "c2": "#049c63",
    "c3": "#e8c2fb",
    "c4": "#afaf3d",
    "c5": "#7676e8",
    "c6": "#fb89af",
    "c7": "#c263af",
    "c8": "#89e8af",
    "c9": "#fbd52a",
    "cx": "#a3adb7",
}

_RULES = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
overflow-wrap:anywhere}
header,main,footer{max-width:1112px;margin:0 auto;padding:0 16px}
header{padding-top:32px}
footer{padding-bottom:48px}
h1{font-size:28px;line-height:1.2;margin:0 0 8px;font-weight:650}
h2{font-size:22px;line-height:1.25;margin:56px 0 4px;padding-top:16px;
border-top:2px solid var(--ink);font-weight:650}
h3{font-size:17px;margin:36px 0 4px;font-weight:650}
p{margin:0 0 12px;max-width:70ch}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:2px solid var(--link);
outline-offset:2px}
.line{display:block}
.muted,.lede{color:var(--muted)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(124px,1fr));gap:12px 24px;
margin:24px 0;padding:16px;background:var(--panel);border-radius:6px}
dt{font-size:13px;color:var(--muted)}
dd{margin:0;font-weight:600;font-variant-numeric:tabular-nums}
dd.long{font-weight:400}
nav ul{display:flex;flex-wrap:wrap;gap:4px 20px;list-style:none;margin:0;padding:0}
figure{margin:16px 0 0}
figcaption{font-size:14px;line-height:1.45;margin-bottom:8px;max-width:90ch}
svg{display:block;width:100%;height:auto;overflow:visible;font-size:12px;
font-variant-numeric:tabular-nums}
svg text{fill:var(--ink)}
svg .tick,svg .axis-title{fill:var(--muted)}
svg .tick{font-size:11px}
svg .figure{font-weight:600}
.grid{stroke:var(--grid)}
.axis{stroke:var(--muted)}
.diagonal{stroke:var(--muted);stroke-dasharray:3 3}
.leader{stroke:var(--muted);stroke-width:.7}
.to-name{fill:none;stroke:var(--c);stroke-width:.8}
.curve{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}
.heavy{stroke-width:3.2}
.thin{fill:none;stroke:var(--c);stroke-width:1.2}
.whisker{stroke:var(--c);stroke-width:1.6}
.mark{fill:var(--c)}
.single{fill:var(--page);stroke:var(--ink);stroke-width:1.6}
svg .name,svg .label{paint-order:stroke;stroke:var(--page);stroke-width:3px;stroke-linejoin:round}
svg .name{font-size:11px}
svg .label{fill:var(--c);font-weight:600}
svg.narrow{display:none}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr));
gap:16px 32px}
.panels svg{max-width:440px}
.squares{display:grid;grid-template-columns:repeat(auto-fill,minmax(160px,1fr));gap:8px 20px;
align-items:end}
.squares figure{margin:8px 0}
.squares figcaption{font-size:13px;margin-bottom:4px}
.squares figcaption span{display:block;font-size:12px}
.squares svg{max-width:230px}
details{border-bottom:1px solid var(--rule);padding:8px 0}
summary{cursor:pointer;font-weight:600;padding:4px 0}
.scroll{overflow-x:auto;position:relative;margin:12px 0}
table{border-collapse:collapse;font-size:14px;line-height:1.35;font-variant-numeric:tabular-nums}
caption{text-align:left;padding-bottom:6px;color:var(--muted)}
caption span{display:inline-block;position:sticky;left:0;max-width:min(1080px,100vw - 32px)}
.words{text-align:left}
caption strong{color:var(--ink)}
th,td{padding:6px 12px;text-align:right;vertical-align:top;border-bottom:1px solid var(--rule);
overflow-wrap:normal}
thead th{vertical-align:bottom;border-bottom:1.5px solid var(--ink);font-weight:600}
th:first-child{text-align:left;padding-left:0}
tbody th{font-weight:600;position:sticky;left:0;background:var(--page);min-width:96px;
max-width:240px;overflow-wrap:anywhere}
td small,th small{display:block;font-size:12px;font-weight:400;color:var(--muted);
white-space:nowrap}
td.best{background:var(--tint)}
td.best b::before{content:"✓ ";font-weight:400}
.glossary td:last-child{min-width:260px}
.spoken{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);
white-space:nowrap}
pre{overflow-x:auto;background:var(--panel);padding:12px 16px;border-radius:6px;
font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.notes li{max-width:80ch;margin-bottom:4px}
@media (max-width:679px){
body{font-size:15px}
h1{font-size:24px}
header{padding-top:20px}
svg.wide{display:none}
svg.narrow{display:block;max-width:560px}
th,td{padding:6px 8px}
tbody th{min-width:116px;max-width:130px}
dl{grid-template-columns:repeat(auto-fill,minmax(120px,1fr))}
}
@media print{
body{font-size:11pt}
header,main,footer{max-width:none;padding:0}
figure,tr,.squares figure{break-inside:avoid}
section[id^="labels"]+section[id^="labels"]{break-before:page}
h2,h3,caption,figcaption,summary{break-after:avoid}
.scroll{overflow:visible}
table{font-size:9pt}
th,td{padding:3px 6px}
nav{display:none}
details::details-content{content-visibility:visible;block-size:auto}
}
"""


def stylesheet() -> str:
    """Return the whole style sheet; paper is always light."""
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    colours = "".join(f".{name}{{--c:var(--{name})}}" for name in LIGHT if name.startswith("c"))
    return f":root{{{_variables(LIGHT)}}}{dark}{colours}{_RULES}"


def _variables(palette: Mapping[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in palette.items())
