//! Groups of tasks that only grow.

use super::{LISTED, words};
use crate::model::{Confidence, Finding, FindingKind, Growing, Severity, Snapshot, human_duration};

/// Looks that a judgement needs.
pub const LOOKS: usize = 5;
/// The time that they must span.
pub const SPAN_NS: u64 = 60_000_000_000;
/// Fewer tasks than this may be anything.
const MANY: u64 = 100;

/// One finding for each group.
pub fn found(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    findings.extend(snapshot.history.growing.iter().filter_map(finding));
}

fn finding(group: &Growing) -> Option<Finding> {
    let (first, last) = (group.points.first()?, group.points.last()?);
    let span_ns = first.ago_ns.saturating_sub(last.ago_ns);
    let grows = group.points.is_sorted_by(|a, b| a.count < b.count);
    let enough = group.points.len() >= LOOKS && span_ns >= SPAN_NS;
    let much = last.count > MANY && last.count / 2 >= first.count;
    // Tasks that come and go are load. So are those of streams that are open.
    let stay = group.stayed.saturating_mul(10) >= first.count.saturating_mul(9);
    let of_streams = group.of_live_streams * 2 > last.count;
    if !(grows && enough && much && stay) || of_streams {
        return None;
    }
    let place = group.place.as_ref().map(ToString::to_string);
    let name = match (&group.function, &place) {
        (Some(function), Some(place)) => format!("{function} ({place})"),
        (Some(function), None) => function.to_string(),
        (None, Some(place)) => format!("a task spawned at {place}"),
        (None, None) => "a place not known".to_owned(),
    };
    let mut evidence = vec![format!(
        "{} in {} looks over {}: each time more than before.",
        group.points.iter().map(|point| point.count.to_string()).collect::<Vec<_>>().join(", "),
        group.points.len(),
        human_duration(span_ns)
    )];
    evidence.push(format!(
        "Of the {} there were at first, {} still live.",
        words::count(first.count, "task"),
        group.stayed
    ));
    if let Some(spawned_at) = &group.spawned_at {
        evidence.push(format!("They were spawned at {spawned_at}."));
    }
    evidence.push(
        "A load that rises all the time looks the same: compare with the requests served."
            .to_owned(),
    );
    Some(Finding {
        id: format!(
            "growing_group:{name}:{}",
            group.spawned_at.as_ref().map(ToString::to_string).unwrap_or_default()
        ),
        kind: FindingKind::GrowingGroup,
        severity: Severity::Warning,
        confidence: Confidence::Suspected,
        title: format!(
            "{} in {name}, {} {} ago, and none ends",
            words::count(last.count, "task"),
            first.count,
            human_duration(span_ns)
        ),
        evidence,
        place,
        method: None,
        since_ns: span_ns,
        count: last.count,
        tasks: group.tasks.iter().copied().take(LISTED).collect(),
        streams: Vec::new(),
        connections: Vec::new(),
        worker: None,
        edges: Vec::new(),
    })
}
