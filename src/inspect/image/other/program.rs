//! Which program a process runs. Its number alone does not say: a process may
//! begin another program with `execve`, or end and leave its number to another.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::refused;
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::image::{DELETED, auxv, bias};

/// A process for as long as it runs one program.
#[derive(Clone, Debug)]
pub struct Program {
    pid: i32,
    run: Run,
}

/// What tells one run of a program from another under the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    /// When the process began, in ticks since the boot.
    started: u64,
    /// Device and number of the executable's file.
    file: (u64, u64),
    /// What the kernel told the program at its start. Most of it is addresses,
    /// which it draws anew for the same program as well.
    auxv: Vec<u8>,
}

impl Program {
    /// What a process runs now.
    ///
    /// # Errors
    /// Those of [`super::take`] that need no stop to be known.
    pub fn of(pid: u32) -> Result<Self> {
        let pid = refused::checked(pid)?;
        let run = Run::of(pid).map_err(|error| refused::explained(pid, error))?;
        Ok(Self { pid, run })
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Path of the executable, as the process sees it.
    ///
    /// # Errors
    /// As [`Program::of`].
    pub fn path(&self) -> Result<PathBuf> {
        let link = std::fs::read_link(executable(self.pid))
            .map_err(|error| refused::explained(self.pid, Error::io("reading its name", error)))?;
        Ok(match link.to_str().and_then(|link| link.strip_suffix(DELETED)) {
            Some(before) => PathBuf::from(before),
            None => link,
        })
    }

    /// Where the executable is, minus where it was linked to be.
    ///
    /// # Errors
    /// As [`Program::of`].
    pub fn bias(&self) -> Result<u64> {
        let bias = auxv::entry(&self.run.auxv).ok_or_else(|| {
            let text = format!("process {} is not a 64-bit program", self.pid);
            Error::new(ErrorKind::Unsupported, text)
        });
        bias.and_then(|entry| bias::from_entry(entry, &executable(self.pid)))
            .map_err(|error| refused::explained(self.pid, error))
    }

    /// Whether the process still runs it.
    ///
    /// # Errors
    /// `NotFound` if the process has ended or runs another program;
    /// `Permission` if it changed its user or protected itself since.
    pub fn check(&self) -> Result<()> {
        let pid = self.pid;
        let gone = |text| Error::new(ErrorKind::NotFound, text);
        if !refused::lives(pid) || started(pid).ok() != Some(self.run.started) {
            return Err(gone(format!("process {pid} has ended")));
        }
        if Run::of(pid).map_err(|error| refused::explained(pid, error))? != self.run {
            let text = format!(
                "process {pid} now runs another program, or began the same anew: attach again"
            );
            return Err(gone(text));
        }
        Ok(())
    }
}

impl Run {
    fn of(pid: i32) -> Result<Self> {
        let auxv = std::fs::read(format!("/proc/{pid}/auxv"))
            .map_err(|error| Error::io("reading where it was loaded", error))?;
        let file = std::fs::metadata(executable(pid))
            .map_err(|error| Error::io("reading which program it runs", error))?;
        Ok(Self { started: started(pid)?, file: (file.dev(), file.ino()), auxv })
    }
}

/// Where to open a process's executable.
pub fn executable(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

/// Field 22 of proc_pid_stat(5); the name in field 2 may contain anything.
fn started(pid: i32) -> Result<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))
        .map_err(|error| Error::io("reading when it began", error))?;
    let name_end = stat.iter().rposition(|&byte| byte == b')').map_or(0, |at| at + 1);
    let rest = String::from_utf8_lossy(&stat[name_end..]);
    rest.split_ascii_whitespace().nth(22 - 3).and_then(|field| field.parse().ok()).ok_or_else(
        || Error::new(ErrorKind::Malformed, format!("/proc/{pid}/stat does not say when it began")),
    )
}

#[cfg(test)]
impl Program {
    /// Takes it for one that began before.
    pub fn began_earlier(&mut self) {
        self.run.started -= 1;
    }
}
