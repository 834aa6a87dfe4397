//! `targets SCENE`: sets a scene with tokio tasks, prints what is true of it as
//! one line of JSON, then `ready`, and holds still until its input closes.
//!
//! A line of input is a request: `ping` is answered by a task of the runtime
//! (`pong`), `more` lets a scene that can grow do so, `grown` has it tell the
//! tasks that this has added, and at `become` the process begins another program.
//! Lines that tasks wait at are marked in the source, `// MARK: name` at their end
//! or `// NEXT: name` on the line above, and the truth speaks of the marks.
//!
//! A task that outlives its stream (`leaked_task`) has no scene here: only the
//! hooks know which stream a task came from. Its scene and the healthy twin are
//! the reference server's, in `tests/suite/dump_own.rs`.

mod blocked;
mod cells;
mod channels;
mod churn;
mod deadlock;
mod ends;
mod futurelock;
mod merged;
mod readers;
mod runtimes;
mod shapes;
mod shapes_many;
mod stage;
mod unwakeable;
mod waits;
mod waits_io;

use stage::{Stage, current_thread, multi_thread};

fn main() {
    let scene = std::env::args().nth(1).unwrap_or_default();
    match scene.as_str() {
        "waits" => multi_thread(async |stage| {
            waits::play(stage).await;
            waits_io::play(stage).await;
        }),
        "shapes" => multi_thread(async |stage| {
            shapes::play(stage).await;
            shapes_many::play(stage).await;
        }),
        "merged" => multi_thread(merged::play),
        "current-thread" => current_thread(shapes::play),
        "local-set" => runtimes::local_set(),
        "several-runtimes" => runtimes::several(),
        "churn" => multi_thread(churn::play),
        "growing" => multi_thread(churn::growing),
        "growing-healthy" => multi_thread(churn::coming_and_going),
        "yield" => multi_thread(churn::yielding),
        "blocked" => multi_thread(blocked::play),
        "nothing" => multi_thread(async |_: &mut Stage| {}),
        other => stuck(other),
    }
}

/// What is stuck, each with a twin that looks alike and is not.
fn stuck(scene: &str) {
    match scene {
        "deadlock" => multi_thread(deadlock::two),
        "deadlock-healthy" => multi_thread(deadlock::two_in_order),
        "deadlock-three" => multi_thread(deadlock::three),
        "deadlock-three-healthy" => multi_thread(deadlock::three_in_a_row),
        "deadlock-self" => multi_thread(deadlock::itself),
        "deadlock-self-healthy" => multi_thread(deadlock::itself_after_release),
        "deadlock-mixed" => multi_thread(deadlock::mixed),
        "deadlock-mixed-healthy" => multi_thread(deadlock::mixed_with_way_out),
        "deadlock-permits" => multi_thread(deadlock::permits),
        "deadlock-permits-healthy" => multi_thread(deadlock::permits_with_way_out),
        "deadlock-readers" => multi_thread(readers::with_a_writer),
        "deadlock-readers-timed" => multi_thread(readers::with_a_writer_that_leaves),
        "deadlock-readers-healthy" => multi_thread(readers::without_a_writer),
        "deadlock-cells" => multi_thread(cells::circle),
        "deadlock-cells-healthy" => multi_thread(cells::row),
        "deadlock-cell-self" => multi_thread(cells::itself),
        "stale-healthy" => multi_thread(deadlock::stale),
        "stale-unseen" => multi_thread(deadlock::stale_unseen),
        "futurelock" => multi_thread(futurelock::queued),
        "futurelock-healthy" => multi_thread(futurelock::queued_and_dropped),
        "futurelock-held" => multi_thread(futurelock::held),
        "futurelock-held-healthy" => multi_thread(futurelock::held_and_polled),
        "futurelock-stream" => multi_thread(futurelock::buffered),
        "futurelock-stream-healthy" => multi_thread(futurelock::buffered_and_released),
        "convoy" => multi_thread(deadlock::convoy),
        "brisk" => multi_thread(async |stage| {
            deadlock::rotation(stage).await;
            channels::busy(stage).await;
        }),
        "rotation-slow" => multi_thread(deadlock::slow_rotation),
        "convoy-healthy" => multi_thread(deadlock::no_convoy),
        "channel" => multi_thread(channels::stuck),
        "channel-healthy" => multi_thread(channels::slow),
        "channel-idle" => multi_thread(channels::idle),
        "channel-idle-healthy" => multi_thread(channels::slow),
        "channel-own" => multi_thread(channels::own_sender),
        "channel-own-healthy" => multi_thread(channels::shared_sender),
        "ends-lost" => multi_thread(ends::lost),
        "ends-lost-healthy" => multi_thread(ends::late),
        "ends-shared" => multi_thread(ends::shared),
        "ends-circle" => multi_thread(ends::circle),
        "ends-circle-healthy" => multi_thread(ends::no_circle),
        "piled-up" => multi_thread(ends::piled_up),
        "piled-up-healthy" => multi_thread(ends::worked_off),
        "unwakeable" => multi_thread(unwakeable::no_waker),
        "unwakeable-kept" => multi_thread(unwakeable::kept),
        "unwakeable-healthy" => multi_thread(unwakeable::waker_elsewhere),
        other => {
            eprintln!("no scene {other:?}");
            std::process::exit(2);
        }
    }
}
