//! A CPU profile of the whole process.
//!
//! Every thread gets a timer on its own CPU clock that signals the thread
//! itself; the handler copies registers and stack into a bounded pool
//! (`sys::sampler::ring`), and the calling thread empties it and unwinds.
//! Time that a thread spends asleep does not count, threads that start during
//! the profile join it within [`RESCAN`].
//!
//! CPU clocks advance with the kernel's tick, and expiry is acted upon on the
//! way back to user code, so a call that is asleep is never interrupted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::threads::StackReader;
use super::unwind::Walk;
use super::{CpuSamples, CpuStack};
use crate::error::Result;
use crate::model::TaskId;
use crate::sys::sampler::{Sample, ring::Recording, timer::CpuTimer};
use crate::sys::thread;

/// CPU time between two samples of a thread: 99 a second rather than 100, so
/// as not to march in step with work that repeats every 10 ms.
const PERIOD: Duration = Duration::from_nanos(10_101_010);
/// How often samples are collected: the pool holds 64, a busy thread makes
/// one in this time.
const COLLECT: Duration = Duration::from_millis(10);
/// How often new threads are looked for.
const RESCAN: Duration = Duration::from_millis(100);
/// Distinct stacks remembered; what is beyond counts as lost. 4 KiB each at
/// most, so 40 MiB for a program that never is in the same place twice.
const MAX_DISTINCT: usize = 10_000;

/// Samples the CPU time of all threads for `duration`, or until `stop`. `seen`
/// is told of each sampled task within [`COLLECT`], while it most likely lives:
/// at the end nobody may know it any more.
///
/// # Errors
/// `Busy` (`cpu profiling already in use`) while another one runs,
/// `Unsupported` without a free signal, `Io` if threads cannot be listed.
pub fn cpu_profile(
    reader: &StackReader,
    duration: Duration,
    stop: &(dyn Fn() -> bool + Sync),
    seen: &mut dyn FnMut(TaskId),
) -> Result<CpuSamples> {
    sample_all(reader, duration, stop, seen, PERIOD)
}

/// One thread with its timer.
struct Watched {
    name: Arc<str>,
    timer: Option<CpuTimer>,
}

/// What makes two samples equal.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    tid: u32,
    polled: u64,
    addresses: Vec<u64>,
    truncated: Option<&'static str>,
}

/// What was sampled so far.
#[derive(Default)]
struct Counts {
    counts: HashMap<Key, u64>,
    lost: u64,
}

fn sample_all(
    reader: &StackReader,
    duration: Duration,
    stop: &(dyn Fn() -> bool + Sync),
    seen: &mut dyn FnMut(TaskId),
    period: Duration,
) -> Result<CpuSamples> {
    let recording = Recording::begin()?;
    let end = Instant::now() + duration;
    let mut threads = HashMap::new();
    let mut missed = 0;
    let mut rescan = Instant::now();
    let mut counts = Counts::default();
    loop {
        let now = Instant::now();
        if now >= rescan {
            missed = watch_threads(&recording, &mut threads, period)?;
            rescan = now + RESCAN;
        }
        if now >= end || stop() {
            break;
        }
        std::thread::sleep(COLLECT.min(end - now));
        collect(reader, &recording, &mut counts, seen)?;
    }
    // Timers first: nothing new may come while the rest is collected.
    for (&tid, watched) in &mut threads {
        // A thread gives itself its name a moment after it starts.
        if watched.timer.take().is_some()
            && let Some(name) = thread::name(tid)
        {
            watched.name = name.into();
        }
    }
    collect(reader, &recording, &mut counts, seen)?;
    let mut lost = recording.lost() + counts.lost;
    drop(recording);
    let mut samples = Vec::with_capacity(counts.counts.len());
    for (key, count) in counts.counts {
        let walk = Walk { addresses: key.addresses, truncated: key.truncated };
        // It waits for the names as long as it takes, so that there are some.
        let Some(stack) = reader.name(&walk, None)? else {
            lost += count;
            continue;
        };
        samples.push(CpuStack {
            stack,
            task: (key.polled != 0).then_some(TaskId(key.polled)),
            tid: key.tid,
            thread: threads.get(&key.tid).map_or_else(|| "".into(), |it| Arc::clone(&it.name)),
            count,
        });
    }
    let mut profile = CpuSamples {
        samples,
        period_ns: u64::try_from(period.as_nanos()).unwrap_or(u64::MAX),
        lost,
        threads_missed: missed,
    };
    profile.samples.sort_by(|a, b| b.count.cmp(&a.count).then(a.tid.cmp(&b.tid)));
    Ok(profile)
}

/// Gives every thread that has none a timer; how many could not get one.
fn watch_threads(
    recording: &Recording,
    threads: &mut HashMap<u32, Watched>,
    period: Duration,
) -> Result<u64> {
    let alive = thread::tids()
        .map_err(|error| crate::error::Error::io("listing the process's threads", error))?;
    for (tid, watched) in threads.iter_mut() {
        if alive.binary_search(tid).is_err() {
            // The name stays for the samples, the timer is of no more use.
            watched.timer = None;
        }
    }
    let mut missed = 0;
    for tid in alive {
        if threads.get(&tid).is_some_and(|watched| watched.timer.is_some()) {
            continue;
        }
        let Some(name) = thread::name(tid) else { continue };
        let timer = CpuTimer::start(recording, tid, period).ok();
        // Still there, but no timer: the limit of pending signals.
        missed += u64::from(timer.is_none() && thread::name(tid).is_some());
        threads.insert(tid, Watched { name: name.into(), timer });
    }
    Ok(missed)
}

fn collect(
    reader: &StackReader,
    recording: &Recording,
    counts: &mut Counts,
    seen: &mut dyn FnMut(TaskId),
) -> Result<()> {
    let mut samples: Vec<Sample> = Vec::new();
    recording.drain(|sample| {
        if sample.polled != 0 {
            seen(TaskId(sample.polled));
        }
        samples.push(sample);
    });
    if samples.is_empty() {
        return Ok(());
    }
    reader.guarded(|reader| {
        for sample in samples {
            let walk = reader.walk(sample.registers, &sample.stack)?;
            let key = Key {
                tid: sample.tid,
                polled: sample.polled,
                addresses: walk.addresses,
                truncated: walk.truncated,
            };
            if counts.counts.len() >= MAX_DISTINCT && !counts.counts.contains_key(&key) {
                counts.lost += sample.weight;
                continue;
            }
            *counts.counts.entry(key).or_default() += sample.weight;
        }
        Ok(())
    })
}

#[cfg(test)]
#[path = "cpu_tests.rs"]
mod tests;
