//! What runs in the copy, and how it is made.
//!
//! Everything from the `clone` on, on the copy's side, is bare system calls:
//! the other threads of the server do not exist there, and whatever lock they
//! held is held for ever.

use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use libc::{c_int, c_ulong};

use super::super::raw;
use super::super::remote::PAGE;
use super::release::{self, Regions};

/// How the copy spends its time.
#[derive(Debug)]
pub enum Way {
    /// Asleep, until the word tells it to end; it is read from outside.
    Sleep {
        /// Address of the handle's [`release::Word`].
        word: usize,
        /// Where the copy's memory is.
        memory: Vec<Range<u64>>,
    },
    /// Answering requests on pipes.
    Answer(Ends),
}

/// The copy's ends of the pipes. The table of files is shared, so the numbers
/// hold on both sides, and so does closing them.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    requests: RawFd,
    data: RawFd,
    replies: RawFd,
}

/// Makes the copy; its process id.
pub fn start(life: Duration, way: Way) -> io::Result<c_int> {
    // What is set here is inherited, and this thread needs no signals either.
    // SAFETY: masks of the calling thread only.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
    let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec; getpid touches no memory.
    let parent = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut until);
        libc::getpid()
    };
    until.tv_sec += life.as_secs().cast_signed();
    until.tv_nsec += i64::from(life.subsec_nanos());
    if until.tv_nsec >= 1_000_000_000 {
        until.tv_sec += 1;
        until.tv_nsec -= 1_000_000_000;
    }
    let (life, memory) = match way {
        Way::Sleep { word, memory } => (Life::Sleep(word), memory),
        Way::Answer(ends) => (Life::Answer(ends), Vec::new()),
    };
    // On this stack, all of it: the copy may lack the heap.
    let regions = Regions::of(memory);
    let flags = (libc::CLONE_FILES | libc::CLONE_UNTRACED) as usize;
    // SAFETY: without CLONE_VM the copy goes on here with a stack of its own;
    // it only ever runs `live`, which does not return.
    unsafe {
        let pid = raw::call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]);
        if pid == 0 {
            live(parent, &until, life, &regions);
        }
        if pid < 0 {
            return Err(io::Error::from_raw_os_error(-pid as i32));
        }
        Ok(pid as c_int)
    }
}

/// A [`Way`] without anything on a heap.
#[derive(Clone, Copy)]
enum Life {
    Sleep(usize),
    Answer(Ends),
}

/// The copy's life.
///
/// # Safety
/// Only in the copy.
unsafe fn live(parent: c_int, until: &libc::timespec, life: Life, regions: &Regions) -> ! {
    const NAME: &[u8; 14] = b"taskprof-copy\0";
    // SAFETY: calls by the kernel's rules on memory of this copy only.
    unsafe {
        let prctl = |option: c_int, argument: c_ulong| {
            raw::call(libc::SYS_prctl, [option as usize, argument as usize, 0, 0, 0, 0])
        };
        prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong);
        prctl(libc::PR_SET_NAME, NAME.as_ptr() as c_ulong);
        // The parent may have died before the first of these calls.
        if raw::call(libc::SYS_getppid, [0; 6]) == parent as isize {
            match life {
                Life::Sleep(word) => {
                    if release::told(word, until) {
                        regions.release((&raw const parent) as usize);
                    }
                }
                Life::Answer(ends) => answer(until, ends),
            }
        }
        loop {
            raw::call(libc::SYS_exit_group, [0; 6]);
        }
    }
}

/// Answers requests: eight bytes in, the address; on `data` what is there of
/// that page, on `replies` how much it was, in eight bytes.
unsafe fn answer(until: &libc::timespec, ends: Ends) {
    loop {
        // SAFETY: each pointer is to a local variable that outlives the call;
        // for `write`, the address asked for is only read by the kernel,
        // which checks it.
        unsafe {
            let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let clock = libc::CLOCK_MONOTONIC as usize;
            raw::call(libc::SYS_clock_gettime, [clock, (&raw mut now) as usize, 0, 0, 0, 0]);
            let mut left = libc::timespec {
                tv_sec: until.tv_sec.wrapping_sub(now.tv_sec),
                tv_nsec: until.tv_nsec.wrapping_sub(now.tv_nsec),
            };
            if left.tv_nsec < 0 {
                left.tv_sec = left.tv_sec.wrapping_sub(1);
                left.tv_nsec = left.tv_nsec.wrapping_add(1_000_000_000);
            }
            if left.tv_sec < 0 {
                return;
            }
            let mut wait = libc::pollfd { fd: ends.requests, events: libc::POLLIN, revents: 0 };
            let polled = raw::call(
                libc::SYS_ppoll,
                [(&raw mut wait) as usize, 1, (&raw mut left) as usize, 0, 0, 0],
            );
            if polled == -(libc::EINTR as isize) {
                continue;
            }
            let mut address = 0_u64;
            let got = if polled == 1 {
                let to = (&raw mut address) as usize;
                raw::call(libc::SYS_read, [ends.requests as usize, to, 8, 0, 0, 0])
            } else {
                0
            };
            if got != 8 {
                return;
            }
            let written =
                raw::call(libc::SYS_write, [ends.data as usize, address as usize, PAGE, 0, 0, 0]);
            let from = (&raw const written) as usize;
            raw::call(libc::SYS_write, [ends.replies as usize, from, 8, 0, 0, 0]);
        }
    }
}

/// Three pipes: requests, data, replies.
#[derive(Debug)]
pub struct Pipes {
    requests: (io::PipeReader, io::PipeWriter),
    data: (io::PipeReader, io::PipeWriter),
    replies: (io::PipeReader, io::PipeWriter),
}

impl Pipes {
    /// Opens them; to be done before the copy is made.
    pub fn open() -> io::Result<Self> {
        Ok(Self { requests: io::pipe()?, data: io::pipe()?, replies: io::pipe()? })
    }

    /// What the copy uses.
    pub fn of_the_copy(&self) -> Ends {
        Ends {
            requests: self.requests.0.as_raw_fd(),
            data: self.data.1.as_raw_fd(),
            replies: self.replies.1.as_raw_fd(),
        }
    }

    /// Asks for bytes page by page; a page always fits into an empty pipe.
    pub fn read(&mut self, from: u64, to: &mut [u8], deadline: Instant) -> Result<(), usize> {
        let mut page = [0; PAGE];
        let mut done = 0;
        while done < to.len() {
            let at = from.checked_add(done as u64).ok_or(done)?;
            let skip = at as usize % PAGE;
            let len = (PAGE - skip).min(to.len() - done);
            self.page(at - skip as u64, &mut page, deadline).map_err(|_| done)?;
            to[done..done + len].copy_from_slice(&page[skip..skip + len]);
            done += len;
        }
        Ok(())
    }

    fn page(&mut self, start: u64, page: &mut [u8; PAGE], deadline: Instant) -> io::Result<()> {
        self.requests.1.write_all(&start.to_ne_bytes())?;
        // Both ends of every pipe stay open on our side, so a copy that is
        // gone shows only by its silence.
        wait_readable(self.replies.0.as_fd(), deadline)?;
        let mut reply = [0; 8];
        self.replies.0.read_exact(&mut reply)?;
        match usize::try_from(i64::from_ne_bytes(reply)) {
            Ok(PAGE) => self.data.0.read_exact(page),
            Ok(len @ 1..PAGE) => {
                self.data.0.read_exact(&mut page[..len])?;
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// Waits until there is something to read, or, of a process, until it ends.
///
/// # Errors
/// `TimedOut` at the deadline; those of `poll`.
pub fn wait_readable(pipe: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let milliseconds = c_int::try_from(left.as_millis()).unwrap_or(c_int::MAX);
        let mut wait = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd that lives across the call.
        match unsafe { libc::poll(&raw mut wait, 1, milliseconds) } {
            1 => return Ok(()),
            0 => return Err(io::ErrorKind::TimedOut.into()),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}
