//! Messages that say what to do: a table of them, and the check that what they say works.
//!
//! A row has the end of a message as it stands in the source, placeholders and all. It makes the fault, runs the
//! command, finds the message, and follows it in each way that it offers: then the command must succeed. All of
//! this is shell. A row breaks when its message changes.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;

use super::skip::skip;

/// A file of messages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    followed: Vec<Followed>,
    not_followed: Vec<NotFollowed>,
}

/// A message that a test follows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Followed {
    /// The end of the message, as in the source.
    says: String,
    /// Programs that the row needs, if a machine may lack them.
    #[serde(default)]
    needs: Vec<String>,
    /// Makes the fault in an empty directory.
    fault: String,
    /// The command that meets it.
    command: String,
    /// True if the command succeeds, and the message is a notice.
    #[serde(default)]
    notice: bool,
    /// Ways to follow the message. `again` is the command, with more flags if given; `$1`, `$2` and so on are
    /// what the message has in place of the placeholders.
    follow: Vec<String>,
}

/// A message that no test follows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NotFollowed {
    /// The ends of messages, as in the source.
    says: Vec<String>,
    /// Why.
    reason: String,
}

impl Table {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// All ends of messages, followed or not.
    pub fn says(&self) -> impl Iterator<Item = &str> {
        let followed = self.followed.iter().map(|row| &row.says);
        let not_followed = self.not_followed.iter();
        let not_followed = not_followed.flat_map(|rows| {
            assert!(!rows.reason.is_empty());
            &rows.says
        });
        followed.chain(not_followed).map(String::as_str)
    }

    /// Follows every message, with the environment that `prepare` gives a command. `programs` is the directory of
    /// the programs.
    pub fn follow(&self, programs: &Path, prepare: impl Fn(&mut Command) + Sync) {
        let next = AtomicUsize::new(0);
        let wrong = Mutex::new(Vec::new());
        let work = || {
            while let Some(row) = self.followed.get(next.fetch_add(1, Ordering::Relaxed)) {
                for way in &row.follow {
                    if let Err(what) = row.check(way, programs, &prepare) {
                        let text = format!("{:?}, followed by {way:?}: {what}", row.says);
                        wrong.lock().unwrap().push(text);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        let wrong = wrong.into_inner().unwrap();
        assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n\n"));
    }
}

impl Followed {
    fn check(
        &self,
        way: &str,
        programs: &Path,
        prepare: &impl Fn(&mut Command),
    ) -> Result<(), String> {
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        for program in &self.needs {
            let mut there = std::env::split_paths(&path);
            if !there.any(|dir| dir.join(program).is_file()) {
                skip(&format!("{program} is missing"));
                return Ok(());
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let shell = |script: &str, arguments: &[&str]| -> Output {
            let mut command = Command::new("bash");
            command.args(["-euc", script, "bash"]).args(arguments);
            command.current_dir(&dir).env("PATH", &path);
            command.env("TINYRES_CACHE", dir.path().join("cache"));
            prepare(&mut command);
            command.output().unwrap()
        };
        let fault = shell(&self.fault, &[]);
        if !fault.status.success() {
            return Err(format!("the fault cannot be made: {}", said(&fault)));
        }
        let met = shell(&self.command, &[]);
        if met.status.success() != self.notice || met.status.code().is_none() {
            return Err(format!("met with {}: {}", met.status, said(&met)));
        }
        let message = said(&met);
        let Some(values) = values(&self.says, &message) else {
            return Err(format!("the message is another: {message}"));
        };
        let words = way.split([' ', '=', '"', '\'', ';']);
        let mut flags = words.filter(|word| word.starts_with("--"));
        if let Some(flag) =
            flags.find(|flag| !message.contains(flag) && !self.command.contains(flag))
        {
            return Err(format!("the message does not name {flag}: {message}"));
        }
        let script = format!("again() {{ {} \"$@\"; }}\n{way}", self.command);
        let followed = shell(&script, &values);
        match followed.status.success() {
            true => Ok(()),
            false => Err(format!("{message}\nit then says: {}", said(&followed))),
        }
    }
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|text| String::from_utf8_lossy(text))
        .concat()
}

/// The fixed parts of a text of the source with placeholders such as `{name}`.
fn fixed(says: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = says;
    while let Some((part, after)) = rest.split_once('{') {
        parts.push(part);
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    parts.push(rest);
    parts
}

/// The words that `message` has in place of the placeholders of `says`: the rest of the line for one at the end. `None` if
/// it does not say that.
fn values<'a>(says: &str, message: &'a str) -> Option<Vec<&'a str>> {
    let parts = fixed(says);
    let mut rest = message;
    let mut values = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let is_end = at > 0 && part.is_empty();
        let begins = match is_end {
            true => rest.find('\n').unwrap_or(rest.len()),
            false => rest.find(part)?,
        };
        if at > 0 {
            values.push(&rest[..begins]);
        }
        rest = &rest[begins + part.len()..];
    }
    Some(values)
}

/// Words with which a sentence begins that says what to do.
const VERBS: &[&str] = &[
    "add",
    "archive",
    "ask",
    "build",
    "cast",
    "check",
    "choose",
    "complete",
    "continue",
    "convert",
    "copy",
    "correct",
    "decompress",
    "download",
    "end",
    "evaluate",
    "export",
    "fetch",
    "free",
    "give",
    "keep",
    "leave",
    "make",
    "mend",
    "move",
    "name",
    "pack",
    "pass",
    "put",
    "raise",
    "remove",
    "rename",
    "replace",
    "report",
    "resize",
    "restore",
    "run",
    "save",
    "set",
    "start",
    "stop",
    "try",
    "turn",
    "unpack",
    "update",
    "upgrade",
    "use",
    "wait",
    "write",
    "zip",
];
/// Marks after which such a sentence begins.
const MARKS: &[&str] = &["; ", ": ", ", ", ". ", "\n", "(", "please "];

/// The end of a text of the source that says what to do, from the first word that does. Examples of a command are
/// none.
fn remedy(text: &str) -> Option<&str> {
    if text.starts_with("Examples:") {
        return None;
    }
    let begins = |at: usize| {
        let verb = text[at..].split(|c: char| !c.is_ascii_alphabetic()).next();
        VERBS.contains(&verb.unwrap_or_default().to_ascii_lowercase().as_str())
    };
    let after = MARKS.iter().flat_map(|mark| {
        let found = text.match_indices(mark);
        found.map(|(at, _)| at + mark.len())
    });
    let verb = after.chain([0]).filter(|&at| begins(at)).min();
    let flag = [" --", "(--", "`tinyres "].map(|mark| text.find(mark));
    let at = flag.into_iter().flatten().chain(verb).min()?;
    (text.contains(' ')).then_some(&text[at..])
}

/// The texts in double quotes of a Rust source without its tests, as they are when it runs.
fn texts(source: &str) -> Vec<String> {
    let end = source.find("#[cfg(test)]\nmod tests");
    let mut rest = &source[..end.unwrap_or(source.len())];
    let mut texts = Vec::new();
    while let Some(at) = rest.find(['"', '/', '\'']) {
        rest = &rest[at..];
        let (skip, text) = match rest.as_bytes() {
            [b'/', b'/', ..] => (rest.find('\n').unwrap_or(rest.len()), None),
            [b'\'', b'"', b'\'', ..] => (3, None),
            [b'\'', b'\\', b'"', b'\'', ..] => (4, None),
            [b'"', ..] => {
                let mut escaped = false;
                let end = rest[1..].find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                let end = end.expect("a text ends");
                (end + 2, Some(&rest[1..=end]))
            }
            _ => (1, None),
        };
        rest = &rest[skip..];
        let Some(text) = text else { continue };
        let lines: Vec<_> = text.split("\\\n").collect();
        let first = lines[0].to_owned();
        let joined = lines[1..]
            .iter()
            .fold(first, |all, line| all + line.trim_start());
        texts.push(joined.replace("\\n", "\n").replace("\\\"", "\""));
    }
    texts
}

/// Checks that `tables` have a row for the end of each text in the sources of `folders` that says what to do, as far
/// as [`VERBS`] and [`MARKS`] tell, and that each row is of such a text.
pub fn check_complete(tables: &[Table], folders: &[&Path]) {
    let rows: Vec<_> = tables.iter().flat_map(Table::says).collect();
    let mut unused: BTreeSet<_> = rows.iter().copied().collect();
    let mut without = Vec::new();
    let mut pending: Vec<_> = folders.iter().map(|folder| folder.to_path_buf()).collect();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            let inside = entries.map(|entry| entry.unwrap().path());
            // Texts of knobs are the help of flags.
            pending.extend(
                inside.filter(|path| !path.ends_with("tests") && !path.ends_with("knobs.rs")),
            );
        } else if path.extension().is_some_and(|it| it == "rs") {
            for text in texts(&fs::read_to_string(&path).unwrap()) {
                unused.retain(|row| !text.ends_with(row) && !text.trim_end().ends_with(row));
                if let Some(end) = remedy(&text)
                    && !rows.iter().any(|row| {
                        let (row, end) = (row.trim_end(), end.trim_end());
                        row.ends_with(end) && text.trim_end().ends_with(row)
                    })
                {
                    without.push(format!("{}: {end:?}", path.display()));
                }
            }
        }
    }
    assert!(without.is_empty(), "no row for\n{}", without.join("\n"));
    assert!(unused.is_empty(), "in no source: {unused:#?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_place_of_placeholders() {
        let message = "error: a/b: too many; run `tinyres pack a -o b` again\nand more";
        assert_eq!(
            values("run `{}` again", message),
            Some(vec!["tinyres pack a -o b"])
        );
        assert_eq!(values("too many; {}", message).unwrap().len(), 1);
        assert_eq!(values("too few", message), None);
    }

    #[test]
    fn texts_that_say_what_to_do_are_found() {
        let source = "// \"pack it\"\nlet a = \"{}: full; pack it \\\n    elsewhere\";\nlet b = '\"';\n#[error(\"no more\")]";
        assert_eq!(texts(source), ["{}: full; pack it elsewhere", "no more"]);
        assert_eq!(
            remedy("{}: full; pack it elsewhere"),
            Some("pack it elsewhere")
        );
        assert_eq!(remedy("no packing"), None);
        assert_eq!(remedy("no more, with --force"), Some(" --force"));
    }
}
