//! Errors of object stores. Each names the object or the address, and says what to do where something can be done.

use tinyres::cache;
use tinyres::scratch::OutputError;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Reason why a set cannot be fetched or published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is malformed.
    #[error(
        "{address}: {reason}; a set is at s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or https://HOST/PATH/"
    )]
    Address { address: String, reason: String },
    /// The settings of a store are unusable.
    #[error("{address}: {reason}")]
    Settings { address: String, reason: String },
    /// The address has no set.
    #[error(
        "{object}: there is no such object, so there is no set: name the path below which dataset.json lies"
    )]
    NoSet { object: String },
    /// The bucket is missing.
    #[error("{object}: there is no such bucket or container: make it, or name another one")]
    NoBucket { object: String },
    /// A shard is missing.
    #[error("{object}: in dataset.json, but not there: publish the set again")]
    Missing { object: String },
    /// The store does not let the user in.
    #[error("{object}: the store answers {status}{}{}", named(.code), refused(*.status, .code))]
    Refused {
        object: String,
        status: u16,
        code: String,
    },
    /// There are no credentials.
    #[error("{object}: no credentials were found: {remedy}")]
    NoCredentials {
        object: String,
        remedy: &'static str,
    },
    /// The store cannot be reached, or breaks off.
    #[error("{object}: {reason}; the same command goes on with what was fetched")]
    Transfer { object: String, reason: String },
    /// The store cannot be reached, or breaks off, while a set is published.
    #[error("{object}: {reason}; the same command goes on with the next shard")]
    Send { object: String, reason: String },
    /// The server does not give parts of files.
    #[error(
        "{object}: the server gives whole files only, not parts (it ignores Range): use one that gives parts, such as nginx"
    )]
    NoParts { object: String },
    /// The object changed under the fetch.
    #[error("{object}: replaced while it was fetched: run the same command again")]
    Replaced { object: String },
    /// The object is not the shard that the manifest lists.
    #[error(
        "{object}: not the shard that dataset.json lists ({what} {found}, expected {expected}): run the same command again \
         if a set is being published there, otherwise publish the set again"
    )]
    Other {
        object: String,
        what: &'static str,
        found: String,
        expected: String,
    },
    /// The bytes do not match their checksum, each time.
    #[error("{object}: {error}, {tries} times: publish the set again")]
    Damaged {
        object: String,
        error: Box<tinyres_format::Error>,
        tries: u32,
    },
    /// The store's answer is not as expected.
    #[error("{object}: {reason}")]
    Answer { object: String, reason: String },
    /// The manifest cannot be read.
    #[error("{object}: {error}")]
    Manifest {
        object: String,
        error: Box<tinyres_format::Error>,
    },
    /// Another set is there already.
    #[error(
        "{address}: holds another set already (fingerprint {fingerprint:.12}); choose another address, or replace it with --force"
    )]
    Occupied {
        address: String,
        fingerprint: String,
    },
    /// No cache directory is known.
    #[error(
        "{address}: there is no cache directory to fetch it to; set TINYRES_CACHE, or use --cache"
    )]
    NoCache { address: String },
    /// A file cannot be read or written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// A local shard or manifest is damaged.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
}

impl Error {
    /// True if the store or the way to it is at fault, so that what was fetched before can be used.
    pub fn is_of_the_store(&self) -> bool {
        matches!(
            self,
            Self::NoSet { .. }
                | Self::Refused { .. }
                | Self::NoCredentials { .. }
                | Self::Transfer { .. }
                | Self::Answer { .. }
        )
    }
}

/// The store's name for an error, as it follows a status.
fn named(code: &str) -> String {
    match code {
        "" => String::new(),
        code => format!(" ({code})"),
    }
}

/// Remedy for a refusal.
fn refused(status: u16, code: &str) -> &'static str {
    match (status, code) {
        (_, code) if code.contains("Expired") => {
            ": the credentials have expired: get new ones, and run the same command again"
        }
        (_, "RequestTimeTooSkewed") => ": set the clock of this machine",
        (_, "SignatureDoesNotMatch" | "InvalidAccessKeyId") => {
            ": look for a typing error in the keys"
        }
        (401 | 403, _) => {
            ": use credentials with the right to do this; to read a public set, AWS_SKIP_SIGNATURE, GOOGLE_SKIP_SIGNATURE or \
             AZURE_SKIP_SIGNATURE=true uses none"
        }
        _ => "",
    }
}
