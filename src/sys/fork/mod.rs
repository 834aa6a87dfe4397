//! A copy-on-write copy of this process that does nothing but hold still.
//!
//! What `fork` does is done with fewer side effects by a bare `clone`:
//! - `CLONE_FILES`: the copy shares the table of open files instead of
//!   getting one of its own, so that a socket closed by the server is closed.
//! - Exit signal 0: no `SIGCHLD` comes when it ends, and only a `wait` with
//!   `__WALL` or `__WCLONE` finds it. A server that waits for any child does
//!   not meet ours.
//! - No `pthread_atfork` handler runs, no lock of libc or of the allocator is
//!   touched: the copy never enters libc.
//! - `CLONE_UNTRACED`: a debugger of the server does not catch it.
//!
//! The copy has all signals blocked, sleeps, and ends at the first of: being
//! told to by its handle, see [`release`]; its deadline; the end of the
//! process (the kernel kills it with the thread that made it, which is one of
//! ours that lives as long as the handle). It is the first to go when memory
//! runs out.
//!
//! What it shows is one instant for all threads: whoever writes during the
//! call either wrote before the copy was complete or waits until it is.

mod child;
pub mod leave_out;
mod release;

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libc::c_int;

use super::remote::Mem;
use crate::error::{Error, ErrorKind, Result};
use child::{Pipes, Way};
use leave_out::LeaveOut;
use release::Word;

/// Room for the thread that makes the copy: it makes a handful of calls.
const STACK: usize = 128 * 1024;

/// So long a copy may take to end when it is told to; it is killed then.
const PATIENCE: Duration = Duration::from_millis(500);

/// There is one copy at a time: each costs memory for what changes meanwhile.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// This system does not let us read the copy from outside.
static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// The copy; ends when dropped.
#[derive(Debug)]
pub struct Copy {
    reading: Reading,
    deadline: Instant,
    left_out: bool,
    alive: Alive,
    /// Dropped last.
    _only: Only,
}

/// The process; ended when dropped.
#[derive(Debug)]
struct Alive {
    pid: c_int,
    /// Tells it to end, if that is how it does.
    word: Option<Word>,
    /// Dropped to let the keeper end.
    leave: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

/// How it is to be read.
enum Reader {
    /// With where its memory is.
    FromOutside(Vec<Range<u64>>),
    Asking(Pipes),
}

/// How it is read.
#[derive(Debug)]
enum Reading {
    FromOutside(Mem),
    /// By asking it, where reading it is forbidden: a seccomp filter, a
    /// security module, or a process that is not "dumpable".
    Asking(Pipes),
}

#[derive(Debug)]
struct Only;

impl Only {
    fn claim() -> Result<Self> {
        if TAKEN.swap(true, Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Busy, "a copy of this process's memory is in use"));
        }
        Ok(Self)
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

impl Copy {
    /// Copies this process without the regions to leave out. The copy ends by
    /// itself after `life`. `memory` is where its private memory is, as far as
    /// it is known: what is large of it is given back piece by piece when the
    /// handle is dropped.
    ///
    /// # Errors
    /// `Busy` while another copy lives, `OutOfMemory` or `Permission` where
    /// the system refuses.
    pub fn new(life: Duration, memory: Vec<Range<u64>>, mut leave_out: LeaveOut) -> Result<Self> {
        if !FORBIDDEN.load(Ordering::Relaxed) {
            match Self::start(life, Reader::FromOutside(memory), leave_out, Only::claim()?) {
                Err(error) if error.kind() == ErrorKind::Permission => {}
                made => return made,
            }
            FORBIDDEN.store(true, Ordering::Relaxed);
            leave_out = LeaveOut::nothing();
        }
        let pipes = Pipes::open().map_err(refused)?;
        Self::start(life, Reader::Asking(pipes), leave_out, Only::claim()?)
    }

    fn start(life: Duration, reader: Reader, leave_out: LeaveOut, only: Only) -> Result<Self> {
        let deadline = Instant::now() + life;
        let (word, pipes, way) = match reader {
            Reader::FromOutside(memory) => {
                let word = Word::new().map_err(refused)?;
                let way = Way::Sleep { word: word.address(), memory };
                (Some(word), None, way)
            }
            Reader::Asking(pipes) => {
                let ends = pipes.of_the_copy();
                (None, Some(pipes), Way::Answer(ends))
            }
        };
        let (tell, told) = mpsc::sync_channel(1);
        let (leave, left) = mpsc::channel::<()>();
        let keeper = std::thread::Builder::new()
            .name("taskprof-copy".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let _ = tell.send(leave_out.during(|| child::start(life, way)));
                // An error: the handle is gone, as is meant.
                let _ = left.recv();
            })
            .map_err(refused)?;
        let (started, left_out) =
            told.recv().unwrap_or_else(|_| (Err(io::ErrorKind::Other.into()), false));
        let pid = match started {
            Ok(pid) => pid,
            Err(error) => {
                drop(leave);
                let _ = keeper.join();
                return Err(refused(error));
            }
        };
        let alive = Alive { pid, word, leave: Some(leave), keeper: Some(keeper) };
        // Raising one's own score is always permitted; where /proc is not
        // mounted, the copy is merely no better a victim than the server.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "1000");
        let reading = match pipes {
            Some(pipes) => Reading::Asking(pipes),
            None => Reading::FromOutside(from_outside(&alive)?),
        };
        Ok(Self { reading, deadline, left_out, alive, _only: only })
    }

    /// Whether the regions to leave out were left out.
    pub fn left_out(&self) -> bool {
        self.left_out
    }

    /// Process id of the copy.
    pub fn pid(&self) -> c_int {
        self.alive.pid
    }

    /// Copies bytes; the error is how many there were before the first page
    /// that is not there, or none if the copy has ended.
    ///
    /// # Errors
    /// As said.
    pub fn read(&mut self, from: u64, to: &mut [u8]) -> std::result::Result<(), usize> {
        match &mut self.reading {
            Reading::FromOutside(mem) => mem.read(from, to),
            Reading::Asking(pipes) => pipes.read(from, to, self.deadline),
        }
    }
}

/// Its memory, if it may be read.
fn from_outside(alive: &Alive) -> Result<Mem> {
    let mem = Mem::open(alive.pid).map_err(unopened)?;
    if mem.read((&raw const TAKEN) as u64, &mut [0]).is_ok() {
        return Ok(mem);
    }
    // One that was killed at once has no memory either.
    let number = if alive.ends_within(PATIENCE) { libc::ESRCH } else { libc::EACCES };
    Err(unopened(io::Error::from_raw_os_error(number)))
}

/// Why its memory cannot be opened: `Permission` if it never can be here, for
/// which there is another way; any other failure is of this once.
fn unopened(error: io::Error) -> Error {
    match error.raw_os_error() {
        // ENOENT: there is no /proc.
        Some(libc::EACCES | libc::EPERM | libc::ENOENT) => {
            Error::new(ErrorKind::Permission, "reading a copy of this process").with_source(error)
        }
        _ => refused(error),
    }
}

impl Alive {
    /// Whether it ends in this time. It stays a zombie, to be waited for.
    fn ends_within(&self, patience: Duration) -> bool {
        // SAFETY: the process is our child and not waited for yet, so the
        // number is still its own.
        let Ok(opened) =
            c_int::try_from(unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) })
        else {
            return false;
        };
        if opened < 0 {
            return false;
        }
        // SAFETY: just opened, and nobody else's.
        let process = unsafe { OwnedFd::from_raw_fd(opened) };
        let deadline = Instant::now() + patience;
        child::wait_readable(process.as_fd(), deadline).is_ok()
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(word) = &self.word {
            word.tell();
            self.ends_within(PATIENCE);
        }
        // SAFETY: the process is our child and not waited for yet, so the
        // number is still its own; the calls touch no memory.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            while libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL) < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
        drop(self.leave.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Why the system did not make a copy, and what to do about it.
fn refused(error: io::Error) -> Error {
    let (kind, text) = match error.raw_os_error() {
        Some(libc::ENOMEM) => (
            ErrorKind::OutOfMemory,
            "the system has no memory for a copy-on-write copy of this process (a memory limit, or vm.overcommit_memory = 2)",
        ),
        Some(libc::EAGAIN) => (
            ErrorKind::OutOfMemory,
            "the system allows no further process for a copy of this one (ulimit -u, or the pids limit of the control group)",
        ),
        Some(libc::EMFILE | libc::ENFILE) => {
            (ErrorKind::OutOfMemory, "no file descriptors are left (ulimit -n)")
        }
        Some(libc::EPERM | libc::EACCES) => (
            ErrorKind::Permission,
            "copying this process is forbidden here (a seccomp filter refuses clone)",
        ),
        Some(libc::ENOSYS) => {
            (ErrorKind::Unsupported, "this system cannot copy a process (a sandbox without clone)")
        }
        _ => (ErrorKind::Io, "copying this process"),
    };
    Error::new(kind, text).with_source(error)
}

#[cfg(test)]
mod tests;
