//! A timer on the CPU clock of one thread that signals that very thread.
//!
//! CPU clocks only move while their thread runs, so the signal finds it
//! running: a thread asleep in a system call is not disturbed.

use std::time::Duration;

use libc::{c_int, clockid_t, timer_t};

use super::ring::Recording;
use crate::error::{Error, Result};

/// A running timer; deleted when dropped.
#[derive(Debug)]
pub struct CpuTimer(timer_t);

// SAFETY: a timer_t from timer_create is a process-wide number, whatever its
// C type; any thread may delete it.
unsafe impl Send for CpuTimer {}

/// The clock of a thread's CPU time, from clock_getcpuclockid(3) and the
/// kernel's `include/linux/posix-timers_types.h`: the complement of the id,
/// then "per thread" (4) and "scheduler time" (2).
fn cpu_clock(tid: u32) -> clockid_t {
    const PER_THREAD_SCHED: c_int = 0b110;
    (!tid.cast_signed() << 3) | PER_THREAD_SCHED
}

impl CpuTimer {
    /// Starts to signal thread `tid` after each `period` of its CPU time.
    ///
    /// # Errors
    /// `InvalidInput` if the thread has ended; `Io` with EAGAIN if the user's
    /// limit of pending signals (RLIMIT_SIGPENDING) is reached.
    pub fn start(recording: &Recording, tid: u32, period: Duration) -> Result<Self> {
        let signal = super::install()?;
        // SAFETY: sigevent is plain data for which zero is valid; the calls
        // get pointers to live locals of the right types.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal;
            event.sigev_value = libc::sigval { sival_ptr: recording.mark() as *mut _ };
            event.sigev_notify_thread_id = tid.cast_signed();
            let mut timer: timer_t = std::mem::zeroed();
            if libc::timer_create(cpu_clock(tid), &raw mut event, &raw mut timer) != 0 {
                return Err(Error::io("creating a CPU timer", std::io::Error::last_os_error()));
            }
            let timer = Self(timer);
            let every = libc::timespec {
                tv_sec: period.as_secs().cast_signed(),
                tv_nsec: i64::from(period.subsec_nanos()),
            };
            let spec = libc::itimerspec { it_interval: every, it_value: every };
            if libc::timer_settime(timer.0, 0, &raw const spec, std::ptr::null_mut()) != 0 {
                return Err(Error::io("starting a CPU timer", std::io::Error::last_os_error()));
            }
            Ok(timer)
        }
    }
}

impl Drop for CpuTimer {
    fn drop(&mut self) {
        // SAFETY: created by `start`, deleted once. Fails only for timers
        // that do not exist.
        unsafe { libc::timer_delete(self.0) };
    }
}
