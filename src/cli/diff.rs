//! `taskprof diff`: what came about between two snapshots.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::args::{DiffArgs, DiffFormat, Format};
use super::style::say;
use super::{Failure, Outcome, fetch};
use crate::analyze::Judge;
use crate::model::{SCHEMA_VERSION, Snapshot};
use crate::render::diff::{Census, Diff, text};
use crate::render::json;

/// Reads both and prints what is different.
pub fn run(args: &DiffArgs) -> Outcome {
    let token_file = args.token_file.as_deref();
    let before = census(&args.before, token_file)?;
    let after = census(&args.after, token_file)?;
    let diff = Diff::of(before, after, args.limit);
    match args.format {
        DiffFormat::Text => say(text(&diff).trim_end()),
        DiffFormat::Json => say(String::from_utf8_lossy(&json::to_vec(&diff))),
    }
    Ok(())
}

/// What there is in a file, or in a server now.
fn census(source: &str, token_file: Option<&Path>) -> Result<Census, Failure> {
    let bytes = if source.contains("://") {
        let mut bytes = Vec::new();
        fetch::open(source, Format::Json, token_file)?
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::failed(format!("{source} broke off: {error}")))?;
        bytes
    } else {
        fs::read(source)
            .map_err(|error| Failure::failed(format!("cannot read {source}: {error}")))?
    };
    let snapshot = snapshot(&bytes)
        .map_err(|why| Failure::failed(format!("{source} is no snapshot: {why}")))?;
    let judge = Judge::new(&snapshot);
    Ok(Census::of(&snapshot, |stream| judge.kind(stream).0))
}

/// What a version of the layout, other than ours, has as well.
#[derive(Deserialize)]
struct Versioned {
    schema: u32,
}

/// A snapshot in JSON, or why it is none.
fn snapshot(bytes: &[u8]) -> Result<Snapshot, String> {
    const SAVE: &str = "save what /debug/snapshot answers";
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(format!("it is compressed, as profiles are; {SAVE}"));
    }
    let read = serde_json::from_slice::<Snapshot>(bytes);
    match read.map_err(|error| (serde_json::from_slice::<Versioned>(bytes), error)) {
        Ok(Snapshot { schema, .. }) | Err((Ok(Versioned { schema }), _))
            if schema != SCHEMA_VERSION =>
        {
            Err(format!("its layout is version {schema}, this program reads {SCHEMA_VERSION}"))
        }
        Ok(snapshot) => Ok(snapshot),
        Err((_, error)) if error.is_eof() => Err(format!("it is not complete; {SAVE}")),
        Err((_, error)) => Err(format!("{error}; {SAVE}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;

    #[test]
    fn what_is_no_snapshot_is_told_apart() {
        let whole = serde_json::to_vec(&sample::busy_server()).unwrap();
        assert_eq!(snapshot(&whole).unwrap(), sample::busy_server());
        let mut later = sample::busy_server();
        later.schema = SCHEMA_VERSION + 1;
        let later = serde_json::to_vec(&later).unwrap();
        for (bytes, says) in [
            (&whole[..whole.len() / 2], "not complete"),
            (b"", "not complete"),
            (b"goroutine 1 [running]:", "line 1"),
            (b"[1, 2]", "line 1"),
            (br#"{"schema":1,"findings":[]}"#, "missing field"),
            (br#"{"schema":7,"soups":[]}"#, "version 7"),
            (&later, "version 2"),
            (&[0x1f, 0x8b, 8, 0], "compressed"),
        ] {
            let error = snapshot(bytes).unwrap_err();
            assert!(error.contains(says) && !error.contains('\n'), "{error}");
        }
    }
}
