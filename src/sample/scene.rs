//! One picture: a ground, an object on it, and grain over both. Uses basic arithmetic only, so
//! that the pixels are the same on every platform.

use std::fmt;

use super::SIDE;
use super::class::{Outline, Row, SampleClass, Texture};
use super::random::Random;
use tinyres_format::Draws;

/// Distance of the nodes of the ground's lattice, in pixels.
const CELL: usize = 8;
const NODES: usize = SIDE / CELL + 1;

/// RGB, not yet clamped to 0..=255.
type Colour = [i16; 3];
type Canvas = [Colour; SIDE * SIDE];

/// A box in inclusive pixels: `x0`, `y0`, `x1`, `y1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds([usize; 4]);

/// Formats the box as in the annotations, separated by tabs.
impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x0, y0, x1, y1] = self.0;
        write!(f, "{x0}\t{y0}\t{x1}\t{y1}")
    }
}

/// Parameters of a picture.
pub(super) struct Scene {
    ground: Ground,
    object: Object,
    grain: Grain,
    /// True if the picture is stored in greyscale, with one component.
    pub(super) grey: bool,
}

/// The pixels of a scene, and the tight box of its object.
pub(super) struct Painted {
    /// `[SIDE, SIDE, 3]`: RGB, row by row.
    pub(super) pixels: [u8; SIDE * SIDE * 3],
    pub(super) bounds: Bounds,
}

impl Scene {
    /// A random scene of this class.
    pub(super) fn new(class: &SampleClass, draws: Draws) -> Self {
        let random = &mut Random::new(draws);
        Self {
            ground: Ground::new(random),
            object: Object::new(class, random),
            grain: Grain {
                draws: draws.of(0),
                strength: random.between(4.0, 28.0),
            },
            grey: random.between(0.0, 1.0) < 0.03,
        }
    }

    pub(super) fn paint(&self) -> Painted {
        let mut canvas = self.ground.paint();
        let bounds = self.object.paint(&mut canvas);
        self.grain.apply(&mut canvas);
        let mut pixels = [0; SIDE * SIDE * 3];
        for (to, from) in pixels.iter_mut().zip(canvas.as_flattened()) {
            *to = u8::try_from((*from).clamp(0, 255)).expect("clamped to a byte");
        }
        Painted { pixels, bounds }
    }
}

/// Colours at the nodes of a lattice, interpolated between them: a gradient between four corners, with
/// clouds.
struct Ground([[Colour; NODES]; NODES]);

impl Ground {
    fn new(random: &mut Random) -> Self {
        let corners = [(); 4].map(|()| {
            let level = random.between(50.0, 200.0);
            [(); 3].map(|()| level + random.between(-50.0, 50.0))
        });
        let clouds = random.between(0.0, 70.0);
        let last = (NODES - 1) as f32;
        Self(std::array::from_fn(|j| {
            std::array::from_fn(|i| {
                let (x, y) = (i as f32 / last, j as f32 / last);
                let cloud = random.between(-clouds, clouds);
                std::array::from_fn(|c| {
                    let [a, b, c, d] = corners.map(|corner| corner[c]);
                    let tint = random.between(-0.3, 0.3) * clouds;
                    whole(
                        (a * (1.0 - x) + b * x) * (1.0 - y)
                            + (c * (1.0 - x) + d * x) * y
                            + cloud
                            + tint,
                    )
                })
            })
        }))
    }

    fn paint(&self) -> Canvas {
        // Bilinear interpolation with weights in eighths in both directions, hence `>> 6`.
        let mut canvas = [[0; 3]; SIDE * SIDE];
        for (rows, nodes) in canvas.chunks_exact_mut(CELL * SIDE).zip(self.0.windows(2)) {
            for (down, row) in (0..8).zip(rows.chunks_exact_mut(SIDE)) {
                let nodes: [Colour; NODES] = std::array::from_fn(|i| {
                    std::array::from_fn(|c| nodes[0][i][c] * (8 - down) + nodes[1][i][c] * down)
                });
                for (pixels, ends) in row.chunks_exact_mut(CELL).zip(nodes.windows(2)) {
                    for (right, pixel) in (0..8).zip(pixels) {
                        *pixel = std::array::from_fn(|c| {
                            (ends[0][c] * (8 - right) + ends[1][c] * right) >> 6
                        });
                    }
                }
            }
        }
        canvas
    }
}

/// A textured outline.
struct Object {
    outline: Outline,
    texture: Texture,
    colours: [Colour; 2],
    /// In pixels. The centre of a pixel has integer coordinates.
    centre: [f32; 2],
    /// Half the width and half the height, in pixels.
    half: [f32; 2],
    /// Cosine and sine of the rotation.
    turn: [f32; 2],
    /// Period of the texture, in pixels.
    period: f32,
    phase: [f32; 2],
}

impl Object {
    fn new(class: &SampleClass, random: &mut Random) -> Self {
        let middle = (SIDE - 1) as f32 / 2.0;
        let height = random.between(13.0, 26.0);
        let mut half = [height * random.between(0.8, 1.25), height];
        // The edge of the picture cuts off at most a fifth of it.
        let mut centre = half.map(|half| {
            let slack = (middle + 0.5 - 0.8 * half).max(0.0);
            middle + random.between(-slack, slack)
        });
        // With t = tan(angle / 2), cos = (1 - t^2) / (1 + t^2) and sin = 2t / (1 + t^2). The last bit of
        // the library's `sin` differs between platforms.
        let t = random.between(-0.12, 0.12);
        let mut turn = [(1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)];
        match random.between(0.0, 1.0) {
            // Close-up: larger than the picture, so that most outlines reach all four edges.
            lot if lot < 0.04 => {
                (half, centre, turn) = ([1.45 * middle; 2], [middle; 2], [1.0, 0.0])
            }
            // Edge-on: one pixel wide or one pixel high.
            lot if lot < 0.05 => {
                (half[0], centre, turn) = (0.5, centre.map(f32::round), [1.0, 0.0])
            }
            lot if lot < 0.06 => {
                (half[1], centre, turn) = (0.5, centre.map(f32::round), [1.0, 0.0])
            }
            _ => {}
        }
        let hue = class.hue + random.between(-0.04, 0.04);
        let main = rgb(hue, random.between(0.6, 1.0), random.between(0.65, 1.0));
        let shade = random.between(0.15, 0.45);
        let towards = if random.bits() & 1 == 0 { 0.0 } else { 255.0 };
        Self {
            outline: class.outline,
            texture: class.texture,
            colours: [
                main,
                main.map(|level| level * shade + towards * (1.0 - shade)),
            ]
            .map(|c| c.map(whole)),
            centre,
            half,
            turn,
            period: random.between(6.0, 10.0),
            phase: [random.between(0.0, 1.0), random.between(0.0, 1.0)],
        }
    }

    /// Paints the object and returns the tight box of its pixels.
    fn paint(&self, canvas: &mut Canvas) -> Bounds {
        let ([cos, sin], [width, height]) = (self.turn, self.half);
        let reach = width * sin.abs() + height * cos;
        let rows = pixel(self.centre[1] - reach)..=pixel(self.centre[1] + reach);
        let across: Row<f32> = std::array::from_fn(|x| x as f32 - self.centre[0]);
        let [mut x0, mut y0, mut x1, mut y1] = [SIDE, SIDE, 0, 0];
        for y in rows {
            let down = y as f32 - self.centre[1];
            let u = across.map(|across| across * cos + down * sin);
            let v = across.map(|across| down * cos - across * sin);
            let covered = self
                .outline
                .covers(&u.map(|u| u / width), &v.map(|v| v / height));
            let marked = self.texture.marks(
                &u.map(|u| u / self.period + self.phase[0]),
                &v.map(|v| v / self.period + self.phase[1]),
            );
            let row = &mut canvas[y * SIDE..][..SIDE];
            for (x, pixel) in row.iter_mut().enumerate().filter(|&(x, _)| covered[x]) {
                *pixel = self.colours[usize::from(marked[x])];
                (x0, x1) = (x0.min(x), x1.max(x));
                (y0, y1) = (y0.min(y), y1.max(y));
            }
        }
        Bounds([x0, y0, x1, y1])
    }
}

/// Brightness noise. Takes one random byte for each pixel.
struct Grain {
    draws: Draws,
    /// Maximum change of a level.
    strength: f32,
}

impl Grain {
    fn apply(&self, canvas: &mut Canvas) {
        let mut random = Random::new(self.draws);
        let strength = whole(self.strength);
        for pixels in canvas.chunks_exact_mut(8) {
            for (pixel, noise) in pixels.iter_mut().zip(random.bits().to_le_bytes()) {
                let noise = ((i16::from(noise) - 128) * strength) >> 7;
                *pixel = pixel.map(|level| level + noise);
            }
        }
    }
}

/// The colour of a hue (in turns), a saturation and a value (0 to 1), as levels from 0 to 255.
fn rgb(hue: f32, saturation: f32, value: f32) -> [f32; 3] {
    [5.0, 3.0, 1.0].map(|offset| {
        let k = (offset + hue * 6.0).rem_euclid(6.0);
        let drop = k.min(4.0 - k).clamp(0.0, 1.0);
        255.0 * value * (1.0 - saturation * drop)
    })
}

/// The nearest integer.
#[expect(
    clippy::cast_possible_truncation,
    reason = "levels are far inside the range"
)]
fn whole(level: f32) -> i16 {
    level.round() as i16
}

/// The row or column of pixels that contains `at`, or the nearest one.
#[expect(clippy::cast_possible_truncation, reason = "clamped to 0..SIDE")]
fn pixel(at: f32) -> usize {
    at.floor().clamp(0.0, (SIDE - 1) as f32) as usize
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};
    use tinyres_format::Stream;

    use super::super::class::MAX_CLASSES;
    use super::*;

    /// Scenes of every class, a few of each.
    fn scenes(each: u64) -> impl Iterator<Item = Scene> {
        (0..MAX_CLASSES as usize).flat_map(move |number| {
            (0..each).map(move |i| {
                let draws = Draws::new(7, Stream::Sample, 0).of(number as u64).of(i);
                Scene::new(&SampleClass::nth(number), draws)
            })
        })
    }

    /// The box contains all pixels that the object changed, and each of its sides touches one.
    #[test]
    fn boxes_are_tight() {
        const BARE: Colour = [-1; 3]; // not a colour of any object
        for scene in scenes(8) {
            let mut canvas = [BARE; SIDE * SIDE];
            let bounds = scene.object.paint(&mut canvas);
            let changed = |&i: &usize| canvas[i] != BARE;
            let columns: Vec<_> = (0..SIDE * SIDE).filter(changed).map(|i| i % SIDE).collect();
            let rows: Vec<_> = (0..SIDE * SIDE).filter(changed).map(|i| i / SIDE).collect();
            let edges = [
                columns.iter().min(),
                rows.iter().min(),
                columns.iter().max(),
                rows.iter().max(),
            ];
            assert_eq!(
                edges.map(|edge| *edge.expect("something is painted")),
                bounds.0
            );
        }
    }

    #[test]
    fn rare_cases_have_their_fractions() {
        let scenes: Vec<_> = scenes(10).collect();
        let mut canvas = [[0; 3]; SIDE * SIDE];
        let paint = |scene: &Scene| scene.object.paint(&mut canvas).0;
        let bounds: Vec<_> = scenes.iter().map(paint).collect();
        let fraction = |some: &dyn Fn(&[usize; 4]) -> bool| {
            bounds.iter().filter(|bounds| some(bounds)).count() as f64 / bounds.len() as f64
        };
        let grey = scenes.iter().filter(|scene| scene.grey).count() as f64 / scenes.len() as f64;
        assert!((0.02..0.05).contains(&grey), "{grey}");
        let full = fraction(&|&b| b == [0, 0, 63, 63]);
        assert!((0.02..0.06).contains(&full), "{full}");
        for thin in [fraction(&|b| b[0] == b[2]), fraction(&|b| b[1] == b[3])] {
            assert!((0.005..0.02).contains(&thin), "{thin}");
        }
    }

    /// The first bytes of a hash over pictures of every class. Changes only on purpose.
    #[test]
    fn pictures_of_a_seed_never_change() {
        let mut hash = Sha256::new();
        scenes(1).for_each(|scene| hash.update(scene.paint().pixels));
        assert_eq!(hash.finalize()[..4], [13, 48, 175, 85]);
    }
}
