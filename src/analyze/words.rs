//! How findings speak.

use crate::model::{Stack, human_duration};

/// `1 stream`, `212 streams`.
pub fn count(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// `Feed/Watch` of `/pkg.v1.Feed/Watch`, as people call it.
pub fn method(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    let service = path.find('/').unwrap_or(path.len());
    let start = path[..service].rfind('.').map_or(0, |dot| dot + 1);
    &path[start..]
}

/// `for 3.2s`.
pub fn since(ns: u64) -> String {
    format!("for {}", human_duration(ns))
}

/// `charge_card (src/billing.rs:88)`, where a person should look first.
pub fn place(stack: &Stack) -> Option<String> {
    let frame = stack.user_frame().or_else(|| stack.frames.first())?;
    Some(match &frame.location {
        Some(location) => format!("{} ({location})", frame.function),
        None => frame.function.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_named_as_people_do() {
        assert_eq!(method("/billing.v1.Feed/Watch"), "Feed/Watch");
        assert_eq!(method("/Feed/Watch"), "Feed/Watch");
        assert_eq!(method("/odd"), "odd");
        assert_eq!(method(""), "");
    }
}
