//! Numbers as people read them, and names of others as it is safe to show them.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::{Serialize, Serializer};

/// Returns `text` with escapes, such as `\u{1b}`, in place of the characters by which a terminal is commanded
/// or text is reordered. Lines and tabs stay.
#[must_use]
pub fn printable(text: &str) -> String {
    replaced(text, |c| {
        (is_command(c) && !['\n', '\t'].contains(&c)).then(|| c.escape_unicode().to_string())
    })
}

/// Returns `name` as [`printable`], on one line: a name of others must not look like a line of ours.
#[must_use]
pub fn one_line(name: &str) -> Cow<'_, str> {
    match name.contains(is_command) {
        false => name.into(),
        true => replaced(name, |c| {
            is_command(c).then(|| c.escape_default().to_string())
        })
        .into(),
    }
}

/// Returns `value` as JSON on one line, whose strings hold no character by which a terminal is commanded.
///
/// # Errors
/// A map whose keys are not strings.
pub fn json<T: Serialize>(value: &T) -> serde_json::Result<String> {
    // Such characters occur only inside of strings, and serde_json itself escapes those below 0x20.
    let escape = |c| is_command(c).then(|| format!("\\u{:04x}", u32::from(c)));
    Ok(replaced(&serde_json::to_string(value)?, escape))
}

/// True for control characters, and for those that change the direction in which others are shown.
fn is_command(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn replaced(text: &str, escape: impl Fn(char) -> Option<String>) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match escape(c) {
            None => safe.push(c),
            Some(escaped) => safe += &escaped,
        }
    }
    safe
}

/// Returns `name` as UTF-8: each byte that is not part of a valid character becomes `%` and two hexadecimal
/// digits.
#[must_use]
pub fn escaped(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text += chunk.valid();
        for byte in chunk.invalid() {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

/// Serialises a path of any bytes, as [`escaped`].
///
/// # Errors
/// Those of the serializer.
pub fn path<S: Serializer>(path: impl AsRef<Path>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&escaped(path.as_ref().as_os_str().as_encoded_bytes()))
}

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

/// Returns `count` of what `noun` names, with an English plural: `1 image`, `2,000 images`, `3 classes`.
#[must_use]
pub fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    let ending = match (count, noun.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {noun}{ending}", Count(count))
}

/// Returns `path` as a word of a shell's command.
#[must_use]
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
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
    fn names_cannot_command_a_terminal() {
        let name = "a\u{1b}[2J\r\u{9b}31m\u{202e}gpj.\u{7f}\nb\tä";
        assert_eq!(
            printable(name),
            "a\\u{1b}[2J\\u{d}\\u{9b}31m\\u{202e}gpj.\\u{7f}\nb\tä"
        );
        assert_eq!(
            one_line(name),
            "a\\u{1b}[2J\\r\\u{9b}31m\\u{202e}gpj.\\u{7f}\\nb\\tä"
        );
        let json = json(&[name]).unwrap();
        assert!(!json.contains(is_command), "{json}");
        let back: Vec<String> = serde_json::from_str(&json).unwrap();
        assert_eq!(back, [name]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_escaped() {
        assert_eq!(escaped(b"Ch\xe2teau.jpg"), "Ch%E2teau.jpg");
        assert_eq!(escaped("Château 50%.jpg".as_bytes()), "Château 50%.jpg");
        assert_eq!(escaped(b"\xff\xfe\xc3"), "%FF%FE%C3");
    }

    #[test]
    fn paths_are_words_of_a_shell() {
        for (path, word) in [
            ("a/b-1.tar", "a/b-1.tar"),
            ("my set", "'my set'"),
            ("it's", r"'it'\''s'"),
            ("a;b", "'a;b'"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }

    #[test]
    fn counts_and_sizes() {
        let counts = [0, 999, 1000, 110_000, 1_234_567].map(|n| Count(n).to_string());
        assert_eq!(counts, ["0", "999", "1,000", "110,000", "1,234,567"]);
        let nouns = [
            counted(1_u8, "image"),
            counted(2000_u16, "class"),
            counted(0_usize, "shard"),
        ];
        assert_eq!(nouns, ["1 image", "2,000 classes", "0 shards"]);
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
