//! Documents that name files, tests and variables are held to the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The files below the root with one of these extensions, without build outputs and what git hides.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let extension = path.extension().map_or("", |text| text.to_str().unwrap());
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "shards", "runs", "corpus"].contains(&name)
                {
                    folders.push(path);
                }
            } else if extensions.contains(&extension) {
                found.push(path);
            }
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn relative_links_lead_to_files() {
    let documents = files(&["md"]);
    assert!(documents.contains(&Path::new(ROOT).join("README.md")));
    for document in documents {
        let text = read(&document);
        for (at, _) in text.match_indices("](") {
            let link = text[at + 2..].split(')').next().unwrap();
            let target = link.split('#').next().unwrap();
            if link.contains("://") || target.is_empty() {
                continue;
            }
            let target = document.with_file_name("").join(target);
            assert!(target.exists(), "{}: {link}", document.display());
        }
    }
}

#[test]
fn tests_that_the_peers_page_names_exist() {
    let page = read(&Path::new(ROOT).join("benches/peers/README.md"));
    let mut named = 0;
    for row in page.lines().filter(|line| line.contains(".rs`")) {
        // Names of tests stand before the name of the file that has them.
        let mut tests = Vec::new();
        for code in row.split('`').skip(1).step_by(2) {
            if code.ends_with(".rs") {
                let source = read(&Path::new(ROOT).join(code));
                for test in tests.drain(..) {
                    let found = source.contains(&format!("fn {test}("));
                    assert!(found, "{code} has no test {test}");
                    named += 1;
                }
            } else if code.contains('_') && !code.contains(' ') {
                tests.push(code);
            }
        }
        assert!(tests.is_empty(), "{tests:?}: in which file?");
    }
    assert!(named > 0);
}

#[test]
fn every_variable_of_ours_is_in_contributing() {
    let page = read(&Path::new(ROOT).join("CONTRIBUTING.md"));
    let variables = |text: &str| -> BTreeSet<String> {
        let name = |(at, _)| {
            let rest = &text[at..];
            let end = rest.find(|c: char| !(c.is_ascii_uppercase() || c == '_'));
            rest[..end.unwrap_or(rest.len())].to_owned()
        };
        text.match_indices("TINYRES_").map(name).collect()
    };
    // Scripts have no extension.
    let sources = files(&["rs", "py", "c", ""]).into_iter();
    let own = Path::new(ROOT).join(file!());
    let read_by_code = sources
        .filter(|path| *path != own)
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| variables(&text))
        .collect::<BTreeSet<_>>();
    assert_eq!(variables(&page), read_by_code);
}
