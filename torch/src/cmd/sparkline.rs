//! A curve in one line of text, such as `█▆▅▃▂▁`, for the line of progress.

use std::fmt;

/// Most columns of the curve.
const COLUMNS: usize = 8;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The curve of all values so far. Each column is the mean of equally many values, the last one of those that are left.
#[derive(Debug, Default)]
pub(crate) struct Sparkline {
    /// Sum and number of the values of each column.
    columns: Vec<(f64, u64)>,
    /// Values of a whole column, as a power of two.
    doublings: u32,
}

impl Sparkline {
    /// Adds a value at the end. Values that are not finite are left out.
    pub(crate) fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let whole = 1 << self.doublings;
        match self.columns.last_mut() {
            Some((sum, count)) if *count < whole => {
                *sum += value;
                *count += 1;
            }
            _ => self.columns.push((value, 1)),
        }
        if self.columns.len() > COLUMNS {
            let pairs = self.columns.chunks(2);
            let add = |pair: &[(f64, u64)]| {
                let add = |(sum, count), &(more, number): &(f64, u64)| (sum + more, count + number);
                pair.iter().fold((0.0, 0), add)
            };
            self.columns = pairs.map(add).collect();
            self.doublings += 1;
        }
    }
}

impl fmt::Display for Sparkline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let means = self.columns.iter().map(|&(sum, count)| sum / count as f64);
        let (low, high) = means.clone().fold(
            (f64::INFINITY, f64::NEG_INFINITY),
            |(low, high): (f64, f64), mean| (low.min(mean), high.max(mean)),
        );
        for mean in means {
            let height = (mean - low) / (high - low).max(f64::MIN_POSITIVE);
            let level =
                (LEVELS.iter().zip(1..)).find(|(_, above)| height * 8.0 < f64::from(*above));
            write!(f, "{}", level.map_or(LEVELS[7], |(level, _)| *level))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(values: impl IntoIterator<Item = f64>) -> String {
        let mut line = Sparkline::default();
        values.into_iter().for_each(|value| line.push(value));
        line.to_string()
    }

    #[test]
    fn columns_have_the_height_of_their_values() {
        assert_eq!(drawn([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), "▁▂▃▄▅▆▇█");
        assert_eq!(drawn([8.0, 1.0, f64::NAN, 1.0]), "█▁▁");
        assert_eq!(drawn([3.0, 3.0]), "▁▁");
        assert_eq!(drawn([]), "");
    }

    #[test]
    fn many_values_are_averaged_in_equal_columns() {
        // 32 falling values in 8 columns of 4, then another one.
        assert_eq!(drawn((0..32).map(|n| -f64::from(n))), "█▇▆▅▄▃▂▁");
        assert_eq!(drawn((0..33).map(f64::from)).chars().count(), 5);
        assert_eq!(drawn((0..10_000).map(f64::from)).chars().last(), Some('█'));
    }
}
