//! Dumps that cannot be had: one line that says what to do, and a target that
//! is as it was.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::server::tool;
use super::targets::{Attached, Made, NO_CACHE, Target, run, taskprof};

/// It failed with one line that has all these words.
fn refused(output: &Output, words: &[&str]) {
    ended(output, 1, words);
}

/// The same for files that make no sense together: a matter of usage.
fn misused(output: &Output, words: &[&str]) {
    ended(output, 2, words);
}

fn ended(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
    for word in words {
        assert!(said.to_lowercase().contains(word), "{word:?} in: {said}");
    }
    assert!(output.stdout.is_empty(), "nothing half done");
}

struct Other(Child);

impl Other {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it starts"))
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_program_without_tokio_is_named_as_such() {
    // One of which nothing is known, and one of which all is.
    let other = Other::start(Command::new("sleep").arg("1000"));
    refused(
        &taskprof(&[&"dump", &"--pid", &other.pid()]),
        &["sleep", "debug information", "tokio"],
    );
    let made = Made::new();
    let (source, program) = (made.path("parks.rs"), made.path("parks"));
    std::fs::write(&source, "fn main() { loop { std::thread::park() } }").expect("source");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    run(&rustc, &[&"-g", &"-o", &program, &source]);
    let other = Other::start(&mut Command::new(&program));
    let words = ["parks", "has debug information but no tokio task", "if it uses tokio"];
    refused(&taskprof(&[&"dump", &"--pid", &other.pid()]), &words);
    refused(&taskprof(&[&"attach", &"--http", &"127.0.0.1:0", &"--pid", &other.pid()]), &words);
}

#[test]
fn a_core_of_another_program_is_refused() {
    let Some(gcore) = tool(&["gcore"]) else { return };
    let mut target = Target::dev("deadlock");
    let made = Made::new();
    let pid = target.pid().to_string();
    run(&gcore, &[&"-o", &made.path("core"), &pid]);
    target.must_be_well();
    let core = made.path(&format!("core.{pid}"));
    // taskprof's own program: of tokio, but not the one that left the core.
    let own = env!("CARGO_BIN_EXE_taskprof");
    misused(&taskprof(&[&"dump", &"--core", &core, &"--exe", &own]), &["core", "taskprof"]);
}

/// The process ends while it is attached to.
#[test]
fn the_end_of_the_process_ends_attach_and_is_said() {
    let target = Target::dev("deadlock");
    let pid = target.pid();
    let attached = Attached::to(&target);
    target.end();
    let (code, said) = attached.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("process {pid} has ended")), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
}

/// The process goes on under the same number, with another program.
#[test]
fn another_program_in_the_process_ends_attach_and_is_said() {
    let mut target = Target::dev("deadlock");
    let pid = target.pid();
    let attached = Attached::to(&target);
    target.become_another();
    let (code, said) = attached.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("process {pid} now runs another program")), "{said}");
    assert!(said.contains("attach again"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
}

#[test]
fn a_process_that_is_gone_is_named_as_such() {
    let pid = Target::dev("nothing").end().to_string();
    refused(&taskprof(&[&"dump", &"--pid", &pid]), &[&pid, "no process"]);
}

#[test]
fn a_program_stripped_of_everything_is_told_how_to_help() {
    let Some(strip) = tool(&["strip"]) else { return };
    let made = Made::new();
    let bare = made.path("bare");
    run(&strip, &[&"-o", &bare, &super::targets::Build::Dev.program()]);
    let mut target = Target::start(&bare, "deadlock");
    let output = taskprof(&[&"dump", &"--pid", &target.pid().to_string()]);
    refused(&output, &["debug information", "taskprof index", "--layout", "--debug-file"]);
    target.must_be_well();
}

#[test]
fn debug_information_of_another_build_is_refused() {
    let (Some(strip), Some(objcopy)) = (tool(&["strip"]), tool(&["objcopy"])) else { return };
    let made = Made::new();
    let (bare, other) = (made.path("bare"), made.path("other.debug"));
    run(&strip, &[&"-o", &bare, &super::targets::Build::Dev.program()]);
    // taskprof's own: the right kind of file, of the wrong program.
    let own = env!("CARGO_BIN_EXE_taskprof");
    run(&objcopy, &[&"--only-keep-debug", &own, &other]);
    let mut target = Target::start(&bare, "deadlock");
    let pid = target.pid().to_string();
    misused(&taskprof(&[&"dump", &"--pid", &pid, &"--debug-file", &other]), &["build id"]);
    let layout = made.path("other.layout");
    run(own, &[&"index", &own, &"-o", &layout]);
    misused(&taskprof(&[&"dump", &"--pid", &pid, &"--layout", &layout]), &["build id"]);
    let broken = made.path("broken.layout");
    std::fs::write(&broken, b"no layout at all").expect("file");
    refused(&taskprof(&[&"dump", &"--pid", &pid, &"--layout", &broken]), &["broken.layout"]);
    target.must_be_well();
}

/// As `nobody`, who may not read the memory of root's processes.
#[test]
fn a_missing_permission_is_named_with_its_remedy() {
    let mut target = Target::dev("deadlock");
    let root = std::fs::metadata("/proc/self")
        .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        // Another user's process would be needed: init is always one.
        refused(&taskprof(&[&"dump", &"--pid", &"1"]), &["permission"]);
        return;
    }
    // Where `nobody` can reach it.
    let made = Made::new();
    std::fs::set_permissions(
        made.folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("mode");
    let copy = made.path("taskprof");
    std::fs::copy(env!("CARGO_BIN_EXE_taskprof"), &copy).expect("copy");
    let output = Command::new(&copy)
        .args(["dump", "--pid", &target.pid().to_string()])
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .expect("it starts");
    refused(&output, &["permission", "root"]);
    target.must_be_well();
}

/// How often a dump is killed: each takes as long as reading debug information does.
const STEPS: u32 = 12;

/// Killed at every moment of a dump, taskprof leaves nobody stopped.
#[test]
fn a_killed_dump_leaves_the_target_running() {
    let mut target = Target::dev("churn");
    let pid = target.pid().to_string();
    let dump = || {
        Command::new(env!("CARGO_BIN_EXE_taskprof"))
            .args(["dump", "--pid", &pid, "--format", "json"])
            .env(NO_CACHE.0, NO_CACHE.1)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("taskprof starts")
    };
    let began = std::time::Instant::now();
    assert!(dump().wait().expect("its end").success());
    let whole = began.elapsed();
    let mut held = 0;
    for step in 0..STEPS {
        let mut child = dump();
        std::thread::sleep(whole * step / STEPS);
        held += u32::from(target.is_held());
        child.kill().expect("kill -9");
        child.wait().expect("its end");
        target.must_be_well();
    }
    // And at the very moment in which it is held. That is over in milliseconds:
    // it counts if it was still so just before the kill.
    let mut tries = 0;
    while tries < STEPS || held == 0 {
        tries += 1;
        assert!(tries <= 20 * STEPS, "never killed while the target was held");
        let mut child = dump();
        while !target.is_held() && child.try_wait().expect("wait").is_none() {
            std::hint::spin_loop();
        }
        held += u32::from(target.is_held());
        child.kill().expect("kill -9");
        child.wait().expect("its end");
        target.must_be_well();
    }
    std::thread::sleep(Duration::from_millis(50));
    target.must_be_well();
}

/// Another debugger is there already.
#[test]
fn a_process_that_is_traced_already_is_named_as_such() {
    let Some(gdb) = tool(&["gdb"]) else { return };
    let mut target = Target::dev("deadlock");
    let pid = target.pid().to_string();
    let made = Made::new();
    let attached = made.path("attached");
    let debugger = Other::start(Command::new(gdb).args([
        "-q",
        "-nx",
        "-batch",
        "-p",
        &pid,
        "-ex",
        &format!("shell touch '{}'; exec sleep 30", attached.display()),
    ]));
    // To all threads: one that gdb has just asked to stop would stop, and stay
    // so, if gdb were gone by then.
    super::targets::eventually("gdb attaches", || {
        attached.exists().then_some(()).ok_or_else(|| "not yet".to_owned())
    });
    assert!(target.is_held());
    refused(&taskprof(&[&"dump", &"--pid", &pid]), &["traced", "debugger"]);
    drop(debugger);
    super::targets::eventually("gdb lets go", || {
        (!target.is_held()).then_some(()).ok_or_else(|| "not yet".to_owned())
    });
    target.must_be_well();
}
