//! Numbers as people read them.

use std::fmt;

/// A count with its thousands set apart: `110,000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64);

impl Count {
    /// The whole number nearest to `value`, which must not be negative.
    #[must_use]
    pub fn rounded(value: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates: a number past u64 shows as the largest, a negative one as 0"
        )]
        Self(value.round() as u64)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// A size in decimal units with three significant digits: `676 MB`, `1.35 GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut size = self.0 as f64;
        let mut unit = "B";
        for next in ["kB", "MB", "GB", "TB", "PB", "EB"] {
            // Below what rounds to 1000 with three digits.
            if size < 999.5 {
                break;
            }
            size /= 1000.0;
            unit = next;
        }
        let decimals = if size < 9.995 {
            2
        } else {
            usize::from(size < 99.95)
        };
        f.pad(&format!("{size:.decimals$} {unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sizes() {
        let counts = [0, 999, 1000, 110_000, 1_234_567].map(|n| Count(n).to_string());
        assert_eq!(counts, ["0", "999", "1,000", "110,000", "1,234,567"]);
        let sizes = [
            0,
            999,
            1000,
            9_994,
            9_996,
            99_960,
            999_600,
            675_840_000,
            1_351_680_000,
        ];
        let sizes = sizes.map(|n| Bytes(n).to_string());
        let expected = [
            "0 B", "999 B", "1.00 kB", "9.99 kB", "10.0 kB", "100 kB", "1.00 MB", "676 MB",
            "1.35 GB",
        ];
        assert_eq!(sizes, expected);
        assert_eq!(
            format!("{:>8}|{:<7}|", Count(1000), Bytes(5)),
            "   1,000|5 B    |"
        );
    }
}
