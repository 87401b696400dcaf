//! The terminal of both binaries: progress to stderr, results to stdout.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::event::{Event, Observer};
use crate::threads;

/// How results are written to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON value a line.
    Json,
}

/// Where the binaries talk.
#[derive(Debug)]
pub struct Ui {
    output: Output,
    quiet: bool,
    bar: ProgressBar,
}

impl Ui {
    /// A terminal that writes results as `output`, and no progress if `quiet`.
    #[must_use]
    pub fn new(output: Output, quiet: bool) -> Self {
        Self {
            output,
            quiet,
            bar: ProgressBar::hidden(),
        }
    }

    /// Writes a result to stdout: as it displays, or as one line of JSON.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn result<T: std::fmt::Display + serde::Serialize>(
        &mut self,
        result: &T,
    ) -> io::Result<()> {
        let text = match self.output {
            Output::Text => result.to_string(),
            Output::Json => serde_json::to_string(result)?,
        };
        self.line(&text)
    }

    /// Writes a warning to stderr, also where progress is not shown.
    pub fn warn(&self, text: &str) {
        self.bar.suspend(|| {
            let heading = console::style("warning:").for_stderr().yellow().bold();
            let _ = writeln!(io::stderr(), "{heading} {text}");
        });
    }

    fn line(&self, text: &str) -> io::Result<()> {
        self.bar.suspend(|| {
            let mut out = io::stdout().lock();
            writeln!(out, "{text}")?;
            out.flush()
        })
    }
}

impl Observer for Ui {
    fn on(&mut self, event: &Event) {
        match event {
            Event::Begin { task, unit, total } => {
                let target = if self.quiet {
                    ProgressDrawTarget::hidden()
                } else {
                    ProgressDrawTarget::stderr()
                };
                let template = format!(
                    "{{msg}} [{{bar:12}}] {{human_pos}}/{{human_len}}  {{per_sec:0}} {unit}/s  {{eta}} left{{prefix}}"
                );
                let style = ProgressStyle::with_template(&template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar())
                    .with_key(
                        "per_sec",
                        |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                            let _ = write!(out, "{:.0}", state.per_sec());
                        },
                    )
                    .progress_chars("=> ");
                self.bar = ProgressBar::with_draw_target(Some(*total), target)
                    .with_style(style)
                    .with_message(task.clone());
                if !self.bar.is_hidden() && threads::startable(1) == 1 {
                    self.bar.enable_steady_tick(Duration::from_millis(250));
                }
            }
            Event::Advance { done } => self.bar.set_position(*done),
            Event::End => self.bar.finish_and_clear(),
            Event::Status(text) => self.bar.set_prefix(format!("  {text}")),
            Event::Warning(text) => self.warn(text),
            Event::Notice(text) => {
                if !self.quiet {
                    self.bar.suspend(|| {
                        let _ = writeln!(io::stderr(), "{text}");
                    });
                }
            }
        }
    }
}

/// Prints `error` and its causes, and says which exit code it deserves: 0 where the reader of our
/// output has gone away, as `head` does, and otherwise 1.
#[must_use]
pub fn exit(error: &anyhow::Error) -> std::process::ExitCode {
    let gone = error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    });
    if gone {
        return std::process::ExitCode::SUCCESS;
    }
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Most errors say their cause's words in their own.
        if !text.contains(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    let _ = writeln!(io::stderr(), "{} {text}", heading());
    std::process::ExitCode::FAILURE
}

/// Turns a fault in a mapped shard into an error message that names the shard, and exit code 1. Call
/// it first in a program's `main`: it covers the maps that are opened after it.
pub fn report_faults() {
    // A line of progress may be there.
    let clear = if io::stderr().is_terminal() {
        "\r\x1b[K"
    } else {
        ""
    };
    crate::faults::report(&format!("{clear}{} ", heading()));
}

/// What an error begins with.
fn heading() -> console::StyledObject<&'static str> {
    console::style("error:").for_stderr().red().bold()
}
