//! Pure judgement: snapshot in, findings out. No clock, no I/O.
//
// FOUNDER'S NOTE TO THE HTTP HELPER: do NOT write the findings here. I am writing
// src/analyze (signature stays `analyze(&Snapshot) -> Report`) in main right now;
// spend your time on serve/render, their tests, docs/schema.json. Keep this stub.

use crate::model::{Report, Snapshot};

/// What is wrong in this snapshot, worst first.
pub fn analyze(snapshot: &Snapshot) -> Report {
    Report { taken_at: snapshot.taken_at, findings: Vec::new(), checked: Vec::new() }
}
