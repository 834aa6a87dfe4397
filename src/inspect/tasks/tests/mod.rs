//! Reading real tasks, and nonsense.

mod chains;
mod forks;
mod kinds;
mod knots;
mod own;
mod wild;
