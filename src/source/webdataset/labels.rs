//! The label of a sample: the text of `KEY.cls`, or else a field of `KEY.json`.

use std::collections::HashMap;

use serde_json::Value;

use super::samples::Sample;
use crate::source::read_ahead::ReadAhead;
use crate::source::tar::Tar;

/// Fields of `KEY.json` that may hold a label, the first that is there.
const LABELS: [&str; 6] = ["cls", "label", "class", "class_id", "target", "label_name"];
/// Fields that may hold the name of a class whose label is a number.
const NAMES: [&str; 8] = [
    "class_name",
    "classname",
    "label_name",
    "label",
    "class",
    "category",
    "synset",
    "wnid",
];
/// Longest name of a class, in bytes.
const MAX_NAME: usize = 1 << 10;

/// A label as a file states it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    Number(i64),
    Name(String),
}

impl Label {
    fn of_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.parse() {
            Ok(number) => Ok(Self::Number(number)),
            Err(_) if text.is_empty() => Err("an empty label".to_owned()),
            Err(_) if text.len() > MAX_NAME || text.contains(char::is_control) => {
                let start: String = text.chars().take(40).collect();
                Err(format!(
                    "label {start:?}..., expected a number or the name of a class"
                ))
            }
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }

    fn of_value(value: &Value) -> Option<Result<Self, String>> {
        match value {
            Value::String(text) => Some(Self::of_text(text)),
            Value::Number(number) => number.as_i64().map(|number| Ok(Self::Number(number))),
            _ => None,
        }
    }
}

/// Names of the classes by their numbers, as `KEY.json` gives them.
#[derive(Debug, Default)]
pub(super) struct Names {
    of: HashMap<i64, String>,
    /// Set when a sample gave no name: then others are not asked.
    absent: bool,
}

impl Names {
    pub fn get(&self, number: i64) -> Option<&str> {
        self.of.get(&number).map(String::as_str)
    }

    /// Adds the names of another tar. One that is there already stays.
    pub fn add(&mut self, other: Self) {
        for (number, name) in other.of {
            self.of.entry(number).or_insert(name);
        }
    }

    /// The label of `sample`. Keeps the name of its class if it is new.
    pub fn label(
        &mut self,
        tar: &Tar,
        sample: &Sample,
        read_ahead: &mut ReadAhead,
    ) -> Result<Option<Label>, String> {
        let label = label(tar, sample, read_ahead)?;
        if let Some(Label::Number(number)) = label
            && let Some(entry) = sample.json
            && !self.absent
            && !self.of.contains_key(&number)
        {
            let fields = json(tar, entry, read_ahead)?;
            let text = |field: &&str| fields.get(field)?.as_str().map(str::trim);
            let is_name = |text: &&str| !text.is_empty() && text.parse::<i64>().is_err();
            match NAMES.iter().filter_map(text).find(is_name) {
                Some(name) => drop(self.of.insert(number, name.to_owned())),
                None => self.absent = true,
            }
        }
        Ok(label)
    }
}

/// The label of `sample`, if it has one. An error says why it cannot be read.
pub(super) fn label(
    tar: &Tar,
    sample: &Sample,
    read_ahead: &mut ReadAhead,
) -> Result<Option<Label>, String> {
    if let Some(entry) = sample.cls {
        let bytes = tar.read(entry, read_ahead);
        let bytes = bytes.map_err(|reason| format!("its .cls: {reason}"))?;
        let text = str::from_utf8(bytes).map_err(|_| "its .cls is not UTF-8 text".to_owned())?;
        return Label::of_text(text).map(Some);
    }
    let Some(entry) = sample.json else {
        return Ok(None);
    };
    let fields = json(tar, entry, read_ahead)?;
    let mut found = LABELS
        .iter()
        .filter_map(|field| Label::of_value(fields.get(field)?));
    found.next().transpose()
}

fn json(tar: &Tar, entry: usize, read_ahead: &mut ReadAhead) -> Result<Value, String> {
    let bytes = tar.read(entry, read_ahead);
    let bytes = bytes.map_err(|reason| format!("its .json: {reason}"))?;
    serde_json::from_slice(bytes).map_err(|reason| format!("its .json: {reason}"))
}
