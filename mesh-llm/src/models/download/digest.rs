//! Hashes a file while it is downloaded, from its first byte as far as there is no gap.

use super::Error;
use super::facts::Sha256;
use super::part::Part;
use sha2::Digest;
use std::fs::File;
use std::io::Read;

/// What is read at once: written shortly before, it comes from memory.
const BLOCK: usize = 256 << 10;

/// The hash of the whole file, once it is whole; None if that does not happen. Blocks.
pub(super) fn follow(part: &Part) -> Result<Option<Sha256>, Error> {
    let mut file = File::open(part.path()).map_err(Error::disk(part.path()))?;
    let mut hash = sha2::Sha256::new();
    let mut block = vec![0; BLOCK];
    let mut hashed = 0;
    while let Some(whole) = part.wait_beyond(hashed) {
        let length = (whole - hashed).min(BLOCK as u64);
        let bytes = &mut block[..length as usize];
        file.read_exact(bytes).map_err(Error::disk(part.path()))?;
        hash.update(bytes);
        hashed += length;
    }
    Ok((hashed == part.bytes()).then(|| Sha256(hash.finalize().into())))
}
