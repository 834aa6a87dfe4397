//! Zipkin's v2 API.

use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use opentelemetry::KeyValue;
use opentelemetry::trace::Event;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use opentelemetry_zipkin::ZipkinExporter;

use super::export::{TIMEOUT, checked, unbuilt};
use crate::error;

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
    pub fn new(url: &str, service: &str) -> error::Result<Self> {
        let url = match checked("Zipkin", url)?.path() {
            "" | "/" => format!("{}{PATH}", url.trim_end_matches('/')),
            _ => url.to_owned(),
        };
        let client = HyperClient::with_default_connector(TIMEOUT, None);
        let exporter = ZipkinExporter::builder()
            .with_http_client(Named { client, service: service.to_owned() })
            .with_collector_endpoint(url)
            .build()
            .map_err(|error| unbuilt("Zipkin", error))?;
        Ok(Self { exporter, service: service.to_owned() })
    }

    /// Sends spans. Its format has names of events only, and knows no resource:
    /// what events say goes into their names, and the service into a tag, too.
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

/// Names the service that spans are from, which Zipkin lists them by: the
/// exporter leaves that out.
#[derive(Debug)]
struct Named {
    client: HyperClient,
    service: String,
}

#[tonic::async_trait]
impl HttpClient for Named {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut parts, body) = request.into_parts();
        let body = named(&body, &self.service)?;
        parts.headers.remove(CONTENT_LENGTH); // it was that of the other body
        self.client.send_bytes(Request::from_parts(parts, body.into())).await
    }
}

fn named(spans: &[u8], service: &str) -> serde_json::Result<Vec<u8>> {
    let mut spans: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(spans)?;
    for span in &mut spans {
        let endpoint = span.entry("localEndpoint").or_insert_with(|| serde_json::json!({}));
        if let Some(endpoint) = endpoint.as_object_mut() {
            endpoint.insert("serviceName".into(), service.into());
        }
    }
    serde_json::to_vec(&spans)
}

/// An event's name with what it says.
fn in_words(event: &Event) -> String {
    let told = event.attributes.iter().map(|one| format!(" {}={}", one.key, one.value));
    event.name.chars().chain(told.collect::<String>().chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_named_after_their_service() {
        let spans = br#"[{"id":"1","localEndpoint":{"port":7}},{"id":"2"}]"#;
        let named: serde_json::Value =
            serde_json::from_slice(&named(spans, "shop").unwrap()).unwrap();
        assert_eq!(
            named[0]["localEndpoint"],
            serde_json::json!({"port": 7, "serviceName": "shop"})
        );
        assert_eq!(named[1]["localEndpoint"]["serviceName"], "shop");
        assert!(super::named(b"{", "shop").is_err());
    }
}
