//! The classes of a set: by number, by name, or as a list next to the shards names them.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::Value;

use super::labels::{Label, Names};
use crate::source::{Class, Error, ReadError};
use crate::text::counted;

/// Classes that have no names are called by their numbers, which must be less than this.
const MAX_CLASSES: usize = 1 << 16;

/// The classes that a file lists, in the order of their labels; none without a file.
#[derive(Debug, Default)]
pub(super) struct ClassList {
    /// The path as messages show it.
    file: String,
    classes: Vec<Class>,
}

impl ClassList {
    /// Takes the list in a file called `shown`, unless there is one already.
    pub fn read(&mut self, shown: &str, bytes: Result<Vec<u8>, ReadError>) -> Result<(), Error> {
        if !self.classes.is_empty() {
            return Ok(());
        }
        let failed = |reason: String| table(shown, &reason);
        let bytes = bytes.map_err(|reason| failed(reason.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| failed("not UTF-8 text".to_owned()))?;
        let is_json = Path::new(shown).extension().is_some_and(|it| it == "json");
        let classes = match is_json {
            true => {
                let value = serde_json::from_str(&text).map_err(|it| failed(it.to_string()))?;
                of_json(&value)
            }
            false => of_lines(&text),
        };
        self.classes = classes.ok_or_else(|| {
            failed("expected a name a line, a JSON list of names, or an object that gives each number from 0 one name".to_owned())
        })?;
        shown.clone_into(&mut self.file);
        Ok(())
    }

    /// The classes, and the index of the class of each of `labels`.
    pub fn classes<'a>(
        self,
        path: &Path,
        labels: impl Iterator<Item = Option<&'a Label>> + Clone,
        names: &Names,
    ) -> Result<(Vec<Class>, Vec<Option<u32>>), Error> {
        let named = labels
            .clone()
            .flatten()
            .any(|it| matches!(it, Label::Name(_)));
        let text = |label: &Label| match label {
            Label::Name(name) => name.clone(),
            Label::Number(number) => number.to_string(),
        };
        if named {
            let classes = if self.classes.is_empty() {
                let sorted: BTreeSet<_> = labels.clone().flatten().map(text).collect();
                crate::source::distinct(sorted.into_iter().collect())
            } else {
                self.classes
            };
            let mut places = HashMap::new();
            for (class, label) in classes.iter().zip(0_u32..) {
                places.entry(class.name.clone()).or_insert(label);
                places.insert(class.id.clone(), label);
            }
            let mut indices = Vec::new();
            for label in labels {
                let label = label.map(text);
                let index = label.as_ref().and_then(|label| places.get(label)).copied();
                if let Some(label) = label
                    && index.is_none()
                {
                    let reason = format!("does not list the class {label:?}; add it");
                    return Err(table(&self.file, &reason));
                }
                indices.push(index);
            }
            return Ok((classes, indices));
        }
        let index = |label: Option<&Label>| match label {
            Some(Label::Number(number)) => usize::try_from(*number).ok(),
            _ => None,
        };
        let count =
            (labels.clone().filter_map(index).max()).map_or(0, |most| most.saturating_add(1));
        let listed = self.classes.len();
        let classes = if listed > 0 {
            if listed < count {
                let listed = counted(listed, "class");
                let reason = format!(
                    "lists {listed}, and there are labels up to {}; complete it, or remove it to call classes by numbers",
                    count - 1
                );
                return Err(table(&self.file, &reason));
            }
            self.classes
        } else if count > MAX_CLASSES {
            let reason = format!(
                "has labels up to {}, expected less than {MAX_CLASSES}, or a list of names in classes.txt",
                count - 1
            );
            return Err(table(&path.display().to_string(), &reason));
        } else {
            let name = |number: i64| {
                let name = names.get(number).map(str::to_owned);
                name.unwrap_or_else(|| number.to_string())
            };
            crate::source::distinct((0_i64..).take(count).map(name).collect())
        };
        let indices = labels.map(|label| index(label).and_then(|it| u32::try_from(it).ok()));
        Ok((classes, indices.collect()))
    }
}

fn table(path: &str, reason: &str) -> Error {
    Error::Table {
        path: path.into(),
        reason: reason.to_owned(),
    }
}

fn of_lines(text: &str) -> Option<Vec<Class>> {
    let names: Vec<_> = (text.strip_prefix('\u{feff}').unwrap_or(text))
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    let end = names.iter().rposition(|name| !name.is_empty())?;
    let names = names[..=end].to_vec();
    let is_whole = names.iter().all(|name| !name.is_empty());
    is_whole.then(|| crate::source::distinct(names))
}

/// A list of names; `{"0": "tench"}` or `{"0": ["n01440764", "tench"]}`; `{"tench": 0}`.
fn of_json(value: &Value) -> Option<Vec<Class>> {
    let mut numbered: Vec<(usize, Option<String>, String)> = match value {
        Value::Array(names) => {
            let names = names.iter().enumerate();
            let named = names.map(|(at, name)| Some((at, None, name.as_str()?.to_owned())));
            named.collect::<Option<_>>()?
        }
        Value::Object(fields) => {
            let entry = |(key, value): (&String, &Value)| match value {
                Value::String(name) => Some((key.parse().ok()?, None, name.clone())),
                Value::Number(number) => {
                    Some((usize::try_from(number.as_u64()?).ok()?, None, key.clone()))
                }
                Value::Array(parts) => match parts.as_slice() {
                    [Value::String(id), Value::String(name)] => {
                        Some((key.parse().ok()?, Some(id.clone()), name.clone()))
                    }
                    _ => None,
                },
                _ => None,
            };
            fields.iter().map(entry).collect::<Option<_>>()?
        }
        _ => return None,
    };
    numbered.sort();
    if numbered.is_empty() || !numbered.iter().map(|(at, ..)| *at).eq(0..numbered.len()) {
        return None;
    }
    let names = numbered.iter().map(|(.., name)| name.clone()).collect();
    let mut classes = crate::source::distinct(names);
    for (class, (_, id, _)) in classes.iter_mut().zip(numbered) {
        if let Some(id) = id {
            class.id = id;
        }
    }
    Some(classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(file: &str, text: &str) -> Result<Vec<(String, String)>, String> {
        let mut list = ClassList::default();
        list.read(file, Ok(text.as_bytes().to_vec()))
            .map_err(|error| error.to_string())?;
        let classes = list.classes.into_iter();
        Ok(classes.map(|class| (class.id, class.name)).collect())
    }

    #[test]
    fn lists_of_classes_in_every_form_are_read() {
        let same = |name: &str| (name.to_owned(), name.to_owned());
        let expected = [same("tench"), same("great white shark")];
        for (file, text) in [
            ("classes.txt", "\u{feff}tench\r\ngreat white shark\r\n\r\n"),
            ("classes.json", r#"["tench", "great white shark"]"#),
            (
                "classes.json",
                r#"{"1": "great white shark", "0": "tench"}"#,
            ),
            (
                "class_to_idx.json",
                r#"{"great white shark": 1, "tench": 0}"#,
            ),
        ] {
            assert_eq!(list(file, text).unwrap(), expected, "{text}");
        }
        let ids = list(
            "imagenet_class_index.json",
            r#"{"0": ["n01440764", "tench"]}"#,
        );
        assert_eq!(ids.unwrap(), [("n01440764".to_owned(), "tench".to_owned())]);
    }

    #[test]
    fn lists_that_leave_a_label_open_are_refused() {
        for (file, text) in [
            ("classes.txt", "a\n\nb\n"),
            ("classes.txt", "\n"),
            ("classes.json", "[]"),
            ("classes.json", r#"["a", 1]"#),
            ("classes.json", r#"{"0": "a", "2": "b"}"#),
            ("classes.json", r#"{"a": 0, "b": 0}"#),
            ("classes.json", "{"),
        ] {
            let error = list(file, text).unwrap_err();
            assert!(error.starts_with(file), "{error}");
        }
    }
}
