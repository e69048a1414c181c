//! Sizes in words.

/// Bytes, for people.
pub fn size(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes >= 1e9 => format!("{:.1} GB", bytes / 1e9),
        bytes => format!("{:.0} MB", bytes / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let sizes = [55_040_000_000, 1_000_000_000, 999_000_000, 0].map(size);
        assert_eq!(sizes, ["55.0 GB", "1.0 GB", "999 MB", "0 MB"]);
    }
}
