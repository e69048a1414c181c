//! OpenAI's endpoints that this server does not have.

/// What a path would be for.
const ABSENT: [(&str, &str); 12] = [
    ("audio", "speech and transcription"),
    ("images", "image generation"),
    ("videos", "video generation"),
    ("moderations", "moderation"),
    ("files", "file storage"),
    ("uploads", "file storage"),
    ("vector_stores", "file storage"),
    ("fine_tuning", "fine-tuning"),
    ("batches", "batch processing"),
    ("assistants", "assistants"),
    ("threads", "assistants"),
    ("realtime", "realtime sessions"),
];

/// What OpenAI has at a path and this server has not, in words.
pub fn absent(path: &str) -> Option<&'static str> {
    let rest = path.strip_prefix("/v1/")?;
    let first = rest.split('/').next()?;
    ABSENT
        .iter()
        .find(|(name, _)| *name == first)
        .map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_by_its_beginning() {
        assert_eq!(absent("/v1/audio/speech"), Some("speech and transcription"));
        assert_eq!(absent("/v1/realtime"), Some("realtime sessions"));
        assert_eq!(absent("/v1/fine_tuning/jobs/1"), Some("fine-tuning"));
        for other in ["/v1/audios", "/audio/speech", "/v1/", "/v1/chat/completions"] {
            assert_eq!(absent(other), None, "{other}");
        }
    }
}
