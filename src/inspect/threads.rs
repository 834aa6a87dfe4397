//! Native stacks of this process's own threads.
//!
//! What the caller owes: nothing but a thread id. What happens: a thread that
//! runs is sent a signal whose handler copies its registers and stack (see
//! `sys::sampler`); a thread that sleeps in a system call is left asleep.
//! `SA_RESTART` is not enough for it: `nanosleep`, `poll`, `epoll_wait`,
//! `select`, a futex or a socket with a timeout all return `EINTR` after any
//! handler, and the user's blocking call would end early for being watched.
//! Its stack and instruction pointers are read from `/proc` instead, its stack
//! is copied from outside, and the missing frame pointer is worked out (see
//! `unwind`). Calls that do restart transparently take the signal, because a
//! complete set of registers is better than a search. All unwinding and all
//! symbol work happens on the calling thread.
//!
//! What remains, stated plainly:
//! - A thread that runs when looked at can enter a system call before the
//!   signal reaches it, some microseconds later, or be at work inside one. If
//!   that call is one of those that do not restart, it returns `EINTR` or
//!   less than was asked for, which signal(7) obliges every program to
//!   expect; std's I/O traits, `thread::sleep` and tokio do.
//! - A thread that sleeps when looked at can wake while its stack is copied.
//!   The look is repeated after the copy, and the copy thrown away unless the
//!   thread still is in the very same call with the same pointers. It could
//!   have gone round a loop and come back to the identical call meanwhile;
//!   its stack is then that of the same place.
//! - The thread's own record of the task it polls is only in a sample taken
//!   by signal.

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Captured;
use super::modules::{self, Claim, Modules};
use super::unwind::{Walk, Walker};
use super::where_blocked::{self, Whereabouts};
use crate::debuginfo::symbols;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Stack, TaskId};
use crate::sys::sampler::{self, Registers, Sample, slot};
use crate::sys::thread;

/// How long a running thread may take to answer. It answers in microseconds
/// unless no processor is free.
const PATIENCE: Duration = Duration::from_millis(100);
/// Looks at a sleeping thread that keeps waking up, before it is signalled.
const LOOKS: usize = 3;

/// Reads native stacks. One for a profiler; holds the unwind tables and the
/// debug information of the program.
///
/// Debug information takes up to seconds to read, and is read without the
/// lock: stacks are taken meanwhile, and get their names when it is there.
pub struct StackReader {
    inner: Mutex<Reader>,
    /// Told whenever debug information of a file has been read.
    read: Condvar,
}

impl std::fmt::Debug for StackReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StackReader").finish_non_exhaustive()
    }
}

/// What [`StackReader`] guards.
pub(super) struct Reader {
    modules: Modules,
    walker: Walker,
    /// [`StackReader::warm_up`] has come to its end: what is not read by now
    /// is read by whoever needs it.
    warm: bool,
}

impl StackReader {
    /// A reader that has read nothing yet, with the signal handler installed.
    /// [`StackReader::warm_up`] is to follow.
    ///
    /// # Errors
    /// `Unsupported` if every real-time signal is taken.
    pub fn new() -> Result<Self> {
        sampler::install()?;
        Ok(Self { inner: Mutex::new(Reader::new(false)), read: Condvar::new() })
    }

    /// Reads unwind tables and debug information now rather than when the
    /// first stack is wanted. Takes from some milliseconds to seconds, by the
    /// size of the program. Failures show later, in the stacks.
    pub fn warm_up(&self) {
        let _ = self.guarded(|reader| reader.modules.refresh());
        while let Ok(Some(claim)) = self.guarded(|reader| Ok(reader.modules.claim())) {
            self.read(claim);
        }
        let _ = self.guarded(|reader| {
            // The first look-up in a unit parses its lines; do that for the
            // code that is on every stack of ours.
            let here = Self::warm_up as *const () as u64;
            reader.modules.frames(here);
            Ok(())
        });
        self.lock().warm = true;
        self.read.notify_all();
    }

    /// Reads debug information, with nobody kept out meanwhile.
    fn read(&self, claim: Claim) {
        let what = Path::new("the program's debug information");
        let symbols = symbols::guarded(what, || claim.read()).ok().flatten();
        self.lock().modules.hand_in(claim, symbols);
        self.read.notify_all();
    }

    /// The stack of a thread of this process, now.
    ///
    /// # Errors
    /// `NotFound` if there is no such thread; `Timeout` if it runs but does
    /// not answer (it blocks the signal or sleeps uninterruptibly), with the
    /// reason; `Busy` while an earlier copy hangs; `Internal` if a parser of
    /// foreign bytes panicked.
    pub fn capture(&self, tid: u32) -> Result<Captured> {
        let sample = take(tid)?;
        let polled_task = (sample.polled != 0).then_some(TaskId(sample.polled));
        let walk = self.guarded(|reader| reader.walk(sample.registers, &sample.stack))?;
        Ok(Captured { walk, polled_task })
    }

    /// A stack by its names: innermost frame first, inlined functions as frames
    /// of their own. Waits for debug information that is being read until then,
    /// or as long as it takes; `None` if it is still being read then.
    ///
    /// # Errors
    /// `Internal` if a parser of foreign bytes panicked.
    pub fn name(&self, walk: &Walk, until: Option<Instant>) -> Result<Option<Arc<Stack>>> {
        loop {
            let claim = self.guarded(|reader| {
                let ours = reader.warm || until.is_none();
                Ok(if ours { reader.modules.claim_around(&walk.addresses) } else { None })
            })?;
            if let Some(claim) = claim {
                self.read(claim);
                continue;
            }
            let reader = self.lock();
            if reader.modules.can_name(&walk.addresses) {
                break;
            }
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Ok(None),
                Some(left) => drop(self.read.wait_timeout(reader, left)),
                None => drop(self.read.wait(reader)),
            }
        }
        self.guarded(|reader| Ok(Some(Arc::new(walk.stack(&mut reader.modules)))))
    }

    /// Function and `file:line` at an address of the program as linked.
    pub fn symbol(&self, file_address: u64) -> Option<String> {
        let address = self.guarded(|reader| {
            reader.modules.refresh()?;
            Ok(reader.modules.main_address(file_address))
        });
        let walk = Walk { addresses: vec![address.ok()??], truncated: None };
        let stack = self.name(&walk, None).ok()??;
        Some(modules::place(stack.frames.first()?))
    }

    /// Build id of the program in hexadecimal, if its linker left one.
    pub fn build_id(&self) -> Option<String> {
        let id = self.guarded(|reader| {
            reader.modules.refresh()?;
            Ok(reader.modules.build_id())
        });
        id.ok().flatten()
    }

    /// Runs with the reader locked; a panic over foreign bytes is an error.
    pub(super) fn guarded<T>(&self, run: impl FnOnce(&mut Reader) -> Result<T>) -> Result<T> {
        let mut reader = self.lock();
        let result = symbols::guarded(Path::new("the program's code"), || run(&mut reader));
        if result.is_err() {
            // Half-changed caches are not to be trusted.
            *reader = Reader::new(reader.warm);
        }
        result?
    }

    fn lock(&self) -> MutexGuard<'_, Reader> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    fn new(warm: bool) -> Self {
        Self { modules: Modules::new(), walker: Walker::new(), warm }
    }

    /// Addresses of a copied stack. Looks at the mappings again if code shows
    /// up that was not there before.
    pub(super) fn walk(&mut self, registers: Registers, stack: &[u8]) -> Result<Walk> {
        if self.modules.find(registers.ip).is_none() {
            self.modules.refresh()?;
        }
        let walk = self.walker.walk(&self.modules, registers, stack);
        if walk.truncated.is_none() {
            return Ok(walk);
        }
        // Perhaps for a library that was loaded since the last look.
        if self.modules.refresh()? {
            return Ok(self.walker.walk(&self.modules, registers, stack));
        }
        Ok(walk)
    }
}

/// Registers and stack of a thread, by the way that does not disturb it.
fn take(tid: u32) -> Result<Sample> {
    if tid == thread::current_tid() {
        return slot::sample(tid, PATIENCE);
    }
    for _ in 0..LOOKS {
        match where_blocked::look(tid) {
            Ok(asleep) if asleep.pointers().is_some() && !asleep.restarts() => {
                if let Some(sample) = copy_asleep(tid, asleep) {
                    return Ok(sample);
                }
            }
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(not_found(tid));
            }
            // The kernel does not show it: only the signal is left.
            Err(_) => break,
        }
    }
    slot::sample(tid, PATIENCE)
        .map_err(|error| if error.kind() == ErrorKind::Timeout { silent(tid) } else { error })
}

/// Copies the stack of a thread that sleeps; `None` if it did not sleep on.
fn copy_asleep(tid: u32, asleep: Whereabouts) -> Option<Sample> {
    let (ip, sp) = asleep.pointers()?;
    let mut stack = vec![0; sampler::MAX_STACK];
    let len = sampler::read_memory(&mut stack, sp);
    stack.truncate(len);
    if where_blocked::look(tid).ok()? != asleep {
        return None;
    }
    Some(Sample { tid, registers: Registers { ip, sp, bp: None }, polled: 0, weight: 1, stack })
}

fn not_found(tid: u32) -> Error {
    Error::new(ErrorKind::NotFound, format!("this process has no thread {tid} (any more)"))
}

/// Why a thread did not answer the signal, as far as the kernel tells.
fn silent(tid: u32) -> Error {
    let Ok(status) = std::fs::read_to_string(format!("/proc/self/task/{tid}/status")) else {
        return not_found(tid);
    };
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim())
    };
    let state = field("State:").unwrap_or("unknown");
    let blocked = field("SigBlk:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let ours = sampler::install().ok().and_then(|signal| u32::try_from(signal - 1).ok());
    let blocks = matches!((blocked, ours), (Some(mask), Some(bit)) if mask >> bit & 1 == 1);
    let why: Cow<'_, str> = match state.chars().next() {
        Some('D') => "it sleeps in the kernel and cannot be interrupted".into(),
        Some('T' | 't') => "it is stopped".into(),
        _ if blocks => "it blocks all signals".into(),
        _ => format!("its state is {state}").into(),
    };
    Error::new(
        ErrorKind::Timeout,
        format!("thread {tid} did not answer within {} ms: {why}", PATIENCE.as_millis()),
    )
}

#[cfg(test)]
#[path = "threads_tests.rs"]
mod tests;
