//! Answers of a store: which faults may pass, and how long to wait for that.
//!
//! The client of `object_store` hides the status of a refusal. So [`Connector`] looks at each answer before that client
//! does, and turns refusals into [`Refusal`], which [`fault`] finds again.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

use crate::address::Kind;
use crate::error::Error;

/// Longest pause that a store may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How much of the text of a refusal is read, in bytes.
const TEXT: usize = 1 << 16;

/// An attempt that failed.
#[derive(Debug)]
pub enum Fault {
    /// Another try may succeed.
    Passing {
        reason: String,
        /// The pause that the store asks for.
        pause: Option<Duration>,
    },
    /// The bytes do not match their checksum. They may be wrong in the store, or have been changed on their way.
    Damage(tinyres_format::Error),
    /// Another try fails as well.
    Lasting(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Lasting(error)
    }
}

impl Fault {
    pub fn passing(reason: impl Into<String>) -> Self {
        Self::Passing {
            reason: reason.into(),
            pause: None,
        }
    }
}

/// An answer that refuses the request.
#[derive(Debug)]
struct Refusal {
    status: u16,
    /// The store's name for the error, such as `SlowDown`.
    code: String,
    pause: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store answers {} {}", self.status, self.code)
    }
}

impl std::error::Error for Refusal {}

/// Makes clients that look at each answer.
#[derive(Debug)]
pub struct Connector {
    /// True if the caller repeats requests itself, and `object_store` does not.
    pub once: bool,
}

#[derive(Debug)]
struct Client {
    inner: HttpClient,
    once: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Client {
            inner,
            once: self.once,
        }))
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.inner.execute(request).await?;
        let status = response.status().as_u16();
        let refused = match status {
            400 | 401 | 403 => true,
            408 | 425 | 429 | 500..=599 => self.once,
            _ => false,
        };
        if !refused {
            return Ok(response);
        }
        let pause = response.headers().get("retry-after");
        let pause = pause.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        let text = response.into_body().bytes().await.unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..text.len().min(TEXT)]).into_owned();
        let refusal = Refusal {
            status,
            code: code(&text),
            pause: pause.map(Duration::from_secs),
        };
        Err(HttpError::new(HttpErrorKind::Unknown, refusal))
    }
}

/// The name of the error in the XML or JSON of a refusal; empty if there is none.
fn code(text: &str) -> String {
    let between = |before: &str, after: char| {
        let (_, rest) = text.split_once(before)?;
        rest.split(after).next().map(str::trim)
    };
    let code = (between("<Code>", '<'))
        .or_else(|| between("\"reason\": \"", '"'))
        .or_else(|| between("\"reason\":\"", '"'))
        .unwrap_or_default();
    let code = code.chars().filter(|at| at.is_ascii_alphanumeric());
    code.take(60).collect()
}

/// The kind of fault that `error` is, which a request for `object` in a store of this kind met.
pub fn fault(object: &str, kind: Kind, error: &object_store::Error) -> Fault {
    let object = object.to_owned();
    let mut chain: Vec<&(dyn std::error::Error + 'static)> = vec![error];
    while let Some(source) = chain.last().and_then(|error| error.source()) {
        chain.push(source);
    }
    let text = chain.iter().map(ToString::to_string).collect::<String>();
    if ["169.254.169.254", "metadata.google.internal"]
        .iter()
        .any(|host| text.contains(host))
    {
        return Fault::Lasting(Error::NoCredentials {
            object,
            remedy: credentials(kind),
        });
    }
    if let Some(refusal) = chain
        .iter()
        .find_map(|error| error.downcast_ref::<Refusal>())
    {
        let Refusal {
            status,
            code,
            pause,
        } = refusal;
        return match (status, code.as_str()) {
            (400, "RequestTimeout") | (401..=499, "SlowDown" | "Throttling") => {
                Fault::passing(refusal.to_string())
            }
            (400..=403, _) => Fault::Lasting(Error::Refused {
                object,
                status: *status,
                code: code.clone(),
            }),
            _ => Fault::Passing {
                reason: refusal.to_string().trim_end().to_owned(),
                pause: pause.map(|pause| pause.min(LONGEST_PAUSE)),
            },
        };
    }
    let cause = chain.last().map(ToString::to_string).unwrap_or_default();
    match error {
        object_store::Error::NotFound { .. } => Fault::Lasting(Error::Missing { object }),
        object_store::Error::Precondition { .. } => Fault::Lasting(Error::Replaced { object }),
        _ if ["non-partial response", "Range request not supported"]
            .iter()
            .any(|words| text.contains(words)) =>
        {
            Fault::Lasting(Error::NoParts { object })
        }
        _ if text.contains("lookup address") || text.contains("peer certificate") => {
            Fault::Lasting(Error::Transfer {
                object,
                reason: cause,
            })
        }
        // Requests that met no answer, and bodies that ended too early.
        _ if chain.iter().any(|error| error.is::<HttpError>()) => Fault::passing(cause),
        _ => Fault::Lasting(Error::Answer {
            object,
            reason: cause,
        }),
    }
}

/// How to give credentials to stores of this kind.
fn credentials(kind: Kind) -> &'static str {
    match kind {
        Kind::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public set, AWS_SKIP_SIGNATURE=true"
        }
        Kind::Google => {
            "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`; for a public set, \
             GOOGLE_SKIP_SIGNATURE=true"
        }
        Kind::Azure => {
            "set AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN; for a public set, \
             AZURE_SKIP_SIGNATURE=true"
        }
        Kind::Http => "name it with user and password, https://USER:PASSWORD@HOST/PATH/",
    }
}
