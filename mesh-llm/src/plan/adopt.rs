//! What a machine that was told to serve nothing takes on for the mesh.

/// A model that somebody wants and nobody serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unserved {
    /// Its name.
    pub model: String,
    /// Bytes that it needs where it is served alone.
    pub bytes: u64,
}

/// How a machine comes by a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// It has it.
    OnDisk,
    /// It can be downloaded.
    Catalog,
}

/// The model to take on, if there is one that fits into `memory` bytes: what is on disk first, then the smallest.
///
/// `source` says how the machine would come by a model, if at all.
pub fn choose(
    unserved: &[Unserved],
    memory: u64,
    source: impl Fn(&str) -> Option<Source>,
) -> Option<&Unserved> {
    let fit = unserved.iter().filter(|model| model.bytes <= memory);
    let known = fit.filter_map(|model| Some((source(&model.model)?, model.bytes, model)));
    known.min().map(|(_, _, model)| model)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unserved(model: &str, bytes: u64) -> Unserved {
        Unserved {
            model: model.to_owned(),
            bytes,
        }
    }

    #[test]
    fn what_is_on_disk_comes_first_then_the_smallest_and_nothing_that_does_not_fit() {
        let all = [
            unserved("a", 8),
            unserved("b", 4),
            unserved("c", 6),
            unserved("d", 2),
        ];
        let source = |model: &str| match model {
            "a" | "c" => Some(Source::OnDisk),
            "b" => Some(Source::Catalog),
            _ => None,
        };
        let chosen = |memory| choose(&all, memory, source).map(|model| model.model.as_str());
        assert_eq!(chosen(8), Some("c"));
        assert_eq!(chosen(5), Some("b"));
        assert_eq!(chosen(3), None, "nobody knows where to get it");
        assert_eq!(choose(&[], 8, source), None);
    }
}
