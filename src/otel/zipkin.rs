//! Zipkin's v2 API.

use opentelemetry::KeyValue;
use opentelemetry::trace::Event;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use opentelemetry_zipkin::ZipkinExporter;

use super::export::{TIMEOUT, checked, unbuilt};
use crate::error::Result;

/// Where Zipkin takes spans.
const PATH: &str = "/api/v2/spans";

/// A Zipkin, or what speaks like one.
#[derive(Debug)]
pub struct Zipkin {
    exporter: ZipkinExporter,
    service: String,
}

impl Zipkin {
    /// # Errors
    /// `InvalidInput` for an address that is none.
    pub fn new(url: &str, service: &str) -> Result<Self> {
        let url = match checked("Zipkin", url)?.path() {
            "" | "/" => format!("{}{PATH}", url.trim_end_matches('/')),
            _ => url.to_owned(),
        };
        let exporter = ZipkinExporter::builder()
            .with_http_client(HyperClient::with_default_connector(TIMEOUT, None))
            .with_collector_endpoint(url)
            .build()
            .map_err(|error| unbuilt("Zipkin", error))?;
        Ok(Self { exporter, service: service.to_owned() })
    }

    /// Sends spans. Its format has names of events only, and knows no resource:
    /// what events say goes into their names, and the service into a tag.
    pub async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        for span in &mut batch {
            span.attributes.push(KeyValue::new("service.name", self.service.clone()));
            for event in &mut span.events.events {
                event.name = in_words(event).into();
            }
        }
        self.exporter.export(batch).await
    }
}

/// An event's name with what it says.
fn in_words(event: &Event) -> String {
    let told = event.attributes.iter().map(|one| format!(" {}={}", one.key, one.value));
    event.name.chars().chain(told.collect::<String>().chars()).collect()
}
