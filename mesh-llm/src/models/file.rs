//! A model's file: its name, and whether it can be one.

use super::Error;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The first bytes of every GGUF file.
const MAGIC: [u8; 4] = *b"GGUF";

/// A part of a split model, from the end of its name: `-00002-of-00003`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    base: &'a str,
    pub(super) number: u32,
    count: u32,
}

impl Part<'_> {
    /// The path of the model's first part.
    pub(super) fn first(&self, path: &Path) -> PathBuf {
        path.with_file_name(format!("{}-{:05}-of-{:05}.gguf", self.base, 1, self.count))
    }
}

/// Whether the path ends like a GGUF file.
pub(super) fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The file's name without its ending.
pub(super) fn stem(path: &Path) -> String {
    let name = if is_gguf(path) {
        path.file_stem()
    } else {
        path.file_name()
    };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// The part that a file with this stem is, if it is one.
pub(super) fn part(stem: &str) -> Option<Part<'_>> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let five_digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if base.is_empty() || !five_digits(number) || !five_digits(count) {
        return None;
    }
    Some(Part {
        base,
        number: number.parse().ok()?,
        count: count.parse().ok()?,
    })
}

/// The name at the API of a model whose file has this stem.
pub(super) fn id(stem: &str) -> &str {
    part(stem).map_or(stem, |part| part.base)
}

/// Refuses what cannot be a model, at the price of reading four bytes.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let unreadable = |cause| Error::Unreadable {
        path: path.to_owned(),
        cause,
    };
    // Before it is opened: opening a pipe waits for its other end.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut first = Vec::with_capacity(MAGIC.len());
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAGIC.len() as u64)
        .read_to_end(&mut first)
        .map_err(unreadable)?;
    let what = match first.as_slice() {
        [] => "is empty",
        magic if magic == MAGIC => return Ok(()),
        _ => "does not begin with the letters GGUF",
    };
    Err(Error::NotGguf {
        path: path.to_owned(),
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_id_is_the_stem_without_the_part() {
        for (path, expected) in [
            ("/m/Qwen3-8B-Q4_K_M.gguf", "Qwen3-8B-Q4_K_M"),
            ("/m/Big-00001-of-00003.gguf", "Big"),
            ("Big-of-Mice.gguf", "Big-of-Mice"),
            ("Big-1-of-3.gguf", "Big-1-of-3"),
            ("v1.5", "v1.5"),
            ("-00001-of-00002.gguf", "-00001-of-00002"),
            ("x.GGUF", "x"),
        ] {
            assert_eq!(id(&stem(Path::new(path))), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_name_has_an_id(name in ".{0,40}") {
            prop_assert!(name.starts_with(id(&name)));
        }

        #[test]
        fn every_part_leads_to_the_first(base in "[a-z-]{1,9}", number in 1u32..99_999, count in 1u32..99_999) {
            let stem = format!("{base}-{number:05}-of-{count:05}");
            let first = part(&stem).unwrap().first(Path::new("/m/x.gguf"));
            prop_assert_eq!(first, PathBuf::from(format!("/m/{base}-00001-of-{count:05}.gguf")));
            prop_assert_eq!(id(&stem), base);
        }
    }
}
