//! A process that knows nothing of taskprof, or the core that one left, as a
//! source of snapshots.
//!
//! Nothing in the target is changed and none of its code runs: its threads
//! are stopped for as long as its memory is copied, everything else happens
//! afterwards. What needs hooks is absent and said to be: times are lower
//! bounds between snapshots, polls are not counted.

mod lately;
mod snapshot;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::analyze::Trend;
use crate::debuginfo::layout::{self, Detail, Layouts, Options};
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::image::stacks::NativeStacks;
use crate::inspect::image::{Image, core, other};
use crate::inspect::since::Since;
use crate::inspect::tasks::{self, Limits, Roots, TasksRead};
use crate::model::{CpuProfile, Missing, Process, Reason, Snapshot};
use crate::serve::{LogTarget, Source, Want};

pub use crate::inspect::image::other::Limits as CopyLimits;
pub use lately::Lately;

enum Of {
    Process { program: other::Program, limits: CopyLimits },
    Core { core: PathBuf, exe: PathBuf },
}

/// Something to take snapshots of.
pub struct Target {
    of: Of,
    process: Process,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    layouts: Box<dyn Layouts>,
    /// Made with the first image, which knows the program's files.
    stacks: Option<NativeStacks>,
    /// What is missing of the debug information.
    remark: Option<String>,
    since: Since,
    trend: Trend,
    /// For how long the last image stopped the process.
    frozen_ns: u64,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Target {
    /// The program that a process runs now. It is not touched before the
    /// first snapshot.
    ///
    /// # Errors
    /// `NotFound` if there is none or it has ended, `Permission`, and
    /// `Unsupported` for a program without debug information or without tokio.
    pub fn process(pid: i32, options: &Options, limits: CopyLimits) -> Result<Self> {
        let program = other::Program::of(pid.cast_unsigned())?;
        let exe = PathBuf::from(format!("/proc/{pid}/exe"));
        let path = program.path()?;
        let of = Of::Process { program, limits };
        Self::new(of, pid.cast_unsigned(), &exe, &path, options)
    }

    /// A core dump and the program that left it.
    ///
    /// # Errors
    /// `NotFound`, `Malformed` for damaged files, `InvalidInput` if they do
    /// not belong together, `Unsupported` as for a process.
    pub fn core(core: &Path, exe: &Path, options: &Options) -> Result<Self> {
        let of = Of::Core { core: core.into(), exe: exe.into() };
        Self::new(of, 0, exe, exe, options)
    }

    fn new(of: Of, pid: u32, exe: &Path, path: &Path, options: &Options) -> Result<Self> {
        let layout::Opened { mut layouts, remark, has_types, .. } = layout::open(exe, options)?;
        if layouts.detail() == Detail::Nothing || layouts.task_polls().is_empty() {
            let what = match has_types {
                true => "has debug information but no tokio task in it",
                false => "has no debug information of tokio's tasks",
            };
            let remark = remark.map(|remark| format!(" ({remark})")).unwrap_or_default();
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{} {what}{remark}: if it uses tokio, build it with debug = \"full\", or give \
                     --debug-file, or --layout with what `taskprof index` wrote before it was \
                     stripped; tokio in a shared library is not looked for",
                    path.display()
                ),
            ));
        }
        let build_id = crate::debuginfo::elf::Elf::open(exe)?.build_id;
        let process = Process {
            name: path.file_name().unwrap_or_default().to_string_lossy().as_ref().into(),
            pid,
            boot_id: format!("{:016x}", identity(pid, path)).into(),
            build_id: build_id.map(Into::into),
            executable: path.to_string_lossy().as_ref().into(),
            uptime_ns: 0,
        };
        let state = Mutex::new(State {
            layouts,
            stacks: None,
            remark,
            since: Since::default(),
            trend: Trend::default(),
            frozen_ns: 0,
        });
        Ok(Self { of, process, began: Instant::now(), state })
    }

    /// Whether the process still runs the program. A core always does.
    ///
    /// # Errors
    /// `NotFound` if it has ended, or runs another one by now; `Permission` if
    /// that can no longer be told.
    pub fn check(&self) -> Result<()> {
        match &self.of {
            Of::Process { program, .. } => program.check(),
            Of::Core { .. } => Ok(()),
        }
    }

    /// For how long the last snapshot stopped the process; 0 for a core.
    pub fn frozen_ns(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).frozen_ns
    }

    fn image(&self) -> Result<Image> {
        match &self.of {
            Of::Process { program, limits } => other::take(program, *limits),
            Of::Core { core, exe } => core::open(core, exe),
        }
    }

    fn read(&self, layouts: &mut dyn Layouts) -> Result<(Image, TasksRead)> {
        let mut image = self.image()?;
        let roots = Roots {
            handles: Vec::new(),
            search: true,
            strays: Vec::new(),
            // A core does not tell the time.
            monotonic_ns: (image.taken_ns != 0).then_some(image.taken_ns),
            process: matches!(self.of, Of::Process { .. }).then_some(image.pid),
        };
        let limits = Limits { deadline: Some(Instant::now() + DECODING), ..Limits::default() };
        let read = tasks::read(&mut image, layouts, &roots, &limits)?;
        Ok((image, read))
    }

    fn uptime_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Decoding an image stops here and says so: a million tasks take seconds,
/// and damaged memory must not keep it for ever.
const DECODING: Duration = Duration::from_secs(60);

/// Images taken until one is whole: see [`TasksRead::short`].
const ATTEMPTS: u32 = 4;

/// Drawn at random, as a profiler inside would.
fn identity(pid: u32, path: &Path) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one((pid, path))
}

impl Source for Target {
    fn process(&self) -> Process {
        Process { uptime_ns: self.uptime_ns(), ..self.process.clone() }
    }

    fn command_line(&self) -> Vec<String> {
        let arguments = match &self.of {
            Of::Process { program, .. } => {
                std::fs::read(format!("/proc/{}/cmdline", program.pid())).unwrap_or_default()
            }
            Of::Core { .. } => return vec![self.process.executable.to_string()],
        };
        // Each ends with a NUL.
        let arguments = arguments.strip_suffix(b"\0").unwrap_or(&arguments);
        let arguments = arguments.split(|&byte| byte == 0);
        arguments.map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
    }

    fn snapshot(&self, _want: Want) -> Result<Snapshot> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let (mut image, mut read) = self.read(state.layouts.as_mut())?;
        for _ in 1..ATTEMPTS {
            if matches!(self.of, Of::Core { .. }) || read.short() == 0 {
                break;
            }
            (image, read) = self.read(state.layouts.as_mut())?;
        }
        state.frozen_ns = image.frozen_ns;
        let stacks = state.stacks.get_or_insert_with(|| NativeStacks::new(&image.origin));
        let polls = |tid| read.polling.iter().any(|&(polling, _)| polling == tid);
        // Without them the tasks that run have no stack, and that is said.
        let native = stacks.read(&mut image, polls).unwrap_or_default();
        let threads = snapshot::threads(&image, &read, &native);
        let mut snapshot = snapshot::of(self.process(), read, threads);
        state.since.observe(self.uptime_ns(), &mut snapshot.tasks);
        if let Some(remark) = &state.remark {
            snapshot.coverage.missing.push(Missing {
                reason: Reason::NoDebugInfo,
                count: 0,
                detail: remark.clone(),
            });
        }
        snapshot.history = state.trend.observe(&snapshot);
        Ok(snapshot)
    }

    fn cpu_profile(
        &self,
        _duration: Duration,
        _stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<CpuProfile> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "a CPU profile needs taskprof inside the process; for another one use perf",
        ))
    }

    /// Once there is a snapshot.
    fn symbol(&self, address: u64) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.stacks.as_mut()?.symbol(address)
    }

    fn log_streams(&self, _target: &LogTarget, _on: bool) -> Result<usize> {
        Err(Error::new(ErrorKind::NotFound, "streams are only known inside the process"))
    }
}
