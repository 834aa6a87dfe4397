//! The waits of `tests/targets`, from the same source, on tokio 1.40.

#[path = "../../targets/src/stage.rs"]
#[allow(dead_code)] // what other scenes need
mod stage;
#[path = "../../targets/src/waits.rs"]
mod waits;

fn main() {
    stage::multi_thread(waits::play);
}
