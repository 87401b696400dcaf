//! The files of the page, in the program. A debug build reads them from the source tree, so that a change needs no build.

use axum::body::Body;
use axum::http::{Uri, header};
use axum::response::{IntoResponse as _, Response};
use rust_embed::RustEmbed;

use crate::error::Error;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Assets;

/// Types of files, by the ends of their names.
const TYPES: [(&str, &str); 4] = [
    (".html", "text/html; charset=utf-8"),
    (".js", "text/javascript; charset=utf-8"),
    (".css", "text/css; charset=utf-8"),
    (".svg", "image/svg+xml"),
];

/// The file for the path of a request, one of a list.
pub async fn asset(uri: Uri) -> Response {
    let name = match uri.path() {
        "/" => "index.html",
        path => path.trim_start_matches('/'),
    };
    let kind = TYPES.iter().find(|(end, _)| name.ends_with(end));
    let known = Assets::iter().any(|listed| listed == name);
    let file = kind.filter(|_| known).zip(Assets::get(name));
    match file {
        Some(((_, kind), file)) => {
            ([(header::CONTENT_TYPE, *kind)], Body::from(file.data)).into_response()
        }
        None => Error::NotFound(format!("there is no page {name:?} here")).into_response(),
    }
}
