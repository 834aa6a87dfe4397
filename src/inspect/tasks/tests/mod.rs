//! Reading real tasks, and nonsense.

mod chains;
mod own;
