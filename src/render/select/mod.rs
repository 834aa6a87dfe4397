//! Choosing from a snapshot: filter, sort, page, group.

mod groups;
mod page;
mod streams;
mod tasks;
mod term;

pub use groups::{GroupSort, group_tasks};
pub use page::Cursor;
pub use streams::{STREAM_FILTER, StreamSort, select_streams, stream_filter};
pub use tasks::{TASK_FILTER, TaskSort, select_tasks, task_filter};
