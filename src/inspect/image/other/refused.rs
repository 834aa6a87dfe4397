//! Why a process cannot be copied, and what to do about it.

use crate::error::{Error, ErrorKind, Result};

/// A process id that makes sense, of a process that could be copied.
///
/// # Errors
/// See [`super::take`].
pub fn checked(pid: u32) -> Result<i32> {
    let number = i32::try_from(pid)
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, format!("{pid} is no process id")))?;
    if pid == std::process::id() {
        let text = "a process cannot stop and copy itself";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let status = Status::read(number).ok_or_else(|| ended(number))?;
    match status.fault(number) {
        Some(error) => Err(error),
        None => Ok(number),
    }
}

/// The error of a process that is not there.
pub fn ended(pid: i32) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no process {pid} (any more)"))
}

/// Whether a process is there and has not ended.
pub fn lives(pid: i32) -> bool {
    Status::read(pid).is_some_and(|status| !status.has_ended())
}

/// Says what is behind an error on the way.
pub fn explained(pid: i32, error: Error) -> Error {
    let Some(status) = Status::read(pid) else { return ended(pid).with_source(error) };
    if let Some(fault) = status.fault(pid) {
        return fault;
    }
    match error.kind() {
        ErrorKind::Permission => {
            let why = forbidden(pid, &status, &Rules::here());
            Error::new(ErrorKind::Permission, why)
        }
        ErrorKind::Timeout => {
            let text = format!("process {pid} sleeps in the kernel and cannot be stopped now");
            Error::new(ErrorKind::Timeout, text)
        }
        ErrorKind::Malformed => Error::new(
            ErrorKind::Unsupported,
            format!("process {pid} is not a 64-bit program for x86-64"),
        )
        .with_source(error),
        kind => Error::new(kind, format!("copying process {pid}")).with_source(error),
    }
}

/// Lines of `/proc/PID/status`, see proc_pid_status(5).
struct Status(String);

impl Status {
    fn read(pid: i32) -> Option<Self> {
        let raw = std::fs::read(format!("/proc/{pid}/status")).ok()?;
        Some(Self(String::from_utf8_lossy(&raw).into_owned()))
    }

    fn field(&self, name: &str) -> Option<&str> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.strip_prefix(':')?.trim())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.split_ascii_whitespace().next()?.parse().ok()
    }

    fn has_ended(&self) -> bool {
        self.field("State").is_some_and(|state| state.starts_with(['Z', 'X']))
    }

    /// What keeps anybody from copying this process.
    fn fault(&self, pid: i32) -> Option<Error> {
        let (kind, text) = if self.has_ended() {
            (
                ErrorKind::NotFound,
                format!("process {pid} has ended; its parent has not waited for it yet"),
            )
        } else if let Some(group) = self.number("Tgid").filter(|&group| group != pid as u64) {
            let text = format!("{pid} is a thread of process {group}: ask for {group}");
            (ErrorKind::InvalidInput, text)
        } else if self.field("VmSize").is_none() {
            let text = format!("process {pid} is a kernel thread: it has no tasks of tokio");
            (ErrorKind::Unsupported, text)
        } else if let Some(tracer) = self.number("TracerPid").filter(|&tracer| tracer != 0) {
            // The kernel tells the thread that traces.
            let status = i32::try_from(tracer).ok().and_then(Self::read);
            let tracer = status.and_then(|status| status.number("Tgid")).unwrap_or(tracer);
            let text = format!(
                "process {pid} is being traced by process {tracer} (a debugger or strace): end that first"
            );
            (ErrorKind::Busy, text)
        } else {
            return None;
        };
        Some(Error::new(kind, text))
    }
}

/// What decides on permission besides the target.
struct Rules {
    own_user: u32,
    /// `kernel.yama.ptrace_scope`; 0 where there is no Yama.
    yama: u32,
    traces_all: bool,
}

impl Rules {
    fn here() -> Self {
        const CAP_SYS_PTRACE: u32 = 19;
        let own = Status::read(std::process::id().cast_signed());
        let own = own.as_ref();
        let capabilities = own
            .and_then(|status| u64::from_str_radix(status.field("CapEff")?, 16).ok())
            .unwrap_or(0);
        let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        Self {
            own_user: own.and_then(|status| status.number("Uid")).unwrap_or(0) as u32,
            yama: yama.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0),
            traces_all: capabilities >> CAP_SYS_PTRACE & 1 == 1,
        }
    }
}

/// See the section on access checks in ptrace(2).
fn forbidden(pid: i32, status: &Status, rules: &Rules) -> String {
    let user = status.number("Uid").unwrap_or(0);
    let own = u64::from(rules.own_user);
    if rules.yama >= 3 {
        return format!(
            "reading process {pid} is forbidden to everybody until the next boot (kernel.yama.ptrace_scope = 3): take a core dump instead and use --core"
        );
    }
    if rules.traces_all {
        return format!(
            "reading process {pid} is forbidden though we have CAP_SYS_PTRACE: a security module or seccomp profile, or a process outside this container; run taskprof beside it, with a profile that allows ptrace"
        );
    }
    if user != own && own != 0 {
        return format!(
            "no permission to read process {pid} of user {user} as user {own}: run as user {user} or as root"
        );
    }
    if own == 0 {
        return format!(
            "reading process {pid} needs CAP_SYS_PTRACE, which root lacks in this container: docker run --cap-add SYS_PTRACE, or securityContext.capabilities.add: [SYS_PTRACE]"
        );
    }
    match rules.yama {
        0 => format!(
            "process {pid} is protected (it changed its user, or set itself not dumpable): run as root"
        ),
        1 => format!(
            "only its parent may read process {pid} (kernel.yama.ptrace_scope = 1): run as root, or sysctl kernel.yama.ptrace_scope=0"
        ),
        _ => format!(
            "reading process {pid} needs CAP_SYS_PTRACE (kernel.yama.ptrace_scope = 2): run as root"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> Status {
        Status(text.to_owned())
    }

    const RUNS: &str = "Name:\ta\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\nTracerPid:\t0\nUid:\t1000\t1000\t1000\t1000\nVmSize:\t 100 kB\n";

    #[test]
    fn each_fault_of_the_target_has_its_line() {
        assert!(status(RUNS).fault(7).is_none());
        for (from, to, kind, words) in [
            ("S (sleeping)", "Z (zombie)", ErrorKind::NotFound, "has ended"),
            ("Tgid:\t7", "Tgid:\t5", ErrorKind::InvalidInput, "thread of process 5"),
            ("VmSize", "Other", ErrorKind::Unsupported, "kernel thread"),
            ("TracerPid:\t0", "TracerPid:\t4194305", ErrorKind::Busy, "process 4194305"),
        ] {
            let error = status(&RUNS.replace(from, to)).fault(7).unwrap();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn each_rule_that_forbids_it_says_what_to_do() {
        for (own_user, yama, traces_all, words) in [
            (1000, 1, false, "sysctl kernel.yama.ptrace_scope=0"),
            (1000, 2, false, "run as root"),
            (1000, 3, false, "--core"),
            (1000, 0, false, "not dumpable"),
            (1001, 1, false, "run as user 1000"),
            (0, 0, false, "--cap-add SYS_PTRACE"),
            (0, 0, true, "security module"),
        ] {
            let rules = Rules { own_user, yama, traces_all };
            let text = forbidden(7, &status(RUNS), &rules);
            assert!(text.contains(words) && text.contains('7'), "{text}");
        }
    }

    #[test]
    fn what_is_no_target_is_told_before_anything_is_stopped() {
        let kind = |pid| checked(pid).unwrap_err().kind();
        assert_eq!(kind(0), ErrorKind::InvalidInput);
        assert_eq!(kind(u32::MAX), ErrorKind::InvalidInput);
        assert_eq!(kind(std::process::id()), ErrorKind::InvalidInput);
        assert_eq!(kind(i32::MAX as u32), ErrorKind::NotFound);
        // Two is the kernel's kthreadd; in a container it may be anything.
        if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
            assert_eq!(kind(2), ErrorKind::Unsupported);
        }
    }
}
