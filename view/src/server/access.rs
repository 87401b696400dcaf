//! Who may ask, and what a browser may do with the answers.
//!
//! - The `Host` must be a name of this machine, or a web page of a stranger could reach the server under its own name
//!   (DNS rebinding).
//! - Requests that pages of other origins send are refused, by `Origin` and `Sec-Fetch-Site`. A link to the page itself
//!   may stand anywhere.
//! - What is below `/api/` needs the token, as a cookie or in the address: other users of the machine can connect, too.
//!   The files of the page are those of the program, and need none.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::error::{Error, Result};

/// Headers of every answer. All that the page loads comes from this server.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// A secret of 128 bits, drawn at each start.
pub struct Token([u8; 16]);

impl Token {
    /// Draws one from the system's generator.
    pub fn draw() -> std::result::Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Compares in a time that does not depend on where the texts differ.
    fn is(&self, text: &str) -> bool {
        let own = self.to_string();
        let differ = own.bytes().zip(text.bytes());
        text.len() == own.len() && differ.fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Who is let in.
pub struct Access {
    token: Token,
    /// Cookies are those of a host, whatever the port: each server has a name of its own.
    cookie: String,
    bound: IpAddr,
    names: Vec<String>,
}

impl Access {
    /// Those who have `token`, at a server that listens on `address`, by the names of this machine and `names`.
    pub fn new(token: Token, address: SocketAddr, names: Vec<String>) -> Self {
        Self {
            token,
            cookie: format!("tinyres-{}", address.port()),
            bound: address.ip(),
            names,
        }
    }

    /// Refuses requests under a name that is not this machine's. No stranger can give an address in digits to a page.
    fn check_host(&self, host: Option<&str>) -> Result<()> {
        let name = host.and_then(|host| host.parse::<Authority>().ok());
        let name = name.as_ref().map_or("", Authority::host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let is_ours = match bare.parse::<IpAddr>() {
            Ok(address) => {
                address.is_loopback() || address == self.bound || self.bound.is_unspecified()
            }
            Err(_) => {
                let names = self.names.iter().map(String::as_str);
                (names.chain(["localhost"])).any(|known| known.eq_ignore_ascii_case(name))
            }
        };
        if is_ours {
            return Ok(());
        }
        Err(Error::Refused(
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "the host {name:?} is not known here: open the link that `tinyres view` printed, or start it with --allow-host {name}"
            ),
        ))
    }

    fn check(&self, request: &Request) -> Result<()> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let why = "only GET is answered".to_owned();
            return Err(Error::Refused(StatusCode::METHOD_NOT_ALLOWED, why));
        }
        let headers = request.headers();
        let host = text(headers, &header::HOST);
        self.check_host(host)?;
        let forbidden = |why: &str| Error::Refused(StatusCode::FORBIDDEN, why.to_owned());
        let own = host.map(|host| format!("http://{host}"));
        if headers.contains_key(header::ORIGIN) && text(headers, &header::ORIGIN) != own.as_deref()
        {
            return Err(forbidden("the request comes from a page of another origin"));
        }
        let (path, fetch) = (request.uri().path(), |name| {
            text(headers, &HeaderName::from_static(name))
        });
        let is_link = path == "/" && fetch("sec-fetch-mode") == Some("navigate");
        let site = fetch("sec-fetch-site").unwrap_or("none");
        if !["same-origin", "none"].contains(&site) && !is_link {
            return Err(forbidden("the request comes from a page of another site"));
        }
        if path.starts_with("/api/") && !self.has_cookie(headers) && !self.has_token(request) {
            return Err(forbidden(
                "the token is missing or of an earlier start: open the link that `tinyres view` printed",
            ));
        }
        Ok(())
    }

    fn has_token(&self, request: &Request) -> bool {
        let query = request.uri().query().unwrap_or_default();
        let mut fields = query.split('&').filter_map(|field| field.split_once('='));
        fields.any(|(name, value)| name == "token" && self.token.is(value))
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(header::COOKIE).into_iter();
        let texts = lines.filter_map(|line| line.to_str().ok());
        let mut cookies = texts.flat_map(|text| text.split(';'));
        cookies.any(|cookie| {
            let (name, value) = cookie.trim().split_once('=').unwrap_or_default();
            name == self.cookie && self.token.is(value)
        })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Answers `request`, if it may be answered. A link with the token also gives the cookie.
pub async fn check(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let welcome = access.has_token(&request);
    let mut response = match access.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let (name, token) = (&access.cookie, &access.token);
    let cookie = format!("{name}={token}; HttpOnly; SameSite=Strict; Path=/");
    if let (true, Ok(cookie)) = (welcome, cookie.try_into()) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}
