//! The wire that `tokio-console` attaches to, served from snapshots.
