//! Pure judgement: snapshot in, findings out. No clock, no I/O.
//!
//! A finding is a group of alike cases, not a row. A case must be wrong, not
//! merely slow: a stream that waits for its peer, a long poll or a quiet
//! subscription is healthy, and a false alarm costs more than a silence.
//! What cannot be told apart yet is said to be `suspected`, and never `critical`.

mod blocked;
mod capacity;
mod channels;
mod checks;
mod convoy;
mod deadlock;
mod forever;
mod graph;
mod growth;
mod knots;
mod leaks;
mod lost;
mod streams;
mod trend;
mod unwakeable;
mod verdict;
mod waits;
mod words;

use std::cmp::Reverse;

use crate::model::{Report, Snapshot};

pub use forever::leaked;
pub use trend::Trend;
pub use verdict::Judge;

/// Ids listed in a finding; `count` says how many there are in all.
const LISTED: usize = 100;

/// What is wrong in this snapshot, worst first, then longest.
pub fn analyze(snapshot: &Snapshot) -> Report {
    let mut findings = Vec::new();
    blocked::workers(snapshot, &mut findings);
    blocked::pauses(snapshot, &mut findings);
    blocked::busy_tasks(snapshot, &mut findings);
    streams::stuck(snapshot, &mut findings);
    streams::past_deadline(snapshot, &mut findings);
    streams::cancelled(snapshot, &mut findings);
    leaks::tasks(snapshot, &mut findings);
    capacity::full(snapshot, &mut findings);
    growth::found(snapshot, &mut findings);
    let graph = graph::Graph::of(snapshot);
    unwakeable::found(snapshot, &graph, &mut findings);
    deadlock::found(&graph, &mut findings);
    convoy::found(snapshot, &graph, &mut findings);
    channels::found(snapshot, &graph, &mut findings);
    findings.sort_by(|a, b| {
        let key = |f: &crate::model::Finding| Reverse((f.severity, f.confidence, f.since_ns));
        key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
    });
    Report { taken_at: snapshot.taken_at, findings, checked: checks::checks(snapshot) }
}

#[cfg(test)]
mod stuck_tests;
#[cfg(test)]
mod tests;
