//! The errors of requests, and the answers that they become.

use std::io;
use std::path::{Path, PathBuf};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// Why a request has no other answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is not allowed.
    #[error("{1}")]
    Refused(StatusCode, String),
    /// The request asks for what there is not.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense, or asks for too much at once.
    #[error("{0}")]
    Bad(String),
    /// A shard or the manifest is damaged or missing.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
    /// A run cannot be read.
    #[error(transparent)]
    Run(#[from] tinyres::runs::Error),
    /// The set cannot be read.
    #[error(transparent)]
    Load(#[from] tinyres_load::Error),
    /// Predictions cannot be read.
    #[error(transparent)]
    Results(#[from] tinyres_results::Error),
    /// A file that is open can no longer be read.
    #[error("{}: its bytes can no longer be read: the disk failed, or the file was cut while in use; copy or pack it again ({source})", path.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The operating system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The work of a request ended before it was done.
    #[error("the work ended early: {0}")]
    Broken(String),
}

/// Result of a request.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(status, _) => *status,
            Self::NotFound(_) | Self::Results(tinyres_results::Error::NoPredictions { .. }) => {
                StatusCode::NOT_FOUND
            }
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.to_string() });
        (self.status(), Json(body)).into_response()
    }
}
