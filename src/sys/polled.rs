//! Which task this thread is polling, where a signal handler can read it.
//!
//! The cell is a const-initialised thread-local without a destructor: no lazy
//! registration, no allocation, a plain load or store relative to the thread
//! pointer. That is what makes it safe to read inside a signal handler. (In a
//! library loaded with `dlopen` the compiler may go through the dynamic
//! linker for a thread's first access; a hook has always made that access
//! before there is anything to read, and a thread that never polls reads the
//! initial 0.)

use std::cell::Cell;

thread_local! {
    static POLLED: Cell<u64> = const { Cell::new(0) };
}

/// Notes that this thread polls a task from now on; 0 for none.
#[inline]
pub fn set(task_id: u64) {
    POLLED.set(task_id);
}

/// The task that this thread polls, 0 for none.
#[inline]
pub fn get() -> u64 {
    POLLED.get()
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_thread_has_its_own() {
        super::set(7);
        assert_eq!(std::thread::spawn(super::get).join().unwrap(), 0);
        assert_eq!(super::get(), 7);
        super::set(0);
    }
}
