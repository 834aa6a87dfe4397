//! Which format of `/metrics` a client would rather have.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use crate::render::metrics::Format;

/// OpenMetrics for those that name it and rank nothing above it. A browser and
/// `curl` take anything: they get what everything reads.
pub fn format(headers: &HeaderMap) -> Format {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (mut open, mut text) = (0.0, 0.0);
    for range in accepted.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut ours) = (1.0, true);
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            match name.trim_end() {
                "q" => quality = value.trim().parse::<f32>().unwrap_or(0.0),
                "version" => ours = value.trim().trim_matches('"') == "1.0.0",
                _ => {}
            }
        }
        match &*kind {
            "application/openmetrics-text" if ours => open = quality.max(open),
            "text/plain" | "text/*" | "*/*" => text = quality.max(text),
            _ => {}
        }
    }
    if open > 0.0 && open >= text { Format::OpenMetrics } else { Format::Text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_openmetrics_gets_it_and_nobody_else_does() {
        for (accept, open) in [
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                true,
            ),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; version=\"1.0.0\", */*", true),
            ("application/openmetrics-text; version=0.0.1, text/plain; q=0.5", false),
            ("application/openmetrics-text; q=0.2, text/plain; q=0.5", false),
            ("application/openmetrics-text; q=0", false),
            ("text/html, */*; q=0.8", false),
            ("*/*", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(format(&headers) == Format::OpenMetrics, open, "{accept}");
        }
        assert_eq!(format(&HeaderMap::new()), Format::Text);
    }
}
