//! Runs next to each other: the values of their configurations that differ, and their results.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{Result, RunSummary, config};

/// Several runs, next to each other.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The runs, in the order in which they were named.
    pub runs: Vec<RunSummary>,
    /// For each key of a configuration whose value is not the same in all runs: the value in each; `None` where it is
    /// missing. The table `run` has keys such as `run.data`.
    pub differs: BTreeMap<String, Vec<Option<String>>>,
}

/// Compares the runs in `dirs`.
///
/// # Errors
/// One of them holds no run, or cannot be read.
pub fn compare(dirs: &[PathBuf]) -> Result<Comparison> {
    let mut runs = Vec::new();
    let mut values: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for (at, dir) in dirs.iter().enumerate() {
        runs.push(RunSummary::read(dir)?);
        flatten("", &config(dir)?, &mut |key, value| {
            let row = values.entry(key).or_insert_with(|| vec![None; dirs.len()]);
            row[at] = Some(value);
        });
    }
    values.retain(|_, row| row.iter().any(|value| *value != row[0]));
    Ok(Comparison {
        runs,
        differs: values,
    })
}

/// Calls `each` with the values in `value` that are not tables, and with their keys, joined by points.
fn flatten(key: &str, value: &toml::Value, each: &mut dyn FnMut(String, String)) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let key = match key {
                    "" => name.clone(),
                    _ => format!("{key}.{name}"),
                };
                flatten(&key, value, each);
            }
        }
        toml::Value::String(text) => each(key.to_owned(), text.clone()),
        other => each(key.to_owned(), other.to_string()),
    }
}
