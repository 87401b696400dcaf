//! The tables of runs, for people.

use std::fmt;

use super::{Comparison, RunSummary, Runs, Scores};
use crate::text::{Count, counted, one_line};

/// `-` for what a run does not have.
fn or_dash<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

fn percent(fraction: f64) -> String {
    format!("{:.2}%", 100.0 * fraction)
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.round();
    match seconds {
        ..60.0 => format!("{seconds} s"),
        ..3600.0 => format!("{}m{:02}s", (seconds / 60.0).floor(), seconds % 60.0),
        _ => {
            let minutes = (seconds / 60.0).floor();
            format!("{}h{:02}m", (minutes / 60.0).floor(), minutes % 60.0)
        }
    }
}

impl RunSummary {
    fn state(&self) -> String {
        match self.complete {
            true => "complete".to_owned(),
            false => format!("at step {}", Count(self.steps)),
        }
    }
}

/// The heading of a row, and its text for a run.
type Row = (&'static str, fn(&RunSummary) -> String);

/// The results of a run: a column each where runs are listed, a row each where they are compared.
const RESULTS: [Row; 10] = [
    ("recipe", |run| one_line(&run.recipe).into_owned()),
    ("epochs", |run| Count(run.epochs).to_string()),
    ("steps", |run| Count(run.steps).to_string()),
    ("size", |run| or_dash(run.size, |size| size.to_string())),
    ("top-1", |run| scored(run.last, |last| percent(last.top1))),
    ("best", |run| scored(run.best, |best| percent(best.top1))),
    ("loss", |run| {
        scored(run.last, |last| format!("{:.3}", last.loss))
    }),
    ("img/s", |run| {
        or_dash(run.images_per_second, |rate| {
            Count::rounded(rate).to_string()
        })
    }),
    ("time", |run| duration(run.seconds)),
    ("state", RunSummary::state),
];

fn scored(scores: Option<Scores>, text: impl FnOnce(Scores) -> String) -> String {
    or_dash(scores, text)
}

/// Writes rows of equal length with their columns aligned: the first and the last to the left, others to the right.
fn aligned(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    for (line, row) in rows.iter().enumerate() {
        if line > 0 {
            writeln!(f)?;
        }
        let mut text = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match at {
                0 => text += &format!("{cell:<width$}"),
                _ if at + 1 == columns => text += &format!("  {cell}"),
                _ => text += &format!("  {cell:>width$}"),
            }
        }
        f.write_str(text.trim_end())?;
    }
    Ok(())
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |run: &RunSummary| one_line(&run.dir.display().to_string()).into_owned();
        if self.runs.is_empty() {
            f.write_str("no runs")?;
        } else {
            let heading = ["run"].into_iter().chain(RESULTS.map(|(name, _)| name));
            let mut rows = vec![heading.map(str::to_owned).collect::<Vec<_>>()];
            rows.extend(self.runs.iter().map(|run| {
                let mut row = vec![name(run)];
                row.extend(RESULTS.map(|(_, text)| text(run)));
                row
            }));
            aligned(f, &rows)?;
        }
        if !self.unreadable.is_empty() {
            write!(
                f,
                "\n{} cannot be read:",
                counted(self.unreadable.len(), "run")
            )?;
        }
        for error in &self.unreadable {
            write!(f, "\n  {}", one_line(error.trim_end()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut heading = vec![String::new()];
        let names = self.runs.iter();
        heading.extend(names.map(|run| one_line(&run.dir.display().to_string()).into_owned()));
        let mut rows = vec![heading];
        for (key, values) in &self.differs {
            let value = |value: &Option<String>| match value {
                Some(value) => one_line(value).into_owned(),
                None => "-".to_owned(),
            };
            let mut row = vec![one_line(key).into_owned()];
            row.extend(values.iter().map(value));
            rows.push(row);
        }
        let apart = rows.len();
        for (name, text) in RESULTS {
            let row: Vec<_> = self.runs.iter().map(text).collect();
            rows.push([vec![name.to_owned()], row].concat());
        }
        if apart > 1 {
            rows.insert(apart, vec![String::new(); 1 + self.runs.len()]);
        }
        // All columns to the right but for the first.
        for row in &mut rows {
            row.push(String::new());
        }
        aligned(f, &rows)
    }
}
