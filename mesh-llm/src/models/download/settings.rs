//! What the environment says about the hub, by the names that Hugging Face's own tools use.

use super::Error;
use reqwest::Url;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

const ENDPOINT: &str = "https://huggingface.co";

const CONNECTIONS: usize = 4;

/// How the hub is reached. Proxies are the HTTP client's to find: `HTTPS_PROXY`, `ALL_PROXY`,
/// `NO_PROXY`.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The hub, without a slash at the end: `HF_ENDPOINT`.
    pub endpoint: String,
    /// What the hub knows the user by: `HF_TOKEN`, or the file that `hf auth login` writes. Shown to
    /// the endpoint only.
    pub token: Option<String>,
    /// Nothing may be asked of a server: `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// Connections that one file comes over, at most.
    pub connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: ENDPOINT.to_owned(),
            token: None,
            offline: false,
            connections: CONNECTIONS,
        }
    }
}

/// Without the token.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("has_token", &self.token.is_some())
            .field("offline", &self.offline)
            .field("connections", &self.connections)
            .finish()
    }
}

impl Settings {
    /// Reads the variables, and the token's file where no variable has a token. An empty variable
    /// counts as none.
    pub fn from_env(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| {
            let value = variable(name)?.into_string().ok()?;
            let value = value.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN"));
        Self {
            endpoint: text("HF_ENDPOINT").map_or(ENDPOINT.to_owned(), |words| {
                words.trim_end_matches('/').to_owned()
            }),
            token: token.or_else(|| {
                let file = std::fs::read_to_string(token_file(variable)?).ok()?;
                let token = file.trim();
                (!token.is_empty()).then(|| token.to_owned())
            }),
            offline: text("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            connections: CONNECTIONS,
        }
    }

    /// The endpoint as an address.
    pub(super) fn address(&self) -> Result<Url, Error> {
        let refuse = |cause: String| Error::Address {
            url: format!("{} (HF_ENDPOINT)", self.endpoint),
            cause,
        };
        let url = Url::parse(&self.endpoint).map_err(|error| refuse(error.to_string()))?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            scheme => Err(refuse(format!("{scheme} is neither http nor https"))),
        }
    }
}

/// Where `hf auth login` puts the token.
fn token_file(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    path("HF_TOKEN_PATH").or_else(|| {
        let home = path("HF_HOME").or_else(|| {
            let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
            Some(cache?.join("huggingface"))
        });
        Some(home?.join("token"))
    })
}

/// As `huggingface_hub` reads its switches.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Settings {
        Settings::from_env(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn without_variables_the_hub_is_asked_without_a_token() {
        assert_eq!(from(&[]), Settings::default());
        assert_eq!(
            from(&[("HF_ENDPOINT", ""), ("HF_TOKEN", " \n"), ("HF_HUB_OFFLINE", "0")]),
            from(&[])
        );
    }

    #[test]
    fn variables_are_read_as_hugging_face_s_tools_do() {
        let settings = from(&[
            ("HF_ENDPOINT", "http://mirror:8080/hf/"),
            ("HF_TOKEN", " hf_a\n"),
            ("HF_HUB_OFFLINE", "Yes"),
        ]);
        assert_eq!(settings.endpoint, "http://mirror:8080/hf");
        assert_eq!(settings.token.as_deref(), Some("hf_a"));
        assert!(settings.offline);
        assert!(!format!("{settings:?}").contains("hf_a"), "{settings:?}");
    }

    #[test]
    fn the_token_s_file_counts_after_the_variable() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        std::fs::create_dir(home.path().join("huggingface")).unwrap();
        std::fs::write(home.path().join("huggingface/token"), "hf_cache\n").unwrap();
        std::fs::write(home.path().join("token"), "hf_home\n").unwrap();
        let token = |variables: &[(&str, &str)]| from(variables).token;
        assert_eq!(token(&[("XDG_CACHE_HOME", path)]).as_deref(), Some("hf_cache"));
        assert_eq!(
            token(&[("HF_HOME", path), ("XDG_CACHE_HOME", path)]).as_deref(),
            Some("hf_home")
        );
        assert_eq!(
            token(&[("HF_HOME", path), ("HF_TOKEN", "hf_b")]).as_deref(),
            Some("hf_b")
        );
        let file = home.path().join("token");
        assert_eq!(
            token(&[("HF_TOKEN_PATH", file.to_str().unwrap())]).as_deref(),
            Some("hf_home")
        );
    }

    #[test]
    fn an_endpoint_that_is_no_address_is_named() {
        for words in ["huggingface.co", "ftp://huggingface.co"] {
            let error = from(&[("HF_ENDPOINT", words)]).address().unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("HF_ENDPOINT"), "{error}");
        }
    }
}
