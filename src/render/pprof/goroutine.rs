//! Profiles of tasks by stack, state, method and origin: `goroutine` of all
//! that live, `goroutineleak` of those that wait for ever.

use std::collections::HashMap;

use super::builder::{Builder, MAX_FRAMES, Type};
use crate::model::{Location, Snapshot};
use crate::render::alike::{self, Key, Sum};
use crate::render::not_seen;

const LIVE: [Type; 2] = [("wait", "nanoseconds"), ("goroutine", "count")];
const LEAKED: [Type; 1] = [("goroutineleak", "count")];

/// Which tasks a profile is of; the snapshot has no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tasks {
    /// All.
    Live,
    /// Those that nothing lets go on.
    Leaked,
}

impl Tasks {
    /// Go's name of the profile, and of what is counted.
    pub fn profile(self) -> &'static str {
        match self {
            Self::Live => "goroutine",
            Self::Leaked => "goroutineleak",
        }
    }

    /// Go's leak profile has its count alone.
    fn types(self) -> &'static [Type] {
        match self {
            Self::Live => &LIVE,
            Self::Leaked => &LEAKED,
        }
    }
}

/// `debug=0`: how many tasks there are now, and how long they have waited.
pub fn goroutine(which: Tasks, snapshot: &Snapshot) -> Vec<u8> {
    render(which, snapshot, alike::sums(snapshot), 0)
}

/// `seconds=N`: `after` minus `before`. Values may be negative; what did not
/// change is left out.
pub fn goroutine_delta(which: Tasks, before: &Snapshot, after: &Snapshot) -> Vec<u8> {
    let duration = after.taken_at.unix_nanos().saturating_sub(before.taken_at.unix_nanos());
    render(which, after, alike::delta(alike::sums(before), alike::sums(after)), duration)
}

fn render(
    which: Tasks,
    snapshot: &Snapshot,
    sums: HashMap<Key<'_>, Sum>,
    duration_ns: u64,
) -> Vec<u8> {
    let types = which.types();
    let mut builder = Builder::new(&snapshot.process, types, (which.profile(), "count"), 1);
    builder.time(snapshot.taken_at.unix_nanos(), duration_ns);
    coverage(&mut builder, snapshot);
    for (key, sum) in alike::sorted(sums) {
        let locations = locations(&mut builder, &key, "task of unknown origin");
        let mut values = vec![sum.wait_ns, sum.count];
        values.drain(..values.len() - types.len());
        builder.sample(locations, values, key.labels());
    }
    builder.finish()
}

/// Says what the profile does not show.
pub fn coverage(builder: &mut Builder, snapshot: &Snapshot) {
    for missing in not_seen(snapshot) {
        builder.comment(&format!("not in this profile: {missing}"));
    }
}

/// Frames innermost first; outermost, the place that spawned the task, so
/// that a flame graph is split by origin first and a task without a stack
/// still shows where it comes from; of one without either, `unknown`.
pub fn locations(builder: &mut Builder, key: &Key<'_>, unknown: &str) -> Vec<u64> {
    let frames = key.stack.map_or(&[][..], |stack| &stack.frames);
    let mut locations: Vec<u64> =
        frames.iter().take(MAX_FRAMES - 1).map(|frame| builder.frame(frame)).collect();
    match key.spawned_at {
        Some(place) => locations.push(builder.place(&spawned_at(place), Some(place), 0)),
        None if locations.is_empty() => locations.push(builder.place(unknown, None, 0)),
        None => {}
    }
    locations
}

/// The name of the outermost frame. It has the place in it because pprof sums
/// by name: one `tokio::spawn` for all would say nothing in `-top`. Only the
/// end of the path, as pprof itself shows long file names.
pub fn spawned_at(place: &Location) -> String {
    let parts: Vec<&str> = place.file.rsplitn(4, ['/', '\\']).take(3).collect();
    let short = parts.into_iter().rev().collect::<Vec<_>>().join("/");
    format!("spawned at {short}:{}", place.line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;
    use crate::pb::profile::{Profile, Sample};
    use crate::render::pprof::decode;

    fn text(profile: &Profile, index: i64) -> &str {
        &profile.string_table[usize::try_from(index).unwrap()]
    }

    fn names<'a>(profile: &'a Profile, sample: &Sample) -> Vec<&'a str> {
        let line = |id: u64| &profile.location[id as usize - 1].line[0];
        let name =
            |id: u64| text(profile, profile.function[line(id).function_id as usize - 1].name);
        sample.location_id.iter().map(|&id| name(id)).collect()
    }

    #[test]
    fn every_task_is_in_one_sample() {
        let snapshot = sample::busy_server();
        let profile = decode(&goroutine(Tasks::Live, &snapshot));
        let total: i64 = profile.sample.iter().map(|sample| sample.value[1]).sum();
        assert_eq!(total, snapshot.tasks.len() as i64);
        assert_eq!(profile.sample_type.len(), 2);
        assert_eq!(text(&profile, profile.default_sample_type), "goroutine");
        assert_eq!(text(&profile, profile.sample_type[1].r#type), "goroutine");
        assert!(profile.sample.is_sorted_by(|a, b| a.value[1] >= b.value[1]));
        assert_eq!((profile.period, profile.duration_nanos), (1, 0));
        assert_eq!(profile.time_nanos as u64, snapshot.taken_at.unix_nanos());
    }

    #[test]
    fn the_traps_of_rust_profiles_are_avoided() {
        let profile = decode(&goroutine(Tasks::Live, &sample::busy_server()));
        assert!(profile.function.iter().all(|function| function.system_name == 0));
        assert!(profile.location.iter().all(|location| location.line.len() == 1));
        let mapping = &profile.mapping[0];
        assert!(mapping.has_functions && mapping.has_filenames);
        assert!(mapping.has_line_numbers && mapping.has_inline_frames);
        assert!(profile.location.iter().all(|location| location.address < mapping.memory_limit));
        assert!(!text(&profile, mapping.build_id).is_empty());
        assert!(
            profile
                .string_table
                .iter()
                .any(|name| name == "<billing::Card as billing::Charge>::charge::{{closure}}")
        );
    }

    #[test]
    fn samples_end_at_the_place_of_the_spawn_and_carry_labels() {
        let profile = decode(&goroutine(Tasks::Live, &sample::busy_server()));
        for sample in &profile.sample {
            assert!(names(&profile, sample).last().unwrap().starts_with("spawned at "));
            let keys: Vec<_> = sample.label.iter().map(|label| text(&profile, label.key)).collect();
            assert!(keys.is_sorted(), "{keys:?}");
            assert!(keys.contains(&"state") && keys.contains(&"task.spawned_at"));
        }
    }

    #[test]
    fn deep_stacks_keep_their_inner_end_and_their_origin() {
        let mut snapshot = sample::empty();
        snapshot.tasks.push(sample::deep_task(300));
        let profile = decode(&goroutine(Tasks::Live, &snapshot));
        let names = names(&profile, &profile.sample[0]);
        assert_eq!(names.len(), 128);
        assert_eq!(names[0], "deep::f0");
        assert_eq!(names[127], "spawned at src/deep.rs:1");
    }

    #[test]
    fn a_delta_may_be_negative_and_leaves_out_what_stayed() {
        let before = sample::busy_server();
        let mut after = before.clone();
        let gone = after.tasks.pop().unwrap();
        let profile = decode(&goroutine_delta(Tasks::Live, &before, &after));
        assert_eq!(profile.sample.len(), 1);
        assert_eq!(profile.sample[0].value[1], -1);
        let labels: Vec<_> =
            profile.sample[0].label.iter().map(|label| text(&profile, label.str)).collect();
        assert!(labels.contains(&gone.state.as_str()));
    }

    #[test]
    fn leaked_tasks_have_the_name_of_their_profile_and_a_count() {
        let profile = decode(&goroutine(Tasks::Leaked, &sample::busy_server()));
        assert_eq!(profile.sample_type.len(), 1);
        assert_eq!(text(&profile, profile.sample_type[0].r#type), "goroutineleak");
        assert_eq!(text(&profile, profile.default_sample_type), "goroutineleak");
        let total: i64 = profile.sample.iter().map(|sample| sample.value[0]).sum();
        assert_eq!(total, sample::busy_server().tasks.len() as i64);
    }

    #[test]
    fn the_same_snapshot_gives_the_same_bytes() {
        let snapshot = sample::busy_server();
        assert_eq!(goroutine(Tasks::Live, &snapshot), goroutine(Tasks::Live, &snapshot.clone()));
    }
}
