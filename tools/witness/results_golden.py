"""Writes results/tests/golden: predictions with planted faults, by pyarrow and NumPy, and what scikit-learn, cleanlab
and NumPy find in them.

    PYTHONPATH=~/.cache/tinyres/cleanlab-cp311 python3 tools/witness/results_golden.py
"""

import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cleanlab.filter import find_label_issues
from sklearn.metrics import confusion_matrix, precision_score, recall_score

home = pathlib.Path(__file__).parents[2] / "results/tests/golden"
home.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(7)
C, N = 12, 500
ids = [f"n{100 + c:08}" for c in range(C)]

# Classes come in groups of three, whose members are interleaved: 0, 4, 8 are alike, and 1, 5, 9, ...
truth = rng.integers(0, C - 1, N)  # class 11 has no image
logits = rng.normal(0, 1, (N, C))
logits[np.arange(N), truth] += 3
for mate in (4, 8):
    logits[np.arange(N), (truth + mate) % C] += 1.2
label = truth.copy()
wrong = rng.random(N) < 0.06
label[wrong] = (label[wrong] + 1 + rng.integers(0, C - 2, wrong.sum())) % (C - 1)
logits = logits.astype("<f4")
probabilities = np.exp(logits.astype(np.float64))
probabilities /= probabilities.sum(1, keepdims=True)
each = np.arange(N)
order = np.argsort(-probabilities, axis=1, kind="stable")
predicted = order[:, 0]
others = logits.astype(np.float64)
others[each, label] = -np.inf
boxes = np.where((each % 7 == 0)[:, None], -1, np.stack([each % 9, each % 5, 30 + each % 20, 40 + each % 20], 1))
shifted = boxes + rng.normal(0, 4, (N, 4))
width = np.minimum(boxes[:, 2], shifted[:, 2]) - np.maximum(boxes[:, 0], shifted[:, 0]) + 1
height = np.minimum(boxes[:, 3], shifted[:, 3]) - np.maximum(boxes[:, 1], shifted[:, 1]) + 1
area = lambda b: (b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1)
both = width.clip(min=0) * height.clip(min=0)
iou = np.where(each % 7 == 0, np.nan, both / (area(boxes) + area(shifted) - both))

columns = {
    "image": each, "shard": np.where(each < 300, "val-00000.bin", "val-00001.bin"), "shard_image": each % 300,
    "name": [f"val_{n}.JPEG" for n in each], "label": label, "class": [ids[c] for c in label],
    "predicted": predicted, "predicted_class": [ids[c] for c in predicted],
    "confidence": probabilities.max(1), "label_prob": probabilities[each, label],
    "loss": -np.log(probabilities[each, label]), "margin": logits[each, label] - others.max(1),
    "entropy": -(probabilities * np.log(probabilities)).sum(1),
    "rank": 1 + (logits > logits[each, label][:, None]).sum(1),
    "top5": order[:, :5], "top5_prob": np.take_along_axis(probabilities, order[:, :5], 1),
    **{f"box_{side}": boxes[:, at] for at, side in enumerate(("x0", "y0", "x1", "y1"))},
    **{f"predicted_{side}": shifted[:, at] for at, side in enumerate(("x0", "y0", "x1", "y1"))},
    "iou": iou,
    # A column of the user's own.
    "x": rng.normal(0, 1, N),
}


def typed(values):
    values = np.asarray(values)
    kind = {"i": pa.int32(), "f": pa.float32(), "U": pa.string()}[values.dtype.kind]
    return pa.array(list(values), pa.list_(kind) if values.ndim > 1 else kind)


about = {
    "version": "0.1.0", "split": "val", "fingerprint": "ab" * 32, "shards": "cd" * 32,
    "weights": "runs/golden/final.safetensors", "weights_digest": "ef" * 32, "size": 64, "precision": "f32",
    "tta": "none", "classes": [{"id": id, "name": f"class {at}, synonym"} for at, id in enumerate(ids)],
}
table = pa.table({name: typed(values) for name, values in columns.items()})
table = table.replace_schema_metadata({"tinyres": json.dumps(about)})
# Nullable columns and several row groups, as other programs write them.
pq.write_table(table, home / "val.parquet", row_group_size=180, compression="zstd")
np.save(home / "val.logits.npy", logits)
np.save(home / "val.features.npy", rng.normal(0, 1, (N, 6)).astype("<f2"))

confidence, right = columns["confidence"].astype(np.float32).astype(np.float64), predicted == label
edges = np.linspace(0, 1, 16)
bins = []
for low, high in zip(edges[:-1], edges[1:]):
    inside = (confidence > low) & (confidence <= high)
    bins.append([int(inside.sum()), *((confidence[inside].mean(), right[inside].mean()) if inside.any() else (0, 0))])
ece = sum(n / N * abs(accuracy - mean) for n, mean, accuracy in bins)
everything = range(C)
suspects = find_label_issues(
    label, probabilities, filter_by="confident_learning", return_indices_ranked_by="self_confidence"
)
expected = {
    "name": columns["name"][-1],
    "sums": {
        name: float(np.nansum(typed(columns[name]).to_numpy().astype(np.float64)))
        for name in ("confidence", "label_prob", "loss", "margin", "entropy", "rank", "iou", "predicted_y1", "box_x1")
    },
    "top5": order[:, :5].tolist()[123],
    "top1": float(right.mean()),
    "features": float(np.load(home / "val.features.npy")[321].astype(np.float64).sum()),
    "confusion": confusion_matrix(label, predicted, labels=everything).tolist(),
    "recall": recall_score(label, predicted, labels=everything, average=None, zero_division=np.nan).tolist(),
    "precision": precision_score(label, predicted, labels=everything, average=None, zero_division=np.nan).tolist(),
    "bins": bins, "ece": ece, "suspects": suspects.tolist(),
}
text = json.dumps(expected, separators=(",", ":")).replace("NaN", "null")
(home / "expected.json").write_text(text + "\n")
print(len(suspects), "suspects,", wrong.sum(), "wrong,", round(ece, 4), right.mean())
