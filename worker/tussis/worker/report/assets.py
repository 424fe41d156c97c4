"""The style and the script of a report. Both are inline, and the page's policy admits nothing else."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --text: #1b1f24; --soft: #57606a; --line: #d0d7de; --box: #f6f8fa;
  --wave: #0969da; --score: #0969da; --cough: #b3261e; --event: #f5b7b1; --other: #6e7781; --warn: #fff3cd;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0d1117; --text: #e6edf3; --soft: #9da7b3; --line: #3d444d; --box: #161b22;
    --wave: #58a6ff; --score: #58a6ff; --cough: #ff8a80; --event: #6e2620; --other: #8b949e; --warn: #3a2f0b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 64rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h1.cough { color: var(--cough); }
p { margin: .5rem 0; }
.soft, figcaption, footer { color: var(--soft); font-size: .9rem; }
.warn { background: var(--warn); border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .75rem; }
.warn ul { margin: 0; padding-left: 1.2rem; }
audio { width: 100%; }
figure { margin: 0 0 1rem; }
svg { display: block; width: 100%; background: var(--box); border: 1px solid var(--line); }
svg.inner { background: none; border: 0; }
svg.axis { background: none; border-color: transparent; height: 1.4rem; }
svg.wave { height: 6rem; }
svg.mel { height: 8rem; }
svg.scores { height: 9rem; }
svg.bars { height: 11rem; }
svg.square { max-width: 24rem; aspect-ratio: 1; }
svg.seek { cursor: pointer; }
svg text { fill: var(--soft); font-size: .75rem; }
.fill-wave { fill: var(--wave); }
.fill-cough { fill: var(--cough); }
.fill-no-cough { fill: var(--score); }
.fill-failed { fill: var(--other); }
.fill-event { fill: var(--event); }
.line-score { stroke: var(--score); stroke-width: 2; fill: none; vector-effect: non-scaling-stroke; }
.line-limit { stroke: var(--cough); stroke-width: 1.5; stroke-dasharray: 5 4; fill: none; }
.line-even { stroke: var(--other); stroke-width: 1; fill: none; vector-effect: non-scaling-stroke; }
.cursor { stroke: var(--text); stroke-width: 2; }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .3em; border: 1px solid var(--line); }
.key-cough { background: var(--cough); }
.key-no-cough { background: var(--score); }
.key-failed { background: var(--other); }
.key-event { background: var(--event); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; overflow-wrap: normal; }
td:last-child:not(.number) { min-width: 12rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; }
pre { white-space: pre-wrap; }
summary { cursor: pointer; padding: .25rem 0; }
button { font: inherit; color: inherit; background: var(--box); border: 1px solid var(--line); border-radius: .3rem; }
:focus-visible { outline: 2px solid var(--score); outline-offset: 2px; }
"""

SCRIPT: Final = """
(() => {
  const audio = document.querySelector("audio");
  const span = Number(audio.dataset.span);
  const cursors = document.querySelectorAll(".cursor");
  const move = () => {
    const share = audio.currentTime / span;
    for (const cursor of cursors) {
      cursor.setAttribute("x1", 100 * share + "%");
      cursor.setAttribute("x2", 100 * share + "%");
      cursor.setAttribute("visibility", share <= 1 ? "visible" : "hidden");
    }
    if (!audio.paused) requestAnimationFrame(move);
  };
  for (const name of ["play", "seeked", "timeupdate"]) audio.addEventListener(name, move);
  for (const plot of document.querySelectorAll(".seek")) {
    plot.addEventListener("click", (event) => {
      const box = plot.getBoundingClientRect();
      audio.currentTime = (span * (event.clientX - box.left)) / box.width;
    });
  }
  for (const button of document.querySelectorAll("button[data-at]")) {
    button.addEventListener("click", () => {
      audio.currentTime = Number(button.dataset.at);
      audio.play();
    });
  }
})();
"""
