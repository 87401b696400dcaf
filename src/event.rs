//! Progress of long work, reported as plain data to whoever watches. Says nothing about what is packed, drawn or
//! trained: training has an observer of its own for its figures.

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Work of a known size begins.
    Begin {
        /// What is done, as a person would say it: `packing train`.
        task: String,
        /// What is counted: `img`, `blocks`.
        unit: &'static str,
        /// How many of them there are.
        total: u64,
    },
    /// So many units of the work begun last are done.
    Advance {
        /// Units done since its beginning.
        done: u64,
    },
    /// The work begun last is over.
    End,
    /// Something to show next to the progress of the work begun last, until there is something newer.
    Status(String),
    /// Something a person should know.
    Notice(String),
    /// Something that went wrong, and that the work goes on in spite of.
    Warning(String),
}

/// Whoever watches: a terminal, a log of JSON lines, a test.
pub trait Observer {
    /// Takes note of `event`. Must be quick: the work waits for it.
    fn on(&mut self, event: &Event);
}

/// Nobody watches.
impl Observer for () {
    fn on(&mut self, _: &Event) {}
}
