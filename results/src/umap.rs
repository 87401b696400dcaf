//! A map of features by UMAP (McInnes, Healy and Melville 2018, <https://arxiv.org/abs/1802.03426>): images that a network
//! finds alike lie together. Formulas and values are those of umap-learn 0.5 with its defaults (15 neighbours, a minimal
//! distance of 0.1), but for three things: neighbours are exact, points start at their principal components, and they
//! move one after the other, by draws of a seed. So the same features give the same map, for any number of threads.

use tinyres_format::{Draws, Stream};

use crate::nearest::{Neighbour, nearest};
use crate::pca::centred;
use crate::{Features, Pca};

/// Neighbours of each image, itself among them.
const NEIGHBOURS: usize = 15;
/// The curve `1 / (1 + a d^(2 b))` that is nearest to 1 up to a distance of 0.1, and to `exp(0.1 - d)` beyond it.
const CURVE: [f32; 2] = [1.576_943_5, 0.895_060_9];
/// Points that are pushed away each time a point is drawn to a neighbour.
const PUSHED: u64 = 5;
/// The longest step of a point in each direction.
const LONGEST: f32 = 4.0;
/// Distance of the farthest point from the middle at the start.
const START: f32 = 10.0;
/// Fraction of the progress that the search for neighbours is.
const SEARCH: f64 = 0.3;

/// Two images that are neighbours, and how strongly.
struct Edge {
    from: u32,
    to: u32,
    weight: f32,
}

/// Places of the images on a map of `features`. `progress` is told of the fraction that is done, now and then.
#[must_use]
pub fn umap(features: &Features, seed: u64, progress: &(dyn Fn(f64) + Sync)) -> Vec<[f32; 2]> {
    let pca = Pca::of(features);
    let count = NEIGHBOURS.min(pca.places.len()).saturating_sub(1);
    if count < 2 {
        return pca.places;
    }
    let centred = centred(features.values(), features.width());
    let neighbours = nearest(&centred, features.width(), count, &|done| {
        progress(SEARCH * done)
    });
    let edges = edges(&neighbours, count);
    let draws = Draws::new(seed, Stream::Order, 0);
    let places = start(&pca.places, draws.of(0));
    arrange(places, &edges, draws.of(1), &|done| {
        progress(SEARCH + (1.0 - SEARCH) * done)
    })
}

/// Both directions of each pair of neighbours, in the order of the images. `neighbours` has `count` of each image.
fn edges(neighbours: &[Neighbour], count: usize) -> Vec<Edge> {
    let lists = neighbours.chunks_exact(count);
    let sum: f32 = neighbours.iter().map(|neighbour| neighbour.distance).sum();
    let mean = sum / neighbours.len() as f32;
    let mut directed: Vec<(u32, u32, f32)> = Vec::with_capacity(2 * neighbours.len());
    for (image, list) in (0..).zip(lists) {
        let (rho, sigma) = scale(list, mean);
        for &Neighbour { row, distance } in list {
            let weight = (-(distance - rho).max(0.0) / sigma).exp();
            directed.push((image, row, weight));
            // The other direction, whose own weight may come or not.
            directed.push((row, image, -weight));
        }
    }
    directed.sort_by_key(|&(from, to, weight)| (from, to, weight < 0.0));
    let pairs = directed.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1));
    let edge = |pair: &[(u32, u32, f32)]| {
        let (from, to, a) = pair[0];
        let b = pair.get(1).map_or(0.0, |pair| pair.2.abs());
        // The probability that one of two independent edges exists.
        let weight = a.abs() + b - a.abs() * b;
        Edge { from, to, weight }
    };
    pairs.map(edge).collect()
}

/// The distance to the nearest neighbour that is not at the same place, and the length by which weights decay beyond it:
/// the weights of a list add up to the logarithm of its length, with the image itself, to base 2. `mean` is the mean
/// distance of all neighbours.
fn scale(list: &[Neighbour], mean: f32) -> (f32, f32) {
    let distances = || list.iter().map(|neighbour| neighbour.distance);
    let rho = distances().find(|distance| *distance > 0.0).unwrap_or(0.0);
    let target = ((list.len() + 1) as f32).log2();
    let (mut low, mut high, mut sigma) = (0.0, f32::INFINITY, 1.0);
    for _ in 0..64 {
        let sum: f32 = distances()
            .map(|distance| (-(distance - rho).max(0.0) / sigma).exp())
            .sum();
        if (sum - target).abs() < 1e-5 {
            break;
        }
        if sum > target {
            high = sigma;
        } else {
            low = sigma;
        }
        sigma = if high.is_finite() {
            (low + high) / 2.0
        } else {
            2.0 * sigma
        };
    }
    let own = distances().sum::<f32>() / (list.len() + 1) as f32;
    let least = 1e-3 * if rho > 0.0 { own } else { mean };
    (rho, sigma.max(least).max(f32::MIN_POSITIVE))
}

/// The principal components, scaled to [`START`], and moved a little, so that no two points have the same place.
fn start(places: &[[f32; 2]], draws: Draws) -> Vec<[f32; 2]> {
    let most = places
        .iter()
        .flatten()
        .fold(0.0_f32, |most, side| most.max(side.abs()));
    let scale = if most > 0.0 { START / most } else { 0.0 };
    let mut next = 0;
    let mut moved = |side: f32| {
        next += 1;
        side * scale + 1e-3 * (crate::num::narrow(draws.unit(next)) - 0.5)
    };
    places.iter().map(|place| place.map(&mut moved)).collect()
}

/// Moves points so that neighbours come together and others part, by stochastic gradient descent on the cross entropy
/// of the edges and the curve of the distances.
fn arrange(
    mut places: Vec<[f32; 2]>,
    edges: &[Edge],
    draws: Draws,
    progress: &dyn Fn(f64),
) -> Vec<[f32; 2]> {
    let [a, b] = CURVE;
    let rounds: u16 = if places.len() <= 10_000 { 500 } else { 200 };
    let strongest = edges
        .iter()
        .fold(0.0_f32, |most, edge| most.max(edge.weight));
    // An edge is used in as many rounds as its weight demands, the strongest in all of them.
    let mut due: Vec<f32> = edges.iter().map(|edge| strongest / edge.weight).collect();
    let mut next = 0;
    for round in 0..rounds {
        let rate = 1.0 - f32::from(round) / f32::from(rounds);
        for (edge, due) in edges.iter().zip(&mut due) {
            if *due > f32::from(round) {
                continue;
            }
            *due += strongest / edge.weight;
            let (from, to) = (edge.from as usize, edge.to as usize);
            let mut own = places[from];
            let (apart, square) = difference(own, places[to]);
            if square > 0.0 {
                let power = square.powf(b);
                let pull = -2.0 * a * b * power / (square * (a * power + 1.0));
                for side in 0..2 {
                    let step = rate * (pull * apart[side]).clamp(-LONGEST, LONGEST);
                    own[side] += step;
                    places[to][side] -= step;
                }
            }
            for _ in 0..PUSHED {
                next += 1;
                let other = usize::try_from(draws.below(next, places.len() as u64)).unwrap_or(from);
                if other == from {
                    continue;
                }
                let (apart, square) = difference(own, places[other]);
                let push = 2.0 * b / ((0.001 + square) * (a * square.powf(b) + 1.0));
                for side in 0..2 {
                    own[side] += rate * (push * apart[side]).clamp(-LONGEST, LONGEST);
                }
            }
            places[from] = own;
        }
        progress(f64::from(round + 1) / f64::from(rounds));
    }
    places
}

/// The way from `b` to `a`, and the square of its length.
fn difference(a: [f32; 2], b: [f32; 2]) -> ([f32; 2], f32) {
    let apart = [a[0] - b[0], a[1] - b[1]];
    (apart, apart[0] * apart[0] + apart[1] * apart[1])
}
