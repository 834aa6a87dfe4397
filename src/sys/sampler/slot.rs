//! One thread, now: ask it for a sample and wait for a bounded time.
//!
//! ```text
//!          ask                 handler begins           handler ends
//!   FREE ───────▶ ARMED(ticket) ─────────▶ WRITING(ticket) ─────▶ READY(ticket)
//!    ▲                │ deadline                  │ deadline          │
//!    ├────────────────┘                           ▼                   │
//!    │              the buffer stays the handler's until it says READY│
//!    └────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A handler that runs late finds another ticket, or none, and leaves. A
//! handler that began but was held up (a stopped process) keeps the buffer:
//! others wait for it a while and are then told that sampling is busy.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libc::{c_int, ucontext_t};

use super::{Buffer, Info, MAX_STACK, Sample};
use crate::error::{Error, ErrorKind, Result};

static BUFFER: Buffer<MAX_STACK> = Buffer::new();
/// Ticket in the upper 30 bits, phase in the lower 2. A wrapped ticket could
/// only be mistaken by a signal that is late by 2^30 samples.
static STATE: AtomicU32 = AtomicU32::new(FREE);
/// One asker at a time.
static ASKER: Mutex<u32> = Mutex::new(0);

const FREE: u32 = 0;
const ARMED: u32 = 1;
const WRITING: u32 = 2;
const READY: u32 = 3;

/// Samples a thread of this process by signal.
///
/// # Errors
/// `NotFound` if there is no such thread, `Timeout` if it did not take the
/// signal in time (it blocks signals or sleeps uninterruptibly), `Busy` while
/// an earlier handler still writes, `Unsupported` without a free signal.
pub fn sample(tid: u32, patience: Duration) -> Result<Sample> {
    let signal = super::install()?;
    let mut last = ASKER.lock().unwrap_or_else(PoisonError::into_inner);
    let deadline = Instant::now() + patience;
    // A handler that an earlier asker gave up on may be at work still, if its
    // thread got no processor meanwhile.
    loop {
        let state = STATE.load(Ordering::Acquire);
        if state & 3 != WRITING {
            break;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(ErrorKind::Busy, "an earlier stack copy has not ended yet"));
        }
        wait_for_change(state, left);
    }
    *last = last.wrapping_add(1) & (u32::MAX >> 2);
    let ticket = *last << 2;
    STATE.store(ticket | ARMED, Ordering::Release);
    if let Err(error) = queue(signal, tid, ticket.into()) {
        STATE.store(FREE, Ordering::Release);
        return Err(error);
    }
    // Its time begins with the question.
    let deadline = Instant::now() + patience;
    loop {
        let state = STATE.load(Ordering::Acquire);
        if state == ticket | READY {
            // SAFETY: READY with our ticket: the handler has let go, and we
            // hold the askers' lock.
            let sample = unsafe { BUFFER.take() };
            STATE.store(FREE, Ordering::Release);
            return Ok(sample);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // ARMED: taken back, a late handler finds no ticket. WRITING: the
            // handler keeps the buffer. READY: it came just now.
            let armed = ticket | ARMED;
            let unarmed = STATE.compare_exchange(armed, FREE, Ordering::AcqRel, Ordering::Acquire);
            if unarmed == Err(ticket | READY) {
                continue;
            }
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("thread {tid} did not take the sampling signal within {patience:?}"),
            ));
        }
        wait_for_change(state, left);
    }
}

/// Called in the handler.
pub(super) fn on_signal(value: u64, context: &ucontext_t) {
    let Ok(ticket) = u32::try_from(value) else { return };
    let mine = STATE.compare_exchange(
        ticket | ARMED,
        ticket | WRITING,
        Ordering::AcqRel,
        Ordering::Relaxed,
    );
    if mine.is_err() {
        return;
    }
    // SAFETY: WRITING with the current ticket: the buffer is ours.
    unsafe { BUFFER.fill(context, 1) };
    STATE.store(ticket | READY, Ordering::Release);
    // SAFETY: a futex wake on a static; async-signal-safe bare syscall.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            STATE.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        );
    }
}

fn wait_for_change(seen: u32, at_most: Duration) {
    let timeout = libc::timespec {
        tv_sec: at_most.as_secs().cast_signed(),
        tv_nsec: i64::from(at_most.subsec_nanos()),
    };
    // SAFETY: a futex wait on a static with a live relative timeout. Early
    // returns are harmless: the caller looks again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            STATE.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            seen,
            &raw const timeout,
        );
    }
}

fn queue(signal: c_int, tid: u32, value: u64) -> Result<()> {
    // SAFETY: getpid and getuid cannot fail.
    let (pid, uid) = unsafe { (libc::getpid(), libc::getuid()) };
    let info = Info {
        signo: signal,
        errno: 0,
        code: libc::SI_QUEUE,
        pad: 0,
        pid_or_timer: pid,
        uid_or_overrun: uid.cast_signed(),
        value,
        rest: [0; 12],
    };
    // SAFETY: `info` is a complete siginfo_t; the thread group is our own, so
    // no other process can be hit.
    let failed =
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, signal, &raw const info) };
    if failed == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ESRCH | libc::EINVAL) => {
            Err(Error::new(ErrorKind::NotFound, format!("this process has no thread {tid}")))
        }
        _ => Err(Error::io(format!("signalling thread {tid}"), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::thread::current_tid;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn a_thread_can_sample_itself() {
        let here = 0_u64;
        let sample = sample(current_tid(), PATIENCE).unwrap();
        assert_eq!(sample.tid, current_tid());
        let sp = sample.registers.sp;
        let stack = sp..sp + sample.stack.len() as u64;
        assert!(stack.contains(&(&raw const here as u64)), "{stack:x?}");
    }

    #[test]
    fn the_polled_task_travels_with_the_sample() {
        crate::sys::current::get().task.set(4711);
        let sample = sample(current_tid(), PATIENCE).unwrap();
        crate::sys::current::get().task.set(0);
        assert_eq!(sample.polled, 4711);
    }

    #[test]
    fn a_thread_that_is_gone_is_not_found() {
        let tid = std::thread::spawn(current_tid).join().unwrap();
        // The kernel reaps a joined thread a moment after join returns.
        while crate::sys::thread::name(tid).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(sample(tid, PATIENCE).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_thread_that_blocks_signals_ends_in_a_timeout_and_does_no_harm_later() {
        let (tell, told) = std::sync::mpsc::channel();
        let (go, may_go) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            // SAFETY: plain signal masks on this thread only.
            unsafe {
                let mut all: libc::sigset_t = std::mem::zeroed();
                libc::sigfillset(&raw mut all);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
                tell.send(current_tid()).unwrap();
                may_go.recv().unwrap();
                // The late signal is delivered here and must be ignored.
                libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const all, std::ptr::null_mut());
            }
        });
        let tid = told.recv().unwrap();
        let error = sample(tid, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let mine = sample(current_tid(), PATIENCE).unwrap();
        assert_eq!(mine.tid, current_tid());
        go.send(()).unwrap();
        thread.join().unwrap();
    }
}
