//! One answer of a server that embeds taskprof.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::args::Format;
use super::{Failure, token};

/// A dump of 100,000 tasks takes a second; many times that is still an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Asks for the format and returns the body.
pub fn open(
    url: &str,
    format: Format,
    token_file: Option<&Path>,
) -> Result<Box<dyn Read>, Failure> {
    let url = endpoint(url, format)?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = agent.get(&url);
    if let Some(path) = token_file {
        request = request.header("authorization", format!("Bearer {}", token::read(path)?));
    }
    let mut response = request.call().map_err(|error| cannot(&url, &error))?;
    let status = response.status();
    if !status.is_success() {
        let mut said = response.body_mut().read_to_string().unwrap_or_default();
        said.truncate(said.floor_char_boundary(300));
        let advice = if status == 401 { "; pass --token-file FILE" } else { "" };
        return Err(Failure::failed(format!("{url} answered {status}: {}{advice}", said.trim())));
    }
    Ok(Box::new(response.into_body().into_reader()))
}

fn cannot(url: &str, error: &ureq::Error) -> Failure {
    // A gRPC port answers HTTP/1 with frames of HTTP/2.
    let advice = match error {
        ureq::Error::Protocol(_) | ureq::Error::Http(_) => {
            "; is this the gRPC port? the debug server's is 6060 by default"
        }
        _ => "",
    };
    Failure::failed(format!("cannot fetch {url}: {error}{advice}"))
}

/// The address of the answer wanted, from the server's.
fn endpoint(url: &str, format: Format) -> Result<String, Failure> {
    let base = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let Some(rest) = base.strip_prefix("http://") else {
        return Err(Failure::usage(format!(
            "{url}: expected an address such as http://127.0.0.1:6060 (http only)"
        )));
    };
    let path = match format {
        Format::Text => "debug/pprof/goroutine?debug=2",
        Format::Json => "debug/snapshot",
        Format::Pprof => "debug/pprof/goroutine",
        Format::Findings => "debug/findings",
        Format::Html => {
            return Err(Failure::usage(format!(
                "html is for --pid and --core; open {url} in a browser instead"
            )));
        }
    };
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
        return Err(Failure::usage(format!(
            "{url}: expected the server's address alone, such as http://127.0.0.1:6060"
        )));
    }
    Ok(format!("http://{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_endpoints() {
        let at = |url| endpoint(url, Format::Json).ok();
        let snapshot = Some("http://127.0.0.1:6060/debug/snapshot".to_owned());
        assert_eq!(at("http://127.0.0.1:6060"), snapshot);
        assert_eq!(at("http://127.0.0.1:6060/"), snapshot);
        assert_eq!(at("127.0.0.1:6060"), snapshot);
        for url in ["https://127.0.0.1:6060", "http://", "http://a/b", "http://a?b", ""] {
            assert_eq!(at(url), None, "{url}");
        }
    }
}
