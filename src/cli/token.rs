//! The file behind `--token-file`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::Failure;

/// Tokens are short; a file that is not is some other file.
const MAX: u64 = 4096;

/// Reads the token, without the newline that editors add.
pub fn read(path: &Path) -> Result<String, Failure> {
    let unreadable =
        |error| Failure::failed(format!("cannot read the token in {}: {error}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    let token = text.trim();
    let sensible = token.chars().all(|c| c.is_ascii_graphic());
    if token.is_empty() || text.len() as u64 > MAX || !sensible {
        return Err(Failure::failed(format!(
            "{} does not hold a token: one line of printable ASCII, such as \
             `openssl rand -hex 32` writes",
            path.display()
        )));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_are_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let of = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            read(&path).ok()
        };
        assert_eq!(of(b"secret\n").as_deref(), Some("secret"));
        for content in [&b""[..], b"\n", b"two words", b"\xff", &[b'x'; 5000]] {
            assert_eq!(of(content), None);
        }
        assert!(read(&folder.path().join("none")).is_err());
    }
}
