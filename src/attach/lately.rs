//! A source whose snapshots are dear: who needs no stacks gets the last one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::model::{CpuProfile, Process, Snapshot, Task};
use crate::serve::{LogTarget, Source, Want};

/// A snapshot serves for so long: a little longer than the event feed waits
/// between two with stacks, so that its looks between them cost nothing.
const SERVES: Duration = Duration::from_secs(6);

/// Hands out the last snapshot to who wants less than all of it, as long as it
/// is not old: from outside, one without stacks stops the process as long as
/// one with them. Its `taken_at` says of when it is.
#[derive(Debug)]
pub struct Lately<S> {
    source: S,
    serves: Duration,
    last: Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    began: Instant,
    /// All but the tasks.
    rest: Snapshot,
    tasks: Vec<Task>,
}

impl<S: Source> Lately<S> {
    /// Of that source.
    pub fn new(source: S) -> Self {
        Self { source, serves: SERVES, last: Mutex::default() }
    }

    /// The source itself.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The last one, if it is not old and stacks are not wanted.
    fn last(&self, want: Want) -> Option<Snapshot> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.as_ref().filter(|last| last.began.elapsed() < self.serves)?;
        if want.stacks {
            return None;
        }
        let tasks = if want.tasks { last.tasks.clone() } else { Vec::new() };
        Some(Snapshot { tasks, ..last.rest.clone() })
    }
}

impl<S: Source> Source for Lately<S> {
    fn process(&self) -> Process {
        self.source.process()
    }

    fn command_line(&self) -> Vec<String> {
        self.source.command_line()
    }

    fn snapshot(&self, want: Want) -> Result<Snapshot> {
        if let Some(last) = self.last(want) {
            return Ok(last);
        }
        let began = Instant::now();
        let mut snapshot = self.source.snapshot(Want::ALL)?;
        let tasks = std::mem::take(&mut snapshot.tasks);
        let last = Last { began, rest: snapshot.clone(), tasks: tasks.clone() };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        Ok(Snapshot { tasks, ..snapshot })
    }

    fn cpu_profile(
        &self,
        duration: Duration,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<CpuProfile> {
        self.source.cpu_profile(duration, stop)
    }

    fn symbol(&self, address: u64) -> Option<String> {
        self.source.symbol(address)
    }

    fn log_streams(&self, target: &LogTarget, on: bool) -> Result<usize> {
        self.source.log_streams(target, on)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::model::sample;

    /// Counts how often it was asked.
    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Source for Counts {
        fn process(&self) -> Process {
            sample::process()
        }

        fn command_line(&self) -> Vec<String> {
            Vec::new()
        }

        fn snapshot(&self, want: Want) -> Result<Snapshot> {
            assert_eq!(want, Want::ALL, "the next to ask may want all");
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(sample::stuck_server())
        }

        fn cpu_profile(&self, _: Duration, _: &(dyn Fn() -> bool + Sync)) -> Result<CpuProfile> {
            Err(Error::new(ErrorKind::Unsupported, "not here"))
        }

        fn symbol(&self, _: u64) -> Option<String> {
            None
        }

        fn log_streams(&self, _: &LogTarget, _: bool) -> Result<usize> {
            Ok(0)
        }
    }

    #[test]
    fn who_wants_no_stacks_gets_the_last_snapshot_while_it_is_new() {
        let mut lately = Lately::new(Counts::default());
        let whole = sample::stuck_server();
        let taken = |lately: &Lately<Counts>| lately.source().0.load(Ordering::Relaxed);
        // Whoever comes first has it taken, and all of it.
        assert_eq!(lately.snapshot(Want::TASKS).unwrap(), whole);
        assert_eq!(lately.snapshot(Want::TASKS).unwrap(), whole);
        let counts = lately.snapshot(Want::COUNTS).unwrap();
        assert_eq!(counts, Snapshot { tasks: Vec::new(), ..whole.clone() });
        assert_eq!(taken(&lately), 1);
        assert_eq!(lately.snapshot(Want::ALL).unwrap(), whole);
        assert_eq!(taken(&lately), 2);
        lately.serves = Duration::ZERO;
        lately.snapshot(Want::COUNTS).unwrap();
        assert_eq!(taken(&lately), 3);
    }
}
