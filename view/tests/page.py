"""The page of `tinyres view` in a headless Chromium, as people use it: with a pointer, with the keyboard alone, and on a
small screen. `tools/browser` runs this: it builds the programs and installs what is needed.

The set is synthetic, and the predictions are written here by pyarrow, so that every number on the page has a witness.
"""

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Page, expect, sync_playwright

PROGRAMS = Path(os.environ["PROGRAMS"])
CHROMIUM = os.environ["CHROMIUM"]
AXE = Path(__import__("axe_playwright_python").__file__).parent / "axe.min.js"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
CLASSES, PER_CLASS = 8, 40
# The machine may be busy with builds.
expect.set_options(timeout=30_000)
HOSTILE = "<img src=x onerror=alert(1)>"


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def read_split(shards: Path, split: str):
    """Labels, boxes, names and classes of a split, by the reader in NumPy."""
    path = Path(__file__).parents[2] / "examples/numpy_reader.py"
    spec = importlib.util.spec_from_file_location("numpy_reader", path)
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    parts = [reader.read_shard(path) for path in sorted(shards.glob(f"{split}-*.bin"))]
    _, labels, boxes, names, metadata = zip(*parts)
    return np.concatenate(labels), np.concatenate(boxes), [name for part in names for name in part], metadata[0]["classes"]


def write_run(run: Path, shards: Path, seed: int, split: str = "val"):
    """A run with predictions for a split that are right for about two images of three. Returns its figures."""
    run.mkdir()
    (run / "config.toml").write_text(f'recipe = "default"\nseed = {seed}\n\n[run]\nversion = "0.1.0"\ndata = "/data"\n')
    lines = [{"kind": "step", "step": n, "epoch": 0, "images": n, "loss": 3 / n, "lr": 0.1, "images_per_second": 9.0} for n in range(1, 50)]
    epoch = {"kind": "epoch", "epoch": 0, "step": 49, "size": 64, "train_loss": 1.0, "lr": 0.1, "images_per_second": 9.0}
    lines.append(epoch | {"wait_share": 0.0, "took": 60.0, "val_loss": 1.5, "top1": 0.6, "top5": 0.9})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    manifest = json.loads((shards / "dataset.json").read_text())
    draws = np.random.default_rng(seed)
    labels, boxes, names, classes = read_split(shards, split)
    n = len(labels)
    logits = draws.normal(size=(n, len(classes))).astype("f4")
    logits[np.arange(n), labels] += 2.0
    p = softmax(logits.astype("f8"))
    order = np.argsort(-p, axis=1)
    rank = (logits > logits[np.arange(n), labels][:, None]).sum(1) + 1
    others = np.where(np.arange(len(classes)) == labels[:, None], -np.inf, logits).max(1)
    guess = boxes + draws.normal(size=boxes.shape) * 3
    columns = {
        "image": pa.array(np.arange(n), pa.int32()),
        "shard": [f"{split}-00000.bin"] * n,
        "shard_image": pa.array(np.arange(n), pa.int32()),
        "name": names,
        "label": pa.array(labels, pa.int32()),
        "class": [classes[label]["id"] for label in labels],
        "predicted": pa.array(order[:, 0], pa.int32()),
        "predicted_class": [classes[label]["id"] for label in order[:, 0]],
        "confidence": pa.array(p.max(1), pa.float32()),
        "label_prob": pa.array(p[np.arange(n), labels], pa.float32()),
        "loss": pa.array(-np.log(p[np.arange(n), labels]), pa.float32()),
        "margin": pa.array(logits[np.arange(n), labels] - others, pa.float32()),
        "entropy": pa.array(-(p * np.log(p)).sum(1), pa.float32()),
        "rank": pa.array(rank, pa.int32()),
        "top5": pa.array(order[:, :5].tolist(), pa.list_(pa.int32())),
        "top5_prob": pa.array(np.take_along_axis(p, order, 1)[:, :5].tolist(), pa.list_(pa.float32())),
        **{f"box_{side}": pa.array(boxes[:, at], pa.int32()) for at, side in enumerate(["x0", "y0", "x1", "y1"])},
        **{f"predicted_{side}": pa.array(guess[:, at], pa.float32()) for at, side in enumerate(["x0", "y0", "x1", "y1"])},
        "iou": pa.array(draws.random(n), pa.float32()),
    }
    table = pa.table(columns)
    fields = [field.with_nullable(False) for field in table.schema]
    origin = {
        "version": "0.1.0",
        "split": split,
        "fingerprint": manifest["fingerprint"],
        "shards": "0" * 64,
        "weights": "final.safetensors",
        "weights_digest": "0" * 64,
        "size": 64,
        "precision": "f32",
        "tta": "none",
        "classes": classes,
    }
    table = table.cast(pa.schema(fields, metadata={"tinyres": json.dumps(origin)}))
    (run / "eval").mkdir()
    np.save(run / f"eval/{split}.logits.npy", logits)
    np.save(run / f"eval/{split}.features.npy", np.concatenate([logits, draws.normal(size=(n, 8)) / 9], 1).astype("f2"))
    pq.write_table(table, run / f"eval/{split}.parquet")
    right = order[:, 0] == labels
    return {
        "labels": labels,
        "predicted": order[:, 0],
        "right": right,
        "loss": -np.log(p[np.arange(n), labels]),
        "confidence": p.max(1),
        "names": names,
        "classes": classes,
    }


@pytest.fixture(scope="session")
def set_and_runs(tmp_path_factory):
    """A set, and two runs on it."""
    home = tmp_path_factory.mktemp("view")
    sizes = f"--classes {CLASSES} --train-per-class 400 --val-per-class {PER_CLASS} --test 20"
    for command in [f"sample {home}/tree {sizes}", f"pack {home}/tree -o {home}/shards"]:
        subprocess.run([PROGRAMS / "tinyres", *command.split()], check=True, capture_output=True)
        if command.startswith("sample"):
            # Every page shows this name. If one took it for markup, the browser would ask for the picture and complain.
            words, wnid = home / "tree/words.txt", (home / "tree/wnids.txt").read_text().split()[0]
            words.write_text(re.sub(f"{wnid}\t.*", f"{wnid}\t{HOSTILE}", words.read_text()))
    truth = [write_run(home / name, home / "shards", seed) for seed, name in enumerate(["run-a", "run-b", "run-c"])]
    # The last run has not ended yet.
    (home / "run-c/eval").rename(home / "run-c/later")
    return home, truth


class Served:
    """A server of the set and its runs."""

    def __init__(self, home: Path, *args: str, threads: str = "2"):
        command = [PROGRAMS / "tinyres-view", "view", "shards", *args, "--port", "0", "--json"]
        env = os.environ | {"RAYON_NUM_THREADS": threads}
        self.process = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True, env=env)
        self.url = json.loads(self.process.stdout.readline())["url"]


@pytest.fixture(scope="session")
def served(set_and_runs):
    home, _ = set_and_runs
    server = Served(home, "--run", "run-a", "run-b", "run-c")
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


SCREENS = {
    "large": {"viewport": {"width": 1440, "height": 900}},
    "small": {"viewport": {"width": 375, "height": 740}, "has_touch": True, "is_mobile": True},
}


@pytest.fixture(params=SCREENS)
def any_page(request, browser, served):
    yield from opened(browser, served, **SCREENS[request.param])


@pytest.fixture
def page(browser, served):
    yield from opened(browser, served, **SCREENS["large"])


def opened(browser, served, **options):
    """A page of a new browser profile. It must say nothing on its console, and ask no other host."""
    context = browser.new_context(**options)
    page = context.new_page()
    said, hosts = [], set()
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if request.url.startswith("http") else None)
    page.goto(served.url)
    yield page
    context.close()
    assert said == []
    assert hosts == {served.url.split("/")[2]}


def drawn(page: Page):
    """Waits until all pictures in view are drawn. Returns the positions of the first one, and of the one after the last."""
    grid = page.get_by_role("grid", name="Pictures")
    while True:
        expect(grid).to_have_attribute("data-drawn", re.compile(r"^\d+-\d+$"))
        # Other pictures may be drawn by now.
        if text := grid.get_attribute("data-drawn"):
            return [int(number) for number in text.split("-")]


def go(page: Page, address: str):
    page.evaluate("address => { location.hash = address }", address)


def test_first_pictures_are_shown_and_the_grid_scrolls_to_its_end(any_page):
    page = any_page
    first, end = drawn(page)
    assert first == 0 and end > 0
    expect(page.locator(".toolbar .count b").first).to_have_text(str(CLASSES * PER_CLASS))
    assert "token" not in page.url
    go(page, "/grid?split=train")
    expect(page.locator(".toolbar .count b").first).to_have_text("3,200")
    grid = page.get_by_role("grid", name="Pictures")
    grid.evaluate("grid => grid.scrollTo(0, grid.scrollHeight)")
    expect(grid).to_have_attribute("data-drawn", re.compile(r"-3200$"))
    # What is on the canvas at the end is not the colour of the ground.
    colors = page.evaluate(
        """() => {
          const canvas = document.querySelector('.grid canvas');
          const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )
    assert colors > 1000


def test_pixels_on_the_canvas_are_those_of_the_shard(page, set_and_runs):
    home, _ = set_and_runs
    drawn(page)
    go(page, "/grid?split=val&image=7&zoom=1")
    canvas = page.get_by_role("dialog").get_by_role("img").first
    expect(canvas).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Boxes").click()
    read = "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, 64, 64).data)"
    raw = np.fromfile(home / "shards/val-00000.bin", "u1", 3 * 64 * 64, offset=4096 + 7 * 3 * 64 * 64)
    expected = raw.reshape(3, 64, 64).transpose(1, 2, 0)
    for _ in range(50):
        pixels = np.array(canvas.evaluate(read), "u1").reshape(64, 64, 4)[:, :, :3]
        if (pixels == expected).all():
            return
        page.wait_for_timeout(100)
    raise AssertionError("other pixels")


def test_numbers_on_the_page_are_those_of_the_predictions(page, set_and_runs):
    _, (truth, *_) = set_and_runs
    drawn(page)
    right = truth["right"]
    expect(page.locator(".toolbar .count")).to_contain_text(f"{100 * right.mean():.2f}% right")
    page.get_by_role("button", name="Wrong", exact=True).click()
    expect(page.locator(".toolbar .count b").first).to_have_text(str((~right).sum()))
    go(page, "/grid?loss=1~&confidence=~0.5")
    few = (truth["loss"].astype("f4") >= 1) & (truth["confidence"].astype("f4") <= 0.5)
    expect(page.locator(".toolbar .count b").first).to_have_text(str(few.sum()))
    go(page, "/grid?label=3&predicted=3")
    both = (truth["labels"] == 3) & (truth["predicted"] == 3)
    expect(page.locator(".toolbar .count b").first).to_have_text(str(both.sum()))


def test_filters_sort_and_search_find_the_pictures(page, set_and_runs):
    _, (truth, *_) = set_and_runs
    drawn(page)
    page.get_by_role("combobox", name="Sort").select_option("loss")
    page.get_by_role("button", name="Largest first").click()
    page.get_by_role("gridcell").focus()
    worst = int(np.argmax(truth["loss"]))
    expect(page.get_by_role("gridcell")).to_have_attribute("aria-label", re.compile(f"^image {worst},"))
    assert "sort=loss" in page.url and "down=yes" in page.url
    page.get_by_role("searchbox", name="Search").fill(truth["names"][5].upper())
    expect(page.locator(".toolbar .count b").first).to_have_text("1")
    page.get_by_role("searchbox", name="Search").fill(truth["classes"][2]["id"])
    expect(page.locator(".toolbar .count b").first).to_have_text(str(PER_CLASS))
    # The address alone brings another one to the same pictures.
    page.reload()
    expect(page.locator(".toolbar .count b").first).to_have_text(str(PER_CLASS))
    page.get_by_role("searchbox", name="Search").fill("nothing is called so")
    expect(page.get_by_text("No picture is like that.")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".toolbar .count b").first).to_have_text(str(CLASSES * PER_CLASS))


def test_a_class_is_typed_into_its_filter(page, set_and_runs):
    _, (truth, *_) = set_and_runs
    drawn(page)
    field = page.get_by_role("combobox", name="Class", exact=True)
    field.press_sequentially(truth["classes"][4]["id"])
    field.press("Enter")
    expect(page.locator(".toolbar .count b").first).to_have_text(str(PER_CLASS))
    assert "label=4" in page.url
    page.locator(".tag").click()
    expect(page.locator(".toolbar .count b").first).to_have_text(str(CLASSES * PER_CLASS))


def test_names_of_what_is_shown_are_exported(page, set_and_runs):
    _, (truth, *_) = set_and_runs
    drawn(page)
    go(page, "/grid?right=no&sort=loss")
    expect(page.locator(".toolbar .count b").first).to_have_text(str((~truth["right"]).sum()))
    with page.expect_download() as download:
        page.get_by_role("combobox", name="Export").select_option("txt")
    wrong = np.flatnonzero(~truth["right"])
    by_loss = wrong[np.argsort(truth["loss"][wrong].astype("f4"), kind="stable")]
    assert Path(download.value.path()).read_text().splitlines() == [truth["names"][image] for image in by_loss]


def test_the_keyboard_alone_reaches_and_opens_pictures(page):
    drawn(page)
    cell = page.get_by_role("gridcell")
    for _ in range(60):
        if cell.evaluate("cell => cell === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(cell).to_be_focused()
    columns = int(page.get_by_role("grid").get_attribute("aria-colcount"))
    for key in ["ArrowRight", "ArrowDown"]:
        page.keyboard.press(key)
    expect(cell).to_have_attribute("aria-label", re.compile(f"^image {columns + 1},"))
    page.keyboard.press("Space")
    expect(cell).to_have_attribute("aria-label", re.compile("chosen$"))
    page.keyboard.press("End")
    expect(cell).to_have_attribute("aria-label", re.compile(f"^image {CLASSES * PER_CLASS - 1},"))
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile(f"image={CLASSES * PER_CLASS - 2}"))
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(cell).to_be_focused()


def test_a_picture_shows_what_the_run_says_of_it(any_page, set_and_runs):
    _, (truth, *_) = set_and_runs
    page = any_page
    drawn(page)
    image = int(np.flatnonzero(~truth["right"])[0])
    go(page, f"/grid?image={image}")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("dl")).to_contain_text(truth["names"][image])
    expect(dialog.locator("dl")).to_contain_text(f"{truth['loss'][image]:.3f}")
    expect(dialog.locator(".bars")).to_contain_text(f"{100 * truth['confidence'][image]:.1f}%")
    expect(dialog.locator(".strip li")).to_have_count(12)


def test_curves_move_while_a_run_trains(page, set_and_runs):
    home, _ = set_and_runs
    drawn(page)
    page.get_by_role("link", name="Runs").click()
    chart = page.get_by_role("img", name=re.compile("^Training loss, by step"))
    expect(chart).to_have_attribute("data-points", "147")
    with open(home / "run-a/metrics.jsonl", "a") as metrics:
        line = {"kind": "step", "step": 60, "epoch": 1, "images": 9, "loss": 0.5, "lr": 0.1, "images_per_second": 9.0}
        metrics.write(json.dumps(line) + "\n" + '{"kind":"st')
        metrics.flush()
        expect(chart).to_have_attribute("data-points", "148")
        metrics.write('ep","step":61,"epoch":1,"images":9,"loss":0.5,"lr":0.1,"images_per_second":9.0}\n')
    expect(chart).to_have_attribute("data-points", "149")
    expect(page.get_by_role("table", name="Runs")).to_contain_text("60.00%")


def test_the_matrix_and_the_classes_have_the_numbers_of_the_predictions(page, set_and_runs):
    _, (truth, *_) = set_and_runs
    drawn(page)
    counts = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counts, (truth["labels"], truth["predicted"]), 1)
    go(page, "/classes?sort=class")
    expect(page.get_by_role("link", name=HOSTILE).first).to_be_visible()
    rows = page.get_by_role("table", name="Classes").locator("tbody tr")
    expect(rows).to_have_count(CLASSES)
    by_id = {one["id"]: label for label, one in enumerate(truth["classes"])}
    for row in rows.all():
        label = by_id[row.locator("code").text_content()]
        right, images, predicted = counts[label, label], counts[label].sum(), counts[:, label].sum()
        cells = row.locator("td").all_text_contents()
        expected = [str(images), f"{100 * right / images:.1f}%", f"{100 * right / predicted:.1f}%", str(predicted)]
        assert cells[1:5] == expected
    expect(page.locator(".page-head")).to_contain_text(f"{100 * truth['right'].mean():.2f}%")
    expect(page.locator(".page-head")).to_contain_text(f"{truth['loss'].mean():.4f}")

    go(page, "/confusion?order=label")
    matrix = page.get_by_role("img", name="Confusion matrix")
    matrix.focus()
    for key in ["ArrowRight", "ArrowRight", "ArrowDown"]:
        matrix.press(key)
    expect(page.locator(".cell-text")).to_contain_text(f"{counts[1, 2]} of {PER_CLASS}")
    matrix.press("Enter")
    expect(page.locator(".toolbar .count b").first).to_have_text(str(counts[1, 2]))


def test_two_runs_are_compared_picture_by_picture(page, set_and_runs):
    _, (a, b, _) = set_and_runs
    drawn(page)
    page.get_by_role("link", name="Compare").click()
    table = page.get_by_role("table", name="Pictures by who is right")
    both, only_a = (a["right"] & b["right"]).sum(), (a["right"] & ~b["right"]).sum()
    only_b, neither = (~a["right"] & b["right"]).sum(), (~a["right"] & ~b["right"]).sum()
    expect(table.locator("a")).to_have_text([str(both), str(only_a), str(only_b), str(neither)])
    expect(page.get_by_role("table", name="Settings that differ")).to_contain_text("seed")
    table.locator("a").nth(1).click()
    expect(page.locator(".toolbar .count b").first).to_have_text(str(only_a))


def test_the_map_is_that_of_numpy_and_a_line_around_pictures_takes_them_to_the_grid(page, set_and_runs):
    home, _ = set_and_runs
    drawn(page)
    features = np.load(home / "run-a/eval/val.features.npy").astype("f8")
    centred = features - features.mean(0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    ask = "async () => Array.from(new Uint8Array(await (await fetch('/api/run/0/map/val')).arrayBuffer()))"
    answer = bytes(page.evaluate(ask))
    length = int.from_bytes(answer[:4], "little")
    places = np.frombuffer(answer, "<f4", 2 * len(features), 8 + length).reshape(-1, 2)
    for side in [0, 1]:
        expected = centred @ directions[side]
        error = min(abs(places[:, side] - expected).max(), abs(places[:, side] + expected).max())
        assert error < 0.02 * abs(expected).max()
    go(page, "/map?layout=pca")
    explained = (values[:2] ** 2).sum() / (values**2).sum()
    expect(page.locator(".map-note")).to_contain_text(f"{100 * explained:.0f}% of their variance")
    box = page.locator(".map canvas").bounding_box()
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.mouse.move(*at(0.01, 0.01))
    page.mouse.down()
    for corner in [(0.5, 0.01), (0.99, 0.01), (0.99, 0.5), (0.99, 0.99), (0.5, 0.99), (0.01, 0.99)]:
        page.mouse.move(*at(*corner))
    page.mouse.up()
    page.get_by_role("link", name=f"Show {len(features)} pictures").click()
    expect(page.locator(".toolbar .count b").first).to_have_text(str(len(features)))
    go(page, "/grid?lasso=0_0,0.001_0,0_0.001")
    expect(page.locator(".toolbar .count b").first).to_have_text("0")


def test_the_map_by_neighbours_replaces_the_other_one_and_is_the_same_for_any_number_of_threads(page, set_and_runs):
    home, (truth, *_) = set_and_runs
    drawn(page)
    ask = """async () => {
      for (;;) {
        const answer = await fetch('/api/run/0/umap/val');
        if (answer.status === 200) return Array.from(new Uint8Array(await answer.arrayBuffer()));
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }"""
    made = page.evaluate(ask)
    rows, length = len(truth["labels"]), int.from_bytes(bytes(made[:4]), "little")
    places = np.frombuffer(bytes(made), "<f4", 2 * rows, 8 + length).reshape(-1, 2)

    def purity(places):
        distances = ((places[:, None] - places) ** 2).sum(2) + np.where(np.eye(rows), np.inf, 0)
        near = np.argsort(distances, axis=1)[:, :15]
        return (truth["predicted"][near] == truth["predicted"][:, None]).mean()

    features = np.load(home / "run-a/eval/val.features.npy").astype("f4")
    assert purity(places) > purity(features) - 0.05
    server = Served(home, "--run", "run-a", threads="1")
    other = page.context.browser.new_page()
    other.goto(server.url)
    drawn(other)
    assert other.evaluate(ask) == made
    other.close()
    server.process.kill()
    server.process.wait()

    page.get_by_role("link", name="Map").click()
    expect(page.locator(".map-note")).to_contain_text("alike lie together")
    expect(page.get_by_text("Arranging by neighbours")).to_have_count(0)
    canvas = page.locator(".map canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    corners = [(0.001, 0.001), (0.5, 0.001), (0.999, 0.001), (0.999, 0.999), (0.5, 0.999), (0.001, 0.999)]
    for number, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    page.get_by_role("link", name=f"Show {rows} pictures").click()
    expect(page.locator(".toolbar .count b").first).to_have_text(str(rows))
    assert "layout" not in page.url and "lasso" in page.url


def test_training_labels_are_listed_by_their_margins(page, set_and_runs):
    home, _ = set_and_runs
    rows = CLASSES * 400
    (home / "run-b/margins").mkdir()
    margins = np.random.default_rng(3).normal(size=(2, rows)).astype("f2")
    margins[1, :9] = np.nan
    for epoch, row in enumerate(margins, 1):
        np.save(home / f"run-b/margins/epoch-{epoch:04}.npy", row)
    area = np.nanmean(margins.astype("f8"), axis=0)
    page.reload()
    drawn(page)
    go(page, "/suspects?run=1")
    page.get_by_role("button", name="Training labels by margin").click()
    drawn(page)
    cell = page.get_by_role("gridcell")
    cell.focus()
    order = np.argsort(area.astype("f4"), kind="stable")
    expect(cell).to_have_attribute("aria-label", re.compile(f"^image {order[0]}, .* margin {area[order[0]]:.2f}"))
    page.keyboard.press("End")
    expect(cell).to_have_attribute("aria-label", re.compile(f"^image {order[-1]}, "))


def test_predictions_of_a_run_that_ends_appear_by_themselves(page, set_and_runs):
    home, (*_, truth) = set_and_runs
    drawn(page)
    go(page, "/classes?run=2")
    expect(page.get_by_text("This run has no predictions for val")).to_be_visible()
    (home / "run-c/later").rename(home / "run-c/eval")
    expect(page.locator(".page-head")).to_contain_text(f"{100 * truth['right'].mean():.2f}%")


def test_suspected_labels_are_listed_and_duplicates_looked_for(page):
    drawn(page)
    page.get_by_role("link", name="Suspects").click()
    first, end = drawn(page)
    assert end > first
    page.get_by_role("gridcell").focus()
    expect(page.get_by_role("gridcell")).to_have_attribute("aria-label", re.compile("labelled .*, perhaps "))
    page.get_by_role("button", name="Duplicates").click()
    expect(page.get_by_text("pairs of pictures are alike")).to_be_visible(timeout=60_000)


@pytest.mark.parametrize("name", ["grid", "confusion", "classes", "runs", "compare", "suspects", "suspects?run=1&show=margins", "map", "map?layout=pca"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(any_page, name, scheme):
    page = any_page
    page.emulate_media(color_scheme=scheme)
    drawn(page)
    go(page, f"/{name}")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.get_by_text("Loading")).to_have_count(0)
    page.wait_for_timeout(300)
    check(page)


def test_an_open_picture_is_accessible(any_page):
    page = any_page
    drawn(page)
    go(page, "/grid?image=3&boxes=yes")
    expect(page.get_by_role("dialog")).to_be_visible()
    check(page)


def check(page: Page):
    """No violation of axe-core's rules, and nothing wider than the screen."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # The page's own rules forbid a script that is not a file of the server: give it to the debugger.
    result = page.evaluate(AXE.read_text() + "; axe.run()")
    violations = [(one["id"], [node["html"] for node in one["nodes"]]) for one in result["violations"]]
    assert violations == []


def test_a_server_that_ended_is_a_message(browser, set_and_runs):
    home, _ = set_and_runs
    server = Served(home)
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url)
    drawn(page)
    server.process.kill()
    server.process.wait()
    go(page, "/grid?split=train")
    expect(page.get_by_text("The server does not answer")).to_be_visible()
    context.close()


def test_a_link_without_its_token_says_what_to_do(browser, served):
    context = browser.new_context()
    page = context.new_page()
    page.goto(served.url.split("?")[0])
    expect(page.get_by_text("open the link that `tinyres view` printed")).to_be_visible()
    context.close()
