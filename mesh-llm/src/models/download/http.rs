//! The HTTP client: redirects, who sees the token, and which failures pass.

use super::facts::Linked;
use super::{Error, Patience, Settings};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Response, Url, redirect};
use std::time::Duration;

/// Redirects that are followed for one request.
const MAX_REDIRECTS: usize = 10;

/// An answer with a status of any kind.
#[derive(Debug)]
pub(super) struct Answer {
    /// Head and body.
    pub(super) response: Response,
    /// Who answered, after redirects.
    pub(super) url: Url,
    /// What was said on the way.
    pub(super) linked: Linked,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may succeed later.
    Again {
        /// What to say if it does not.
        error: Error,
        /// How long the server asks to wait.
        after: Option<Duration>,
    },
    /// It will not.
    Final(Error),
}

impl Failure {
    /// A failure that may pass at any time.
    pub(super) fn again(error: Error) -> Self {
        Failure::Again { error, after: None }
    }

    /// Whether it may pass.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Failure::Again { .. })
    }

    /// The delay before the next attempt: what the server asks for, if that is longer.
    pub(super) fn delay(&self, planned: Option<Duration>) -> Option<Duration> {
        match self {
            Failure::Again { after, .. } => planned.map(|planned| planned.max(after.unwrap_or_default())),
            Failure::Final(_) => None,
        }
    }

    /// What to tell the user.
    pub(super) fn into_error(self) -> Error {
        match self {
            Failure::Again { error, .. } | Failure::Final(error) => error,
        }
    }
}

/// Asks servers; clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Url,
    token: Option<HeaderValue>,
    pub(super) patience: Patience,
}

impl Client {
    pub(super) fn new(settings: &Settings, patience: Patience) -> Result<Self, Error> {
        // The first to install a provider wins; whoever it was, TLS works.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoint = settings.address()?;
        let http = connections(&endpoint, patience)?;
        let token = match &settings.token {
            Some(token) => {
                let value = HeaderValue::from_str(&format!("Bearer {token}"));
                let mut value = value.map_err(|_| bad_token(&endpoint))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Self {
            http,
            endpoint,
            token,
            patience,
        })
    }

    /// The same with connections of its own: each belongs to the runtime that it was made in.
    pub(super) fn apart(&self) -> Result<Self, Error> {
        Ok(Self {
            http: connections(&self.endpoint, self.patience)?,
            ..self.clone()
        })
    }

    /// An address at the hub; each segment is escaped, so that a branch's name may contain slashes.
    pub(super) fn address<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Whether the hub answers there, and may see the token: same scheme, host and port.
    pub(super) fn is_hub(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// The hub.
    pub(super) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Whether the hub is shown a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Sends a GET, follows redirects, and returns the head of the last answer.
    pub(super) async fn get(&self, start: &Url, headers: &HeaderMap) -> Result<Answer, Failure> {
        let mut url = start.clone();
        let mut linked = Linked::default();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&url, headers).await?;
            linked.add(response.headers());
            match next(&url, &response).map_err(Failure::Final)? {
                Some(next) => url = next,
                None => {
                    return Ok(Answer {
                        response,
                        url,
                        linked,
                    });
                }
            }
        }
        Err(Failure::Final(Error::Unexpected {
            url: shown(start),
            what: format!("more than {MAX_REDIRECTS} redirects"),
        }))
    }

    async fn send(&self, url: &Url, headers: &HeaderMap) -> Result<Response, Failure> {
        let mut request = self.http.get(url.clone()).headers(headers.clone());
        // Ranges count the bytes of the file, not those of a compressed one.
        request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.token.as_ref().filter(|_| self.is_hub(url)) {
            request = request.header(AUTHORIZATION, token.clone());
        }
        let answer = tokio::time::timeout(self.patience.read, request.send()).await;
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(Failure::again(Error::NoConnection {
                host: host(url),
                cause: cause(&error),
            })),
            Ok(Err(error)) => Err(Failure::again(broken(url, cause(&error)))),
            Err(_) => Err(Failure::again(self.silent(url))),
        }
    }

    /// The next piece of a body, if there is one.
    pub(super) async fn piece(&self, answer: &mut Answer) -> Result<Option<bytes::Bytes>, Failure> {
        match tokio::time::timeout(self.patience.read, answer.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(Failure::again(broken(&answer.url, cause(&error)))),
            Err(_) => Err(Failure::again(self.silent(&answer.url))),
        }
    }

    fn silent(&self, url: &Url) -> Error {
        broken(url, format!("nothing came for {:?}", self.patience.read))
    }
}

fn connections(endpoint: &Url, patience: Patience) -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .user_agent(concat!("mesh-llm/", env!("CARGO_PKG_VERSION")))
        // Redirects are followed here: what is said on the way matters, and who sees the token.
        .redirect(redirect::Policy::none())
        .referer(false)
        .http1_only()
        .connect_timeout(patience.connect)
        .build()
        .map_err(|error| Error::NoConnection {
            host: host(endpoint),
            cause: cause(&error),
        })
}

/// Where the answer says to go on, if it does.
fn next(url: &Url, response: &Response) -> Result<Option<Url>, Error> {
    let refuse = |what: String| {
        Err(Error::Unexpected {
            url: shown(url),
            what,
        })
    };
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok());
    let Some(next) = location.and_then(|location| url.join(location).ok()) else {
        return refuse("a redirect to nowhere".to_owned());
    };
    match (url.scheme(), next.scheme()) {
        // Whoever sits on the line could change what is downloaded.
        ("https", "http") => refuse(format!("a redirect to {}, which is not encrypted", shown(&next))),
        (_, "http" | "https") => Ok(Some(next)),
        _ => refuse(format!("a redirect to {}", shown(&next))),
    }
}

/// The hub does not know the token.
pub(super) fn bad_token(endpoint: &Url) -> Error {
    Error::BadToken {
        host: host(endpoint),
        page: format!("{}/settings/tokens", shown(endpoint).trim_end_matches('/')),
    }
}

/// A connection broke off.
pub(super) fn broken(url: &Url, cause: String) -> Error {
    Error::Broken {
        url: shown(url),
        cause,
    }
}

/// Host and port, as a user would name the server.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

/// An address as it may be shown: queries and names before the host can hold secrets.
pub(super) fn shown(url: &Url) -> String {
    let authority = host(url);
    format!("{}://{authority}{}", url.scheme(), url.path())
}

/// The innermost cause, which is the one that means something to a user.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
