//! The client: requests with bounds on every wait, and the faults after which another try makes sense.

use std::time::Duration;
use std::{env, fs};

use ureq::config::Config;
use ureq::http::{Response, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::{Error, Result, STEP};

/// Longest wait for the next bytes of a server. There is none for a whole file, which may be large.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Further tries after a fault, each after twice the pause before it, as long as none gets any further.
pub(super) const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A client for HTTP. Takes proxies from the environment, as curl does, and certificates of one's own from
/// `SSL_CERT_FILE`.
pub(super) struct Client {
    agent: Agent,
    /// Longest wait for the next bytes.
    pub(super) patience: Duration,
}

/// An attempt that failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// Another try may succeed.
    Passing {
        reason: String,
        /// The pause that the server asks for.
        pause: Option<Duration>,
    },
    /// Another try fails as well.
    Lasting(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Lasting(error)
    }
}

impl Fault {
    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self::Passing {
            reason: reason.into(),
            pause: None,
        }
    }
}

impl Client {
    /// A client that waits `patience` for the next bytes.
    pub(super) fn new(patience: Duration) -> Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(roots) = own_roots()? {
            tls = tls.root_certs(roots);
        }
        let config = Config::builder()
            .user_agent(concat!("tinyres/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .timeout_resolve(Some(patience))
            .timeout_connect(Some(patience))
            .timeout_recv_response(Some(2 * patience))
            .timeout_per_read(Some(patience))
            .tls_config(tls.build())
            .build();
        Ok(Self {
            agent: config.into(),
            patience,
        })
    }

    /// The answer to a GET of `url` with `headers`: of status 200, 206, 304 or 416.
    pub(super) fn get(
        &self,
        url: &str,
        headers: &[(header::HeaderName, String)],
    ) -> std::result::Result<Response<Body>, Fault> {
        let mut request = self.agent.get(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.call().map_err(|error| fault(url, &error))?;
        let status = response.status().as_u16();
        match status {
            200 | 206 | 304 | 416 => Ok(response),
            408 | 425 | 429 | 500..=599 => Err(Fault::Passing {
                reason: format!("the server answers {status}"),
                pause: text(&response, &header::RETRY_AFTER)
                    .and_then(|seconds| seconds.parse().ok())
                    .map(Duration::from_secs),
            }),
            _ => Err(Fault::Lasting(Error::Status {
                url: url.to_owned(),
                status,
            })),
        }
    }

    /// Repeats `attempt` after faults that may pass, at most `most` times until [`STEP`] more bytes are there, which
    /// `progress` counts.
    pub(super) fn retry<T>(
        &self,
        url: &str,
        most: u32,
        mut progress: impl FnMut() -> u64,
        mut attempt: impl FnMut() -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        let (mut tries, mut reached) = (0, progress());
        loop {
            let (reason, asked) = match attempt() {
                Ok(done) => return Ok(done),
                Err(Fault::Lasting(error)) => return Err(error),
                Err(Fault::Passing { reason, pause }) => (reason, pause),
            };
            let now = progress();
            if now >= reached + STEP {
                (tries, reached) = (0, now);
            }
            if tries >= most {
                return Err(Error::Transfer {
                    url: url.to_owned(),
                    reason,
                });
            }
            let pause = asked.unwrap_or(FIRST_PAUSE * 2_u32.pow(tries));
            std::thread::sleep(pause.min(LONGEST_PAUSE));
            tries += 1;
        }
    }
}

/// The value of the header `name` of `response`, if it is text.
pub(super) fn text<'a>(response: &'a Response<Body>, name: &header::HeaderName) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

fn unknown(url: &str) -> Fault {
    Fault::Lasting(Error::Transfer {
        url: url.to_owned(),
        reason: "no machine of this name is known".to_owned(),
    })
}

fn fault(url: &str, error: &ureq::Error) -> Fault {
    match error {
        ureq::Error::Io(io) if io.to_string().contains("or service not known") => unknown(url),
        ureq::Error::Io(io) => Fault::passing(io.to_string()),
        ureq::Error::HostNotFound => unknown(url),
        ureq::Error::Timeout(_)
        | ureq::Error::ConnectionFailed
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::Protocol(_) => Fault::passing(error.to_string()),
        error => Fault::Lasting(Error::answer(url, error.to_string())),
    }
}

/// The certificates of `SSL_CERT_FILE`, if it is set, as OpenSSL's programs take it.
fn own_roots() -> Result<Option<RootCerts>> {
    let Some(path) = env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let shown = path.to_string_lossy().into_owned();
    let bad = |reason: String| Error::Certificates(format!("{shown}: {reason}"));
    let pem = fs::read(&path).map_err(|error| bad(error.to_string()))?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(root) = item.map_err(|error| bad(error.to_string()))? {
            roots.push(root);
        }
    }
    match roots.is_empty() {
        true => Err(bad("no certificate in it".to_owned())),
        false => Ok(Some(RootCerts::new_with_certs(&roots))),
    }
}
