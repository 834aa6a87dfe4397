//! Where a thread sleeps in the kernel, without waking it: the line that
//! `/proc/self/task/TID/syscall` shows (proc_pid_syscall(5)).
//!
//! `running`, or the call's number, six arguments, stack pointer and
//! instruction pointer; number -1 and no arguments for a thread that sleeps
//! outside a system call (a page fault).

use crate::error::{Error, Result};

/// What a thread is doing as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// On a processor, or about to be.
    Running,
    /// Asleep in a system call.
    InCall {
        /// The call.
        number: i64,
        /// Its arguments.
        arguments: [u64; 6],
        /// The thread's stack pointer.
        sp: u64,
        /// The thread's instruction pointer.
        ip: u64,
    },
    /// Asleep, but not by a system call.
    InFault {
        /// The thread's stack pointer.
        sp: u64,
        /// The thread's instruction pointer.
        ip: u64,
    },
}

/// Looks at a thread of this process.
///
/// # Errors
/// `NotFound` if there is no such thread; otherwise this kernel does not show
/// it (built without `CONFIG_HAVE_ARCH_TRACEHOOK`, or `/proc` not mounted).
pub fn look(tid: u32) -> Result<Whereabouts> {
    let path = format!("/proc/self/task/{tid}/syscall");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Error::io(format!("looking at thread {tid}"), gone(error)))?;
    parse(&text).ok_or_else(|| {
        Error::new(crate::error::ErrorKind::Malformed, format!("{path} has an unknown format"))
    })
}

/// A thread that ends between opening and reading answers ESRCH.
fn gone(error: std::io::Error) -> std::io::Error {
    match error.raw_os_error() {
        Some(libc::ESRCH) => std::io::ErrorKind::NotFound.into(),
        _ => error,
    }
}

fn parse(text: &str) -> Option<Whereabouts> {
    let text = text.trim_end();
    if text == "running" {
        return Some(Whereabouts::Running);
    }
    let mut fields = text.split(' ');
    let number: i64 = fields.next()?.parse().ok()?;
    let mut word = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
    if number == -1 {
        return Some(Whereabouts::InFault { sp: word()?, ip: word()? });
    }
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = word()?;
    }
    Some(Whereabouts::InCall { number, arguments, sp: word()?, ip: word()? })
}

impl Whereabouts {
    /// Whether a signal handler would go unnoticed by the call: the kernel
    /// restarts it by itself under `SA_RESTART` (signal(7)). Only calls for
    /// which that holds whatever their arguments' objects are; a `read`, say,
    /// restarts on a file but not on a socket with a receive timeout.
    pub fn restarts(&self) -> bool {
        match *self {
            Self::InCall { number: libc::SYS_futex, arguments, .. } => {
                let without_timeout = arguments[3] == 0;
                let command = arguments[1]
                    & !(libc::FUTEX_PRIVATE_FLAG as u64)
                    & !(libc::FUTEX_CLOCK_REALTIME as u64);
                let waits = [libc::FUTEX_WAIT, libc::FUTEX_WAIT_BITSET, libc::FUTEX_LOCK_PI];
                without_timeout && waits.iter().any(|&wait| wait as u64 == command)
            }
            Self::InCall { number, .. } => matches!(number, libc::SYS_wait4 | libc::SYS_waitid),
            Self::Running | Self::InFault { .. } => false,
        }
    }

    /// Instruction and stack pointer, for a thread that sleeps.
    pub fn pointers(&self) -> Option<(u64, u64)> {
        match *self {
            Self::Running => None,
            Self::InCall { sp, ip, .. } | Self::InFault { sp, ip } => Some((ip, sp)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_forms_are_understood() {
        assert_eq!(parse("running\n"), Some(Whereabouts::Running));
        assert_eq!(
            parse("-1 0x7ffd10 0x55d0\n"),
            Some(Whereabouts::InFault { sp: 0x7f_fd10, ip: 0x55d0 })
        );
        assert_eq!(
            parse("202 0x10 0x80 0x2 0x0 0x0 0xffffffff 0x7f00 0x55d0\n"),
            Some(Whereabouts::InCall {
                number: 202,
                arguments: [0x10, 0x80, 2, 0, 0, 0xffff_ffff],
                sp: 0x7f00,
                ip: 0x55d0,
            })
        );
        assert_eq!(parse("7 0x1 0x2"), None);
    }

    #[test]
    fn only_untimed_waits_restart_by_themselves() {
        let call = |line: &str| parse(line).unwrap().restarts();
        assert!(call("202 0x10 0x80 0x2 0x0 0x0 0xffffffff 0x7f00 0x55d0"));
        assert!(call("202 0x10 0x189 0x2 0x0 0x0 0xffffffff 0x7f00 0x55d0"));
        assert!(!call("202 0x10 0x80 0x2 0x7f88 0x0 0xffffffff 0x7f00 0x55d0"));
        assert!(!call("230 0x1 0x0 0x7f00 0x7f00 0x0 0x0 0x7f00 0x55d0"));
        assert!(!call("0 0x1 0x0 0x7f00 0x7f00 0x0 0x0 0x7f00 0x55d0"));
    }

    proptest! {
        #[test]
        fn any_text_is_harmless(text in "[0-9a-fx -]{0,120}") {
            parse(&text);
        }
    }
}
