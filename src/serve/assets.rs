//! The page's files: a fixed table, compiled in. Nothing is read from disk, so
//! there is no path to traverse.

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
const JS: &str = "text/javascript; charset=utf-8";

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
    "/vendor/preact.js" => "vendor/preact.js", JS;
    "/js/api.js" => "js/api.js", JS;
    "/js/copy.js" => "js/copy.js", JS;
    "/js/data.js" => "js/data.js", JS;
    "/js/format.js" => "js/format.js", JS;
    "/js/frame.js" => "js/frame.js", JS;
    "/js/groups.js" => "js/groups.js", JS;
    "/js/history.js" => "js/history.js", JS;
    "/js/keys.js" => "js/keys.js", JS;
    "/js/live.js" => "js/live.js", JS;
    "/js/main.js" => "js/main.js", JS;
    "/js/route.js" => "js/route.js", JS;
    "/js/state.js" => "js/state.js", JS;
    "/js/ui.js" => "js/ui.js", JS;
    "/js/words.js" => "js/words.js", JS;
    "/js/views/blocked.js" => "js/views/blocked.js", JS;
    "/js/views/compare.js" => "js/views/compare.js", JS;
    "/js/views/findings.js" => "js/views/findings.js", JS;
    "/js/views/overview.js" => "js/views/overview.js", JS;
    "/js/views/streams.js" => "js/views/streams.js", JS;
    "/js/views/tasks.js" => "js/views/tasks.js", JS;
    "/js/views/timeline.js" => "js/views/timeline.js", JS;
};

/// The file served at exactly this path.
pub fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl IntoResponse for &'static Asset {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, self.media_type)], self.bytes).into_response()
    }
}
