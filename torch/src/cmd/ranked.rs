//! A command as one of several processes: they meet and do its work together. If one fails, all end, and rank 0 says which
//! and why. `tinyres train` has its own part here: rank 0 makes the run and says what is trained, and all train it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use tinyres::ui::{self, Ui};
use tinyres_torch::Error;
use tinyres_torch::config::Config;
use tinyres_torch::ranks::{Fault, Launch, Meeting, OnFault, RankError};
use tinyres_torch::run::{Run, SetId};
use tinyres_torch::train::check;

use super::stop;
use super::train::{Args, Begun, begin, conclude, splits};

/// The variable by which torchrun names the file that it takes the reason of a failure from.
const ERROR_FILE: &str = "TORCHELASTIC_ERROR_FILE";

/// Decision of rank 0.
#[derive(Serialize, Deserialize)]
struct Plan {
    config: Config,
    run: PathBuf,
    data: PathBuf,
    set: SetId,
    on_gpu: bool,
}

/// Does `work` as one of the processes of `launch`, and ends this one. The `flags` of all must be the same, and one waits
/// for the others as long as `patience`.
pub fn as_rank(
    launch: &Launch,
    flags: BTreeMap<String, String>,
    patience: Duration,
    work: impl FnOnce(&Meeting) -> anyhow::Result<ExitCode>,
) -> ! {
    let rank = launch.rank;
    let on_fault: OnFault = Box::new(move |fault: &Fault| {
        say(rank, fault);
        stop::leave(1);
    });
    let meeting = match Meeting::join(launch, flags, patience, on_fault) {
        Ok(meeting) => meeting,
        Err(error) => {
            let error: anyhow::Error = error.into();
            conclude_failure(rank, "", &error);
            stop::leave(1);
        }
    };
    match work(&meeting) {
        Ok(code) => {
            let _ = std::io::stdout().flush();
            // libtorch's threads of connections are still there, and no destructor may meet them.
            stop::leave(if code == ExitCode::SUCCESS {
                0
            } else {
                stop::STOPPED.into()
            });
        }
        Err(error) => {
            if is_own(&error) {
                meeting.fail(&error.to_string());
            }
            conclude_failure(rank, meeting.host(), &error);
            stop::leave(1);
        }
    }
}

/// Trains as one of the processes of `launch`.
pub fn train(args: Args, launch: &Launch, ui: &mut Ui) -> ! {
    stop::with_others(launch.rank == 0);
    let (flags, patience) = (args.common(), args.rank_timeout());
    as_rank(launch, flags, patience, |meeting| {
        together(args, launch, meeting, ui)
    })
}

fn together(
    args: Args,
    launch: &Launch,
    meeting: &Meeting,
    ui: &mut Ui,
) -> anyhow::Result<ExitCode> {
    let pictures = args.pictures();
    let begun = match launch.rank {
        0 => {
            let begun = begin(args, Some(launch), ui)?;
            match agree(meeting, &begun) {
                Ok(()) => begun,
                Err(error) => {
                    begun.run.abandon();
                    return Err(error.into());
                }
            }
        }
        _ => follow(args, launch, meeting, ui)?,
    };
    let ranks = Rc::new(meeting.connect(begun.device)?);
    conclude(begun, pictures, &ranks, ui)
}

/// Tells the others what is trained, and waits until they are ready.
fn agree(meeting: &Meeting, begun: &Begun) -> tinyres_torch::Result<()> {
    let run = &begun.run;
    let data = Run::provenance(run.dir())?.data;
    meeting.publish(&Plan {
        config: run.config().clone(),
        run: run.dir().to_path_buf(),
        data,
        set: run.set(),
        on_gpu: begun.device.is_cuda(),
    })?;
    meeting.ready()
}

/// Makes ready what rank 0 has decided.
fn follow(args: Args, launch: &Launch, meeting: &Meeting, ui: &mut Ui) -> anyhow::Result<Begun> {
    let plan: Plan = meeting.published()?;
    let config = plan.config;
    tinyres_torch::start_threads(config.threads.and_then(std::num::NonZeroUsize::new))?;
    let device = launch.device(config.device)?;
    expect_alike(device.is_cuda(), plan.on_gpu)?;
    let shards = args.shards().unwrap_or(&plan.data);
    let splits = splits(shards, config.verify, ui)?;
    let (own, first) = (splits.id(), plan.set);
    ensure!(
        own.agrees(&first),
        "{} holds {}: give every rank the same",
        shards.display(),
        if own.fingerprint == first.fingerprint {
            "other pixels than rank 0 has, under the same names and labels"
        } else {
            "another data set than rank 0 has"
        }
    );
    let data = check(&config, &splits, device)?;
    let run = Run::follower(&plan.run, config, &plan.data, plan.set);
    meeting.ready()?;
    Ok(Begun {
        run,
        from: None,
        splits,
        data,
        device,
    })
}

/// Checks that this rank computes on a GPU if rank 0 does, and on the CPU if not.
pub fn expect_alike(own_on_gpu: bool, first_on_gpu: bool) -> anyhow::Result<()> {
    let on = |gpu: bool| if gpu { "a GPU" } else { "the CPU" };
    ensure!(
        own_on_gpu == first_on_gpu,
        "it would compute on {}, and rank 0 on {}: give every rank a GPU, or add --device cpu",
        on(own_on_gpu),
        on(first_on_gpu)
    );
    Ok(())
}

/// True if this rank has failed by itself, not because another one has.
fn is_own(error: &anyhow::Error) -> bool {
    !matches!(
        error.downcast_ref(),
        Some(Error::Ranks(RankError::Fault(_) | RankError::Broken(_)))
    )
}

/// Says why this process ends: on stderr where a person looks for it, and in torchrun's file.
fn conclude_failure(rank: usize, host: &str, error: &anyhow::Error) {
    if let Some(Error::Ranks(RankError::Fault(fault))) = error.downcast_ref() {
        return say(rank, fault);
    }
    note(&match host {
        "" => format!("rank {rank}: {error}"),
        host => format!("rank {rank} ({host}): {error}"),
    });
    // A value that is not finite is so on every rank.
    let common = matches!(error.downcast_ref(), Some(Error::NotFinite { .. }));
    if rank == 0 || !common {
        let _ = ui::exit(error);
    }
}

/// Says `fault`: rank 0 for all, and each rank its own and that of rank 0, which may not be able to.
fn say(rank: usize, fault: &Fault) {
    note(&fault.to_string());
    if rank == 0 || fault.rank == 0 || fault.rank == rank {
        let _ = ui::exit(&anyhow::anyhow!("{fault}"));
    }
}

/// Writes `message` where torchrun looks for the reason of a failure.
fn note(message: &str) {
    let Some(path) = std::env::var_os(ERROR_FILE) else {
        return;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let text = serde_json::json!({ "message": message, "timestamp": now });
    // Without it torchrun says the exit code alone.
    let _ = fs::write(path, text.to_string());
}
