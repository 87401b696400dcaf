//! Sets on a plain web server, the one of SeaweedFS.

mod common;

use std::fs;

use common::{dir, fail, files, remote, succeed, world};

#[test]
fn sets_are_fetched_from_a_web_server() {
    let Some(world) = world() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let cache = temporary.path().join("cache");
    world.publish(&world.set, "a b/set");
    let at = |path: &str| format!("http://{}/buckets/sets/{path}", world.weed.web);
    let fetch = |path: &str| {
        let mut command = remote();
        command.args(["fetch", &at(path), "--json", "--cache"]);
        command.arg(&cache);
        command
    };
    for path in ["small/", "small-zst/dataset.json", "a%20b/set/"] {
        let result = succeed(&mut fetch(path));
        assert!(files(&dir(&result)) == files(&world.set), "{path}");
        fs::remove_dir_all(&cache).unwrap();
    }
    let error = fail(&mut fetch("nothing/"));
    assert!(
        error.contains("nothing/dataset.json: there is no such object"),
        "{error}"
    );
    let mut publish = remote();
    let error = fail(publish.arg("publish").arg(&world.set).arg(at("small/")));
    assert!(
        error.contains("copy the files there, dataset.json last"),
        "{error}"
    );
}
