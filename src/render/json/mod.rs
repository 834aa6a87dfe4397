//! JSON answers: their types, and writing long lists piece by piece.

mod answers;
mod chunks;
#[cfg(all(test, feature = "cli"))]
mod schema;

pub use answers::{
    ConnectionsAnswer, CountersEvent, FindingsAnswer, Head, HealthAnswer, HealthRuntime, Hog,
    JudgedConnection, JudgedStream, LogAnswer, ProblemAnswer, StateCounts, StreamAnswer,
    StreamsAnswer, TaskAnswer, TaskGroup, TaskGroupsAnswer, TaskRef, TasksAnswer, WorkersAnswer,
};
pub use chunks::{Json, snapshot};
#[cfg(all(test, feature = "cli"))]
pub use schema::schema;

use serde::Serialize;

/// JSON of something that cannot fail to be written.
///
/// # Panics
/// If a type of this crate has a map whose keys are no strings: a bug that the
/// schema test finds.
pub fn to_vec<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    append(value, &mut out);
    out
}

/// Appends JSON.
pub fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("answers have string keys and a Vec takes every byte");
}
