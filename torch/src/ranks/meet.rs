//! The meeting of the ranks before they train: each says what it is, rank 0 compares, and all learn the result. Whoever
//! does not come or differs is named, and nothing was begun.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::{ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::Device;

use super::launch::Launch;
use super::watch::{self, Fault, OnFault, Watch};
use super::{RankError, Ranks, Several};
use crate::libtorch::ffi::{self, Group, Store};
use crate::{Error, Result};

/// The variable by which people choose the network interface; libtorch reads it.
const INTERFACE: &str = "GLOO_SOCKET_IFNAME";
/// Time from one look at the store to the next.
const LOOK: Duration = Duration::from_millis(20);
/// Time that rank 0 stays after a fault, so that the others can read it in the store.
const LINGER: Duration = Duration::from_millis(2500);
/// Time for the answers of the store, beyond that in which others may come.
const MARGIN: Duration = Duration::from_secs(10);
/// Time that NCCL waits for longer than Gloo, whose errors can be explained.
const NCCL_MARGIN: Duration = Duration::from_secs(30);

/// What a rank says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    host: String,
    process: u32,
    version: String,
    libtorch: String,
    processor: String,
    /// Flags and their values.
    flags: BTreeMap<String, String>,
}

/// Verdict of rank 0.
#[derive(Debug, Serialize, Deserialize)]
struct Verdict {
    fault: Option<Fault>,
    hosts: Vec<String>,
}

/// Ranks that have met, and may train together if they agree on what.
#[derive(Debug)]
pub struct Meeting {
    launch: Launch,
    store: Store,
    hosts: Vec<String>,
    watch: Watch,
    patience: Duration,
}

impl Meeting {
    /// Meets the other ranks of `launch`, whose `flags` must be the same. `on_fault` is called if a rank fails while this
    /// one waits for others.
    ///
    /// # Errors
    /// A [`RankError`] if this or another rank does not come within `patience`, or they differ.
    pub fn join(
        launch: &Launch,
        flags: BTreeMap<String, String>,
        patience: Duration,
        on_fault: OnFault,
    ) -> Result<Self> {
        let rank = launch.rank;
        let address = format!("{}:{}", launch.host, launch.port);
        let serve = rank == 0 && !launch.served;
        let began = Instant::now();
        let prefix = format!("tinyres/{}", launch.restarts);
        let this = launch.clone();
        let opened = within(2 * patience + MARGIN, move || {
            Store::open(&this.host, this.port, serve, patience, &prefix)
        });
        let lost = |after: Duration, why: &str| RankError::Store {
            rank,
            address: address.clone(),
            after,
            why: why.lines().next().unwrap_or_default().to_owned(),
        };
        let silent = "what listens there does not answer";
        let store = match opened {
            Some(opened) => opened.map_err(|error| match error.to_string() {
                why if serve && why.contains("EADDRINUSE") => RankError::Port { port: launch.port },
                why => lost(patience, &why),
            })?,
            None => return Err(lost(patience, silent).into()),
        };
        let hello = Hello {
            host: host(),
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch: ffi::version(),
            processor: ffi::cpu_capability(),
            flags,
        };
        // Rank 0 waits for as long as the others, and may have come later.
        let latest = 2 * patience;
        let (this, at) = (launch.clone(), address.clone());
        let met = within(latest + MARGIN, move || {
            let verdict = greet(&store, &this, &hello, &at, began, patience)?;
            Ok((store, verdict))
        });
        let (store, verdict) = met.unwrap_or_else(|| Err(lost(latest, silent).into()))?;
        if let Some(fault) = verdict.fault {
            return Err(RankError::Fault(fault).into());
        }
        let hosts = verdict.hosts;
        let watch = Watch::begin(
            store.share()?,
            rank,
            hosts.clone(),
            address,
            launch.served,
            on_fault,
        )?;
        Ok(Self {
            launch: launch.clone(),
            store,
            hosts,
            watch,
            patience,
        })
    }

    /// Tells the other ranks that this one has failed with `error`, and so all of them.
    pub fn fail(&self, error: &str) {
        let fault = Fault {
            rank: self.launch.rank,
            host: self.host().to_owned(),
            what: error.to_owned(),
        };
        // If the store is gone, so is rank 0.
        let _ = watch::report(&self.store, &fault);
        linger(&self.launch);
    }

    /// The name of this rank's host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.hosts[self.launch.rank]
    }

    /// Gives the others `value`, which is what rank 0 has decided.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn publish(&self, value: &impl Serialize) -> Result<()> {
        self.store.set("plan", &json(value))
    }

    /// What rank 0 gives by [`publish`](Self::publish), which may take it long.
    ///
    /// # Errors
    /// A rank has failed.
    pub fn published<T: DeserializeOwned>(&self) -> Result<T> {
        self.wait_for("plan")
    }

    /// Rank 0's value of `own`.
    ///
    /// # Errors
    /// A rank has failed.
    pub fn settle<T: Serialize + DeserializeOwned + Clone>(&self, own: &T) -> Result<T> {
        if self.launch.rank > 0 {
            return self.published();
        }
        self.publish(own)?;
        Ok(own.clone())
    }

    /// Says that this rank can begin. Rank 0 waits here until all others have said so.
    ///
    /// # Errors
    /// A rank has failed.
    pub fn ready(&self) -> Result<()> {
        if self.launch.rank > 0 {
            return self
                .store
                .set(&key("ready", self.launch.rank), &json(&true));
        }
        for rank in 1..self.launch.size {
            let _: bool = self.wait_for(&key("ready", rank))?;
        }
        Ok(())
    }

    fn wait_for<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let found = await_key(&self.store, key, Duration::MAX, || self.watch.fault());
        let found = found.map_err(|error| self.watch.explain(error))?;
        found.ok_or_else(|| Error::Torch(format!("the store has no {key}")))
    }

    /// Connects the ranks with each other, to compute on `device`. All of them must call this.
    ///
    /// # Errors
    /// A rank has failed, or cannot be reached.
    pub fn connect(&self, device: Device) -> Result<Ranks> {
        let address = match std::env::var_os(INTERFACE) {
            Some(_) => String::new(),
            None => own_address(&self.launch),
        };
        let Launch { rank, size, .. } = self.launch;
        let open = |name: &str| {
            let group = Group::open(&self.store, name, &address, rank, size, self.patience);
            group.map_err(|error| self.watch.explain(error))
        };
        let (group, bulk) = (open("group")?, open("bulk")?);
        let gpu = match device {
            Device::Cuda(index) => Some(self.connect_gpu(index)?),
            _ => None,
        };
        Ok(Ranks(Some(Several {
            rank,
            size,
            group,
            bulk,
            gpu,
            watch: self.watch.clone(),
            pace: RefCell::default(),
        })))
    }

    /// Connects the CUDA device `index` with those of the other ranks.
    fn connect_gpu(&self, index: usize) -> Result<Group> {
        let Launch { rank, size, .. } = self.launch;
        // libtorch ends the process after it, without a word on who is missing.
        let patience = self.patience + NCCL_MARGIN;
        let group = Group::open_cuda(&self.store, "gpu", index, rank, size, patience);
        let connected = group.and_then(|group| {
            super::expect_sum(&group, size, Device::Cuda(index))?;
            Ok(group)
        });
        connected.map_err(|error| match self.watch.explain(error) {
            Error::Ranks(RankError::Broken(why)) => RankError::Nccl {
                why: why.lines().next().unwrap_or_default().to_owned(),
            }
            .into(),
            error => error,
        })
    }
}

/// The address of this host that others reach it at: the one from which it reaches the store. gloo itself would look up
/// the host's name, which often stands for the loopback. Empty, for gloo's own choice, if there is none.
pub fn own_address(launch: &Launch) -> String {
    let find = || {
        let store = (launch.host.as_str(), launch.port);
        let store = store.to_socket_addrs().ok()?.next()?;
        let any = if store.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        // Sends nothing.
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(store).ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    };
    find().unwrap_or_default()
}

/// The name of this host.
fn host() -> String {
    match fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => name.trim_end().to_owned(),
        Err(_) => "unknown host".to_owned(),
    }
}

fn key(kind: &str, rank: usize) -> String {
    format!("{kind}/{rank}")
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn own_fault(host: &str, rank: usize, error: &RankError) -> Fault {
    Fault {
        rank,
        host: host.to_owned(),
        what: error.to_string(),
    }
}

/// Waits after a fault, if this process serves the store, so that the others can read it there.
fn linger(launch: &Launch) {
    if launch.rank == 0 && !launch.served {
        thread::sleep(LINGER);
    }
}

/// The value of `key`, once it is set; `None` if that takes longer than `patience`. Ends early with a `fault`.
fn await_key<T: DeserializeOwned>(
    store: &Store,
    key: &str,
    patience: Duration,
    fault: impl Fn() -> Option<Fault>,
) -> Result<Option<T>> {
    let began = Instant::now();
    loop {
        if let Some(found) = store.get(key)? {
            let read = serde_json::from_slice(&found);
            return read
                .map(Some)
                .map_err(|error| Error::Torch(format!("{key} in the store: {error}")));
        }
        if let Some(fault) = fault() {
            return Err(RankError::Fault(fault).into());
        }
        if began.elapsed() >= patience {
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// Does `work` on another thread, and returns what it returns; `None` if that takes longer than `limit`. libtorch may wait
/// for an answer of the store for ever.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Option<Result<T>> {
    let (done, comes) = mpsc::channel();
    let spawned = thread::Builder::new().spawn(move || {
        // Nobody waits for what comes too late.
        let _ = done.send(work());
    });
    match spawned {
        Ok(_) => comes.recv_timeout(limit).ok(),
        Err(error) => Some(Err(Error::Threads(error))),
    }
}

/// Says `hello` to the other ranks. Returns the verdict of rank 0, which is this one or is waited for.
fn greet(
    store: &Store,
    launch: &Launch,
    hello: &Hello,
    address: &str,
    began: Instant,
    patience: Duration,
) -> Result<Verdict> {
    let (rank, size) = (launch.rank, launch.size);
    if !store.claim(&key("hello", rank), &json(hello))? {
        return Err(RankError::Twice { rank }.into());
    }
    if rank > 0 {
        let found = await_key(store, "verdict", 2 * patience, || None)?;
        return found.ok_or_else(|| missing(vec![0], size, address, 2 * patience));
    }
    let verdict = judge(store, hello, size, address, began, patience);
    if let Err(Error::Ranks(error)) = &verdict {
        let verdict = Verdict {
            fault: Some(own_fault(&hello.host, 0, error)),
            hosts: Vec::new(),
        };
        store.set("verdict", &json(&verdict))?;
        linger(launch);
    }
    let verdict = verdict?;
    store.set("verdict", &json(&verdict))?;
    if verdict.fault.is_some() {
        linger(launch);
    }
    Ok(verdict)
}

fn missing(ranks: Vec<usize>, size: usize, address: &str, after: Duration) -> Error {
    RankError::Missing {
        ranks,
        size,
        address: address.to_owned(),
        after,
    }
    .into()
}

/// Waits for the hello of all ranks, and compares them with that of rank 0.
fn judge(
    store: &Store,
    own: &Hello,
    size: usize,
    address: &str,
    began: Instant,
    patience: Duration,
) -> Result<Verdict> {
    let mut found: Vec<Option<Hello>> = vec![None; size];
    found[0] = Some(own.clone());
    loop {
        for (rank, hello) in found.iter_mut().enumerate() {
            if hello.is_none()
                && let Some(bytes) = store.get(&key("hello", rank))?
            {
                // That of another version may have another form.
                *hello = Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| Hello {
                    version: "another one".to_owned(),
                    ..own.clone()
                }));
            }
        }
        if found.iter().all(Option::is_some) {
            break;
        }
        if began.elapsed() >= patience {
            let absent = found
                .iter()
                .enumerate()
                .filter(|(_, hello)| hello.is_none());
            let absent = absent.map(|(rank, _)| rank).collect();
            return Err(missing(absent, size, address, patience));
        }
        thread::sleep(LOOK);
    }
    let all: Vec<Hello> = found.into_iter().flatten().collect();
    let fault = all.iter().enumerate().find_map(|(rank, hello)| {
        let error = differs(hello, own)?;
        Some(own_fault(&hello.host, rank, &error))
    });
    Ok(Verdict {
        fault,
        hosts: all.into_iter().map(|hello| hello.host).collect(),
    })
}

/// The first difference between a rank and rank 0 that they cannot train with.
fn differs(found: &Hello, first: &Hello) -> Option<RankError> {
    let difference = |what: &str, got: &str, expected: &str, remedy| {
        (got != expected).then(|| RankError::Differs {
            what: what.to_owned(),
            got: got.to_owned(),
            expected: expected.to_owned(),
            remedy,
        })
    };
    let of_program = [
        ("the version of tinyres", &found.version, &first.version),
        ("the version of libtorch", &found.libtorch, &first.libtorch),
    ];
    let install = "install the same on every host";
    let mut programs = of_program.into_iter();
    programs
        .find_map(|(what, got, expected)| difference(what, got, expected, install))
        .or_else(|| {
            let remedy = "they would compute different weights: use hosts of one kind";
            let what = "the instruction set that libtorch uses";
            difference(what, &found.processor, &first.processor, remedy)
        })
        .or_else(|| {
            let remedy = "start every rank with the same flags";
            let mut names = found.flags.keys().chain(first.flags.keys());
            names.find_map(|name| {
                let value = |of: &Hello| {
                    of.flags
                        .get(name)
                        .map_or("not given", String::as_str)
                        .to_owned()
                };
                difference(&format!("--{name}"), &value(found), &value(first), remedy)
            })
        })
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    use super::super::launch::Launcher;
    use super::*;

    fn hello() -> Hello {
        let flags = [("lr", "0.1"), ("batch", "64")];
        Hello {
            host: "a".to_owned(),
            process: 1,
            version: "1.0.0".to_owned(),
            libtorch: "2.13.0".to_owned(),
            processor: "AVX2".to_owned(),
            flags: flags.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    /// Ranks by threads meet, hear what rank 0 has decided, and are ready.
    fn meet(size: usize) {
        const PATIENCE: Duration = Duration::from_secs(300);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let rank = |rank: usize| {
            let launch = Launch {
                launcher: Launcher::Environment,
                rank,
                size,
                local_rank: rank,
                local_size: size,
                host: "127.0.0.1".to_owned(),
                port,
                served: false,
                restarts: 0,
                may_restart: false,
            };
            let on_fault: OnFault = Box::new(|fault| panic!("{fault}"));
            let meeting = Meeting::join(&launch, hello().flags, PATIENCE, on_fault).unwrap();
            let plan: usize = meeting.settle(&(7 + rank)).unwrap();
            meeting.ready().unwrap();
            (plan, meeting)
        };
        let meetings: Vec<_> = thread::scope(|scope| {
            let rank = &rank;
            let spawn = |at| {
                let small = thread::Builder::new().stack_size(256 << 10);
                small.spawn_scoped(scope, move || rank(at)).unwrap()
            };
            let threads: Vec<_> = (0..size).map(spawn).collect();
            (threads.into_iter())
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(meetings.iter().all(|(plan, _)| *plan == 7));
        // The store of rank 0 is that of all watches.
        meetings.iter().for_each(|(_, meeting)| meeting.watch.end());
        thread::sleep(2 * LINGER);
    }

    /// 64 of them, or as many as the variable says. A thousand take 4,000 open files and 3,000 threads.
    #[test]
    fn many_ranks_meet() {
        let size = std::env::var("TINYRES_RANKS").map_or(64, |size| size.parse().unwrap());
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        meet(size);
    }

    #[test]
    fn first_difference_is_named_with_both_values() {
        let other_place = Hello {
            host: "b".to_owned(),
            process: 2,
            ..hello()
        };
        assert!(differs(&other_place, &hello()).is_none());
        let mut more = hello();
        more.flags.insert("seed".to_owned(), "7".to_owned());
        let mut less = hello();
        less.flags.remove("lr");
        for (found, said) in [
            (
                Hello {
                    version: "1.1.0".to_owned(),
                    ..hello()
                },
                "the version of tinyres is 1.1.0, but 1.0.0 on rank 0: install",
            ),
            (
                Hello {
                    libtorch: "2.12.0".to_owned(),
                    ..hello()
                },
                "the version of libtorch is 2.12.0, but 2.13.0 on rank 0: install",
            ),
            (
                Hello {
                    processor: "AVX512".to_owned(),
                    ..hello()
                },
                "the instruction set that libtorch uses is AVX512, but AVX2 on rank 0",
            ),
            (
                more,
                "--seed is 7, but not given on rank 0: start every rank",
            ),
            (
                less,
                "--lr is not given, but 0.1 on rank 0: start every rank",
            ),
        ] {
            let text = differs(&found, &hello()).unwrap().to_string();
            assert!(text.starts_with(said), "{text}");
        }
    }
}
