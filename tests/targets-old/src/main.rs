//! Scenes of `tests/targets`, from the same source, on tokio 1.40.

#[path = "../../targets/src/deadlock.rs"]
#[allow(dead_code)] // one scene of many
mod deadlock;
#[path = "../../targets/src/stage.rs"]
#[allow(dead_code)] // what other scenes need
mod stage;
#[path = "../../targets/src/waits.rs"]
mod waits;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("waits") => stage::multi_thread(waits::play),
        Some("deadlock") => stage::multi_thread(deadlock::two),
        other => {
            eprintln!("no scene {other:?}");
            std::process::exit(2);
        }
    }
}
