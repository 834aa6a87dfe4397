//! The threads of this process, as the kernel numbers and names them.
//!
//! Everything is read from `/proc/self/task`; see proc_pid_task(5).

use std::cell::Cell;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// Kernel id of the calling thread; 0 on systems other than Linux.
pub fn current_tid() -> u32 {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: gettid takes nothing, cannot fail and touches no memory.
        let tid = unsafe { libc::gettid() };
        u32::try_from(tid).unwrap_or(0)
    }
    #[cfg(not(target_os = "linux"))]
    {
        0
    }
}

/// Kernel ids of all threads of this process, ascending.
///
/// # Errors
/// Any failure to read `/proc/self/task`.
pub fn tids() -> io::Result<Vec<u32>> {
    let mut tids: Vec<u32> = fs::read_dir("/proc/self/task")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    tids.sort_unstable();
    Ok(tids)
}

/// Name of a thread of this process; `None` if there is no such thread.
pub fn name(tid: u32) -> Option<String> {
    let raw = fs::read(format!("/proc/self/task/{tid}/comm")).ok()?;
    Some(String::from_utf8_lossy(raw.strip_suffix(b"\n").unwrap_or(&raw)).into_owned())
}

/// How long a thread of this process has been ready to run and waited for a
/// processor, in nanoseconds since its start: the second field of schedstat,
/// see proc_pid_schedstat(5). `None` if there is no such thread or the kernel
/// does not count it.
pub fn waited_for_processor_ns(tid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// For so long a thread works before it gives way.
const TURN: Duration = Duration::from_millis(1);
/// The clock is looked at once in so many calls.
const CALLS: u32 = 16;

/// Lets a thread that waits for this processor have it, once in a millisecond
/// of work. To be called often in work on a large dump: the scheduler lets who
/// computes go on for some 3 ms when another wakes, and that other may be a
/// worker of the program's. See sched(7) and sched_yield(2).
///
/// Returns whether it did.
#[inline]
pub fn give_way() -> bool {
    thread_local! {
        static CALLED: Cell<u32> = const { Cell::new(0) };
    }
    let called = CALLED.get();
    CALLED.set(called.wrapping_add(1));
    called.is_multiple_of(CALLS) && turn_is_over()
}

#[cold]
fn turn_is_over() -> bool {
    thread_local! {
        static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    match BEGAN.get() {
        Some(began) if now.duration_since(began) < TURN => false,
        _ => {
            std::thread::yield_now();
            BEGAN.set(Some(Instant::now()));
            true
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_once_in_a_turn() {
        give_way();
        let begin = Instant::now();
        let mut times = 0;
        while begin.elapsed() < 20 * TURN {
            times += u32::from(give_way());
        }
        let turns = begin.elapsed().as_nanos() / TURN.as_nanos();
        assert!(times > 0 && u128::from(times) <= turns + 1, "{times} times in {turns} turns");
    }

    #[test]
    fn a_thread_finds_itself_in_the_list() {
        let (tid, listed, named) = std::thread::Builder::new()
            .name("find-me".to_owned())
            .spawn(|| (current_tid(), tids().unwrap(), name(current_tid())))
            .unwrap()
            .join()
            .unwrap();
        assert!(listed.contains(&tid), "{tid} in {listed:?}");
        assert!(listed.is_sorted());
        assert_eq!(named.as_deref(), Some("find-me"));
        assert_eq!(name(u32::MAX), None);
    }
}
