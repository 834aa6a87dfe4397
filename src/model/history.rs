//! What earlier snapshots of the same process add to this one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Location, TaskId};

/// What is remembered of earlier snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct History {
    /// Snapshots remembered, this one included.
    pub looks: u32,
    /// Time from the first of them to this one.
    pub span_ns: u64,
    /// Groups of tasks that have grown at every one of the last looks.
    pub growing: Vec<Growing>,
}

/// Tasks of one place, more at each look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Growing {
    /// Innermost function of the program's own code, if a stack tells.
    pub function: Option<Arc<str>>,
    /// Its place, or else the place that spawned the tasks.
    pub place: Option<Location>,
    /// Where they were spawned.
    pub spawned_at: Option<Location>,
    /// How many there were, oldest look first.
    pub points: Vec<GrowthPoint>,
    /// Of those at the first point, how many are alive in this group now.
    pub stayed: u64,
    /// Of the tasks there are now, how many belong to a live gRPC stream.
    pub of_live_streams: u64,
    /// Some of them, oldest first.
    pub tasks: Vec<TaskId>,
}

/// The size of a group at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct GrowthPoint {
    /// How long ago, seen from this snapshot.
    pub ago_ns: u64,
    /// How many tasks.
    pub count: u64,
}
