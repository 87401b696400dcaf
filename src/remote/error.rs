//! Errors of fetching a source. They name the address, and say if the same command goes on from where it stopped.

use crate::cache;
use crate::scratch::OutputError;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Reason why a source cannot be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address has a scheme that cannot be fetched.
    #[error(
        "{address}: only http://, https:// and hf://datasets/OWNER/NAME, and packed sets at s3://, gs:// and az://, can \
         be fetched; fetch it by another program, and name the file"
    )]
    Scheme {
        /// The address.
        address: String,
    },
    /// The address of a data set of the Hub is malformed.
    #[error("{address}: expected hf://datasets/OWNER/NAME, then @REVISION or /PATH where needed")]
    Hub {
        /// The address.
        address: String,
    },
    /// The server refuses the request.
    #[error("{url}: the server answers {status}{}", hint(*status, url))]
    Status {
        /// The address.
        url: String,
        /// HTTP's status code.
        status: u16,
    },
    /// The server cannot be reached, or breaks off.
    #[error("{url}: {reason}; the same command goes on with what was fetched")]
    Transfer {
        /// The address.
        url: String,
        /// The fault of the last try.
        reason: String,
    },
    /// The server's answer is not as expected.
    #[error("{url}: {reason}")]
    Answer {
        /// The address.
        url: String,
        /// The fault, in words.
        reason: String,
    },
    /// A fetched file is not the one that the Hub lists.
    #[error("{url}: it has SHA-256 {found}, expected {expected}: run the same command again")]
    Digest {
        /// The address of the file.
        url: String,
        /// The digest of what came.
        found: String,
        /// The digest that is listed.
        expected: String,
    },
    /// No cache directory is known.
    #[error("{address}: there is no cache directory to fetch it to; set TINYRES_CACHE")]
    NoCache {
        /// The address.
        address: String,
    },
    /// The certificates of `SSL_CERT_FILE` cannot be read.
    #[error("SSL_CERT_FILE: {0}: name a file of certificates in PEM, or unset it")]
    Certificates(String),
    /// A set cannot be published there.
    #[error(
        "{address}: a set can be published to s3://, gs:// and az:// only; pack it to a directory, and copy the files \
         there, dataset.json last"
    )]
    ReadOnly {
        /// The address.
        address: String,
    },
    /// `tinyres-remote` says why a set cannot be fetched or published, or cannot be run.
    #[error("{0}")]
    Objects(String),
    /// The cache cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(Box<cache::Error>),
}

impl Error {
    pub(super) fn cache(error: cache::Error) -> Self {
        Self::Cache(Box::new(error))
    }

    pub(super) fn answer(url: &str, reason: impl Into<String>) -> Self {
        Self::Answer {
            url: url.to_owned(),
            reason: reason.into(),
        }
    }

    /// True if the server or the way to it is at fault, so that what was fetched before can be used.
    pub(super) fn is_of_the_server(&self) -> bool {
        matches!(
            self,
            Self::Status { .. } | Self::Transfer { .. } | Self::Answer { .. }
        )
    }
}

/// Remedy for a status, if there is one.
fn hint(status: u16, url: &str) -> &'static str {
    match status {
        401 | 403 if super::hub::is_of_the_hub(url) => ": set HF_TOKEN to a token that may read it",
        401 | 403 => ": fetch it by a program that can log in, and name the file",
        404 | 410 => ": look for a typing error in the address",
        _ => "",
    }
}
