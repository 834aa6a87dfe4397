//! System calls that only tests make.

/// Sleeps in `poll` for some milliseconds; what it returned: 0 after the
/// whole time, -1 if it was interrupted.
#[inline(never)]
pub fn sleep_in_poll(milliseconds: i32) -> i32 {
    // SAFETY: no descriptors, so the pointer is not read.
    unsafe { libc::poll(std::ptr::null_mut(), 0, milliseconds) }
}

/// There can be one forked copy of the process at a time, and tests run in
/// parallel: each holds this while it has one.
#[cfg(target_arch = "x86_64")]
pub fn one_copy_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The same for tests elsewhere, which have no reason to know of it: tries
/// again while there is another copy.
#[cfg(target_arch = "x86_64")]
pub fn when_free<T>(make: impl Fn() -> crate::error::Result<T>) -> T {
    loop {
        match make() {
            Err(error) if error.kind() == crate::error::ErrorKind::Busy => std::thread::yield_now(),
            made => return made.unwrap(),
        }
    }
}

/// What a test binary that was started by [`Role::start`] is to do.
pub fn role() -> Option<String> {
    std::env::var("TASKPROF_TEST_ROLE").ok()
}

/// Says a line to the test that started this role.
pub fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@{line}").and_then(|()| out.flush()).expect("the test listens");
}

/// Another process of this very test binary, playing a role. Killed when dropped.
pub struct Role {
    /// The process.
    pub child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Role {
    /// Starts the (ignored) test of that path, which is to ask for its [`role`].
    pub fn start(test: &str, role: &str) -> Self {
        use std::io::BufRead as _;
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env("TASKPROF_TEST_ROLE", role)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says.
    pub fn hear(&mut self) -> String {
        loop {
            let line = self.lines.next().expect("the role ended early").unwrap();
            if let Some(said) = line.strip_prefix('@') {
                return said.to_owned();
            }
        }
    }

    /// Tells it a line and hears the answer.
    pub fn ask(&mut self, line: &str) -> String {
        use std::io::Write as _;
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.hear()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: our own child, not waited for yet.
        assert_eq!(unsafe { libc::kill(self.pid().cast_signed(), signal) }, 0);
    }

    /// Waits until its main thread is in one of these states (proc_pid_stat(5)).
    pub fn await_state(&self, states: &[char]) {
        let begin = std::time::Instant::now();
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            let state = stat[stat.rfind(')').unwrap() + 2..].chars().next().unwrap();
            if states.contains(&state) {
                return;
            }
            assert!(begin.elapsed().as_secs() < 20, "state {state}, not one of {states:?}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A core dump of a role by gdb's gcore. `None`, loudly, where there is no gdb;
/// under the test command that is a failure.
pub fn core_of(target: &Role, folder: &std::path::Path) -> Option<std::path::PathBuf> {
    let made = std::process::Command::new("gcore")
        .arg("-o")
        .arg(folder.join("core"))
        .arg(target.pid().to_string())
        .stdin(std::process::Stdio::null())
        .output();
    let made = match made {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            use std::io::Write as _;
            assert!(
                std::env::var_os("TASKPROF_REQUIRE_TOOLS").is_none(),
                "gcore is missing; the test command installs it"
            );
            // Not through `eprintln!`, which the test runner would swallow.
            let _ = writeln!(std::io::stderr(), "LEFT OUT: gcore is missing; ./test installs it");
            return None;
        }
        made => made.expect("gcore starts"),
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(folder.join(format!("core.{}", target.pid())))
}

/// Lets any process of this user trace the calling one, where Yama would not.
pub fn let_anybody_trace() {
    // SAFETY: no pointers. EINVAL where there is no Yama.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
}

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .text.taskprof_test_spin, \"ax\", @progbits",
    ".globl taskprof_test_spin",
    ".type taskprof_test_spin, @function",
    "taskprof_test_spin:",
    ".cfi_startproc",
    // DW_CFA_def_cfa_expression, 3 bytes: DW_OP_skip -3, to itself.
    ".cfi_escape 0x0f, 0x03, 0x2f, 0xfd, 0xff",
    "mov byte ptr [rdi], 1",
    "2: pause",
    "jmp 2b",
    ".cfi_endproc",
    ".size taskprof_test_spin, . - taskprof_test_spin",
    ".popsection",
);

/// Says that it is there and computes for ever, in a function whose entry in
/// the unwind tables is an expression that jumps to itself.
#[cfg(target_arch = "x86_64")]
pub fn spin_under_an_endless_unwind_rule(begun: &'static std::sync::atomic::AtomicBool) -> ! {
    // SAFETY: as it stands above. It writes one byte, atomically, and nothing
    // else; the flag lives for ever.
    unsafe extern "C" {
        fn taskprof_test_spin(begun: *mut bool) -> !;
    }
    // SAFETY: see above.
    unsafe { taskprof_test_spin(begun.as_ptr()) }
}
