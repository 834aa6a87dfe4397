//! A small program that is tokio by name and shape, as far as debug information
//! can tell.

pub const PROGRAM: &str = "
mod runtime { pub mod task { pub mod raw {
    #[inline(never)]
    pub fn poll<T, S>(task: &T, of: &S) { std::hint::black_box((task, of)); }
}}}
async fn tick(left: u32) -> u32 { std::future::ready(left).await }
struct Future { left: u32 }
struct Scheduler { id: u64 }
fn main() {
    let task = Future { left: std::process::id() };
    runtime::task::raw::poll::<Future, Scheduler>(&task, &Scheduler { id: 7 });
    std::hint::black_box(Box::pin(tick(task.left)) as std::pin::Pin<Box<dyn std::future::Future<Output = u32>>>);
}
";
