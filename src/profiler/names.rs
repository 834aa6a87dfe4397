//! Names for the stacks of threads, also while debug information is still
//! being read.

use std::sync::{Arc, Once};
use std::time::Instant;

use super::awaits::STILL_READING;
use crate::error::Result;
use crate::inspect::threads::StackReader;
use crate::inspect::{Captured, Walk};
use crate::instrument::watchdog::{Named, Taken};
use crate::model::Stack;

/// Gives stacks their names.
#[derive(Debug)]
pub(super) struct Names {
    stacks: Arc<StackReader>,
    /// Somebody has asked before they were there.
    hurried: Once,
}

impl Names {
    pub(super) fn new(stacks: Arc<StackReader>) -> Self {
        Self { stacks, hurried: Once::new() }
    }

    /// The stack by its names, if there are any by then.
    ///
    /// # Errors
    /// As [`StackReader::name`].
    pub(super) fn of(&self, walk: &Walk, until: Instant) -> Result<Option<Arc<Stack>>> {
        let named = self.stacks.name(walk, Some(Instant::now()))?;
        if named.is_some() {
            return Ok(named);
        }
        self.hurry();
        self.stacks.name(walk, Some(until))
    }

    /// What stacks need is read after what await chains need, as those are read
    /// sooner if nothing else is. Once there is a stack, it is its turn.
    fn hurry(&self) {
        self.hurried.call_once(|| {
            let stacks = self.stacks.clone();
            // Without a thread for it, it has its turn later.
            let _ = std::thread::Builder::new()
                .name("taskprof-warm".into())
                .spawn(move || stacks.warm_up());
        });
    }

    /// A stack for the watchdog, which waits for nothing.
    ///
    /// # Errors
    /// As [`StackReader::capture`].
    pub(super) fn captured(self: &Arc<Self>, tid: u32) -> Result<Taken> {
        let Captured { walk, polled_task } = self.stacks.capture(tid)?;
        let stack = match self.of(&walk, Instant::now())? {
            Some(stack) => Named::Now(stack),
            None => {
                let names = self.clone();
                let later = move || names.of(&walk, Instant::now()).transpose();
                Named::Later(STILL_READING.into(), Box::new(later))
            }
        };
        Ok(Taken { task: polled_task, stack })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::thread;

    /// Nobody else reads anything here: as if the turn of stacks were far off.
    #[test]
    fn a_stack_that_waits_for_names_has_them_read() {
        let stacks = Arc::new(StackReader::new().unwrap());
        let names = Arc::new(Names::new(stacks.clone()));
        let walk = stacks.capture(thread::current_tid()).unwrap().walk;
        assert_eq!(stacks.name(&walk, Some(Instant::now())).unwrap(), None);
        let taken = names.captured(thread::current_tid()).unwrap();
        let Named::Later(why, later) = taken.stack else { panic!("names at once") };
        assert_eq!(&*why, STILL_READING);
        let far_off = Instant::now() + Duration::from_secs(60);
        let stack = names.of(&walk, far_off).unwrap().expect("names");
        let has = |stack: &Stack| {
            let name = "a_stack_that_waits_for_names_has_them_read";
            stack.frames.iter().any(|frame| frame.function_full.contains(name))
        };
        assert!(has(&stack), "{stack:#?}");
        let stack = later().expect("names by now").unwrap();
        assert!(has(&stack), "{stack:#?}");
    }
}
