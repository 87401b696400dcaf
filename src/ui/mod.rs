//! The terminal of both binaries: progress to stderr, results to stdout. All text goes through
//! [`printable`], since names in it may come from others.

mod drawing;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::event::{Event, Observer};
use crate::picture::Picture;
use crate::text::{json, printable};
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
    closed: bool,
}

/// Nobody reads standard output any more, as after `| head`.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
pub struct Closed;

impl Ui {
    /// A terminal that writes results as `output`, and no progress if `quiet`.
    #[must_use]
    pub fn new(output: Output, quiet: bool) -> Self {
        Self {
            output,
            quiet,
            bar: ProgressBar::hidden(),
            closed: false,
        }
    }

    /// True if the reader of stdout has gone away, as `head` does. Results are dropped then.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes a result to stdout: as it displays, or as one line of JSON.
    ///
    /// # Errors
    /// Those of stdout, unless its reader has gone away: that is for [`is_closed`](Self::is_closed) to
    /// say, and no failure of what the result is of.
    pub fn result<T: std::fmt::Display + serde::Serialize>(
        &mut self,
        result: &T,
    ) -> io::Result<()> {
        let text = match self.output {
            Output::Text => printable(&result.to_string()),
            Output::Json => json(result)?,
        };
        self.line(&text)
    }

    /// True if [`picture`](Self::picture) draws: stdout is a terminal that shows colours, and results are text.
    #[must_use]
    pub fn draws(&self) -> bool {
        self.output == Output::Text && io::stdout().is_terminal() && console::colors_enabled()
    }

    /// Draws `picture` on the terminal at stdout, at most `columns` wide, if this [`draws`](Self::draws).
    ///
    /// # Errors
    /// Those of stdout, as for [`result`](Self::result).
    pub fn picture(&mut self, picture: &Picture, columns: usize) -> io::Result<()> {
        if !self.draws() {
            return Ok(());
        }
        let (rows, there) = console::Term::stdout().size();
        match drawing::drawn(picture, [rows, there].map(usize::from), columns) {
            Some(text) => self.line(text.trim_end_matches('\n')),
            None => Ok(()),
        }
    }

    /// Writes a warning to stderr, also where progress is not shown.
    pub fn warn(&self, text: &str) {
        self.bar.suspend(|| {
            let heading = console::style("warning:").for_stderr().yellow().bold();
            let _ = writeln!(io::stderr(), "{heading} {}", printable(text));
        });
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        let written = self.bar.suspend(|| {
            let mut out = io::stdout().lock();
            writeln!(out, "{text}")?;
            out.flush()
        });
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("standard output: {error}"),
            )),
            Ok(()) => Ok(()),
        }
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
                    .with_message(printable(task));
                if !self.bar.is_hidden() && threads::startable(1) == 1 {
                    self.bar.enable_steady_tick(Duration::from_millis(250));
                }
            }
            Event::Advance { done } => self.bar.set_position(*done),
            Event::End => self.bar.finish_and_clear(),
            Event::Status(text) => self.bar.set_prefix(format!("  {}", printable(text))),
            Event::Warning(text) => self.warn(text),
            Event::Notice(text) => {
                if !self.quiet {
                    self.bar.suspend(|| {
                        let _ = writeln!(io::stderr(), "{}", printable(text));
                    });
                }
            }
        }
    }
}

/// Prints `error` and its causes, and returns exit code 1.
#[must_use]
pub fn exit(error: &anyhow::Error) -> std::process::ExitCode {
    complain(error);
    std::process::ExitCode::FAILURE
}

/// Prints `error` and its causes.
pub(crate) fn complain(error: &anyhow::Error) {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Most errors say their cause's words in their own.
        if !text.contains(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    let _ = writeln!(io::stderr(), "{} {}", heading(), printable(&text));
}

/// Prepares the process. Call it first in a program's `main`.
///
/// Turns a fault in a mapped shard into an error message that names the shard, and exit code 1, for the maps that
/// are opened after it. Keeps panics that are caught off stderr. Raises the limit of open files.
pub fn prepare_process() {
    crate::caught::hide_caught();
    crate::open_files::raise_limit();
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
