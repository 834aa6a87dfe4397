//! A worker that does not come back, from a call through C.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::stage::{Stage, role, until};

type Compare = extern "C-unwind" fn(*const c_void, *const c_void) -> c_int;

unsafe extern "C-unwind" {
    safe fn sleep(seconds: c_uint) -> c_uint;
    fn qsort(base: *mut c_void, count: usize, size: usize, compare: Compare);
}

static BLOCKED: AtomicBool = AtomicBool::new(false);

pub async fn play(stage: &mut Stage) {
    let blocked = role("blocked").path(&["callback", "through_c", "blocking_task"]).running();
    stage.spawn(blocked, blocking_task());
    until(|| BLOCKED.load(Ordering::Acquire)).await;
    stage.spawn(role("free").waits("sleep"), free());
    stage.restless();
}

async fn blocking_task() {
    through_c(); // MARK: blocking_task
}

#[inline(never)]
fn through_c() {
    let mut numbers = [2u32, 1];
    let base = numbers.as_mut_ptr().cast();
    // SAFETY: two numbers of that size; the callback only reads.
    unsafe { qsort(base, numbers.len(), size_of::<u32>(), compare) }; // MARK: through_c
    assert!(numbers[0] <= 2);
}

extern "C-unwind" fn compare(_: *const c_void, _: *const c_void) -> c_int {
    BLOCKED.store(true, Ordering::Release);
    while sleep(3600) > 0 {} // MARK: callback
    0
}

async fn free() {
    tokio::time::sleep(crate::stage::HOUR).await; // MARK: free
}
