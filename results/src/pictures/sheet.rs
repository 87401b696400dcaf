//! Sheets of photographs: confused pairs, confident mistakes, suspected labels and duplicates.

use tinyres::text::Count;
use tinyres_format::Split;
use tinyres_load::Dataset;

use crate::draw::{Anchor, BODY, Ink, Pen, Pixels, SMALL, Scene, Type, fit};
use crate::duplicates::{Likeness, Pair, Place};
use crate::{Result, Subject, areas_under_margin};

/// Left and right margin of a sheet.
const MARGIN: f32 = 24.0;

/// Photographs of a set by number.
pub(super) struct Photos<'a>(pub &'a Dataset);

impl Photos<'_> {
    /// The pixels of an image.
    pub fn get(&self, image: u32) -> Result<Pixels> {
        let mut planes = vec![0; self.0.shape().image_len()];
        self.0.gather(&[image], &mut planes)?;
        Ok(Pixels::of(self.0.shape(), &planes))
    }
}

/// First of a list of synonyms.
pub(crate) fn first_word(words: &str) -> &str {
    words.split(',').next().unwrap_or(words)
}

/// The place of an image in a square: as large as it fits, in its middle.
pub(super) fn fitted(pixels: &Pixels, [x, y]: [f32; 2], side: f32) -> [f32; 4] {
    let (width, height) = (pixels.width as f32, pixels.height as f32);
    let scale = side / width.max(height);
    let (width, height) = (width * scale, height * scale);
    [
        x + (side - width) / 2.0,
        y + (side - height) / 2.0,
        width,
        height,
    ]
}

/// A photograph with lines of text below it.
struct Cell<'a> {
    row: u32,
    lines: [(&'a str, Ink); 2],
    /// At the end of the second line.
    figure: String,
}

/// Photographs in rows of six.
fn grid(
    images: Option<&Dataset>,
    title: &str,
    subtitle: &str,
    cells: &[Cell<'_>],
) -> Result<Option<Scene>> {
    const COLUMNS: usize = 6;
    const SIDE: f32 = 118.0;
    let (Some(images), false) = (images, cells.is_empty()) else {
        return Ok(None);
    };
    let step = [
        (crate::draw::WIDTH - 2.0 * MARGIN + 9.0) / COLUMNS as f32,
        SIDE + 46.0,
    ];
    let rows = cells.len().div_ceil(COLUMNS) as f32;
    let mut scene = Scene::titled(70.0 + rows * step[1] + 4.0, title, subtitle);
    for (at, cell) in cells.iter().enumerate() {
        let (column, row) = ((at % COLUMNS) as f32, (at / COLUMNS) as f32);
        let [x, y] = [MARGIN + column * step[0], 70.0 + row * step[1]];
        let pixels = Photos(images).get(cell.row)?;
        scene.image(fitted(&pixels, [x, y], SIDE), pixels, true);
        for (line, (text, ink)) in (0_u8..).zip(cell.lines) {
            let style = Type::new(SMALL, ink);
            let style = if line == 0 { style.medium() } else { style };
            let y = y + SIDE + 14.0 + 14.0 * f32::from(line);
            let mut room = SIDE;
            if line == 1 {
                let style = Type::new(SMALL, Ink::Muted).anchor(Anchor::End);
                scene.text([x + SIDE, y], &cell.figure, style);
                room -= crate::draw::width(&cell.figure, style) + 5.0;
            }
            scene.text([x, y], &fit(text, style, room), style);
        }
    }
    Ok(Some(scene))
}

fn percent_of(fraction: f64) -> String {
    match 100.0 * fraction {
        0.0 => "0%".to_owned(),
        small if small < 0.0095 => format!("{small:.0e}%"),
        small if small < 0.095 => format!("{small:.2}%"),
        small if small < 9.95 => format!("{small:.1}%"),
        percent => format!("{percent:.0}%"),
    }
}

/// Mistakes of the highest confidence.
pub(super) fn confident_mistakes(subject: &Subject<'_>) -> Result<Option<Scene>> {
    let analysis = subject.analysis;
    let predictions = &analysis.predictions;
    let mistakes = analysis.mistakes();
    let cell = |&row: &usize| Cell {
        row: predictions.image[row],
        lines: [
            (analysis.word(predictions.predicted[row]), Ink::Bad),
            (analysis.word(predictions.label[row]), Ink::Text),
        ],
        figure: percent_of(f64::from(predictions.confidence[row])),
    };
    let cells: Vec<_> = mistakes.iter().take(24).map(cell).collect();
    let subtitle = "Red: what the network says, and how sure it is of it. Below: the label";
    grid(subject.images, "Most confident mistakes", subtitle, &cells)
}

/// Labels that are probably wrong.
pub(super) fn suspect_labels(subject: &Subject<'_>) -> Result<Option<Scene>> {
    let analysis = subject.analysis;
    let predictions = &analysis.predictions;
    let cell = |suspect: &crate::Suspect| Cell {
        row: predictions.image[suspect.row],
        lines: [
            (analysis.word(suspect.class), Ink::Good),
            (analysis.word(predictions.label[suspect.row]), Ink::Text),
        ],
        figure: percent_of(suspect.label_prob),
    };
    let cells: Vec<_> = analysis.suspects.iter().take(24).map(cell).collect();
    let weak = match predictions.top1() {
        ..0.5 => ", most of them by mistakes of a weak network",
        _ => "",
    };
    let subtitle = format!(
        "Green: what the image may show. Below: the label, and its probability. {} of {} are suspected{weak}",
        Count(analysis.suspects.len() as u64),
        Count(predictions.len() as u64)
    );
    grid(subject.images, "Likeliest wrong labels", &subtitle, &cells)
}

/// Labels of train that are probably wrong: those of the smallest area under the margin.
pub(super) fn suspect_training_labels(subject: &Subject<'_>) -> Result<Option<Scene>> {
    let train = (subject.sets.iter()).find(|data| data.split() == Split::Train);
    let (Some(train), Some(run)) = (train, subject.run) else {
        return Ok(None);
    };
    let Some(areas) = areas_under_margin(run, train.len() as usize)? else {
        return Ok(None);
    };
    let known = (0..)
        .zip(&areas)
        .filter_map(|(image, area)| Some((image, (*area)?)));
    let mut known: Vec<(u32, f64)> = known.collect();
    known.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let count = Count(known.len() as u64);
    known.truncate(24);
    let numbers: Vec<_> = known
        .iter()
        .map(|(image, _)| format!("train {image}"))
        .collect();
    let mut cells = Vec::new();
    for (&(row, area), number) in known.iter().zip(&numbers) {
        let label = usize::try_from(train.label(row)?).ok();
        let class = label.and_then(|label| train.classes().get(label));
        let word = class.map_or("no label", |class| match class.name.as_str() {
            "" => &class.id,
            name => first_word(name),
        });
        cells.push(Cell {
            row,
            lines: [(word, Ink::Text), (number.as_str(), Ink::Muted)],
            figure: format!("{area:.1}"),
        });
    }
    let subtitle = format!(
        "Labels with the smallest area under the margin of {count} images (Pleiss et al. 2020)"
    );
    grid(
        Some(train),
        "Likeliest wrong labels of train",
        &subtitle,
        &cells,
    )
}

/// The most confused pairs of classes, with images of each that were taken for the other.
pub(super) fn confused_pairs(subject: &Subject<'_>) -> Result<Option<Scene>> {
    const SIDE: f32 = 86.0;
    const STEP: f32 = SIDE + 42.0;
    const SHOWN: usize = 4;
    let analysis = subject.analysis;
    let predictions = &analysis.predictions;
    let pairs = &analysis.confused[..analysis.confused.len().min(8)];
    let (Some(images), false) = (subject.images, pairs.is_empty()) else {
        return Ok(None);
    };
    let subtitle =
        "Images of a class that were predicted as the other one, the most confident first";
    let height = 66.0 + pairs.len() as f32 * STEP;
    let mut scene = Scene::titled(height, "Most often confused", subtitle);
    let mistakes = analysis.mistakes();
    for (at, pair) in (0_u8..).zip(pairs) {
        let y = 66.0 + STEP * f32::from(at);
        let sides = [(pair.a, pair.b, pair.a_as_b), (pair.b, pair.a, pair.b_as_a)];
        for (x, (label, predicted, count)) in [MARGIN, 408.0].into_iter().zip(sides) {
            let style = Type::new(BODY, Ink::Text).medium();
            let number = format!("{count}");
            let room = 368.0 - 30.0;
            let words = format!(
                "{} taken for {}",
                analysis.word(label),
                analysis.word(predicted)
            );
            scene.text([x, y + 14.0], &fit(&words, style, room), style);
            let style = Type::new(BODY, Ink::Muted).anchor(Anchor::End);
            scene.text([x + 368.0, y + 14.0], &number, style);
            let is_one = |row: &&usize| {
                predictions.label[**row] == label && predictions.predicted[**row] == predicted
            };
            for (column, &row) in (0_u8..).zip(mistakes.iter().filter(is_one).take(SHOWN)) {
                let pixels = Photos(images).get(predictions.image[row])?;
                let at = [x + f32::from(column) * (SIDE + 8.0), y + 24.0];
                scene.image(fitted(&pixels, at, SIDE), pixels, true);
            }
        }
    }
    Ok(Some(scene))
}

/// Images that are there more than once.
pub(super) fn duplicates(subject: &Subject<'_>) -> Result<Option<Scene>> {
    const SIDE: f32 = 112.0;
    const COLUMNS: usize = 3;
    let Some(found) = subject
        .analysis
        .duplicates
        .as_ref()
        .filter(|found| !found.pairs.is_empty())
    else {
        return Ok(None);
    };
    let label = |place: Place| -> Result<i64> { Ok(subject.sets[place.set].label(place.image)?) };
    let mut pairs = Vec::new();
    for pair in &found.pairs {
        let (a, b) = (label(pair.a)?, label(pair.b)?);
        // Unlabelled images, of a test split, agree with any.
        pairs.push((a != b && a >= 0 && b >= 0, pair, [a, b]));
    }
    let differ = pairs.iter().filter(|(differs, ..)| *differs).count();
    let across = pairs
        .iter()
        .filter(|(_, pair, _)| pair.a.set != pair.b.set)
        .count();
    // Those that do harm come first.
    pairs.sort_by_key(|(differs, pair, _)| (!differs, pair.a.set == pair.b.set));
    let subtitle = format!(
        "{} of equal or nearly equal images: {differ} with different labels, {across} across splits",
        tinyres::text::counted(pairs.len(), "pair")
    );
    let pairs = &pairs[..pairs.len().min(18)];
    let step = [
        (crate::draw::WIDTH - 2.0 * MARGIN + 18.0) / COLUMNS as f32,
        SIDE + 48.0,
    ];
    let rows = pairs.len().div_ceil(COLUMNS) as f32;
    let mut scene = Scene::titled(70.0 + rows * step[1] + 4.0, "Duplicates", &subtitle);
    for (at, (differs, pair, labels)) in pairs.iter().enumerate() {
        let (column, row) = ((at % COLUMNS) as f32, (at / COLUMNS) as f32);
        let [x, y] = [MARGIN + column * step[0], 70.0 + row * step[1]];
        for (number, (place, label)) in [pair.a, pair.b].into_iter().zip(labels).enumerate() {
            let x = x + number as f32 * (SIDE + 2.0);
            let data = &subject.sets[place.set];
            let pixels = Photos(data).get(place.image)?;
            scene.image(fitted(&pixels, [x, y], SIDE), pixels, true);
            let class = usize::try_from(*label)
                .ok()
                .and_then(|label| data.classes().get(label));
            let word = class.map_or("no label", |class| match class.name.as_str() {
                "" => &class.id,
                name => first_word(name),
            });
            let style = Type::new(SMALL, if *differs { Ink::Bad } else { Ink::Text }).medium();
            scene.text([x, y + SIDE + 14.0], &fit(word, style, SIDE - 4.0), style);
            let note = format!("{} {}", data.split(), place.image);
            scene.text([x, y + SIDE + 28.0], &note, Type::new(SMALL, Ink::Muted));
        }
        if let Some(how) = how(pair) {
            let style = Type::new(SMALL, Ink::Muted).anchor(Anchor::End);
            scene.text([x + 2.0 * SIDE + 2.0, y + SIDE + 28.0], how, style);
        }
        let between = x + SIDE + 1.0;
        scene.line(
            vec![[between, y], [between, y + SIDE]],
            Pen::new(Ink::Paper, 2.0),
        );
    }
    Ok(Some(scene))
}

fn how(pair: &Pair) -> Option<&'static str> {
    match pair.likeness {
        Likeness::Exact => None,
        Likeness::Near => Some("near"),
        Likeness::Mirrored => Some("mirrored"),
    }
}
