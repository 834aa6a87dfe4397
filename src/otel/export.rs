//! The receivers, and what is sent to them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::zipkin::Zipkin;
use super::{OtelConfig, Streams};
use crate::error::{Error, ErrorKind, Result};

/// A receiver that takes longer has failed.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// All receivers that were asked for.
#[derive(Debug)]
pub struct Exporters {
    otlp: Option<OtlpExporter>,
    zipkin: Option<Zipkin>,
}

/// An address that can be connected to without TLS, which the exporters are
/// built without.
///
/// # Errors
/// `InvalidInput` for any other.
pub fn checked(what: &str, text: &str) -> Result<Uri> {
    let refuse = |why: &str| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("the {what} address {text:?} {why}; write http://HOST:PORT"),
        )
    };
    let uri: Uri = text.parse().map_err(|_| refuse("is no URL"))?;
    if uri.authority().is_none() {
        return Err(refuse("names no host"));
    }
    match uri.scheme_str() {
        Some("http") => Ok(uri),
        _ => Err(refuse("is not http")),
    }
}

/// An exporter that cannot be built is one whose settings make no sense.
pub fn unbuilt(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("cannot export to {what}: {error}"))
        .with_source(error)
}

impl Exporters {
    /// Connects to none yet. To be called inside a runtime.
    ///
    /// # Errors
    /// `InvalidInput` for an address that is none.
    pub fn new(config: &OtelConfig, service: &str) -> Result<Self> {
        let otlp = config.otlp.as_deref().map(|url| otlp(url, service)).transpose()?;
        let zipkin = config.zipkin.as_deref();
        let zipkin = zipkin.map(|url| Zipkin::new(url, service)).transpose()?;
        Ok(Self { otlp, zipkin })
    }

    /// Exports batch after batch, until there are no more to come.
    pub async fn run(self, mut batches: mpsc::Receiver<Vec<SpanData>>, streams: Arc<dyn Streams>) {
        let mut well = true;
        while let Some(batch) = batches.recv().await {
            let spans = batch.len() as u64;
            let mut results = Vec::new();
            if let Some(zipkin) = &self.zipkin {
                results.push(caught("Zipkin", zipkin.export(batch.clone()), &*streams).await);
            }
            if let Some(otlp) = &self.otlp {
                results.push(caught("OTLP", otlp.export(batch), &*streams).await);
            }
            for result in results {
                match result {
                    Ok(()) => {
                        streams.exported(spans, 0);
                        well = true;
                    }
                    Err(error) => {
                        streams.exported(0, spans);
                        // Once for each time it turns bad, not for each batch.
                        if std::mem::take(&mut well) {
                            tracing::warn!(error, "spans are not exported");
                        }
                    }
                }
            }
        }
    }
}

/// The same where an exporter may panic: that costs one batch, not all to come.
async fn caught(
    what: &str,
    export: impl Future<Output = OTelSdkResult>,
    streams: &dyn Streams,
) -> std::result::Result<(), String> {
    AssertUnwindSafe(within(what, export)).catch_unwind().await.unwrap_or_else(|payload| {
        // Its drop may panic again.
        std::mem::forget(payload);
        streams.panicked();
        Err(format!("{what}: the exporter panicked"))
    })
}

async fn within(
    what: &str,
    export: impl Future<Output = OTelSdkResult>,
) -> std::result::Result<(), String> {
    match timeout(TIMEOUT, export).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: no answer within {TIMEOUT:?}")),
    }
}

fn otlp(url: &str, service: &str) -> Result<OtlpExporter> {
    checked("OTLP", url)?;
    let mut exporter = OtlpExporter::builder()
        .with_tonic()
        .with_endpoint(url)
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|error| unbuilt("OTLP", error))?;
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
        .build();
    opentelemetry_sdk::trace::SpanExporter::set_resource(&mut exporter, &resource);
    Ok(exporter)
}
