//! Lines of annotations: names, classes and boxes of images. Knows nothing of folders.

use std::collections::HashMap;

use crate::source::folder::join;
use crate::source::{Location, TreeProblem};

/// The fields of a line of the two kinds of annotations. In both, the last four are the box.
pub(super) const BOX_FIELDS: &[&str] = &["name", "x0", "y0", "x1", "y1"];
pub(super) const VAL_FIELDS: &[&str] = &["name", "wnid", "x0", "y0", "x1", "y1"];

/// The line that lists each file of a folder of images; 0 until a line does.
pub(super) type Listed = HashMap<String, usize>;

/// Parses a line of annotations, and records in `listed` that it names its image.
pub(super) fn annotation(
    at: Location,
    text: &str,
    folder: &str,
    fields: &'static [&'static str],
    listed: &mut Listed,
    label: impl Fn(&[&str]) -> Result<u32, String>,
) -> Result<(String, u32, [i32; 4]), TreeProblem> {
    let values: Vec<&str> = text.split('\t').collect();
    let name = values[0];
    // Recorded even if something else is wrong with the line, so that the image is not also reported as
    // unlisted.
    let before = listed
        .get_mut(name)
        .map(|line| std::mem::replace(line, at.line));
    if values.len() != fields.len() {
        return Err(TreeProblem::Fields {
            at,
            got: values.len(),
            expected: fields,
        });
    }
    match before {
        Some(0) => {}
        Some(first) => {
            let name = name.to_owned();
            return Err(TreeProblem::Repeated { at, name, first });
        }
        None => {
            let (name, folder) = (name.to_owned(), folder.to_owned());
            let is_path = name.contains(['/', '\\']) || name == "..";
            return Err(if is_path {
                TreeProblem::Path { at, name, folder }
            } else {
                TreeProblem::Absent { at, name, folder }
            });
        }
    }
    let label = match label(&values) {
        Ok(label) => label,
        Err(wnid) => return Err(TreeProblem::UnknownClass { at, wnid }),
    };
    let corners = fields.len() - 4;
    let bbox = bbox(at, &fields[corners..], &values[corners..])?;
    Ok((join(folder, name), label, bbox))
}

fn bbox(
    at: Location,
    fields: &'static [&'static str],
    values: &[&str],
) -> Result<[i32; 4], TreeProblem> {
    let mut bbox = [0; 4];
    for ((corner, &field), &value) in bbox.iter_mut().zip(fields).zip(values) {
        match value.parse() {
            Ok(pixel @ 0..) => *corner = pixel,
            _ => {
                return Err(TreeProblem::Coordinate {
                    at,
                    field,
                    got: value.to_owned(),
                });
            }
        }
    }
    let [x0, y0, x1, y1] = bbox;
    if x0 <= x1 && y0 <= y1 {
        Ok(bbox)
    } else {
        Err(TreeProblem::Inverted { at, bbox })
    }
}

pub(super) fn text(file: &str, bytes: Vec<u8>) -> Result<String, TreeProblem> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        TreeProblem::NotText {
            at: Location::new(file, line),
        }
    })
}

/// The lines, numbered from 1. Accepts CR LF and a byte order mark, which Windows programs write.
pub(super) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines())
}
