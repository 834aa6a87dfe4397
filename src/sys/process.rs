//! Signals to child processes, and children that do not outlive us.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// What a child can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGSTOP: stands still, whatever it does.
    Stop,
    /// SIGCONT: goes on.
    Continue,
}

/// Sends a signal to a child of ours.
///
/// # Errors
/// `NotFound` if it has been waited for already; else what kill(2) says.
pub fn signal(child: &mut Child, signal: Signal) -> io::Result<()> {
    // Until it is waited for its id cannot belong to another process.
    if child.try_wait()?.is_some() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let number = match signal {
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
    };
    // SAFETY: kill touches no memory of ours; the id is that of our own child.
    if unsafe { libc::kill(child.id().cast_signed(), number) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The kernel kills the child when the thread that starts it ends, be it by a
/// SIGKILL to this process. Start it from a thread that lives long enough.
#[cfg(target_os = "linux")]
pub fn ends_with_us(command: &mut Command) {
    let parent = std::process::id().cast_signed();
    let in_child = move || {
        // SAFETY: prctl and getppid are plain system calls, allowed after a fork.
        let orphan = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 || libc::getppid() != parent
        };
        // The parent may have ended before the request was in place.
        if orphan { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    };
    // SAFETY: the closure allocates nothing, takes no lock and only makes the
    // system calls above.
    unsafe {
        command.pre_exec(in_child);
    }
}

/// Elsewhere there is no such request; what we start is ended by its guard.
#[cfg(not(target_os = "linux"))]
pub fn ends_with_us(_: &mut Command) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The state letter of proc_pid_stat(5).
    fn state(child: &Child) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    }

    fn becomes(child: &Child, wanted: &str) {
        for _ in 0..5_000 {
            if wanted.contains(state(child)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("it is {}, not one of {wanted}", state(child));
    }

    #[test]
    fn a_child_is_stopped_and_goes_on() {
        let mut command = Command::new("sleep");
        command.arg("600");
        ends_with_us(&mut command);
        let mut child = command.spawn().unwrap();
        signal(&mut child, Signal::Stop).unwrap();
        becomes(&child, "T");
        signal(&mut child, Signal::Continue).unwrap();
        becomes(&child, "SR");
        child.kill().unwrap();
        child.wait().unwrap();
        let error = signal(&mut child, Signal::Stop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
