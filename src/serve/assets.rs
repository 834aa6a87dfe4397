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
