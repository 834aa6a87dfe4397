//! The scenarios, by name.

use std::future::Future;
use std::pin::Pin;

use super::{CallResult, Caller, resets, stuck, traffic};

type Call = Pin<Box<dyn Future<Output = CallResult> + Send>>;

/// One kind of traffic.
pub struct Scenario {
    /// What `--scenario` takes.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// It calls the Lab: the server must run with `--faults`.
    pub faults: bool,
    /// Calls under way at one time, unless told otherwise.
    pub streams: u32,
    /// Makes one call.
    pub(super) call: fn(Caller) -> Call,
}

macro_rules! scenarios {
    ($($name:literal, $streams:literal, $faults:literal, $call:path, $about:literal;)*) => {
        /// All of them, healthy ones first.
        pub static SCENARIOS: &[Scenario] = &[$(Scenario {
            name: $name,
            about: $about,
            faults: $faults,
            streams: $streams,
            call: |caller| Box::pin($call(caller)),
        }),*];
    };
}

scenarios! {
    "mix", 20, false, traffic::mix, "all kinds of healthy calls side by side";
    "unary", 16, false, traffic::unary, "one request, one response, again and again";
    "ping-pong", 16, false, traffic::ping_pong, "bidi streams that answer every message";
    "server-stream", 8, false, traffic::server_stream, "one request, a thousand responses";
    "client-stream", 8, false, traffic::client_stream, "a thousand requests, one response";
    "watch", 16, false, traffic::watch, "bidi streams with a message every few seconds";

    "bursts", 4, false, traffic::bursts, "bidi streams: two hundred messages at once, then silence";
    "huge", 2, false, traffic::huge, "messages of 3 MiB both ways, all read";
    "upload", 1, false, traffic::upload, "a client stream that never ends, all of it read";
    "health-watch", 2, false, traffic::health_watch, "streams that are silent by design";

    "unread-stream", 4, false, stuck::unread_stream, "the client stops reading its responses";
    "silent-upload", 4, false, stuck::silent_upload, "the client stops sending, and does not end";
    "cancel-storm", 16, false, stuck::cancel_storm, "calls cancelled after a few milliseconds";
    "instant-resets", 1, false, resets::instant_resets, "calls reset in the packet that opens them";

    "block-thread", 1, true, stuck::block_thread, "a worker sleeps for 3 s out of every 10";
    "busy-loop", 1, true, stuck::busy_loop, "a worker computes for 3 s out of every 10";
    "hold-mutex", 4, true, stuck::hold_mutex, "one call holds a mutex, the others want it";
    "lock-cycle", 2, true, stuck::lock_cycle, "two calls wait for each other's mutex";
    "silent-channel", 4, true, stuck::silent_channel, "handlers wait on channels nobody writes";
    "never-read", 2, true, stuck::never_read, "the server does not read what it is sent";
    "flood", 2, true, stuck::flood, "the server sends, the client does not read";
    "slow-trickle", 4, true, stuck::slow_trickle, "slow but alive: a message a second";
    "download", 1, true, traffic::download, "a server stream that never ends, all of it read";
    "slow-reader", 2, true, traffic::slow_reader, "the client reads, at its own gentle pace";
    "long-poll", 4, true, traffic::long_poll, "unary calls that are answered after some seconds";
    "huge-message", 1, true, stuck::huge_message, "one message of 3 MB, which nobody reads";
    "tiny-messages", 1, true, stuck::tiny_messages, "20-byte messages that nobody reads; h2 ends it";
    "window-hogs", 4, true, stuck::window_hogs, "three unread streams, and one that starves by them";
    "starved-upload", 18, true, stuck::starved_upload, "unread uploads, and one that starves by them";
    "never-answer", 2, true, stuck::never_answer, "unary calls without an answer";
    "both-wait", 2, true, stuck::both_wait, "client and server each want the other to begin";
    "dropped-upload", 2, true, stuck::dropped_upload, "unread uploads that are cancelled";
    "cancelled-unary", 4, true, stuck::cancelled_unary, "unary calls cancelled while they wait";
    "kept-requests", 2, true, stuck::kept_requests, "cancelled calls whose requests a task still holds";
    "slot-queue", 8, true, stuck::slot_queue, "four calls that last, and others that come after them";
    "leave-task-behind", 2, true, stuck::leave_task_behind, "cancelled calls leave tasks behind";
    "ignore-cancellation", 2, true, stuck::ignore_cancellation, "cancelled calls go on working";
    "exhaust-memory", 1, true, stuck::exhaust_memory, "the server takes 64 MiB and keeps it";
}

/// The scenario of that name.
///
/// # Errors
/// The names closest to it, best first.
pub fn find(name: &str) -> Result<&'static Scenario, Vec<&'static str>> {
    if let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) {
        return Ok(scenario);
    }
    let mut near: Vec<(usize, &'static str)> = SCENARIOS
        .iter()
        .map(|scenario| (distance(name, scenario.name), scenario.name))
        .filter(|(distance, near)| {
            *distance <= near.len() / 2 || (name.len() >= 3 && near.contains(name))
        })
        .collect();
    near.sort_unstable();
    Err(near.into_iter().take(3).map(|(_, name)| name).collect())
}

/// Levenshtein's: how many letters to insert, remove or change.
fn distance(a: &str, b: &str) -> usize {
    // Nobody types a name this long by mistake; the work stays bounded.
    let a: Vec<char> = a.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, b) in b.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 1..row.len() {
            let change = diagonal + usize::from(a[j - 1] != b);
            diagonal = row[j];
            row[j] = change.min(row[j] + 1).min(row[j - 1] + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_name() {
        let near = |name| find(name).err().unwrap();
        assert_eq!(near("pingpong")[0], "ping-pong");
        assert_eq!(near("lockcycle")[0], "lock-cycle");
        assert!(near("cancel").contains(&"cancel-storm"));
        assert!(near("zzzzzzzzzzzzzzzzzzzz").is_empty());
        assert_eq!(find("watch").ok().unwrap().name, "watch");
    }

    #[test]
    fn distances() {
        for (a, b, d) in [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("ab", "", 2)] {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCENARIOS.len());
    }
}
