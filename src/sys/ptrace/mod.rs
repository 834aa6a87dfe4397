//! Stopping another process for a moment; see ptrace(2).
//!
//! `PTRACE_SEIZE` and `PTRACE_INTERRUPT` send no signal: a target that was
//! stopped stays stopped, one that ran goes on. Without
//! `PTRACE_O_EXITKILL` the kernel lets every thread go on when the tracer
//! ends, however it ends. The tracer is one thread, because that is what the
//! kernel ties a traced thread to; [`Frozen`] cannot leave it.
//!
//! What the target may notice: system calls that a stop interrupts and that
//! do not restart (`epoll_wait` above all) return `EINTR`, as after `SIGSTOP`
//! and `SIGCONT`; signal(7) obliges every program to expect it, and tokio does.

use std::io;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use libc::{c_int, c_void, iovec};

use super::registers::Registers;

mod apart;

pub use apart::apart;

/// Waiting for threads to stop begins with asking again at once for so long:
/// they need microseconds.
const EAGER: Duration = Duration::from_millis(2);

/// A process whose threads stand still; they go on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    threads: Vec<Stopped>,
    /// Only the thread that froze may thaw.
    _this_thread: PhantomData<*const ()>,
}

/// A thread of a frozen process.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// Kernel id.
    pub tid: c_int,
    /// What it stood at; `None` for one that sleeps uninterruptibly in the
    /// kernel and has not stopped.
    pub registers: Option<Full>,
    /// A signal that was on its way when it stopped: delivered at the thaw.
    signal: c_int,
}

/// Registers and the thread pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// What unwinding starts with.
    pub registers: Registers,
    /// `fs` base.
    pub thread_pointer: u64,
}

impl Frozen {
    /// Stops all threads of a process. Waits for each up to the common
    /// deadline; those that sleep uninterruptibly are then left out.
    ///
    /// # Errors
    /// `EPERM`, `ESRCH`; `TimedOut` if not one thread stopped. Nothing is left
    /// stopped.
    pub fn freeze(pid: c_int, patience: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + patience;
        let mut frozen = Self { threads: Vec::new(), _this_thread: PhantomData };
        // Threads that run can start others; once all that are known have
        // stopped and no new one is there, there is none.
        loop {
            let before = frozen.threads.len();
            frozen.seize_new(pid)?;
            if frozen.threads.len() == before {
                break;
            }
            frozen.await_stops(before, deadline);
            if Instant::now() > deadline {
                break;
            }
        }
        if frozen.threads.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        if frozen.threads.iter().all(|thread| thread.registers.is_none()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(frozen)
    }

    /// Its threads.
    pub fn threads(&self) -> &[Stopped] {
        &self.threads
    }

    fn seize_new(&mut self, pid: c_int) -> io::Result<()> {
        let known = self.threads.len();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if self.threads[..known].iter().any(|thread| thread.tid == tid) {
                continue;
            }
            match request(libc::PTRACE_SEIZE, tid, 0) {
                Ok(()) => {}
                // Ended meanwhile, or a main thread that ended before the others.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => continue,
                Err(_) if ended(pid, tid) => continue,
                Err(error) => return Err(error),
            }
            self.threads.push(Stopped { tid, registers: None, signal: 0 });
            // Fails only for a thread that is ending.
            let _ = request(libc::PTRACE_INTERRUPT, tid, 0);
        }
        Ok(())
    }

    /// Waits for the threads from `first` on; forgets those that ended.
    fn await_stops(&mut self, first: usize, deadline: Instant) {
        let begin = Instant::now();
        let mut waiting: Vec<usize> = (first..self.threads.len()).collect();
        let mut gone = Vec::new();
        loop {
            waiting.retain(|&index| {
                let thread = &mut self.threads[index];
                match stop_of(thread.tid) {
                    Ok(None) => true,
                    Ok(Some(Stop::Stopped { signal })) => {
                        thread.signal = signal;
                        thread.registers = registers(thread.tid).ok();
                        false
                    }
                    Ok(Some(Stop::Ended)) | Err(_) => {
                        gone.push(index);
                        false
                    }
                }
            });
            if waiting.is_empty() || Instant::now() > deadline {
                break;
            }
            if begin.elapsed() < EAGER {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        gone.sort_unstable();
        for index in gone.into_iter().rev() {
            self.threads.swap_remove(index);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for thread in &self.threads {
            // A thread that has not stopped cannot be let go of explicitly;
            // the kernel does that when the tracing thread ends.
            let _ = request(libc::PTRACE_DETACH, thread.tid, thread.signal as usize);
        }
    }
}

enum Stop {
    Stopped { signal: c_int },
    Ended,
}

/// Whether a traced thread has stopped yet.
fn stop_of(tid: c_int) -> io::Result<Option<Stop>> {
    let mut status = 0;
    // SAFETY: the pointer is to a local variable.
    match unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) } {
        0 => Ok(None),
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            error => Err(error),
        },
        _ if libc::WIFSTOPPED(status) => {
            // Above the signal is the event; stops of our own making and group
            // stops have one, a signal about to be delivered has none.
            let event = status >> 16;
            let signal = if event == 0 { libc::WSTOPSIG(status) } else { 0 };
            Ok(Some(Stop::Stopped { signal }))
        }
        _ => Ok(Some(Stop::Ended)),
    }
}

/// Whether a thread is a zombie or gone.
fn ended(pid: c_int, tid: c_int) -> bool {
    let Ok(stat) = std::fs::read(format!("/proc/{pid}/task/{tid}/stat")) else { return true };
    let Some(name_end) = stat.iter().rposition(|&byte| byte == b')') else { return false };
    matches!(stat.get(name_end + 2), Some(b'Z' | b'X'))
}

fn request(request: libc::c_uint, tid: c_int, data: usize) -> io::Result<()> {
    // SAFETY: the requests used here take no pointers and touch no memory of
    // this process.
    let answer = unsafe {
        libc::ptrace(request as _, tid, std::ptr::null_mut::<c_void>(), data as *mut c_void)
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn registers(tid: c_int) -> io::Result<Full> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut found: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let mut place =
        iovec { iov_base: (&raw mut found).cast(), iov_len: size_of::<libc::user_regs_struct>() };
    // SAFETY: the kernel writes at most `iov_len` bytes to `found`.
    let answer = unsafe {
        libc::ptrace(
            libc::PTRACE_GETREGSET as _,
            tid,
            libc::NT_PRSTATUS as usize as *mut c_void,
            (&raw mut place).cast::<c_void>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // A 32-bit thread has fewer and shorter ones.
    if place.iov_len != size_of::<libc::user_regs_struct>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(Full {
        registers: Registers { ip: found.rip, sp: found.rsp, bp: Some(found.rbp) },
        thread_pointer: found.fs_base,
    })
}

#[cfg(test)]
mod tests;
