//! The place of this process among those that train together, from the environment that a launcher sets: torchrun,
//! Kubernetes' PyTorchJob and Trainer, Slurm's srun, or a shell.

use std::fmt;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use tch::Device;

use super::RankError;
use crate::libtorch::device::{self, CudaState, DeviceChoice};

/// The port of Slurm jobs that name none: this plus the job's number modulo 4096, as JAX has it.
const SLURM_PORT: u16 = 61440;

/// Who has started the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// torchrun, which also runs under Kubernetes.
    Torchrun,
    /// Slurm's srun.
    Slurm,
    /// A node of Kubeflow Trainer without torchrun.
    Trainer,
    /// `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` by another one: PyTorchJob, or a shell.
    Environment,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Torchrun => "torchrun",
            Self::Slurm => "srun",
            Self::Trainer => "Kubeflow Trainer",
            Self::Environment => "the environment (RANK, WORLD_SIZE)",
        })
    }
}

/// The place of this process, one of several, and where they meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Who has started it.
    pub launcher: Launcher,
    /// Its number, from 0.
    pub rank: usize,
    /// The number of processes, at least 2.
    pub size: usize,
    /// Its number among the processes of this host, from 0, as far as the launcher says; 0 if it does not.
    pub local_rank: usize,
    /// The number of processes on this host, as far as the launcher says; 1 if it does not.
    pub local_size: usize,
    /// Name or address of the host of the store where they meet.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// True if the launcher serves the store, false if rank 0 does.
    pub served: bool,
    /// Starts of this run by the launcher before this one.
    pub restarts: u32,
    /// True if the launcher starts it again when it fails.
    pub may_restart: bool,
}

impl Launch {
    /// That of this process; `None` if it is alone.
    ///
    /// # Errors
    /// [`RankError::Environment`] names the variable that is missing or wrong.
    pub fn from_env() -> Result<Option<Self>, RankError> {
        Self::read(&|name| std::env::var(name).ok())
    }

    /// Threads for this process where nobody has said how many: an equal part of the host's. `None` leaves it to libtorch,
    /// and `OMP_NUM_THREADS`, but under torchrun, which sets that to 1 where nobody has set it.
    #[must_use]
    pub fn threads(&self) -> Option<NonZeroUsize> {
        let set = std::env::var("OMP_NUM_THREADS").ok();
        let by_torchrun = self.launcher == Launcher::Torchrun && set.as_deref() == Some("1");
        if set.is_some() && !by_torchrun {
            return None;
        }
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        NonZeroUsize::new((cores / self.local_size.max(1)).max(1))
    }

    /// The device of `choice` for this process, ready for use: with `auto`, where there are GPUs, the one of its number on its
    /// host.
    ///
    /// # Errors
    /// Those of [`device::open`]; [`RankError`] where it would have no GPU of its own.
    pub fn device(&self, choice: DeviceChoice) -> crate::Result<Device> {
        let count = match (choice, device::cuda()) {
            (DeviceChoice::Cpu, _) | (_, CudaState::Not(_)) => 0,
            (_, CudaState::Ready(count)) => count,
        };
        device::open(self.own(choice, count)?)
    }

    /// The device of `choice` for this process, which sees `count` GPUs.
    fn own(&self, choice: DeviceChoice, count: usize) -> Result<DeviceChoice, RankError> {
        let (local_rank, local_size) = (self.local_rank, self.local_size);
        match choice {
            DeviceChoice::Cuda(_) if local_size > 1 => Err(RankError::SharedGpu {
                local_size,
                device: choice.to_string(),
            }),
            // A launcher may show each process a GPU of its own: that is number 0 to each of them.
            DeviceChoice::Auto if count > 1 && local_rank >= count => {
                Err(RankError::TooFewGpus { local_rank, count })
            }
            DeviceChoice::Auto if count > 1 => Ok(DeviceChoice::Cuda(local_rank)),
            choice => Ok(choice),
        }
    }

    /// As [`from_env`](Self::from_env), with `value` for the environment.
    pub(crate) fn read(value: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, RankError> {
        let variables = Variables(value);
        let launch = if variables.has("RANK") || variables.has("WORLD_SIZE") {
            variables.ranks()?
        } else if let (Some(count), true) = (
            variables.number::<usize>("SLURM_STEP_NUM_TASKS")?,
            variables.has("SLURM_PROCID"),
        ) {
            // Not SLURM_NTASKS: a batch script has that, too, and is one process.
            match count {
                0 | 1 => None,
                size => Some(variables.slurm(size)?),
            }
        } else if variables.has("PET_NODE_RANK") {
            variables.trainer()?
        } else {
            None
        };
        if let Some(Self { rank, size, .. }) = launch
            && rank >= size
        {
            return Err(RankError::Environment(format!(
                "rank {rank} of {size}: ranks are numbered from 0 to {}",
                size - 1
            )));
        }
        Ok(launch)
    }
}

/// The environment.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, RankError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let bad = || RankError::Environment(format!("{name} is {text:?}, expected a number"));
        text.parse().map(Some).map_err(|_| bad())
    }

    fn needed<V>(&self, name: &str, found: Option<V>) -> Result<V, RankError> {
        found.ok_or_else(|| {
            RankError::Environment(format!(
                "{name} is not set, which processes that train together need: set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or none of them to train with one process"
            ))
        })
    }

    /// torchrun, PyTorchJob or a shell.
    fn ranks(&self) -> Result<Option<Launch>, RankError> {
        let size = self.needed("WORLD_SIZE", self.number("WORLD_SIZE")?)?;
        if size == 1 {
            return Ok(None);
        }
        let torchrun = self.has("TORCHELASTIC_RUN_ID") || self.has("TORCHELASTIC_RESTART_COUNT");
        Ok(Some(Launch {
            launcher: match torchrun {
                true => Launcher::Torchrun,
                false => Launcher::Environment,
            },
            rank: self.needed("RANK", self.number("RANK")?)?,
            size,
            local_rank: self.number("LOCAL_RANK")?.unwrap_or(0),
            local_size: self.number("LOCAL_WORLD_SIZE")?.unwrap_or(1),
            host: self.needed("MASTER_ADDR", self.text("MASTER_ADDR"))?,
            port: self.needed("MASTER_PORT", self.number("MASTER_PORT")?)?,
            // "True" or "False".
            served: self.text("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            restarts: self.number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0),
            may_restart: (self.number::<u32>("TORCHELASTIC_MAX_RESTARTS")?)
                .is_some_and(|most| most > 0),
        }))
    }

    fn slurm(&self, size: usize) -> Result<Launch, RankError> {
        let first = self
            .text("SLURM_STEP_NODELIST")
            .map(|list| first_host(&list));
        let job: Option<u64> = self.number("SLURM_JOB_ID")?;
        let own_port = || {
            let offset = job? % 4096;
            SLURM_PORT.checked_add(u16::try_from(offset).ok()?)
        };
        // `2(x3),1`: the tasks of each node.
        let tasks = self.text("SLURM_STEP_TASKS_PER_NODE");
        let local = tasks.and_then(|tasks| {
            let digits = tasks.split(|c: char| !c.is_ascii_digit()).next()?;
            let one_kind = !tasks.contains(',');
            digits.parse().ok().filter(|_| one_kind)
        });
        let host = self.text("MASTER_ADDR").or(first);
        Ok(Launch {
            launcher: Launcher::Slurm,
            rank: self.needed("SLURM_PROCID", self.number("SLURM_PROCID")?)?,
            size,
            local_rank: self.number("SLURM_LOCALID")?.unwrap_or(0),
            local_size: local.unwrap_or(1),
            host: self.needed("SLURM_STEP_NODELIST", host)?,
            port: self.needed(
                "SLURM_JOB_ID",
                self.number("MASTER_PORT")?.or_else(own_port),
            )?,
            served: false,
            restarts: self.number("SLURM_RESTART_COUNT")?.unwrap_or(0),
            may_restart: false,
        })
    }

    /// A node of Kubeflow Trainer, which sets the variables that torchrun takes for its flags.
    fn trainer(&self) -> Result<Option<Launch>, RankError> {
        let size: usize = self.needed("PET_NNODES", self.number("PET_NNODES")?)?;
        if let Some(each) = self.text("PET_NPROC_PER_NODE")
            && each.parse::<usize>().is_ok_and(|each| each > 1)
        {
            return Err(RankError::Environment(format!(
                "PET_NPROC_PER_NODE is {each}, and nothing has started so many processes: let torchrun do that, with the command `torchrun --no-python tinyres train ...`"
            )));
        }
        if size <= 1 {
            return Ok(None);
        }
        Ok(Some(Launch {
            launcher: Launcher::Trainer,
            rank: self.needed("PET_NODE_RANK", self.number("PET_NODE_RANK")?)?,
            size,
            local_rank: 0,
            local_size: 1,
            host: self.needed("PET_MASTER_ADDR", self.text("PET_MASTER_ADDR"))?,
            port: self.needed("PET_MASTER_PORT", self.number("PET_MASTER_PORT")?)?,
            served: false,
            restarts: 0,
            may_restart: false,
        }))
    }
}

/// The first host of one of Slurm's lists, such as `a1,b2`, `node[01-04,7]` or `rack[1-2]n[3-4]`.
fn first_host(list: &str) -> String {
    let mut host = String::new();
    let mut rest = list;
    while let Some(at) = rest.find(['[', ',']) {
        host += &rest[..at];
        if rest[at..].starts_with(',') {
            return host;
        }
        let Some(end) = rest.find(']') else {
            break;
        };
        let first = rest[at + 1..end].split(['-', ',']).next();
        host += first.unwrap_or_default();
        rest = &rest[end + 1..];
    }
    host + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &str) -> Result<Option<Launch>, RankError> {
        Launch::read(&|name| {
            let mut set = environment.split_whitespace();
            let found = set.find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
            found.map(str::to_owned)
        })
    }

    #[test]
    fn each_launcher_is_recognised() {
        let torchrun = "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=29500 \
            TORCHELASTIC_RUN_ID=none TORCHELASTIC_RESTART_COUNT=2 TORCHELASTIC_MAX_RESTARTS=3 TORCHELASTIC_USE_AGENT_STORE=True PET_NODE_RANK=0";
        let expected = Launch {
            launcher: Launcher::Torchrun,
            rank: 3,
            size: 4,
            local_rank: 1,
            local_size: 2,
            host: "a".to_owned(),
            port: 29500,
            served: true,
            restarts: 2,
            may_restart: true,
        };
        assert_eq!(read(torchrun).unwrap(), Some(expected.clone()));
        // Its own word for no.
        let own = torchrun.replace("True", "False");
        assert!(!read(&own).unwrap().unwrap().served);

        let job = "RANK=1 WORLD_SIZE=2 MASTER_ADDR=job-master-0 MASTER_PORT=23456";
        let expected = Launch {
            launcher: Launcher::Environment,
            rank: 1,
            size: 2,
            local_rank: 0,
            local_size: 1,
            host: "job-master-0".to_owned(),
            port: 23456,
            served: false,
            restarts: 0,
            may_restart: false,
        };
        assert_eq!(read(job).unwrap(), Some(expected.clone()));

        let srun = "SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=1 SLURM_LOCALID=1 SLURM_STEP_NODELIST=node[01-02] \
            SLURM_JOB_ID=70001 SLURM_STEP_TASKS_PER_NODE=2(x2) SLURM_RESTART_COUNT=1";
        let expected = Launch {
            launcher: Launcher::Slurm,
            size: 4,
            local_rank: 1,
            local_size: 2,
            host: "node01".to_owned(),
            port: 61440 + 369,
            restarts: 1,
            ..expected
        };
        assert_eq!(read(srun).unwrap(), Some(expected));
        let chosen = read(&format!("{srun} MASTER_ADDR=b MASTER_PORT=7")).unwrap();
        let chosen = chosen.unwrap();
        assert_eq!((chosen.host.as_str(), chosen.port), ("b", 7));

        let trainer = "PET_NNODES=2 PET_NPROC_PER_NODE=1 PET_NODE_RANK=1 PET_MASTER_ADDR=a PET_MASTER_PORT=29400";
        let launch = read(trainer).unwrap().unwrap();
        assert_eq!(
            (launch.launcher, launch.rank, launch.size, launch.port),
            (Launcher::Trainer, 1, 2, 29400)
        );
        let error = read(&trainer.replace("NODE=1", "NODE=2")).unwrap_err();
        assert!(
            error.to_string().contains("torchrun --no-python"),
            "{error}"
        );
    }

    #[test]
    fn each_process_of_a_host_has_a_gpu_of_its_own() {
        use DeviceChoice::{Auto, Cpu, Cuda};
        let own = |local: &str, choice, count| {
            let all = format!("RANK=5 WORLD_SIZE=8 MASTER_ADDR=a MASTER_PORT=9 {local}");
            let launch = read(&all).unwrap().unwrap();
            let own = launch.own(choice, count);
            own.map_err(|error| error.to_string())
        };
        let second = "LOCAL_RANK=1 LOCAL_WORLD_SIZE=4";
        assert_eq!(own(second, Auto, 4), Ok(Cuda(1)));
        // None, or one that the launcher has chosen.
        assert_eq!(own(second, Auto, 0), Ok(Auto));
        assert_eq!(own(second, Auto, 1), Ok(Auto));
        assert_eq!(own(second, Cpu, 4), Ok(Cpu));
        assert_eq!(own("", Auto, 2), Ok(Cuda(0)));
        assert_eq!(own("", Cuda(1), 2), Ok(Cuda(1)));
        assert_eq!(
            own("LOCAL_RANK=2 LOCAL_WORLD_SIZE=3", Auto, 2),
            Err("it is process 3 on its host, which has 2 GPUs: start one for each GPU, or add --device cpu".to_owned())
        );
        assert_eq!(
            own(second, Cuda(0), 4),
            Err("4 processes on a host cannot share cuda:0: leave --device out, and each takes a GPU of its own".to_owned())
        );
    }

    #[test]
    fn one_process_is_alone() {
        for environment in [
            "",
            "RANK=0 WORLD_SIZE=1 MASTER_ADDR=a MASTER_PORT=1",
            // A batch script, and a shell that srun has started.
            "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_ID=1",
            "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=4 SLURM_STEP_NODELIST=a",
            "PET_NNODES=1 PET_NODE_RANK=0 PET_MASTER_ADDR=a PET_MASTER_PORT=1",
        ] {
            assert_eq!(read(environment).unwrap(), None, "{environment}");
        }
    }

    #[test]
    fn variable_that_is_missing_or_wrong_is_named() {
        let all = "RANK=1 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=9";
        for name in ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"] {
            let without: Vec<_> = (all.split(' '))
                .filter(|one| !one.starts_with(name))
                .collect();
            let error = read(&without.join(" ")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is not set")), "{error}");
        }
        for (from, to, said) in [
            (
                "RANK=1",
                "RANK=2",
                "rank 2 of 2: ranks are numbered from 0 to 1",
            ),
            ("RANK=1", "RANK=one", "RANK is \"one\", expected a number"),
            (
                "PORT=9",
                "PORT=99999",
                "MASTER_PORT is \"99999\", expected a number",
            ),
        ] {
            let error = read(&all.replace(from, to)).unwrap_err();
            assert_eq!(error.to_string(), said);
        }
    }

    #[test]
    fn first_host_of_a_list_is_found() {
        for (list, first) in [
            ("a", "a"),
            ("a1,b2", "a1"),
            ("node[01-04,7]", "node01"),
            ("node[3,7-9],other", "node3"),
            ("rack[1-2]n[3-4].lan", "rack1n3.lan"),
        ] {
            assert_eq!(first_host(list), first, "{list}");
        }
    }
}
