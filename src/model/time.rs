//! Wall-clock instants and durations as people read them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A wall-clock instant, written as RFC 3339 in UTC. Only used to say when
/// something was seen: ages and durations are measured on a monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(SystemTime);

impl Timestamp {
    /// The wall clock now.
    pub fn now() -> Self {
        Self(SystemTime::now())
    }

    /// Nanoseconds since the Unix epoch; 0 for a clock set before it.
    pub fn unix_nanos(self) -> u64 {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The instant this many nanoseconds before this one.
    pub fn minus_ns(self, ns: u64) -> SystemTime {
        self.0.checked_sub(Duration::from_nanos(ns)).unwrap_or(UNIX_EPOCH)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from(self.0).format(&Rfc3339).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)?;
        Ok(Self(time.into()))
    }
}

#[cfg(feature = "cli")]
impl schemars::JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// A duration in the unit a reader wants: `850ns`, `42µs`, `12ms`, `3.2s`,
/// `41s`, `8m03s`, `3h12m`, `2d04h`.
pub fn human_duration(ns: u64) -> String {
    let secs = ns / 1_000_000_000;
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{}ms", ns / 1_000_000),
        _ if secs < 10 => format!("{}.{}s", secs, ns / 100_000_000 % 10),
        _ if secs < 60 => format!("{secs}s"),
        _ if secs < 3_600 => format!("{}m{:02}s", secs / 60, secs % 60),
        _ if secs < 86_400 => format!("{}h{:02}m", secs / 3_600, secs / 60 % 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_a_person_would_say_them() {
        for (ns, text) in [
            (0, "0ns"),
            (850, "850ns"),
            (42_000, "42µs"),
            (12_345_678, "12ms"),
            (3_249_000_000, "3.2s"),
            (41_000_000_000, "41s"),
            (483_000_000_000, "8m03s"),
            (11_520_000_000_000, "3h12m"),
            (187_200_000_000_000, "2d04h"),
        ] {
            assert_eq!(human_duration(ns), text);
        }
    }

    #[test]
    fn timestamps_survive_json() {
        let now = Timestamp::now();
        let text = serde_json::to_string(&now).unwrap();
        assert!(text.ends_with("Z\""), "{text}");
        assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), now);
    }
}
