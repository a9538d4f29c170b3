"""The frame and the style of the page of all papers; the page fetches nothing."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Policy gradient papers, reproduced</title>
<link rel="icon" href="data:,">
<style>STYLE</style>
</head>
<body>
BODY
</body>
</html>
"""
STYLE = """
:root { --ink: #1d1d1f; --grey: #5f6368; --paper: #fdfdfc; --line: #dcdcd8; --link: #0b57d0;
  --good: #17693a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e3; --grey: #a5a5a0; --paper: #17181a; --line: #3a3b3e; --link: #8ab4f8;
    --good: #7bd09a; --bad: #f28b82; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.25rem; line-height: 1.3; } h3 { font-size: 1rem; }
a { color: var(--link); }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: .6rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .85rem; color: var(--grey); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font-size: .85em; }
figure { margin: 1rem 0; }
figure img { display: block; width: 100%; height: auto; background: #fff; border-radius: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th { color: var(--grey); font-weight: 600; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; } .neutral { color: var(--grey); }
tr.reference td:not(.bad) { color: var(--grey); }
small { color: var(--grey); }
summary { cursor: pointer; color: var(--grey); }
footer { color: var(--grey); font-size: .85rem; margin-top: 2rem; }
.badge { border: 1px solid currentColor; border-radius: 1rem; padding: .05rem .6rem; font-size: .8rem;
  font-weight: 400; display: inline-block; }
@media (max-width: 50rem) {
  body { padding: .8rem; }
  table.stacked thead { display: none; }
  table.stacked, table.stacked tbody, table.stacked tr, table.stacked td { display: block; width: 100%; }
  table.stacked tr { border: 1px solid var(--line); border-radius: 6px; margin-bottom: .8rem; padding: .3rem; }
  table.stacked td { border: 0; padding: .15rem .4rem; }
  table.stacked td:not(:first-child)::before { content: attr(data-label) ": "; color: var(--grey); }
  figure img { min-width: 44rem; }
  table.wide thead, table.wide td:empty { display: none; }
  table.wide tr { display: block; border-bottom: 1px solid var(--line); padding: .25rem 0; }
  table.wide td { display: inline-block; border: 0; padding: 0 .8rem 0 0; }
  table.wide td:first-child { display: block; font-weight: 600; }
  table.wide td:not(:first-child)::before { content: attr(data-label) ": "; color: var(--grey); font-weight: 400; }
}
"""
