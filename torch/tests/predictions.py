"""Reads the predictions in DIR as their users do: `predictions.py DIR`, with the output of `tinyres eval --json` on stdin.

Fails unless pandas and polars read the same, the figures are those of the evaluation and follow from the logits, and
cleanlab finds the images with wrong labels.
"""

import json
import pathlib
import sys

import numpy as np
import pandas
import polars
import pyarrow.parquet
from cleanlab.filter import find_label_issues

home, said = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
path = home / "train.parquet"
rows, same = pandas.read_parquet(path), polars.read_parquet(path)
assert list(rows.columns) == same.columns
for column in same.columns:
    ours, theirs = rows[column].to_list(), same[column].to_list()
    if column.startswith("top5"):
        ours = [list(value) for value in ours]
    assert np.array_equal(ours, theirs, equal_nan=column == "iou"), column
integers = [column for column, dtype in rows.dtypes.items() if dtype == np.int32]
assert integers == [
    *("image", "shard_image", "label", "predicted", "rank"),
    *("box_x0", "box_y0", "box_x1", "box_y1"),
]
count = len(rows)
assert rows.image.to_list() == list(range(count)) and said["images"] == count
assert rows.shard.to_list() == [f"train-{image // 48:05}.bin" for image in range(count)]
assert rows.shard_image.to_list() == [image % 48 for image in range(count)]
assert rows.name.to_list() == [f"train_{image}.JPEG" for image in range(count)]

about = json.loads(pyarrow.parquet.read_metadata(path).metadata[b"tinyres"])
ids = [known["id"] for known in about["classes"]]
assert rows["class"].to_list() == [ids[label] for label in rows.label]
assert rows.predicted_class.to_list() == [ids[label] for label in rows.predicted]

assert abs(rows.loss.astype(float).mean() - said["loss"]) < 1e-6
assert (rows.label == rows.predicted).mean() == said["top1"]
assert (rows["rank"] <= 5).mean() == said["top5"]
logits = np.load(home / "train.logits.npy", mmap_mode="r").astype(np.float64)
features = np.load(home / "train.features.npy", mmap_mode="r")
assert features.shape == (count, 512) and features.dtype == np.float16
probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
label = rows.label.to_numpy()
each = np.arange(count)
order = np.argsort(-probabilities, axis=1)[:, :5]
others = logits.copy()
others[each, label] = -np.inf
for column, values in {
    "confidence": probabilities.max(1),
    "label_prob": probabilities[each, label],
    "loss": -np.log(probabilities[each, label]),
    "margin": logits[each, label] - others.max(1),
    "entropy": -(probabilities * np.log(probabilities)).sum(1),
    "rank": 1 + (logits > logits[each, label][:, None]).sum(1),
    "top5": order,
    "top5_prob": np.take_along_axis(probabilities, order, 1),
}.items():
    assert np.allclose(np.stack(rows[column]), values, atol=1e-5), column

has_box = rows.box_x0 >= 0
assert rows.iou.isna().equals(~has_box)
edges = [rows[f"{whose}_{side}"] + beyond for whose in ("box", "predicted") for side, beyond in
         (("x0", 0), ("y0", 0), ("x1", 1), ("y1", 1))]
x0, y0, x1, y1, p0, q0, p1, q1 = edges
width = np.minimum(x1, p1) - np.maximum(x0, p0)
height = np.minimum(y1, q1) - np.maximum(y0, q0)
both = width.clip(lower=0) * height.clip(lower=0)
iou = both / ((x1 - x0) * (y1 - y0) + (p1 - p0) * (q1 - q0) - both)
assert np.allclose(rows.iou[has_box], iou[has_box], atol=1e-4)
assert abs(rows.iou.astype(float).mean() - said["boxes"]["mean_iou"]) < 1e-5

wrong = find_label_issues(label, probabilities)
print(f"{count} rows, {wrong.sum()} suspected labels")
