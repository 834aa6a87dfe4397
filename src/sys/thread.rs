//! The threads of this process, as the kernel numbers and names them.
//!
//! Everything is read from `/proc/self/task`; see proc_pid_task(5).

use std::fs;
use std::io;

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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

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
