//! Scenes: what a chart or a sheet of photographs shows, as a list of rectangles, lines, texts and images. One scene
//! becomes a PNG (`raster`) for a file, or an SVG (`svg`) for a page that has light and dark colours.
//!
//! Sizes are in pixels of a scene that is about 800 wide; a PNG has twice as many.

mod font;
mod plot;
mod raster;
mod svg;

pub(crate) use font::{fit, width};
pub(crate) use plot::{Axis, Plot, percent, ticks};

/// Width of a scene.
pub(crate) const WIDTH: f32 = 800.0;
/// Sizes of text.
pub(crate) const SMALL: f32 = 10.5;
pub(crate) const BODY: f32 = 12.0;
pub(crate) const TITLE: f32 = 17.0;

/// A colour by what it is for. A page chooses it by its theme.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ink {
    Paper,
    Text,
    /// Text of less weight.
    Muted,
    Grid,
    Good,
    Bad,
    /// One of [`SERIES`].
    Series(usize),
}

/// Colours of curves.
pub(crate) const SERIES: [[u8; 3]; 6] = [
    [37, 99, 235],
    [234, 88, 12],
    [13, 148, 136],
    [147, 51, 234],
    [202, 138, 4],
    [219, 39, 119],
];

impl Ink {
    /// The colour on light paper.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Paper => [255, 255, 255],
            Self::Text => [31, 41, 55],
            Self::Muted => [107, 114, 128],
            Self::Grid => [229, 231, 235],
            Self::Good => [22, 128, 61],
            Self::Bad => [200, 30, 30],
            Self::Series(at) => SERIES[at % SERIES.len()],
        }
    }

    /// The class of elements of this colour in a page.
    pub fn name(self) -> String {
        match self {
            Self::Paper => "paper".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Muted => "muted".to_owned(),
            Self::Grid => "grid".to_owned(),
            Self::Good => "good".to_owned(),
            Self::Bad => "bad".to_owned(),
            Self::Series(at) => format!("s{}", at % SERIES.len()),
        }
    }
}

/// A rectangle: left, top, width, height.
pub(crate) type Area = [f32; 4];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    Regular,
    Medium,
}

/// Part of a text that lies at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pen {
    pub ink: Ink,
    pub width: f32,
    pub alpha: f32,
    pub dashed: bool,
}

impl Pen {
    pub fn new(ink: Ink, width: f32) -> Self {
        Self {
            ink,
            width,
            alpha: 1.0,
            dashed: false,
        }
    }

    pub fn faint(mut self, alpha: f32) -> Self {
        self.alpha = alpha;
        self
    }

    pub fn dashed(mut self) -> Self {
        self.dashed = true;
        self
    }
}

/// How a text is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Type {
    pub size: f32,
    pub weight: Weight,
    pub anchor: Anchor,
    pub ink: Ink,
    /// Upwards, for the name of a vertical axis.
    pub turned: bool,
}

impl Type {
    pub fn new(size: f32, ink: Ink) -> Self {
        Self {
            size,
            weight: Weight::Regular,
            anchor: Anchor::Start,
            ink,
            turned: false,
        }
    }

    pub fn medium(mut self) -> Self {
        self.weight = Weight::Medium;
        self
    }

    pub fn anchor(mut self, anchor: Anchor) -> Self {
        self.anchor = anchor;
        self
    }
}

/// Pixels of an image, `u8 [H, W, 3]`.
#[derive(Clone, Debug)]
pub(crate) struct Pixels {
    pub width: u32,
    pub height: u32,
    pub rgb: Vec<u8>,
}

impl Pixels {
    /// An image of a set, `u8 [3, H, W]`.
    pub fn of(shape: tinyres_format::Shape, planes: &[u8]) -> Self {
        let plane = shape.height as usize * shape.width as usize;
        let pixel = |at: usize| [0, 1, 2].map(|channel| planes[channel * plane + at]);
        Self {
            width: shape.width,
            height: shape.height,
            rgb: (0..plane).flat_map(pixel).collect(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Item {
    Fill {
        area: Area,
        ink: Ink,
        alpha: f32,
    },
    Line {
        points: Vec<[f32; 2]>,
        pen: Pen,
    },
    Text {
        at: [f32; 2],
        text: String,
        style: Type,
    },
    /// Photographs are smoothed where they are enlarged, and others are not.
    Image {
        area: Area,
        pixels: Pixels,
        is_photo: bool,
    },
}

/// A drawing.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub width: f32,
    pub height: f32,
    pub items: Vec<Item>,
}

impl Scene {
    pub fn new(width: f32, height: f32) -> Self {
        Self {
            width,
            height,
            items: Vec::new(),
        }
    }

    /// A scene with a title, and a line below it. What follows begins at 64.
    pub fn titled(height: f32, title: &str, subtitle: &str) -> Self {
        let mut scene = Self::new(WIDTH, height);
        let room = WIDTH - 48.0;
        let style = Type::new(TITLE, Ink::Text).medium();
        scene.text([24.0, 30.0], &fit(title, style, room), style);
        let style = Type::new(BODY, Ink::Muted);
        scene.text([24.0, 49.0], &fit(subtitle, style, room), style);
        scene
    }

    pub fn fill(&mut self, area: Area, ink: Ink, alpha: f32) {
        self.items.push(Item::Fill { area, ink, alpha });
    }

    pub fn line(&mut self, points: Vec<[f32; 2]>, pen: Pen) {
        self.items.push(Item::Line { points, pen });
    }

    /// Draws the edge of a rectangle.
    pub fn frame(&mut self, [x, y, width, height]: Area, pen: Pen) {
        let corners = [
            [x, y],
            [x + width, y],
            [x + width, y + height],
            [x, y + height],
            [x, y],
        ];
        // Half a line more, so that the last corner is closed.
        let closed = [x + pen.width / 2.0, y];
        self.line(corners.into_iter().chain([closed]).collect(), pen);
    }

    pub fn text(&mut self, at: [f32; 2], text: &str, style: Type) {
        let text = text.to_owned();
        self.items.push(Item::Text { at, text, style });
    }

    pub fn image(&mut self, area: Area, pixels: Pixels, is_photo: bool) {
        self.items.push(Item::Image {
            area,
            pixels,
            is_photo,
        });
    }

    /// Names curves in a row that ends at `right`: the text and the pen of each.
    pub fn legend(&mut self, right: f32, y: f32, entries: &[(&str, Pen)]) {
        let style = Type::new(SMALL, Ink::Muted);
        let mut x = right;
        for &(name, pen) in entries.iter().rev() {
            x -= width(name, style);
            self.text([x, y], name, style);
            let line = vec![[x - 20.0, y - 4.0], [x - 5.0, y - 4.0]];
            self.line(
                line,
                Pen {
                    width: pen.width.max(2.0),
                    ..pen
                },
            );
            x -= 34.0;
        }
    }

    /// The scene on light paper, as a PNG file.
    pub fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        raster::png(self)
    }

    /// The scene as an SVG element whose colours are classes.
    pub fn svg(&self, label: &str) -> String {
        svg::element(self, label)
    }
}
