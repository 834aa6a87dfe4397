//! Samples of running threads: a signal whose handler copies, and no more.
//!
//! The handler copies registers, the polled task and stack bytes into memory
//! that is there already, and returns. It never unwinds, allocates, locks or
//! waits; `errno` is as it was. Whoever asked unwinds the copy at leisure.
//!
//! Two askers share one signal and tell each other apart by its origin:
//! [`slot`] (one thread, queued by us, `SI_QUEUE`) and [`ring`] (timers on
//! the CPU clocks of all threads, `SI_TIMER`).
//!
//! The signal is a real-time one that nobody has claimed (its action is
//! `SIG_DFL` when we come). The action stays installed for good: a signal
//! may still be on its way when the last asker has gone, and its default
//! action would end the process. `SA_RESTART` lets interrupted calls go on
//! where the kernel can do that; where it cannot (`poll`, `nanosleep`, ...),
//! the askers avoid signalling at all, see `inspect::threads`.

pub mod ring;
pub mod slot;
pub mod timer;

use std::cell::UnsafeCell;
use std::sync::OnceLock;

use libc::{c_int, c_void, siginfo_t, ucontext_t};

pub use super::registers::Registers;
use super::{copy, current};
use crate::error::{Error, ErrorKind, Result};

/// A copied stack, ready to be unwound.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The thread.
    pub tid: u32,
    /// Its registers.
    pub registers: Registers,
    /// The task it polled, 0 for none.
    pub polled: u64,
    /// How many timer expirations this stands for.
    pub weight: u64,
    /// The stack from `registers.sp` upward.
    pub stack: Vec<u8>,
}

/// Reads memory of this process; how many bytes could be read.
pub fn read_memory(to: &mut [u8], from: u64) -> usize {
    copy::read_own(to, from)
}

/// The most stack that one sample may hold.
pub const MAX_STACK: usize = copy::MAX_COPY;

/// Installs the handler, once; the signal's number.
///
/// # Errors
/// `Unsupported` if every real-time signal is taken.
pub fn install() -> Result<c_int> {
    static SIGNAL: OnceLock<Option<c_int>> = OnceLock::new();
    let signal = *SIGNAL.get_or_init(|| {
        copy::prepare();
        // Applications count up from SIGRTMIN; begin at the other end.
        (libc::SIGRTMIN()..libc::SIGRTMAX()).rev().find(|&signal| claim(signal))
    });
    signal.ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "no free real-time signal for sampling stacks")
    })
}

/// Installs the handler for one signal if nobody has.
fn claim(signal: c_int) -> bool {
    // SAFETY: both structs are plain data for which zero is a valid value;
    // the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, std::ptr::null(), &raw mut before) != 0
            || before.sa_sigaction != libc::SIG_DFL
        {
            return false;
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        // SA_ONSTACK: a thread deep in recursion has no room for a signal
        // frame; std gives its threads an alternate stack.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigfillset(&raw mut action.sa_mask);
        if libc::sigaction(signal, &raw const action, &raw mut before) != 0 {
            return false;
        }
        if before.sa_sigaction != libc::SIG_DFL {
            // Someone claimed it between the two calls: give it back.
            libc::sigaction(signal, &raw const before, std::ptr::null_mut());
            return false;
        }
        true
    }
}

/// `siginfo_t` of queued and timer signals on 64-bit Linux, as in the
/// kernel's `include/uapi/asm-generic/siginfo.h`.
#[repr(C)]
struct Info {
    signo: c_int,
    errno: c_int,
    code: c_int,
    pad: c_int,
    /// `SI_QUEUE`: sender's process id. `SI_TIMER`: the timer.
    pid_or_timer: c_int,
    /// `SI_QUEUE`: sender's user id. `SI_TIMER`: expirations missed.
    uid_or_overrun: c_int,
    value: u64,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<Info>() == size_of::<siginfo_t>());

extern "C" fn handler(_signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid pointers to a handler with SA_SIGINFO;
    // `Info` has the layout of `siginfo_t`; errno is this thread's own.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        let info = &*info.cast::<Info>();
        let context = &*context.cast::<ucontext_t>();
        match info.code {
            libc::SI_QUEUE => slot::on_signal(info.value, context),
            libc::SI_TIMER => ring::on_signal(info.value, info.uid_or_overrun, context),
            _ => {}
        }
        *errno = saved;
    }
}

fn registers_of(context: &ucontext_t) -> Registers {
    let saved = |register: c_int| context.uc_mcontext.gregs[register as usize].cast_unsigned();
    Registers { ip: saved(libc::REG_RIP), sp: saved(libc::REG_RSP), bp: Some(saved(libc::REG_RBP)) }
}

/// What a handler writes: at most `N` bytes of stack and the rest of a
/// [`Sample`]. Lives in `.bss`, so pages nobody has written cost nothing.
struct Buffer<const N: usize> {
    head: UnsafeCell<Head>,
    bytes: UnsafeCell<[u8; N]>,
}

#[derive(Clone, Copy)]
struct Head {
    tid: u32,
    registers: Registers,
    polled: u64,
    weight: u64,
    len: usize,
}

// SAFETY: each owner of a `Buffer` guards it by an atomic that only one party
// at a time can move to "mine".
unsafe impl<const N: usize> Sync for Buffer<N> {}

impl<const N: usize> Buffer<N> {
    const fn new() -> Self {
        let registers = Registers { ip: 0, sp: 0, bp: None };
        let head = Head { tid: 0, registers, polled: 0, weight: 0, len: 0 };
        Self { head: UnsafeCell::new(head), bytes: UnsafeCell::new([0; N]) }
    }

    /// Copies the interrupted thread into this buffer. For signal handlers.
    ///
    /// # Safety
    /// The caller owns the buffer until it says otherwise.
    unsafe fn fill(&self, context: &ucontext_t, weight: u64) {
        let registers = registers_of(context);
        // SAFETY: gettid and pthread_self read registers of this thread only.
        let (tid, top) = unsafe { (libc::gettid().cast_unsigned(), libc::pthread_self() as u64) };
        // A thread made by libc keeps its control block at the top of its own
        // stack: nothing above it is stack. (Where the block is elsewhere, as
        // for the main thread, the full length is copied.)
        let room = match top.checked_sub(registers.sp) {
            Some(room) if room < N as u64 => room as usize,
            _ => N,
        };
        // SAFETY: the buffer is ours by the caller's word, `room <= N`.
        unsafe {
            let len = copy::copy_own(self.bytes.get().cast(), registers.sp as usize, room);
            *self.head.get() =
                Head { tid, registers, polled: current::get().task.get(), weight, len };
        }
    }

    /// What was filled in.
    ///
    /// # Safety
    /// The caller owns the buffer.
    unsafe fn take(&self) -> Sample {
        // SAFETY: nobody else touches the buffer by the caller's word.
        let (head, bytes) = unsafe { (*self.head.get(), &*self.bytes.get()) };
        Sample {
            tid: head.tid,
            registers: head.registers,
            polled: head.polled,
            weight: head.weight,
            stack: bytes[..head.len].to_vec(),
        }
    }
}
