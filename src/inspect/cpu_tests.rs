use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::error::ErrorKind;
use crate::sys::current;

/// Profiles exclude each other, in tests too.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn reader() -> &'static StackReader {
    static READER: OnceLock<StackReader> = OnceLock::new();
    READER.get_or_init(|| {
        let reader = StackReader::new().unwrap();
        reader.warm_up();
        reader
    })
}

/// Stops its threads when dropped, so that a failed test does not spin on.
struct Threads(Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Threads {
    fn start(count: usize, run: fn()) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|index| {
            let stop = Arc::clone(&stop);
            let body = move || {
                current::get().task.set(70 + index as u64);
                while !stop.load(Ordering::Relaxed) {
                    run();
                }
            };
            std::thread::Builder::new().name(format!("load-{index}")).spawn(body).unwrap()
        });
        let threads = threads.collect();
        Self(stop, threads)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            let _ = thread.join();
        }
    }
}

#[inline(never)]
fn hot() {
    static SUM: AtomicU64 = AtomicU64::new(0);
    for value in 0..100_000_u64 {
        SUM.store(SUM.load(Ordering::Relaxed).wrapping_mul(31) ^ value, Ordering::Relaxed);
    }
}

#[test]
fn the_hot_function_is_found_with_its_task_and_thread() {
    let _alone = alone();
    let _load = Threads::start(1, hot);
    let is_hot = |sample: &&CpuStack| {
        sample.stack.frames.iter().any(|frame| &*frame.function == "tests::hot")
    };
    let began = Instant::now();
    let (profile, took) = loop {
        let start = Instant::now();
        let profile =
            cpu_profile(reader(), Duration::from_secs(1), &|| false, &mut |_| {}).unwrap();
        // The thread has to share its processor with other tests and programs.
        let count: u64 = profile.samples.iter().filter(is_hot).map(|sample| sample.count).sum();
        if count >= 10 || began.elapsed() > Duration::from_secs(60) {
            break (profile, start.elapsed());
        }
    };
    let hot: Vec<&CpuStack> = profile.samples.iter().filter(is_hot).collect();
    let count: u64 = hot.iter().map(|sample| sample.count).sum();
    assert!(count >= 10, "{count} of {}", profile.samples.len());
    // One thread cannot use more than all of the time.
    assert!(u128::from(count * profile.period_ns) <= 2 * took.as_nanos(), "{count} in {took:?}");
    assert!(
        hot.iter().all(|sample| sample.task == Some(TaskId(70)) && &*sample.thread == "load-0")
    );
    assert!(hot.iter().all(|sample| sample.stack.truncated.is_none()));
    assert_eq!(profile.period_ns, 10_101_010);
    assert_eq!(profile.threads_missed, 0);
}

#[test]
fn one_profile_at_a_time_and_stop_ends_it() {
    let _alone = alone();
    let (running, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let asked = || {
        running.store(true, Ordering::Relaxed);
        stop.load(Ordering::Relaxed)
    };
    std::thread::scope(|scope| {
        let first =
            scope.spawn(|| cpu_profile(reader(), Duration::from_secs(3600), &asked, &mut |_| {}));
        while !running.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let second = cpu_profile(reader(), Duration::ZERO, &|| true, &mut |_| {});
        stop.store(true, Ordering::Relaxed);
        let busy = second.unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Busy);
        assert_eq!(busy.to_string(), "cpu profiling already in use");
        assert!(first.join().unwrap().is_ok());
    });
    assert!(cpu_profile(reader(), Duration::ZERO, &|| false, &mut |_| {}).is_ok());
}

#[test]
fn panics_and_ending_threads_are_survived_at_a_high_rate() {
    let _alone = alone();
    #[inline(never)]
    fn thrower(depth: u32) {
        if depth == 0 {
            std::panic::resume_unwind(Box::new(1));
        }
        thrower(depth - 1);
        std::hint::black_box(());
    }
    fn throw() {
        for _ in 0..100 {
            let _ = std::panic::catch_unwind(|| thrower(20));
        }
    }
    fn spawn() {
        let _ = std::thread::spawn(throw).join();
    }
    let _panics = Threads::start(3, throw);
    let _ends = Threads::start(1, spawn);
    let mut samples = 0;
    let began = Instant::now();
    while samples < 3_000 && began.elapsed() < Duration::from_secs(60) {
        let profile = sample_all(
            reader(),
            Duration::from_secs(1),
            &|| false,
            &mut |_| {},
            Duration::from_micros(500),
        );
        let profile = profile.unwrap();
        samples += profile.samples.iter().map(|sample| sample.count).sum::<u64>();
    }
    assert!(samples >= 3_000, "{samples}");
}
