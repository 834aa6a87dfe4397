//! Another process: stopped, its memory copied in one go, let go at once, read
//! afterwards.
//!
//! While it stands still, only what it may change is copied: pages of its own
//! that are there. A tenth of a second of reading its address space before
//! that tells how much room that takes, so that the copy goes to pages that
//! are there too.
//!
//! Each stop is made by a thread of its own: whatever goes wrong, when that
//! thread ends, or with it taskprof, the kernel lets the target go on.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::copied::Copied;
use super::pieces::Pieces;
use super::{Image, ImageThread, Origin};
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::maps::{self, Mapping};
use crate::sys::pagemap::Pagemap;
use crate::sys::ptrace::{Frozen, Stopped, apart};
use crate::sys::region::Region;
use crate::sys::{clock, remote};

mod program;
mod refused;

pub use program::Program;

/// What a dump may cost the target and us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most memory that is copied, in bytes.
    pub bytes: u64,
    /// The longest the target may stand still.
    pub frozen: Duration,
}

impl Limits {
    /// So much memory, and half a second for each GiB of it: a copy takes half
    /// of that.
    pub fn of_gib(gib: u16) -> Self {
        let frozen = Duration::from_millis(500) * u32::from(gib);
        Self { bytes: u64::from(gib) << 30, frozen }
    }
}

impl Default for Limits {
    /// 4 GiB and two seconds: a service that is gone for longer is taken for
    /// dead by its neighbours.
    fn default() -> Self {
        Self::of_gib(4)
    }
}

/// How long a thread may take to stop. Those in a system call that cannot be
/// interrupted are then left running; it takes microseconds otherwise.
const STOPPING: Duration = Duration::from_millis(200);

/// Copies the memory of a process.
///
/// # Errors
/// `NotFound`: it ended, or runs another program by now. `Permission`: the
/// system forbids it; the message says what to change. `Busy`: a debugger has
/// it. `Unsupported`: a kernel thread, or not an x86-64 program.
/// `OutOfMemory`, `Timeout`: a limit was reached; the target has gone on.
pub fn take(program: &Program, limits: Limits) -> Result<Image> {
    program.check()?;
    Target::find(program)?.take(limits)
}

/// A process that can be copied.
struct Target<'a> {
    program: &'a Program,
    pid: i32,
    bias: u64,
    memory: File,
    pagemap: Option<Pagemap>,
}

/// What the stop brought.
struct Stop {
    pieces: Pieces,
    mappings: Vec<Mapping>,
    threads: Vec<Stopped>,
    taken_ns: u64,
    frozen: Duration,
}

impl<'a> Target<'a> {
    fn find(program: &'a Program) -> Result<Self> {
        let pid = refused::checked(program.pid().cast_unsigned())?;
        let bias = program.bias()?;
        let memory = File::open(format!("/proc/{pid}/mem"))
            .map_err(|error| refused::explained(pid, Error::io("opening its memory", error)))?;
        Ok(Self { program, pid, bias, memory, pagemap: Pagemap::open(pid).ok() })
    }

    fn take(mut self, limits: Limits) -> Result<Image> {
        // How much room? It may grow until it stands still.
        let mappings = self.mappings()?;
        let before = total(&self.worth_copying(&mappings));
        let mut room = before + before / 8 + (8 << 20);
        let mut tries = 0;
        let (bytes, stop) = loop {
            if before > limits.bytes {
                return Err(too_large(before, limits));
            }
            let mut bytes = Region::new(room as usize)
                .and_then(|mut region| region.populate().map(|()| region))
                .map_err(|error| Error::io("making room for the target's memory", error))?;
            let stop = apart("taskprof-freeze", || self.copy(&mut bytes, limits))
                .map_err(|error| Error::io("starting the thread that stops the target", error))?;
            match stop? {
                Ok(stop) => break (bytes, stop),
                Err(needed) if needed > limits.bytes => return Err(too_large(needed, limits)),
                Err(needed) if tries == 3 => {
                    let text = format!(
                        "process {} grows faster than it can be copied ({} MiB now)",
                        self.pid,
                        needed >> 20
                    );
                    return Err(Error::new(ErrorKind::OutOfMemory, text));
                }
                Err(needed) => {
                    tries += 1;
                    room = needed + needed / 4;
                }
            }
        };
        let threads = stop.threads.iter().map(|thread| self.thread(thread)).collect();
        let memory = Copied {
            bytes,
            pieces: stop.pieces,
            writable: maps::writable(&stop.mappings),
            zeros: maps::zeros(&stop.mappings),
            live: self.memory,
        };
        Ok(Image {
            memory: Box::new(memory),
            bias: self.bias,
            threads,
            pid: self.pid.cast_unsigned(),
            taken_ns: stop.taken_ns,
            frozen_ns: stop.frozen.as_nanos() as u64,
            origin: Origin::living(
                program::executable(self.pid),
                PathBuf::from(format!("/proc/{}/root", self.pid)),
                stop.mappings,
            ),
        })
    }

    /// Stops the target, copies, lets it go. The inner error: so many bytes
    /// do not fit.
    fn copy(&mut self, to: &mut Region, limits: Limits) -> Result<std::result::Result<Stop, u64>> {
        let begin = Instant::now();
        let frozen = Frozen::freeze(self.pid, STOPPING)
            .map_err(|error| refused::explained(self.pid, Error::io("stopping it", error)))?;
        let taken_ns = clock::monotonic_ns();
        // From here on it cannot begin another program.
        self.program.check()?;
        let mappings = self.mappings()?;
        let ranges = self.worth_copying(&mappings);
        let needed = total(&ranges);
        if needed > to.len() as u64 {
            return Ok(Err(needed));
        }
        let mut pieces = Pieces::default();
        let in_time = || begin.elapsed() < limits.frozen;
        let all = remote::read_ranges(self.pid, &ranges, to, in_time, |range, at| {
            pieces.push(range, at as u64);
        });
        let threads = frozen.threads().to_vec();
        drop(frozen);
        let all =
            all.map_err(|error| refused::explained(self.pid, Error::io("copying it", error)))?;
        if !all {
            let text = format!(
                "copying {} MiB takes longer than the {} ms that process {} may stand still: {WAY_OUT}",
                needed >> 20,
                limits.frozen.as_millis(),
                self.pid
            );
            return Err(Error::new(ErrorKind::Timeout, text));
        }
        Ok(Ok(Stop { pieces, mappings, threads, taken_ns, frozen: begin.elapsed() }))
    }

    fn mappings(&self) -> Result<Vec<Mapping>> {
        let mappings = maps::of(self.pid).map_err(|error| refused::explained(self.pid, error))?;
        if mappings.is_empty() {
            return Err(refused::ended(self.pid));
        }
        Ok(mappings)
    }

    /// Pages that only the process has and that can change. Of files, private
    /// pages: relocated constants are read-only by now but not in the file.
    fn worth_copying(&mut self, mappings: &[Mapping]) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        for mapping in mappings {
            let maps::Permissions { read, write, execute, private } = mapping.permissions;
            let is_file = matches!(mapping.backing, maps::Backing::File { .. });
            let constants = is_file && !write && !execute;
            if !(read && private && (write || constants)) {
                continue;
            }
            let whole = mapping.range.clone();
            match &mut self.pagemap {
                // All of a file's writable part, touched or not: a page that
                // is not there now could be changed later.
                _ if is_file && write && whole.end - whole.start <= STATICS => ranges.push(whole),
                Some(pagemap) => {
                    // An error means the process is gone, which shows next.
                    let _ = pagemap.present(whole, is_file && write, &mut ranges);
                }
                None if write => ranges.push(whole),
                None => {}
            }
        }
        ranges
    }

    fn thread(&self, stopped: &Stopped) -> ImageThread {
        let name = std::fs::read(format!("/proc/{}/task/{}/comm", self.pid, stopped.tid));
        let name = name.unwrap_or_default();
        let name = name.strip_suffix(b"\n").unwrap_or(&name);
        ImageThread {
            tid: stopped.tid,
            name: String::from_utf8_lossy(name).into_owned(),
            thread_pointer: stopped.registers.map_or(0, |full| full.thread_pointer),
            registers: stopped.registers.map(|full| full.registers),
        }
    }
}

/// The writable part of a file that is copied without asking whether it is
/// there; programs have some hundred KiB of it.
const STATICS: u64 = 16 << 20;

fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// What to do where a limit is in the way.
const WAY_OUT: &str =
    "raise both limits with --max-memory, or take a core with gcore and use --core";

fn too_large(needed: u64, limits: Limits) -> Error {
    let text = format!(
        "the process has {} MiB of memory of its own, the limit for a copy is {} MiB: {WAY_OUT}",
        needed >> 20,
        limits.bytes >> 20
    );
    Error::new(ErrorKind::OutOfMemory, text)
}

#[cfg(test)]
mod tests;
