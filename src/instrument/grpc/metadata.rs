//! Which request metadata may be kept: none, unless its key is on a list.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;

use crate::error::{Error, ErrorKind, Result};
use crate::registry::streams::sanitise;

/// Longest value kept, in bytes.
const VALUE_LIMIT: usize = 128;
/// Most keys: what is kept is paid for by every stream.
const KEY_LIMIT: usize = 16;

/// The keys whose values are kept with a stream.
#[derive(Clone, Debug, Default)]
pub struct MetadataKeys {
    keys: Vec<(HeaderName, Arc<str>)>,
}

impl MetadataKeys {
    /// A list of keys.
    ///
    /// # Errors
    /// `InvalidInput` for more than 16 keys, for what is no key, and for keys
    /// that carry secrets or binary data by their nature: `authorization`,
    /// `proxy-authorization`, `cookie`, `set-cookie` and `*-bin`.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut list = Vec::new();
        for key in keys {
            let refuse = |why: &str| {
                Error::new(ErrorKind::InvalidInput, format!("metadata key {key:?}: {why}"))
            };
            let name = HeaderName::try_from(key).map_err(|_| refuse("is not a header name"))?;
            if is_secret(&name) {
                return Err(refuse("is never kept: it carries secrets or binary data"));
            }
            if list.len() == KEY_LIMIT {
                return Err(refuse("is one too many; 16 are the most"));
            }
            let text = name.as_str().into();
            list.push((name, text));
        }
        Ok(Self { keys: list })
    }

    /// What may be kept of a request's headers.
    pub(super) fn pick(&self, headers: &HeaderMap) -> BTreeMap<Arc<str>, Arc<str>> {
        self.keys
            .iter()
            .filter_map(|(name, text)| {
                let value = headers.get(name)?;
                // A sender may mark a value as sensitive (HPACK never-indexed).
                let value = (!value.is_sensitive()).then(|| value.to_str().ok()).flatten()?;
                Some((text.clone(), sanitise(value, VALUE_LIMIT).into()))
            })
            .collect()
    }
}

fn is_secret(name: &HeaderName) -> bool {
    name.as_str().ends_with("-bin")
        || matches!(
            name.as_str(),
            "authorization" | "proxy-authorization" | "cookie" | "set-cookie"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_refused_and_the_rest_is_cut() {
        for key in ["authorization", "Cookie", "trace-bin", "proxy-authorization", "", "a b"] {
            assert_eq!(MetadataKeys::new([key]).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let keys = MetadataKeys::new(["X-Request-Id", "x-long", "x-hidden"]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", "42".parse().unwrap());
        headers.insert("x-long", "a".repeat(500).parse().unwrap());
        headers.insert("x-other", "canary".parse().unwrap());
        let mut hidden: http::HeaderValue = "canary".parse().unwrap();
        hidden.set_sensitive(true);
        headers.insert("x-hidden", hidden);
        let kept = keys.pick(&headers);
        assert_eq!(kept.len(), 2);
        assert_eq!(&*kept["x-request-id"], "42");
        assert_eq!(kept["x-long"].len(), VALUE_LIMIT);
        assert!(MetadataKeys::new(["x"; KEY_LIMIT + 1]).is_err());
    }
}
