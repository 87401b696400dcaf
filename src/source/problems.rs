//! Many problems as one report: all are counted, and those that are alike are one line.

use std::fmt;

use tinyres_format::Refused;

use crate::text::{Count, counted};

/// Something that goes wrong many times in the same way.
pub trait Problem: fmt::Display {
    /// The property that problems shown as one line have in common.
    type Kind: PartialEq;

    /// Kind of this problem.
    fn kind(&self) -> Self::Kind;
}

impl Problem for Refused {
    /// The reason, without the numbers of a box, an offset or a checksum.
    type Kind = String;

    fn kind(&self) -> String {
        let ends = ["[", " at byte ", " checksum "].map(|mark| self.reason.find(mark));
        let end = ends.into_iter().flatten().min();
        self.reason[..end.unwrap_or(self.reason.len())].to_owned()
    }
}

/// A list of problems, reported together so that they can be repaired together. Counts all of them, keeps
/// some of each kind, and shows more than [`ALIKE`](Self::ALIKE) of one kind as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems<P: Problem> {
    first: Vec<P>,
    /// The kinds in the order of their first problem, and how many there are of each.
    kinds: Vec<(P::Kind, usize)>,
    count: usize,
}

impl<P: Problem> Problems<P> {
    /// Maximum number of problems that are kept and shown. A damaged text file can have millions.
    pub const SHOWN: usize = 20;
    /// Maximum number of problems of one kind that have a line each.
    pub const ALIKE: usize = 3;
    /// Maximum number of kinds that are counted.
    const KINDS: usize = 64;

    /// Adds a problem.
    pub fn push(&mut self, problem: P) {
        self.count += 1;
        let kind = problem.kind();
        let at = match self.kinds.iter().position(|(known, _)| *known == kind) {
            Some(at) => at,
            None if self.kinds.len() < Self::KINDS => {
                self.kinds.push((kind, 0));
                self.kinds.len() - 1
            }
            None => return,
        };
        self.kinds[at].1 += 1;
        let alike = self.kinds[at].1;
        if alike <= Self::ALIKE && self.first.len() < Self::SHOWN {
            self.first.push(problem);
        }
    }

    /// The number of all problems.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns whether there are no problems.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first problems of each kind, in the order in which they were found.
    #[must_use]
    pub fn first(&self) -> &[P] {
        &self.first
    }
}

impl<P: Problem> Default for Problems<P> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            kinds: Vec::new(),
            count: 0,
        }
    }
}

impl<P: Problem> fmt::Display for Problems<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&counted(self.count, "problem"))?;
        let mut shown = 0;
        let mut counted = Vec::new();
        for problem in &self.first {
            let kind = problem.kind();
            let alike = self.kinds.iter().find(|(known, _)| *known == kind);
            let alike = alike.map_or(1, |(_, alike)| *alike);
            if alike <= Self::ALIKE {
                write!(f, "\n  {problem}")?;
                shown += 1;
            } else if !counted.contains(&kind) {
                let more = Count(alike as u64 - 1);
                write!(f, "\n  {problem} (and {more} more like it)")?;
                shown += alike;
                counted.push(kind);
            }
        }
        match self.count - shown {
            0 => Ok(()),
            more => write!(f, "\n  and {} more", Count(more as u64)),
        }
    }
}
