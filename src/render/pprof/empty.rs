//! Profiles that Go has and we have not: valid and empty, so that scrapers
//! which collect all of them succeed.

use super::builder::{Builder, Type};
use crate::model::{Process, Timestamp};

/// A profile without samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    Allocs,
    Heap,
    Threadcreate,
}

const HEAP: [Type; 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
];
// The preferred type is the last one.
const ALLOCS: [Type; 4] = [
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
];

/// Its protobuf form.
pub fn empty(kind: Empty, process: &Process, taken_at: Timestamp) -> Vec<u8> {
    let (types, period_type): (&[Type], Type) = match kind {
        Empty::Allocs => (&ALLOCS, ("space", "bytes")),
        Empty::Heap => (&HEAP, ("space", "bytes")),
        Empty::Threadcreate => (&[("threadcreate", "count")], ("threadcreate", "count")),
    };
    let mut builder = Builder::new(process, types, period_type, 1);
    builder.time(taken_at.unix_nanos(), 0);
    builder.comment("taskprof does not collect this profile");
    builder.finish()
}

/// Its `debug=1` form.
pub fn empty_text(kind: Empty) -> &'static str {
    match kind {
        Empty::Allocs | Empty::Heap => "heap profile: 0: 0 [0: 0] @ heap/1\n",
        Empty::Threadcreate => "threadcreate profile: total 0\n",
    }
}
