//! A proxy of HTTP in front of a real store, which spoils answers as a test decides, request by request.
#![allow(dead_code, reason = "each of the test programs uses a part")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The change to an answer.
#[derive(Clone, Debug)]
pub enum Change {
    Pass,
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The lowest bit of this byte of the body is another one.
    Flip(usize),
    /// Another answer: its status, the store's name for the error, and seconds for `Retry-After`.
    Status(u16, &'static str, Option<u32>),
    /// Nothing comes after so many bytes of the body, for longer than anyone waits.
    Stall(usize),
    /// The body comes by single bytes, so slowly that it never ends.
    Drip,
    /// The part is said to be the whole object, as by a server that ignores which part is wanted.
    Whole,
    /// The length is stated to be so many bytes more than it is.
    Longer(usize),
    /// The store is away.
    Away,
    /// The answer takes so long.
    Late(Duration),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Without its query.
    pub path: String,
    /// First byte and last byte that are asked for.
    pub range: Option<(u64, u64)>,
    head: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    /// True if pixels are asked for, and not the beginning or the end of a shard.
    pub fn is_of_pixels(&self) -> bool {
        self.method == "GET"
            && self
                .range
                .is_some_and(|(first, last)| first >= 4096 && last - first > 150_000)
    }

    fn read(stream: &TcpStream) -> io::Result<Self> {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let header = |name: &str| {
            head.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        let range = header("range").and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        let mut words = head[0].split(' ');
        let method = words.next().unwrap().to_owned();
        let path = words.next().unwrap().split('?').next().unwrap().to_owned();
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Self {
            method,
            path,
            range,
            head,
            body,
        })
    }
}

/// An answer that went through.
#[derive(Clone, Debug)]
pub struct Seen {
    pub request: Request,
    /// Bytes of the body that were sent.
    pub sent: u64,
}

/// The proxy, until it is dropped.
pub struct Proxy {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Proxy {
    /// Passes requests on to `store`, an address as `127.0.0.1:80`. Request number N is spoilt as `change(N, request)` says.
    pub fn start(
        store: &str,
        change: impl Fn(usize, &Request) -> Change + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, store) = (Arc::clone(&seen), store.to_owned());
        let (change, number) = (Arc::new(change), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Only the proxy's own handle is left when the test has dropped it.
                if Arc::strong_count(&log) == 1 {
                    break;
                }
                let (log, store) = (Arc::downgrade(&log), store.clone());
                let (change, number) = (Arc::clone(&change), Arc::clone(&number));
                thread::spawn(move || {
                    let Ok(request) = Request::read(&stream) else {
                        return;
                    };
                    let change = change(number.fetch_add(1, Ordering::SeqCst), &request);
                    let sent = answer(&stream, &request, &store, &change).unwrap_or(0);
                    if let Some(log) = log.upgrade() {
                        log.lock().unwrap().push(Seen { request, sent });
                    }
                });
            }
        });
        Self { url, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Bytes of all bodies that were sent.
    pub fn sent(&self) -> u64 {
        self.seen().iter().map(|seen| seen.sent).sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.seen = Arc::default();
        // The listener waits for a connection.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

/// Answers `request` by the answer of `store`, changed. Returns how many bytes of the body were sent.
fn answer(mut to: &TcpStream, request: &Request, store: &str, change: &Change) -> io::Result<u64> {
    match change {
        Change::Away => return Ok(0),
        Change::Late(pause) => thread::sleep(*pause),
        Change::Status(status, code, pause) => {
            let pause = pause.map_or(String::new(), |pause| format!("Retry-After: {pause}\r\n"));
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
            let len = body.len();
            write!(
                to,
                "HTTP/1.1 {status} X\r\nConnection: close\r\n{pause}Content-Length: {len}\r\n\r\n{body}"
            )?;
            return Ok(0);
        }
        _ => {}
    }
    let mut from = TcpStream::connect(store)?;
    let mut head = String::new();
    for line in &request.head {
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        // The client of Google's stores sends an empty token where none is needed, which SeaweedFS refuses.
        let empty = name == "authorization" && line.trim_end().ends_with("Bearer");
        if name != "connection" && !empty {
            head += &format!("{line}\r\n");
        }
    }
    from.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    from.write_all(&request.body)?;
    let mut from = BufReader::new(from);
    let (mut head, mut length) = (String::new(), None);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        if name.eq_ignore_ascii_case("content-length") {
            let stated: usize = value.trim().parse().unwrap_or(0);
            length = Some(stated);
            let more = match change {
                Change::Longer(more) => *more,
                _ => 0,
            };
            head += &format!("Content-Length: {}\r\n", stated + more);
        } else if line.trim_end().is_empty() {
            break;
        } else if matches!(change, Change::Whole) && line.starts_with("HTTP/1.1 206") {
            head += "HTTP/1.1 200 OK\r\n";
        } else if !name.eq_ignore_ascii_case("connection") {
            head += &line;
        }
    }
    to.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    let has_body = request.method != "HEAD";
    let (mut sent, mut buffer) = (0, vec![0; 1 << 16]);
    while has_body && length.is_none_or(|length| sent < length) {
        let drips = matches!(change, Change::Drip);
        let most = if drips { 1 } else { buffer.len() };
        let mut got = from.read(&mut buffer[..most])?;
        if drips {
            thread::sleep(Duration::from_millis(100));
        }
        if got == 0 {
            break;
        }
        match change {
            Change::Cut(at) | Change::Stall(at) => got = got.min(at - sent),
            Change::Flip(at) if (sent..sent + got).contains(at) => buffer[at - sent] ^= 1,
            _ => {}
        }
        to.write_all(&buffer[..got])?;
        sent += got;
        match change {
            Change::Cut(at) if sent == *at => break,
            Change::Stall(at) if sent == *at => {
                to.flush()?;
                thread::sleep(Duration::from_secs(30));
                break;
            }
            _ => {}
        }
    }
    Ok(sent as u64)
}
