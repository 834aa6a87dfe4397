//! The page's files: a fixed table, compiled in. Nothing is read from disk, so
//! there is no path to traverse.

use std::borrow::Cow;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// One file.
pub struct Asset {
    pub path: &'static str,
    pub media_type: &'static str,
    pub bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($path:literal => $file:literal, $media_type:expr;)*) => {
        &[$(Asset {
            path: $path,
            media_type: $media_type,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/", $file)),
        }),*]
    };
}

/// Every file there is.
pub const ASSETS: &[Asset] = assets! {
    "/" => "index.html", HTML;
    "/app.css" => "app.css", CSS;
    "/js/api.js" => "js/api.js", SCRIPT;
    "/js/copy.js" => "js/copy.js", SCRIPT;
    "/js/format.js" => "js/format.js", SCRIPT;
    "/js/frame.js" => "js/frame.js", SCRIPT;
    "/js/graph.js" => "js/graph.js", SCRIPT;
    "/js/groups.js" => "js/groups.js", SCRIPT;
    "/js/history.js" => "js/history.js", SCRIPT;
    "/js/keys.js" => "js/keys.js", SCRIPT;
    "/js/live.js" => "js/live.js", SCRIPT;
    "/js/main.js" => "js/main.js", SCRIPT;
    "/js/route.js" => "js/route.js", SCRIPT;
    "/js/state.js" => "js/state.js", SCRIPT;
    "/js/ui.js" => "js/ui.js", SCRIPT;
    "/js/words.js" => "js/words.js", SCRIPT;
    "/js/views/blocked.js" => "js/views/blocked.js", SCRIPT;
    "/js/views/compare.js" => "js/views/compare.js", SCRIPT;
    "/js/views/findings.js" => "js/views/findings.js", SCRIPT;
    "/js/views/overview.js" => "js/views/overview.js", SCRIPT;
    "/js/views/streams.js" => "js/views/streams.js", SCRIPT;
    "/js/views/tasks.js" => "js/views/tasks.js", SCRIPT;
    "/js/views/timeline.js" => "js/views/timeline.js", SCRIPT;
    "/vendor/preact.js" => "vendor/preact.js", SCRIPT;
};

/// The file served at exactly this path.
pub fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl Asset {
    /// What is sent: without comments and indentation, which are for readers
    /// of the source, and line for line, so that a browser's tools name the
    /// lines of the source. Our own files begin each comment on a line of its
    /// own or end it where it began; the libraries come squeezed.
    pub fn sent(&self) -> Cow<'static, [u8]> {
        let text = match std::str::from_utf8(self.bytes) {
            Ok(text) if matches!(self.media_type, SCRIPT | CSS) => text,
            _ => return self.bytes.into(),
        };
        if self.path.starts_with("/vendor/") {
            return self.bytes.into();
        }
        let mut out = String::with_capacity(text.len());
        let mut comment = false;
        for line in text.lines().map(str::trim) {
            comment |= line.starts_with("/*");
            if !comment && !line.starts_with("//") {
                out.push_str(line);
            }
            comment &= !line.ends_with("*/");
            out.push('\n');
        }
        out.into_bytes().into()
    }
}

impl IntoResponse for &'static Asset {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, self.media_type)], self.sent()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn comments_stay_at_home_and_lines_stay_in_place() {
        for asset in ASSETS {
            let (kept, sent) = (String::from_utf8_lossy(asset.bytes), asset.sent());
            let sent = std::str::from_utf8(&sent).unwrap();
            assert_eq!(kept.lines().count(), sent.lines().count(), "{}", asset.path);
            if asset.path.starts_with("/js/") {
                assert!(kept.contains("//") && !sent.contains("/**"), "{}", asset.path);
                let code = |text: &str| text.matches("import ").count();
                assert_eq!(code(&kept), code(sent), "{}", asset.path);
            }
        }
    }

    /// The page's budget, in what is really sent.
    #[test]
    fn the_page_is_small() {
        use std::io::Write as _;
        let (mut raw, mut gzip) = (0, 0);
        for asset in ASSETS {
            let sent = asset.sent();
            let out = Vec::new();
            let mut packed = flate2::write::GzEncoder::new(out, flate2::Compression::best());
            packed.write_all(&sent).unwrap();
            raw += sent.len();
            gzip += packed.finish().unwrap().len();
        }
        assert!(raw <= 150_000 && gzip <= 50_000, "{raw} bytes, {gzip} gzipped");
    }

    /// Every module of the page is in the table: one that is missing breaks it.
    #[test]
    fn the_table_has_every_module() {
        fn scripts(dir: &Path, prefix: &str, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
                let path = format!("{prefix}/{}", entry.file_name().to_str().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    scripts(&entry.path(), &path, found);
                } else if path.ends_with(".js") {
                    found.insert(path);
                }
            }
        }
        let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        let mut expected = BTreeSet::from(["/".to_owned(), "/app.css".to_owned()]);
        for dir in ["js", "vendor"] {
            scripts(&web.join(dir), &format!("/{dir}"), &mut expected);
        }
        assert_eq!(
            ASSETS.iter().map(|asset| asset.path.to_owned()).collect::<BTreeSet<_>>(),
            expected
        );
    }
}
