"""Shows reports in Chromium and looks at what was drawn.

    browser_test.py BROWSER FOLDER     FOLDER holds the pages; screenshots and the PDF are written beside them
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

# Runs in the page once it was drawn, and tells the page around it what it sees.
PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement, tip = document.getElementById("tip");
  const charts = [...document.querySelectorAll("figure.chart")].map((figure) => {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const values = (name) => ((spec.data.find((d) => d.name === name) || {}).values || []).length;
    const count = (marks) => figure.querySelectorAll(`g.${marks} > path`).length;
    const box = figure.querySelector("svg");
    return {title: figure.querySelector("h4").textContent, drawn: figure.classList.contains("drawn"),
            points: values("points"), lines: values("lines"), cells: values("cells"),
            symbols: count("mark-symbol.role-mark"),
            rects: count("mark-rect.role-mark"), width: box ? box.getBoundingClientRect().width : 0,
            room: figure.getBoundingClientRect().width, nan: figure.innerHTML.includes("NaN")};
  });
  const symbol = document.querySelector(
    "figure.chart g.mark-symbol.role-mark > path, figure.chart g.mark-rect.role-mark > path");
  const at = symbol.getBoundingClientRect();
  symbol.dispatchEvent(new MouseEvent("mousemove", {bubbles: true, clientX: at.x + 2, clientY: at.y + 2}));
  const style = getComputedStyle(document.body);
  parent.postMessage(JSON.stringify({
    charts, overflow: root.scrollWidth - root.clientWidth, width: innerWidth, paper: style.backgroundColor,
    ink: style.color, label: getComputedStyle(document.querySelector("figure.chart text")).fill,
    tip: tip.hidden ? "" : tip.textContent,
    pictures: [...document.images].map((image) => image.naturalWidth)}), "*");
  tip.hidden = true;
}, 1500));
</script>
"""

# The page in a frame, since Chromium has no windows narrower than 500 pixels.
FRAME = """<!doctype html><title>frame</title>
<script>addEventListener("message", (event) => { document.documentElement.dataset.probe = event.data; });</script>
<iframe src="%s" style="width: %dpx; height: 900px; border: 0"></iframe>
"""

failures = []


def check(holds, *what):
    if not holds:
        failures.append(" ".join(map(str, what)))


class Browser:
    def __init__(self, program, profile):
        self.command = [program, "--headless=new", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
                        "--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}",
                        "--virtual-time-budget=6000"]
        if os.geteuid() == 0:
            self.command.append("--no-sandbox")

    def run(self, page, *options):
        """Standard output; every line on the page's console is a failure."""
        done = subprocess.run([*self.command, *options, page.as_uri()], capture_output=True, text=True, timeout=180)
        check(done.returncode == 0, page.name, *options, "exit", done.returncode)
        for line in done.stderr.splitlines():
            check(":CONSOLE" not in line, page.name, *options, line)
        return done.stdout


def luminance(color):
    red, green, blue = (int(v) for v in re.findall(r"\d+", color)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def look(browser, page, probed, scheme, width):
    """Loads the page in one scheme and width, and checks what the probe saw."""
    name = f"{page.stem} {scheme} {width}"
    options = [f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}", f"--window-size={width},1000"]
    frame = probed.with_suffix(".frame.html")
    frame.write_text(FRAME % (probed.name, width))
    dom = browser.run(frame, options[0], "--window-size=1300,1000", "--dump-dom")
    found = re.search(r'<html[^>]* data-probe="([^"]*)"', dom)
    check(found, name, "the probe did not run")
    if not found:
        return
    probe = json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    check(probe["width"] == width, name, "is", probe["width"], "wide")
    check(probe["overflow"] <= 0, name, "is wider than the window by", probe["overflow"])
    check(len(probe["charts"]) > 4, name, "has only", len(probe["charts"]), "charts")
    for chart in probe["charts"]:
        where = f"{name}, {chart['title']}:"
        check(chart["drawn"] and not chart["nan"], where, "not drawn")
        check(chart["points"] + chart["cells"] + chart["lines"] > 0, where, "no data")
        check(chart["symbols"] >= chart["points"], where, chart["symbols"], "symbols of", chart["points"])
        check(chart["rects"] == chart["cells"], where, chart["rects"], "cells of", chart["cells"])
        check(0 < chart["width"] <= chart["room"] + 1, where, "width", chart["width"], "in", chart["room"])
    paper, ink, label = (luminance(probe[key]) for key in ("paper", "ink", "label"))
    check((paper < 60 < 120 < min(ink, label)) if scheme == "dark" else (paper > 200 > 120 > max(ink, label)), name,
          "colours", probe["paper"], probe["ink"], probe["label"])
    check("\n" in probe["tip"], name, "the tip says", repr(probe["tip"]))
    if page.stem == "real":
        check(probe["pictures"] and all(probe["pictures"]), name, "pictures", probe["pictures"])
    shot = page.with_name(f"{page.stem}-{scheme}-{width}.png")
    options[1] = f"--window-size={width},{12000 if width < 600 else 6000}"
    browser.run(page, *options, f"--screenshot={shot}")
    check(shot.exists() and shot.stat().st_size > 20_000, name, "screenshot")


def main(program, folder):
    folder = pathlib.Path(folder)
    with tempfile.TemporaryDirectory() as scratch:
        browser = Browser(program, f"{scratch}/profile")
        pages = sorted(folder.glob("*.html"))
        check(len(pages) == 3, "pages", pages)
        for page in pages:
            probed = pathlib.Path(scratch) / page.name
            probed.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
            for scheme, width in (("light", 1200), ("dark", 390)):
                look(browser, page, probed, scheme, width)
        page = pages[0]
        look(browser, page, pathlib.Path(scratch) / page.name, "dark", 1200)
        look(browser, page, pathlib.Path(scratch) / page.name, "light", 390)
        pdf = folder / "printed.pdf"
        browser.run(page, "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
        text = pdf.read_bytes() if pdf.exists() else b""
        sheets = len(re.findall(rb"/Type\s*/Page\b", text))
        check(text.startswith(b"%PDF") and sheets >= 2, "printed", sheets, "pages,", len(text), "bytes")
    for failure in failures:
        print("FAILED:", failure)
    print(f"browser: {len(pages)} reports, {len(failures)} failures")
    return 1 if failures else 0


sys.exit(main(*sys.argv[1:]))
