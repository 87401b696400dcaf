//! The messages of `tinyres-remote` to the program that started it: a JSON value a line.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Observer};

/// Unit of its progress.
pub const UNIT: &str = "kB";

/// A line. All but the last two are [`Event`]s, whose progress is in [`UNIT`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Message {
    /// [`Event::Begin`].
    Begin {
        /// The part that is done.
        task: String,
        /// How much there is to do.
        total: u64,
    },
    /// [`Event::Advance`].
    Advance(u64),
    /// [`Event::End`].
    End,
    /// [`Event::Status`].
    Status(String),
    /// [`Event::Notice`].
    Notice(String),
    /// [`Event::Warning`].
    Warning(String),
    /// Result of the command, as `--json` shows it.
    Done(serde_json::Value),
    /// Reason why there is none.
    Error(String),
}

impl Message {
    /// The message for an event.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        match event.clone() {
            Event::Begin { task, total, .. } => Self::Begin { task, total },
            Event::Advance { done } => Self::Advance(done),
            Event::End => Self::End,
            Event::Status(text) => Self::Status(text),
            Event::Notice(text) => Self::Notice(text),
            Event::Warning(text) => Self::Warning(text),
        }
    }

    /// Passes an event on to `watch`, or returns the result of the command.
    pub(super) fn tell(
        self,
        watch: &mut dyn Observer,
    ) -> Option<Result<serde_json::Value, String>> {
        let event = match self {
            Self::Begin { task, total } => Event::Begin {
                task,
                unit: UNIT,
                total,
            },
            Self::Advance(done) => Event::Advance { done },
            Self::End => Event::End,
            Self::Status(text) => Event::Status(text),
            Self::Notice(text) => Event::Notice(text),
            Self::Warning(text) => Event::Warning(text),
            Self::Done(result) => return Some(Ok(result)),
            Self::Error(text) => return Some(Err(text)),
        };
        watch.on(&event);
        None
    }

    /// Writes the line to `out`.
    ///
    /// # Errors
    /// Those of `out`: the other program has ended.
    pub fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()
    }
}
