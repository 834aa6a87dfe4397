use std::io::BufRead as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use super::*;
use crate::sys::testing::{Role, let_anybody_trace, role, say};

const ROLE: &str = "sys::ptrace::tests::play_a_role";
const THREADS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(10);

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Answers questions: `ping` goes round all its threads, `signals` counts
/// those that arrived.
fn target() {
    let_anybody_trace();
    // SAFETY: a handler that only counts.
    unsafe { libc::signal(libc::SIGRTMIN(), count as *const () as usize) };
    let (pong, ponged) = mpsc::channel();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (ping, pinged) = mpsc::channel::<()>();
            let pong = pong.clone();
            std::thread::spawn(move || pinged.iter().try_for_each(|()| pong.send(())));
            ping
        })
        .collect();
    say("ready");
    for line in std::io::stdin().lock().lines() {
        if line.unwrap() == "signals" {
            say(&SIGNALS.load(Ordering::Relaxed).to_string());
            continue;
        }
        threads.iter().for_each(|ping| ping.send(()).unwrap());
        say(&ponged.iter().take(THREADS).count().to_string());
    }
}

/// Freezes, says so, and waits to be killed.
fn freezer(pid: c_int) {
    let _frozen = Frozen::freeze(pid, PATIENCE).unwrap();
    say("frozen");
    std::thread::park();
}

extern "C" fn pause_for_ever(_: *mut c_void) -> c_int {
    // SAFETY: plain system calls.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}

/// Has a thread that sleeps in the kernel and cannot be stopped: it has called
/// `vfork`, and its child neither ends nor begins a program.
fn held_in_the_kernel() {
    let_anybody_trace();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        tell.send(crate::sys::thread::current_tid()).unwrap();
        let stack: &'static mut [u8] = vec![0; 64 << 10].leak();
        let top = stack.as_mut_ptr_range().end.cast();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the child has a stack of its own, which lives for ever, and
        // only makes system calls; this thread waits for as long as it lives.
        unsafe { libc::clone(pause_for_ever, top, flags, std::ptr::null_mut()) };
    });
    let tid = told.recv().unwrap();
    let begin = Instant::now();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
        if stat[stat.rfind(')').unwrap() + 2..].starts_with('D') {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{stat}");
        std::thread::yield_now();
    }
    say("held");
    std::thread::park();
}

#[test]
#[ignore = "started by the tests below"]
fn play_a_role() {
    let Some(role) = role() else { return };
    match role.split_once(' ') {
        Some(("freezer", pid)) => freezer(pid.parse().unwrap()),
        None if role == "held" => held_in_the_kernel(),
        _ => target(),
    }
}

fn start_target() -> Role {
    let mut target = Role::start(ROLE, "target");
    assert_eq!(target.hear(), "ready");
    target
}

fn states(pid: u32) -> Vec<char> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stat = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")));
    stat.map(|stat| {
        let stat = stat.unwrap();
        stat[stat.rfind(')').unwrap() + 2..].chars().next().unwrap()
    })
    .collect()
}

#[test]
fn all_threads_stand_still_and_go_on() {
    let mut target = start_target();
    let pid = target.pid();
    let frozen = Frozen::freeze(pid.cast_signed(), PATIENCE).unwrap();
    // The test harness has a thread or two besides.
    assert!(frozen.threads().len() > THREADS);
    assert!(frozen.threads().iter().all(|thread| {
        thread.registers.is_some_and(|full| full.thread_pointer != 0 && full.registers.sp != 0)
    }));
    assert!(states(pid).iter().all(|&state| state == 't'), "{:?}", states(pid));
    drop(frozen);
    assert_eq!(target.ask("ping"), THREADS.to_string());
}

#[test]
fn the_target_goes_on_when_its_tracer_is_killed() {
    let mut target = start_target();
    let mut freezer = Role::start(ROLE, &format!("freezer {}", target.pid()));
    assert_eq!(freezer.hear(), "frozen");
    assert!(states(target.pid()).iter().all(|&state| state == 't'));
    freezer.signal(libc::SIGKILL);
    freezer.child.wait().unwrap();
    assert_eq!(target.ask("ping"), THREADS.to_string());
    let status = std::fs::read_to_string(format!("/proc/{}/status", target.pid())).unwrap();
    assert!(status.contains("TracerPid:\t0\n"));
}

#[test]
fn a_stopped_target_stays_stopped() {
    let mut target = start_target();
    target.signal(libc::SIGSTOP);
    target.await_state(&['T']);
    drop(Frozen::freeze(target.pid().cast_signed(), PATIENCE).unwrap());
    target.await_state(&['T']);
    target.signal(libc::SIGCONT);
    assert_eq!(target.ask("ping"), THREADS.to_string());
}

/// It cannot be let go of either, but by the end of the thread that asked it to
/// stop.
#[test]
fn a_thread_that_could_not_be_stopped_is_in_nobodys_way() {
    let mut target = Role::start(ROLE, "held");
    assert_eq!(target.hear(), "held");
    let pid = target.pid().cast_signed();
    for _ in 0..5 {
        let left_running = apart("freezes", || {
            let frozen = Frozen::freeze(pid, Duration::from_millis(100))?;
            Ok::<_, io::Error>(frozen.threads().iter().filter(|it| it.registers.is_none()).count())
        });
        assert_eq!(left_running.unwrap().unwrap(), 1);
    }
}

#[test]
fn no_signal_is_lost() {
    const SENT: u64 = 300;
    let mut target = start_target();
    let pid = target.pid().cast_signed();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for _ in 0..SENT {
                target.signal(libc::SIGRTMIN());
                std::thread::yield_now();
            }
        });
        let mut rounds = 0;
        while !sender.is_finished() || rounds < 10 {
            drop(Frozen::freeze(pid, PATIENCE).unwrap());
            rounds += 1;
        }
    });
    assert_eq!(target.ask("ping"), THREADS.to_string());
    assert_eq!(target.ask("signals"), SENT.to_string());
}

#[test]
fn what_cannot_be_stopped_is_an_error() {
    let gone = Frozen::freeze(c_int::MAX, PATIENCE).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    let target = start_target();
    let mut freezer = Role::start(ROLE, &format!("freezer {}", target.pid()));
    freezer.hear();
    let busy = Frozen::freeze(target.pid().cast_signed(), PATIENCE).unwrap_err();
    assert_eq!(busy.raw_os_error(), Some(libc::EPERM));
}
