//! Boxes of an image: an XML file of ImageNet, or a line of Kaggle's solutions. Coordinates are inclusive pixels
//! from 0.

use std::collections::HashMap;

use quick_xml::Reader;
use quick_xml::events::Event;

/// The objects of one image.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Annotation {
    /// Width and height of the image that was annotated.
    size: [Option<i32>; 2],
    /// Class and box of each object: x0, y0, x1, y1, as they are stated.
    pub objects: Vec<(String, [i32; 4])>,
}

/// The fields of an object, as they are read.
#[derive(Debug, Default)]
struct Object {
    name: Option<String>,
    corners: [Option<i32>; 4],
}

impl Annotation {
    /// Parses the XML in `bytes`. An error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::from_reader(bytes);
        let mut path: Vec<String> = Vec::new();
        let mut annotation = Self::default();
        let mut object = Object::default();
        let mut seen = false;
        loop {
            let offset = reader.buffer_position();
            let failed = |reason: &str| format!("at byte {offset}: {reason}");
            match reader
                .read_event()
                .map_err(|reason| failed(&reason.to_string()))?
            {
                Event::Start(start) => {
                    if path.len() == MAX_DEPTH {
                        return Err(failed("elements are nested too deeply"));
                    }
                    path.push(start.local_name().as_ref().to_owned());
                    seen = true;
                    if is_at(&path, &["object"]) {
                        object = Object::default();
                    }
                }
                Event::End(_) => {
                    if is_at(&path, &["object"]) {
                        let Object { name, corners } = std::mem::take(&mut object);
                        let name = name.ok_or_else(|| failed("an object without a name"))?;
                        let [Some(x0), Some(y0), Some(x1), Some(y1)] = corners else {
                            return Err(failed("an object without a box"));
                        };
                        annotation.objects.push((name, [x0, y0, x1, y1]));
                    }
                    path.pop();
                }
                Event::Text(text) => {
                    let text = text.xml10_content();
                    let text = text.trim();
                    if text.is_empty() {
                        continue;
                    }
                    let number = || {
                        number(text)
                            .ok_or_else(|| failed(&format!("{text:?} is not a number of pixels")))
                    };
                    if is_at(&path, &["object", "name"]) {
                        object.name = Some(text.to_owned());
                    }
                    for (axis, field) in ["width", "height"].into_iter().enumerate() {
                        if is_at(&path, &["size", field]) {
                            annotation.size[axis] = Some(number()?).filter(|&size| size > 0);
                        }
                    }
                    for (corner, field) in CORNERS.into_iter().enumerate() {
                        if is_at(&path, &["object", "bndbox", field]) {
                            object.corners[corner] = Some(number()?);
                        }
                    }
                }
                Event::Eof if !path.is_empty() => return Err(failed("the file ends too early")),
                Event::Eof if !seen => return Err(failed("no annotation")),
                Event::Eof => return Ok(annotation),
                _ => {}
            }
        }
    }

    /// The largest box of class `wnid` as far as it lies in the image, and how many of that class do. Boxes may be
    /// stated from any corner and reach beyond the image, as those of ImageNet do: the rule is that of TensorFlow's
    /// `process_bounding_boxes.py`.
    pub fn largest(&self, wnid: &str) -> (Option<[i32; 4]>, usize) {
        let [width, height] = self.size.map(|size| size.unwrap_or(i32::MAX));
        let inside = |[x0, y0, x1, y1]: [i32; 4]| {
            let (left, right) = (x0.min(x1).max(0), x0.max(x1).min(width - 1));
            let (top, bottom) = (y0.min(y1).max(0), y0.max(y1).min(height - 1));
            (left <= right && top <= bottom).then_some([left, top, right, bottom])
        };
        let area = |[x0, y0, x1, y1]: [i32; 4]| {
            (i64::from(x1) - i64::from(x0) + 1) * (i64::from(y1) - i64::from(y0) + 1)
        };
        let own = self.objects.iter().filter(|(name, _)| name == wnid);
        let boxes: Vec<_> = own.filter_map(|(_, bbox)| inside(*bbox)).collect();
        // The first of equal ones.
        let largest = boxes.iter().rev().max_by_key(|bbox| area(**bbox));
        (largest.copied(), boxes.len())
    }
}

const MAX_DEPTH: usize = 32;
const CORNERS: [&str; 4] = ["xmin", "ymin", "xmax", "ymax"];

/// Returns whether `path` leads through the root and then through `names`.
fn is_at(path: &[String], names: &[&str]) -> bool {
    path.len() == names.len() + 1 && path[1..].iter().zip(names).all(|(a, b)| a == b)
}

/// A whole number, or a decimal that is rounded to one.
fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let decimal: f64 = text.parse().ok()?;
    let rounded = format!("{:.0}", decimal.round());
    rounded.parse().ok()
}

/// The annotations in Kaggle's `LOC_val_solution.csv` or `LOC_train_solution.csv`, by the name of the image without
/// its extension: `ILSVRC2012_val_00048981,n03995372 85 1 499 272`, five fields for each object. An error names the
/// line.
pub(super) fn solution(text: &str) -> Result<HashMap<&str, Annotation>, (usize, String)> {
    let mut annotations = HashMap::new();
    let lines = (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines());
    for (line, row) in lines.filter(|(_, row)| !row.trim().is_empty()) {
        let failed = |reason: &str| (line, reason.to_owned());
        let (image, objects) = row
            .split_once(',')
            .ok_or_else(|| failed("expected IMAGE,WNID X0 Y0 X1 Y1"))?;
        if line == 1 && image == "ImageId" {
            continue;
        }
        let mut annotation = Annotation::default();
        let fields: Vec<_> = objects.split_whitespace().collect();
        let (whole, rest) = fields.as_chunks::<5>();
        for [wnid, corners @ ..] in whole {
            let corners = corners.map(number);
            let [Some(x0), Some(y0), Some(x1), Some(y1)] = corners else {
                return Err(failed("a coordinate that is not a number of pixels"));
            };
            annotation
                .objects
                .push(((*wnid).to_owned(), [x0, y0, x1, y1]));
        }
        if !rest.is_empty() || whole.is_empty() {
            return Err(failed(
                "expected five fields for each object: WNID X0 Y0 X1 Y1",
            ));
        }
        if annotations.insert(image, annotation).is_some() {
            return Err(failed("the image is on another line already"));
        }
    }
    Ok(annotations)
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<annotation>\n\t<folder>n01440764</folder>\n\t<filename>n01440764_10040</filename>
        <source><database>ILSVRC_2014</database></source>
        <size><width>500</width><height>375</height><depth>3</depth></size><segmented>0</segmented>
        <object><name>n01440764</name><pose>Unspecified</pose><bndbox><xmin>300</xmin><ymin>10</ymin>
        <xmax>500</xmax><ymax>100</ymax></bndbox><part><name>fin</name><bndbox><xmin>1</xmin></bndbox></part></object>
        <object><name>n01440764</name><bndbox><xmin>20</xmin><ymin>0</ymin><xmax>10</xmax><ymax>400.6</ymax></bndbox></object>
        <object><name>n02</name><bndbox><xmin>-9</xmin><ymin>0</ymin><xmax>499</xmax><ymax>374</ymax></bndbox></object>
        <object><name>n03</name><bndbox><xmin>600</xmin><ymin>0</ymin><xmax>700</xmax><ymax>9</ymax></bndbox></object>
        </annotation>";

    #[test]
    fn the_largest_object_of_the_class_is_the_box() {
        let annotation = Annotation::parse(XML.as_bytes()).unwrap();
        assert_eq!(annotation.objects.len(), 4);
        // 201 x 91 pixels, of which 200 are in the image; the other, stated from the right, 11 x 375.
        assert_eq!(
            annotation.largest("n01440764"),
            (Some([300, 10, 499, 100]), 2)
        );
        assert_eq!(annotation.largest("n02"), (Some([0, 0, 499, 374]), 1));
        assert_eq!(annotation.largest("n03"), (None, 0));
        assert_eq!(annotation.largest("n04"), (None, 0));
    }

    #[test]
    fn broken_xml_is_an_error_at_its_byte() {
        for (xml, reason) in [
            ("", "no annotation"),
            ("<annotation><object>", "ends too early"),
            ("<annotation><object></annotation>", "at byte"),
            (
                "<a><object><name>n</name></object></a>",
                "an object without a box",
            ),
            ("<a><object></object></a>", "an object without a name"),
            (
                "<a><object><bndbox><xmin>x</xmin></bndbox></object></a>",
                "\"x\" is not a number",
            ),
            (
                "<a><size><width>1e99</width></size></a>",
                "\"1e99\" is not a number",
            ),
            (&"<a>".repeat(40), "nested too deeply"),
        ] {
            let error = Annotation::parse(xml.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{xml}: {error}");
        }
        for end in 0..XML.len() - 1 {
            assert!(Annotation::parse(&XML.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn lines_of_a_solution_hold_any_number_of_objects() {
        let text = "ImageId,PredictionString\nval_1,n1 1 2 3 4 n1 5 6 70 80 \nval_2,n2 0 0 9 9\n";
        let solution = solution(text).unwrap();
        assert_eq!(solution["val_1"].largest("n1"), (Some([5, 6, 70, 80]), 2));
        assert_eq!(solution["val_2"].objects.len(), 1);
    }

    #[test]
    fn lines_that_are_no_solution_are_named() {
        for (text, line, reason) in [
            ("val_1", 1, "expected IMAGE"),
            ("a,n1 1 2 3 4\nb,n1 1 2 3", 2, "expected five fields"),
            ("a,", 1, "expected five fields"),
            ("a,n1 1 2 3 x", 1, "a coordinate"),
            ("a,n1 1 2 3 4\n\na,n1 1 2 3 4", 3, "the image is on another"),
        ] {
            let (at, error) = solution(text).unwrap_err();
            assert_eq!(at, line, "{text}");
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
