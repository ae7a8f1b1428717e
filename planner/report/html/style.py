"""Style and the few lines of script of the report: light and dark by the reader's setting, narrow and printed."""

STYLE = """
:root{--bg:#fff;--fg:#1b1f24;--soft:#57606a;--line:#d5dae0;--card:#f6f8fa;--accent:#0a58ca;
--c0:#2a6fbb;--c1:#c8553d;--c2:#3d8b5f;--c3:#8a5bb0;--c4:#b98a1d;--c5:#5b6b7b;--on:#fff}
@media (prefers-color-scheme:dark){:root{--bg:#14181d;--fg:#e6e9ed;--soft:#9aa5b1;--line:#333b45;--card:#1c2229;
--accent:#7db4ff;--c0:#6ea8e5;--c1:#e58a75;--c2:#72bd92;--c3:#b993da;--c4:#dcb455;--c5:#8e9dac;--on:#14181d}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1.5rem 1rem 3rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.55rem;line-height:1.25;margin:.2rem 0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}p{margin:.4rem 0;max-width:48rem}.soft{color:var(--soft)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:1rem 0}
.facts div{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
.facts b{display:block;font-size:1.25rem;font-weight:600;font-variant-numeric:tabular-nums}
.facts span{color:var(--soft);font-size:.85rem}
.wide{overflow-x:auto;margin:.4rem 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;min-width:100%}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;
overflow-wrap:normal}td{max-width:24rem;min-width:2rem}td:not(.n):not(.s){min-width:9rem}td.s{white-space:nowrap}
th{color:var(--soft);font-weight:600;vertical-align:bottom}td.n{white-space:nowrap}td.n,th.n{text-align:right}
tr.best td{background:var(--card);font-weight:600}
svg{width:100%;height:auto;display:block}svg text{font-size:13px;fill:var(--soft)}svg text.axis{fill:var(--fg)}
svg .grid{stroke:var(--line)}svg .front{fill:none;stroke:var(--c5);stroke-width:1.5;stroke-dasharray:4 3}
svg .dot{outline:none;cursor:default}svg .dot circle{stroke:var(--bg);stroke-width:1.5}
svg .dot text.on{fill:var(--on);font-weight:700;pointer-events:none}
svg .stem{stroke:var(--soft);stroke-width:1}
svg .dot:hover circle,svg .dot:focus circle{stroke:var(--fg);stroke-width:2.5}
.c0{fill:var(--c0);background:var(--c0)}.c1{fill:var(--c1);background:var(--c1)}
.c2{fill:var(--c2);background:var(--c2)}
.c3{fill:var(--c3);background:var(--c3)}.c4{fill:var(--c4);background:var(--c4)}
.c5{fill:var(--c5);background:var(--c5)}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1rem;font-size:.85rem;color:var(--soft);padding:0;margin:.4rem 0;
list-style:none}
.key i{display:inline-block;width:.75rem;height:.75rem;border-radius:2px;margin-right:.35rem;vertical-align:-1px}
.bar{display:flex;height:1.35rem;border-radius:.25rem;overflow:hidden;background:var(--card);
border:1px solid var(--line)}
.bar i{display:block;height:100%}
.row{display:grid;grid-template-columns:minmax(8rem,13rem) 1fr 8.5rem;gap:.2rem .8rem;align-items:center;
margin:.35rem 0;font-size:.9rem}
.row span:last-child{text-align:right;font-variant-numeric:tabular-nums}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;font-size:.85rem;margin:.4rem 0}
dt{color:var(--soft)}dd{margin:0;font-family:ui-monospace,Menlo,Consolas,monospace}
#tip{position:fixed;z-index:9;max-width:20rem;padding:.4rem .6rem;border-radius:.35rem;background:var(--fg);
color:var(--bg);
font-size:.85rem;white-space:pre-line;pointer-events:none;display:none}
@media (max-width:620px){body{padding:1rem .8rem 2rem}svg text{font-size:21px}svg .dot text.on{font-size:16px}
.row{grid-template-columns:1fr auto}.row .bar{grid-column:1/3;grid-row:2}dl{grid-template-columns:1fr}
dt{margin-top:.4rem}}
@page{margin:14mm}
@media print{:root{--bg:#fff;--fg:#000;--soft:#444;--line:#bbb;--card:#f3f3f3;--on:#fff;
--c0:#2a6fbb;--c1:#c8553d;--c2:#3d8b5f;--c3:#8a5bb0;--c4:#b98a1d;--c5:#5b6b7b}
body{max-width:none;padding:0;font-size:10pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
h1{font-size:15pt}h2{font-size:11.5pt;margin:1.2rem 0 .4rem}h3{font-size:10pt;margin:.7rem 0 .2rem}
h2,h3,.key{break-after:avoid}tr,.row,.facts,svg,dl>*{break-inside:avoid}p{orphans:3;widows:3}
.facts{grid-template-columns:repeat(6,minmax(0,1fr));gap:.4rem;margin:.6rem 0}.facts div{padding:.3rem .5rem}
.facts b{font-size:11pt}.facts span{font-size:7.5pt}svg{max-height:10cm}.row{font-size:8.5pt;margin:.15rem 0}
.bar{height:1rem}
.wide{overflow:visible}table{font-size:7.5pt}th,td{padding:.15rem .3rem}td:not(.n):not(.s){min-width:5.5rem}
dl{font-size:8pt}}
"""

SCRIPT = """
(function(){var t=document.getElementById('tip');
function show(e){var d=e.target.closest&&e.target.closest('[data-tip]');if(!d){t.style.display='none';return}
t.textContent=d.getAttribute('data-tip');t.style.display='block';var b=d.getBoundingClientRect();
t.style.left=Math.max(8,Math.min(innerWidth-t.offsetWidth-8,b.left+b.width/2-t.offsetWidth/2))+'px';
t.style.top=(b.top>t.offsetHeight+12?b.top-t.offsetHeight-8:b.bottom+8)+'px'}
['mouseover','focusin','click'].forEach(function(n){document.addEventListener(n,show)});
addEventListener('scroll',function(){t.style.display='none'},true);
document.querySelectorAll('svg title').forEach(function(x){x.remove()})})();
"""
