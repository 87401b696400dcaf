"""Writes results/tests/golden/clusters.features.npy: overlapping clusters, and clusters.json: how pure the neighbourhoods
are on the map that umap-learn makes of them, over five seeds.

    python3 tools/witness/umap_golden.py

With a file of features, `f16 [N, D]`, and one of labels, `i32 [N]`, of any program, it prints the purity for these.
"""

import json
import pathlib
import sys
import warnings

import numpy as np
import umap
from sklearn.neighbors import NearestNeighbors

warnings.simplefilter("ignore")


def purity(places, label, k=15):
    """The fraction of the k nearest others of each point that have its label."""
    near = NearestNeighbors(n_neighbors=k).fit(places).kneighbors(return_distance=False)
    return float((label[near] == label[:, None]).mean())


def learned(features, label, seeds):
    maps = [umap.UMAP(random_state=seed).fit_transform(features) for seed in seeds]
    return [round(purity(places, label), 4) for places in maps]


if len(sys.argv) > 1:
    features, label = np.load(sys.argv[1]).astype("f4"), np.load(sys.argv[2])
    print("features", purity(features, label), "umap-learn", learned(features, label, range(2)))
    sys.exit()

home = pathlib.Path(__file__).parents[2] / "results/tests/golden"
rng = np.random.default_rng(11)
CLUSTERS, EACH, WIDTH = 12, 50, 32
# Image i is one of cluster i % 12.
label = np.tile(np.arange(CLUSTERS), EACH)
middles = rng.normal(0, 1, (CLUSTERS, WIDTH))
features = (middles[label] + rng.normal(0, 1.3, (len(label), WIDTH))).astype("<f2")
np.save(home / "clusters.features.npy", features)
values = features.astype("f4")
centred = values - values.mean(0)
directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
found = {
    "features": round(purity(values, label), 4),
    "pca": round(purity(centred @ directions.T, label), 4),
    "umap": learned(values, label, range(5)),
}
(home / "clusters.json").write_text(json.dumps(found) + "\n")
print(found)
