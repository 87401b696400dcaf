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
        for (key, value) in flatten(&config(dir)?) {
            let row = values.entry(key).or_insert_with(|| vec![None; dirs.len()]);
            row[at] = Some(value);
        }
    }
    values.retain(|_, row| row.iter().any(|value| *value != row[0]));
    Ok(Comparison {
        runs,
        differs: values,
    })
}

/// The values in `value` that are not tables, with their keys, joined by points.
#[must_use]
pub fn flatten(value: &toml::Value) -> Vec<(String, String)> {
    let toml::Value::Table(table) = value else {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        return vec![(String::new(), text)];
    };
    let mut values = Vec::new();
    for (name, value) in table {
        values.extend(
            flatten(value)
                .into_iter()
                .map(|(key, value)| match key.as_str() {
                    "" => (name.clone(), value),
                    _ => (format!("{name}.{key}"), value),
                }),
        );
    }
    values
}
