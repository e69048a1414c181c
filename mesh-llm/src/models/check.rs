//! Verifies that a model's files are what they were when they were published.

use super::inventory::OnDisk;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The content of all files has the SHA-256 that it was published with.
    Same,
    /// Headers and lengths fit each other; of a file at least no SHA-256 is known.
    WellFormed,
    /// What is wrong.
    Damaged(String),
}

/// Checks a model, knowing the SHA-256 of files that were downloaded.
pub fn check(model: &OnDisk, digests: &BTreeMap<PathBuf, String>) -> Verdict {
    let about = match &model.about {
        Ok(about) => about,
        Err(what) => return Verdict::Damaged(what.clone()),
    };
    let mut all_known = true;
    for file in &about.files {
        let Some(expected) = digests.get(file).cloned().or_else(|| blob_digest(file)) else {
            all_known = false;
            continue;
        };
        match sha256(file) {
            Ok(found) if found == expected => {}
            Ok(found) => {
                let file = file.display();
                return Verdict::Damaged(format!(
                    "{file} has the SHA-256 {found}, but must have {expected}"
                ));
            }
            Err(error) => return Verdict::Damaged(format!("{} cannot be read: {error}", file.display())),
        }
    }
    if all_known {
        Verdict::Same
    } else {
        Verdict::WellFormed
    }
}

/// The SHA-256 that caches name their files by: Hugging Face's blobs and Ollama's.
fn blob_digest(file: &Path) -> Option<String> {
    let file = file.canonicalize().ok()?;
    let name = file.file_name()?.to_str()?;
    let digest = name.strip_prefix("sha256-").unwrap_or(name);
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| digest.to_ascii_lowercase())
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; BUFFER_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::super::inventory::inventory;
    use super::super::places::{Keeper, Places};
    use super::*;
    use std::fs;

    const TINY: &[u8] = include_bytes!("../../assets/mesh-tiny.gguf");

    #[test]
    fn content_is_compared_where_it_is_known() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str| root.path().join(name);
        let (plain, good, bad) = (
            folder("store/a.gguf"),
            folder("store/b.gguf"),
            folder("store/c.gguf"),
        );
        fs::create_dir(folder("store")).unwrap();
        for path in [&plain, &good, &bad] {
            fs::write(path, TINY).unwrap();
        }
        let digest = sha256(&plain).unwrap();
        let blob = folder(&format!("ollama/blobs/sha256-{digest}"));
        fs::create_dir_all(folder("ollama/blobs")).unwrap();
        fs::write(&blob, TINY).unwrap();
        let manifests = folder("ollama/manifests/registry.ollama.ai/library/d");
        fs::create_dir_all(&manifests).unwrap();
        let manifest = format!(
            r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{digest}"}}]}}"#
        );
        fs::write(manifests.join("1b"), manifest).unwrap();
        let places = Places {
            store: Some(folder("store")),
            others: vec![(Keeper::Ollama, folder("ollama"))],
        };
        let digests = BTreeMap::from([(good, digest.clone()), (bad.clone(), digest)]);
        let mut damaged = TINY.to_vec();
        // Inside a tensor: the form stays right.
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        fs::write(&bad, damaged).unwrap();
        let verdicts: Vec<_> = inventory(&places, None)
            .iter()
            .map(|model| check(model, &digests))
            .collect();
        assert!(
            matches!(&verdicts[2], Verdict::Damaged(what) if what.contains("SHA-256")),
            "{verdicts:?}"
        );
        assert_eq!(
            [&verdicts[0], &verdicts[1], &verdicts[3]],
            [&Verdict::WellFormed, &Verdict::Same, &Verdict::Same]
        );
    }
}
