//! Makes files of saved layouts.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::super::Dwarf;
use super::write::{Written, body};
use super::{MAGIC, MAX_INFLATED, VERSION};
use crate::error::{Error, ErrorKind, Result};

/// Makes a file of a program's layouts, for the build that `key` names.
///
/// # Errors
/// `Malformed` for damaged debug information.
pub fn write(layouts: &mut Dwarf, key: &str) -> Result<(Vec<u8>, Written)> {
    let (body, written) = body(layouts)?;
    Ok((pack(&body, key)?, written))
}

/// Puts the head before a body and deflates it.
///
/// # Errors
/// `Unsupported` for a body or a key that the head has no room for.
fn pack(body: &[u8], key: &str) -> Result<Vec<u8>> {
    let too_large = || Error::new(ErrorKind::Unsupported, "too large for a layout file");
    if body.len() > MAX_INFLATED {
        return Err(too_large());
    }
    let mut sum = flate2::Crc::new();
    sum.update(body);
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&(body.len() as u32).to_le_bytes());
    file.extend_from_slice(&sum.sum().to_le_bytes());
    file.push(u8::try_from(key.len()).map_err(|_| too_large())?);
    file.extend_from_slice(key.as_bytes());
    let mut encoder = ZlibEncoder::new(file, Compression::best());
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .map_err(|error| Error::io("compressing layouts", error))
}
