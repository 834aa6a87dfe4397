//! `/debug/snapshot`

use axum::extract::State;
use axum::http::header::CONTENT_DISPOSITION;
use axum::http::{HeaderValue, Uri};

use super::params::Params;
use super::tasks::shot;
use super::{Answer, long_answer};
use crate::render::json;
use crate::serve::flight::call;
use crate::serve::server::Shared;
use crate::serve::source::Want;

pub async fn whole(State(shared): State<Shared>, uri: Uri) -> Answer {
    Params::parse(&uri, &[])?;
    let held = shared.flight.snapshot(Want::ALL).await?;
    let chunks = call(&shared.stats, move || Ok(json::snapshot(shot(held)))).await?;
    let mut response = long_answer(&shared, chunks);
    response.headers_mut().insert(
        CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"taskprof-snapshot.json\""),
    );
    Ok(response)
}
