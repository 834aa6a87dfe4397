//! `taskprof dump --url`: one answer of a running server, to stdout or a file.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use super::args::{DumpArgs, Format};
use super::{Failure, Outcome, token};

/// A dump of 100,000 tasks takes a second; ten times that is still an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Fetches and writes it.
pub fn run(args: &DumpArgs) -> Outcome {
    let url = endpoint(&args.url, args.format)?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = agent.get(&url);
    if let Some(path) = &args.token_file {
        request = request.header("authorization", format!("Bearer {}", token::read(path)?));
    }
    let mut response =
        request.call().map_err(|error| Failure::failed(format!("cannot fetch {url}: {error}")))?;
    let status = response.status();
    if !status.is_success() {
        let mut said = response.body_mut().read_to_string().unwrap_or_default();
        said.truncate(said.floor_char_boundary(300));
        let advice = if status == 401 { "; pass --token-file FILE" } else { "" };
        return Err(Failure::failed(format!("{url} answered {status}: {}{advice}", said.trim())));
    }
    let mut body = response.into_body().into_reader();
    let copied = match &args.output {
        Some(path) => {
            let mut file = File::create(path).map_err(|error| {
                Failure::failed(format!("cannot write {}: {error}", path.display()))
            })?;
            io::copy(&mut body, &mut file)
        }
        None => {
            let mut stdout = io::stdout().lock();
            match io::copy(&mut body, &mut stdout).and_then(|_| stdout.flush()) {
                // `taskprof dump ... | head` has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
                other => other.map(|()| 0),
            }
        }
    };
    copied.map(drop).map_err(|error| Failure::failed(format!("{url} broke off: {error}")))
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
