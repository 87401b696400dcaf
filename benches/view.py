"""How fast `tinyres view` shows a set of 100,000 images: from its start to the first pictures, while it scrolls, and when
it filters and sorts. Chromium is that of the system, without a GPU. The set is synthetic; predictions are written here.

    cargo build --release -p tinyres -p tinyres-view
    PYTHONPATH=$(tools/packages view/tests/browser.txt) python3 benches/view.py target/release

With a directory as a second argument, the set stays there for the next time. `--json` prints the figures for programs.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

CLASSES, PER_CLASS = 200, 500
ROUNDS = 7

# Milliseconds from the start of the page until all pictures in view are drawn.
WATCH = """
new MutationObserver(() => {
  if (!window.firstPictures && document.querySelector('[data-drawn]:not([data-drawn=""])')) window.firstPictures = performance.now();
}).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ['data-drawn'] });
"""
# Milliseconds between frames while the grid scrolls by 60 pixels a frame.
SCROLL = """async (frames) => {
  const grid = document.querySelector('[role=grid]');
  const next = () => new Promise(requestAnimationFrame);
  const times = [];
  let last = await next();
  for (let frame = 0; frame < frames; frame++) {
    grid.scrollTop += 60;
    const now = await next();
    times.push(now - last);
    last = now;
  }
  return times;
}"""
# Milliseconds until all pictures at another place are drawn.
JUMP = """async (fraction) => {
  const grid = document.querySelector('[role=grid]');
  const before = grid.dataset.drawn;
  const start = performance.now();
  grid.scrollTop = fraction * (grid.scrollHeight - grid.clientHeight);
  while (!grid.dataset.drawn || grid.dataset.drawn === before) await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""
# Milliseconds until the first frame that shows what another address asks for.
CHANGE = """async (address) => {
  const grid = document.querySelector('[role=grid]');
  // Pictures of the address before are drawn as they come.
  while (!grid.dataset.drawn) await new Promise(requestAnimationFrame);
  await new Promise((resolve) => setTimeout(resolve, 200));
  const drawn = new Promise((resolve) => {
    new MutationObserver((_, observer) => {
      observer.disconnect();
      resolve(performance.now());
    }).observe(grid, { attributes: true, attributeFilter: ['data-drawn'] });
  });
  const start = performance.now();
  location.hash = address;
  return (await drawn) - start;
}"""


def tests():
    """The tests of the page, for the predictions that they write."""
    spec = importlib.util.spec_from_file_location("page", Path(__file__).parents[1] / "view/tests/page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(home: Path, programs: Path, page):
    """The set, and a run with predictions for its train split."""
    if (home / "run/eval").exists():
        return
    sizes = f"--classes {CLASSES} --train-per-class {PER_CLASS} --val-per-class 1 --test 1"
    for command in [f"sample {home}/tree {sizes}", f"pack {home}/tree -o {home}/shards"]:
        subprocess.run([programs / "tinyres", *command.split()], check=True, capture_output=True)
    shutil.rmtree(home / "tree")
    page.write_run(home / "run", home / "shards", 0, "train")


def resident(process: int) -> float:
    """MB of memory of a process that is not a file's."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1000


def start(home: Path, programs: Path):
    """A server, its address, and the milliseconds until it listened."""
    command = [programs / "tinyres-view", "view", "shards", "--run", "run", "--port", "0", "--json"]
    began = time.perf_counter()
    server = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True)
    url = json.loads(server.stdout.readline())["url"]
    return server, url, 1000 * (time.perf_counter() - began)


def measure(home: Path, programs: Path, module):
    figures = {}

    def note(name, values, goal, pick=statistics.median):
        values = list(values)
        figures[name] = {"value": round(pick(values), 1), "worst": round(max(values), 1), "goal": goal}

    starts = []
    for _ in range(ROUNDS):
        server, url, took = start(home, programs)
        starts.append(took)
        server.kill()
        server.wait()
    note("listens after, ms", starts, 100)
    server, url, _ = start(home, programs)
    with module.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=module.CHROMIUM, args=module.FLAGS)
        firsts, sizes = [], []
        for opened in range(1 + ROUNDS):
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            page = context.new_page()
            page.add_init_script(WATCH)
            sent, urls = {}, {}
            # What is recorded takes time, so the first page is not among those that are measured.
            recorded = opened == 0
            if recorded:
                network = context.new_cdp_session(page)
                network.send("Network.enable")
                network.on("Network.requestWillBeSent", lambda event: urls.update({event["requestId"]: event["request"]["url"]}))
                network.on("Network.loadingFinished", lambda event: sent.update({event["requestId"]: event["encodedDataLength"]}))
            page.goto(f"{url}#/grid?split=train")
            while not page.evaluate("window.firstPictures"):
                page.wait_for_timeout(20)
            page.locator(".toolbar .count", has_text="right").wait_for()
            if recorded:
                sizes.append(sum(bytes for id, bytes in sent.items() if "/api/" not in urls[id]) / 1000)
                figures["memory of the server after a page, MB"] = {"value": round(resident(server.pid), 1), "goal": 60}
            else:
                firsts.append(page.evaluate("window.firstPictures"))
            if opened < ROUNDS:
                context.close()
        note("first pictures, ms", firsts, 500)
        note("page over the wire, kB", sizes, 250)
        page.wait_for_timeout(500)
        frames = page.evaluate(SCROLL, 900)
        note("frames while scrolling, 95%, ms", frames, 20, lambda values: sorted(values)[int(0.95 * len(values))])
        note("jump to anywhere, all drawn, ms", (page.evaluate(JUMP, (7 * at + 5) % 16 / 16) for at in range(15)), 150, max)
        filters = [f"/grid?split=train&loss={low}~" for low in (0.5, 1, 1.5, 2, 2.5, 3, 3.5)]
        note("filter of 100,000 rows, ms", [page.evaluate(CHANGE, address) for address in filters], 100)
        page.evaluate(CHANGE, "/grid?split=train")
        sorts = [f"/grid?split=train&sort={key}{down}" for key in ("loss", "confidence", "entropy") for down in ("", "&down=yes")]
        note("sort of 100,000 rows, ms", [page.evaluate(CHANGE, address) for address in sorts], 100)
        figures["memory of the server at the end, MB"] = {"value": round(resident(server.pid), 1), "goal": 60}
        browser.close()
    server.kill()
    server.wait()
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=Path, help="directory of the release programs")
    parser.add_argument("home", type=Path, nargs="?", help="where the set is kept (default: nowhere)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    programs = args.programs.resolve()
    os.environ["PROGRAMS"] = str(programs)
    if "CHROMIUM" not in os.environ:
        found = filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"]))
        os.environ["CHROMIUM"] = next(found, None) or parser.error("no Chromium is here: apt-get install chromium")
    module = tests()
    with tempfile.TemporaryDirectory() as temporary:
        home = (args.home or Path(temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        prepare(home, programs, module)
        figures = measure(home, programs, module)
    if args.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        worst = f", worst {figure['worst']}" if "worst" in figure else ""
        print(f"{name:40} {figure['value']:8} (goal {figure['goal']}{worst})")


main()
