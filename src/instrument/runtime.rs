//! tokio's hooks: births, polls and ends of tasks; parks of workers.
//!
//! A poll costs one clock read, mostly: at its end, where the next one begins.
//! Beside that it costs a look-up of a cache line and some relaxed stores. Each
//! hook has a short way, for what happens at nearly each call, which is compiled
//! into it, and a long one for all else. What surprises in tokio, and is provided
//! for:
//! - the hook after a poll comes when another worker may poll the task already;
//! - the hook after the last poll of a task comes after the one of its end;
//! - `spawn_blocking` closures end without having been born;
//! - what is spawned on a runtime that is over ends before it is born, on the
//!   thread that spawns it;
//! - `LocalSet` tasks and the root of a `block_on` have no hooks at all;
//! - in `block_in_place` a worker index moves to another thread mid-poll.

#[cfg(tokio_unstable)]
mod polls;

use std::sync::Arc;

use tokio::runtime::Builder;
#[cfg(tokio_unstable)]
use tokio::runtime::TaskMeta;

use crate::registry::Registry;
use crate::registry::clock;
use crate::registry::workers::RuntimeCell;
use crate::sys::current;

#[cfg(tokio_unstable)]
type TaskHook = Box<dyn Fn(&TaskMeta<'_>) + Send + Sync>;
type ThreadHook = Box<dyn Fn() + Send + Sync>;

/// The application's own runtime hooks. tokio keeps one callback of each kind,
/// so those that taskprof uses as well are given to it, and run after its own.
#[derive(Default)]
pub struct Hooks {
    #[cfg(tokio_unstable)]
    task_spawn: Option<TaskHook>,
    #[cfg(tokio_unstable)]
    before_poll: Option<TaskHook>,
    #[cfg(tokio_unstable)]
    after_poll: Option<TaskHook>,
    #[cfg(tokio_unstable)]
    task_terminate: Option<TaskHook>,
    thread_park: Option<ThreadHook>,
    thread_unpark: Option<ThreadHook>,
}

macro_rules! task_hook {
    ($(#[$doc:meta])* $name:ident, $field:ident) => {
        $(#[$doc])*
        #[cfg(tokio_unstable)]
        #[must_use]
        pub fn $name(mut self, hook: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
            self.$field = Some(Box::new(hook));
            self
        }
    };
}

impl Hooks {
    /// No hooks.
    pub fn new() -> Self {
        Self::default()
    }

    task_hook! {
        /// As [`Builder::on_task_spawn`].
        on_task_spawn, task_spawn
    }
    task_hook! {
        /// As [`Builder::on_before_task_poll`].
        on_before_task_poll, before_poll
    }
    task_hook! {
        /// As [`Builder::on_after_task_poll`].
        on_after_task_poll, after_poll
    }
    task_hook! {
        /// As [`Builder::on_task_terminate`].
        on_task_terminate, task_terminate
    }

    /// As [`Builder::on_thread_park`].
    #[must_use]
    pub fn on_thread_park(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.thread_park = Some(Box::new(hook));
        self
    }

    /// As [`Builder::on_thread_unpark`].
    #[must_use]
    pub fn on_thread_unpark(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.thread_unpark = Some(Box::new(hook));
        self
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// Installs the hooks of one runtime.
pub fn install(
    registry: &Arc<Registry>,
    runtime: &Arc<RuntimeCell>,
    builder: &mut Builder,
    hooks: Hooks,
) {
    let park = |parked: bool, user: Option<ThreadHook>| {
        let (runtime, workers) = (runtime.clone(), runtime.cells());
        move || {
            runtime.meet();
            let index = tokio::runtime::worker_index();
            let current = current::get();
            current.between.set(0);
            if let Some(worker) = index.and_then(|index| workers.get(index)) {
                let now = clock::now();
                worker.parks(current.tid(), parked, now);
                // Not if a poll has gone to another runtime (`block_in_place`).
                if !parked && user.is_none() && current.began.get() == 0 {
                    current.is_between(now);
                }
            }
            if let Some(user) = &user {
                user();
            }
        }
    };
    builder.on_thread_park(park(true, hooks.thread_park));
    builder.on_thread_unpark(park(false, hooks.thread_unpark));

    #[cfg(not(tokio_unstable))]
    let _ = registry;
    #[cfg(tokio_unstable)]
    {
        let hooked = hooks.before_poll.is_some() || hooks.after_poll.is_some();
        let watch = polls::Watch::new(registry.clone(), runtime.clone(), hooked);
        // Hooks without an application's own are closures of their own: they
        // run at each poll, and a test and a stack frame are felt there.
        macro_rules! install {
            ($on:ident, $user:ident, |$watch:ident, $meta:ident| $ours:expr, $first:ident) => {{
                let $watch = watch.clone();
                match hooks.$user {
                    None => builder.$on(move |$meta| $ours),
                    Some(user) => builder.$on(move |$meta| install!(@$first, user($meta), $ours)),
                };
            }};
            (@ours_first, $user:expr, $ours:expr) => {{
                $ours;
                $user;
            }};
            // The application's own work in its hooks is not part of the poll.
            (@user_first, $user:expr, $ours:expr) => {{
                $user;
                $ours;
            }};
        }
        install!(on_task_spawn, task_spawn, |watch, meta| watch.spawned(meta), ours_first);
        install!(on_before_task_poll, before_poll, |watch, meta| watch.polling(meta), user_first);
        install!(on_after_task_poll, after_poll, |watch, _meta| watch.polled(), ours_first);
        install!(on_task_terminate, task_terminate, |watch, meta| watch.ended(meta), ours_first);
    }
}
