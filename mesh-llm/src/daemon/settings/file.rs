//! The layer of the configuration file.

use super::{Error, Layer, ModelNames, SecretSource, TokenSource};
use crate::models::reference::Reference;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Reads the file, which must be there.
pub(super) fn layer(path: &Path, user_home: Option<&Path>) -> Result<Layer, Error> {
    let unreadable = |cause| Error::Unreadable {
        path: path.to_owned(),
        cause,
    };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let mut layer = parse(&text, path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    layer.bin_dir = layer.bin_dir.map(|path| anchored(path, folder, user_home));
    layer.api_key_file = layer.api_key_file.map(|path| anchored(path, folder, user_home));
    layer.rpc_secret = layer.rpc_secret.map(|source| match source {
        SecretSource::File(path) => SecretSource::File(anchored(path, folder, user_home)),
        source => source,
    });
    layer.join = layer.join.map(|source| match source {
        TokenSource::File(path) => TokenSource::File(anchored(path, folder, user_home)),
        source => source,
    });
    let named = |model: String| match Reference::read(&model, |_| false) {
        Reference::Path(path) => anchored(path, folder, user_home).to_string_lossy().into_owned(),
        _ => model,
    };
    layer.model = layer
        .model
        .map(|models| ModelNames(models.0.into_iter().map(named).collect()));
    layer.draft = layer.draft.map(named);
    Ok(layer)
}

/// Reads the file, or nothing where it does not exist.
pub(super) fn layer_if_there(path: &Path, user_home: Option<&Path>) -> Result<Layer, Error> {
    let missing = [ErrorKind::NotFound, ErrorKind::NotADirectory];
    match layer(path, user_home) {
        Err(Error::Unreadable { cause, .. }) if missing.contains(&cause.kind()) => Ok(Layer::default()),
        result => result,
    }
}

fn parse(text: &str, path: &Path) -> Result<Layer, Error> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
        Error::File {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            // serde says field; in a file for people it is a key.
            cause: error
                .message()
                .replace("unknown field", "unknown key")
                .replace('\n', " "),
        }
    })
}

/// A path in a file means the same wherever the daemon is started: it begins at the file's folder,
/// and `~/` is the user's home, as no shell has seen it.
fn anchored(path: PathBuf, folder: &Path, user_home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user_home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => folder.join(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llama_engine::server::options::CacheType;

    fn error(text: &str) -> String {
        parse(text, Path::new("config.toml")).unwrap_err().to_string()
    }

    #[test]
    fn every_key_has_its_flag_s_name() {
        let text =
            "model = 'tiny'\nctx-size = 4096\ndevice = ['CPU']\ncache-type-k = 'q8_0'\nlog-format = 'json'";
        let layer = parse(text, Path::new("")).unwrap();
        assert_eq!(layer.model.unwrap().0, ["tiny"]);
        assert_eq!(layer.cache_type_k, Some(CacheType::Q8_0));
        assert_eq!(layer.device.unwrap().0, ["CPU"]);
    }

    #[test]
    fn devices_are_a_list_or_words() {
        let device = |text| parse(text, Path::new("")).unwrap().device.unwrap().0;
        assert_eq!(device("device = ['A', 'B']"), device("device = 'A,B'"));
        assert!(error("device = 3").contains("names with commas"));
    }

    #[test]
    fn a_mistake_is_shown_with_its_line_and_what_is_possible() {
        let unknown = error("port = 1\nprot = 2");
        assert!(
            unknown.starts_with("config.toml:2: unknown key `prot`, expected one of `model`"),
            "{unknown}"
        );
        assert!(
            error("ctx-size = 0").starts_with("config.toml:1: "),
            "{}",
            error("ctx-size = 0")
        );
        assert!(
            error("port = 70000").contains("70000"),
            "{}",
            error("port = 70000")
        );
        assert!(error("flash-attn = 'x'").contains("auto, on, off"));
        assert!(error("speculate = 'x'").contains("auto, off, draft, ngram"));
        assert!(error("draft-max = 65").contains("1 to 64"));
        assert!(error("draft-min-p = 2.0").contains("0 to 1"));
        assert!(!error("port = ").contains('\n'));
    }

    #[test]
    fn paths_begin_at_the_file_or_at_home() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            layer(&file, Some(Path::new("/home/u"))).unwrap()
        };
        let in_folder = folder.path().join("x.gguf").to_string_lossy().into_owned();
        let models = |text: &str| read(text).model.unwrap().0;
        assert_eq!(models("model = 'x.gguf'"), std::slice::from_ref(&in_folder));
        assert_eq!(
            models("model = ['tiny', 'x.gguf']"),
            ["tiny".to_owned(), in_folder]
        );
        assert_eq!(models("model = 'org/repo:Q8_0'"), ["org/repo:Q8_0"]);
        assert_eq!(models("model = '~/m/x.gguf'"), ["/home/u/m/x.gguf"]);
        assert_eq!(
            read("draft = '~/m/d.gguf'").draft,
            Some("/home/u/m/d.gguf".into())
        );
        assert_eq!(read("draft = 'Qwen3-0.6B'").draft, Some("Qwen3-0.6B".into()));
        assert_eq!(models("model = '/m/x.gguf'"), ["/m/x.gguf"]);
        assert_eq!(models("model = 'tiny'"), ["tiny"]);
        assert_eq!(read("bin-dir = 'bin'").bin_dir, Some(folder.path().join("bin")));
        assert_eq!(
            read("rpc-secret-file = 's'").rpc_secret,
            Some(SecretSource::File(folder.path().join("s")))
        );
        assert_eq!(
            read("join = '@t'").join,
            Some(TokenSource::File(folder.path().join("t")))
        );
    }
}
