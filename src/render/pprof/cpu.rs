//! The CPU profile, labelled with task, method and thread.

use super::builder::{Builder, MAX_FRAMES};
use crate::model::{CpuProfile, Process};

/// `profile?seconds=N`
pub fn cpu(process: &Process, profile: &CpuProfile) -> Vec<u8> {
    let types = [("samples", "count"), ("cpu", "nanoseconds")];
    let mut builder = Builder::new(process, &types, ("cpu", "nanoseconds"), profile.period_ns);
    builder.time(profile.started_at.unix_nanos(), profile.duration_ns);
    if profile.lost > 0 {
        builder.comment(&format!("{} samples could not be taken", profile.lost));
    }
    if profile.threads_missed > 0 {
        builder.comment(&format!("{} threads could not be sampled", profile.threads_missed));
    }
    if profile.untold > 0 {
        builder.comment(&format!(
            "{} samples have no method and place: they are of more tasks than are remembered",
            profile.untold
        ));
    }
    for sample in &profile.samples {
        let locations =
            sample.stack.frames.iter().take(MAX_FRAMES).map(|frame| builder.frame(frame)).collect();
        let count = i64::try_from(sample.count).unwrap_or(i64::MAX);
        let period = i64::try_from(profile.period_ns).unwrap_or(i64::MAX);
        let labels = [
            sample.method.as_deref().map(|method| ("grpc.method", method.to_owned())),
            sample.task.map(|task| ("task.id", task.to_string())),
            sample.spawned_at.as_deref().map(|place| ("task.spawned_at", place.to_string())),
            Some(("thread", sample.thread.to_string())),
        ];
        builder.sample(
            locations,
            vec![count, count.saturating_mul(period)],
            labels.into_iter().flatten(),
        );
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;
    use crate::render::pprof::decode;

    #[test]
    fn time_is_samples_times_the_period() {
        let profile = sample::cpu_profile();
        let decoded = decode(&cpu(&sample::process(), &profile));
        assert_eq!(decoded.period, 10_000_000);
        assert_eq!(decoded.duration_nanos as u64, profile.duration_ns);
        for (ours, theirs) in profile.samples.iter().zip(&decoded.sample) {
            assert_eq!(theirs.value, [ours.count as i64, ours.count as i64 * 10_000_000]);
            assert!(!theirs.location_id.is_empty());
        }
        assert_eq!(decoded.string_table[decoded.default_sample_type as usize], "cpu");
    }
}
