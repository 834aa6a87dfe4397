//! Choosing from a snapshot: filter, sort, page, group.

mod groups;
mod page;
mod streams;
mod tasks;
mod term;

pub use groups::{GroupSort, group_tasks};
pub use page::Cursor;
pub use streams::{STREAM_FILTER, StreamSort, stream_filter, select_streams};
pub use tasks::{TASK_FILTER, TaskSort, select_tasks, task_filter};
