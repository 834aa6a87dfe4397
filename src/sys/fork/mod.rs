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
//! killed by its handle; its deadline; the end of the process (the kernel
//! kills it with the thread that made it, which is one of ours that lives as
//! long as the handle). It is the first to go when memory runs out.
//!
//! What it shows is one instant for all threads: whoever writes during the
//! call either wrote before the copy was complete or waits until it is.

mod child;
pub mod leave_out;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libc::c_int;

use super::remote;
use crate::error::{Error, ErrorKind, Result};
use child::{Pipes, Way};
use leave_out::LeaveOut;

/// Room for the thread that makes the copy: it makes a handful of calls.
const STACK: usize = 128 * 1024;

/// There is one copy at a time: each costs memory for what changes meanwhile.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// This system does not let us read the copy from outside.
static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// The copy; ends when dropped.
#[derive(Debug)]
pub struct Copy {
    pid: c_int,
    /// Asks the copy itself for bytes, where reading it is forbidden.
    pipes: Option<Pipes>,
    deadline: Instant,
    left_out: bool,
    /// Dropped to let the keeper end.
    leave: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
    /// Dropped last.
    _only: Only,
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
    /// itself after `life`.
    ///
    /// # Errors
    /// `Busy` while another copy lives, `OutOfMemory` or `Permission` where
    /// the system refuses.
    pub fn new(life: Duration, leave_out: LeaveOut) -> Result<Self> {
        let only = Only::claim()?;
        if FORBIDDEN.load(Ordering::Relaxed) {
            return Self::start(life, Some(Pipes::open().map_err(refused)?), leave_out, only);
        }
        let copy = Self::start(life, None, leave_out, only)?;
        match remote::read(copy.pid, (&raw const TAKEN) as u64, &mut [0]) {
            Ok(()) => Ok(copy),
            // A seccomp filter, a security module, or a process that is not
            // "dumpable": the copy has to tell by itself.
            Err(_) => {
                FORBIDDEN.store(true, Ordering::Relaxed);
                drop(copy);
                let pipes = Pipes::open().map_err(refused)?;
                Self::start(life, Some(pipes), LeaveOut::nothing(), Only::claim()?)
            }
        }
    }

    fn start(
        life: Duration,
        pipes: Option<Pipes>,
        leave_out: LeaveOut,
        only: Only,
    ) -> Result<Self> {
        let deadline = Instant::now() + life;
        let way = match &pipes {
            None => Way::Sleep,
            Some(pipes) => Way::Answer(pipes.of_the_copy()),
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
        // Raising one's own score is always permitted; where /proc is not
        // mounted, the copy is merely no better a victim than the server.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "1000");
        Ok(Self {
            pid,
            pipes,
            deadline,
            left_out,
            leave: Some(leave),
            keeper: Some(keeper),
            _only: only,
        })
    }

    /// Whether the regions to leave out were left out.
    pub fn left_out(&self) -> bool {
        self.left_out
    }

    /// Process id of the copy.
    pub fn pid(&self) -> c_int {
        self.pid
    }

    /// Copies bytes; the error is how many there were before the first page
    /// that is not there, or none if the copy has ended.
    ///
    /// # Errors
    /// As said.
    pub fn read(&mut self, from: u64, to: &mut [u8]) -> std::result::Result<(), usize> {
        match &mut self.pipes {
            None => remote::read(self.pid, from, to),
            Some(pipes) => pipes.read(from, to, self.deadline),
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
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
