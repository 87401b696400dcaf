//! When the validation split is scored: every so many epochs, every so much time, or as often as it costs little.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The epochs after which the validation split is scored, apart from the last one of a run, which always is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum EvalEvery {
    /// Every epoch. In a run with a time budget: those at whose end scoring costs little of the time since the last one.
    #[default]
    Auto,
    /// Every so many epochs, at least 1.
    Epochs(u32),
    /// The first that ends so long after the last scoring; for runs with a time budget.
    Time(Duration),
}

/// The forms in TOML and JSON.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Epochs(u32),
    Text(String),
}

impl FromStr for EvalEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let epochs = text.parse().ok().map(Self::Epochs);
        let every = match text {
            "auto" => Some(Self::Auto),
            _ => epochs.or_else(|| humantime::parse_duration(text).ok().map(Self::Time)),
        };
        match every {
            None | Some(Self::Epochs(0) | Self::Time(Duration::ZERO)) => Err(format!(
                "{text:?} is neither auto nor a number of epochs, such as 2, nor a time, such as 5m"
            )),
            Some(every) => Ok(every),
        }
    }
}

impl fmt::Display for EvalEvery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Epochs(epochs) => epochs.fmt(f),
            Self::Time(time) => humantime::format_duration(*time).fmt(f),
        }
    }
}

impl TryFrom<Written> for EvalEvery {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Epochs(epochs) => epochs.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<EvalEvery> for Written {
    fn from(every: EvalEvery) -> Self {
        match every {
            EvalEvery::Epochs(epochs) => Self::Epochs(epochs),
            other => Self::Text(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_as_it_is_written() {
        for (text, every) in [
            ("auto", EvalEvery::Auto),
            ("2", EvalEvery::Epochs(2)),
            ("5m", EvalEvery::Time(Duration::from_secs(300))),
            ("1h 30m", EvalEvery::Time(Duration::from_secs(5400))),
        ] {
            assert_eq!(text.parse(), Ok(every));
            assert_eq!(every.to_string(), text);
            let json = serde_json::to_string(&every).unwrap();
            assert_eq!(serde_json::from_str::<EvalEvery>(&json).unwrap(), every);
        }
        // Older runs have it so.
        assert_eq!(
            serde_json::from_str::<EvalEvery>("3").unwrap(),
            EvalEvery::Epochs(3)
        );
        for text in ["", "0", "-1", "0s", "1.5", "soon", "5 epochs"] {
            assert!(text.parse::<EvalEvery>().is_err(), "{text}");
        }
    }
}
