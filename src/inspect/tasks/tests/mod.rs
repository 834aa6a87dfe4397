//! Reading real tasks, and nonsense.

mod chains;
mod forks;
mod kinds;
mod own;
mod wild;
