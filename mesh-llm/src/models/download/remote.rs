//! A file on a server: where it is asked for, and where its bytes come from by now.

use super::facts::Facts;
use super::http::{Answer, Client, Failure, shown};
use super::status::{Subject, check};
use super::{Error, Source};
use backon::Retryable;
use bytes::Bytes;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, IF_RANGE, RANGE};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A file on a server; clones are about the same one.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    client: Client,
    subject: Subject,
    start: Url,
    /// Where `start` led to. The hub counts requests, so each part is asked for there.
    direct: Arc<Mutex<Option<Url>>>,
}

impl Remote {
    pub(super) fn new(client: Client, source: &Source) -> Result<Self, Error> {
        let (subject, start) = match source {
            Source::HuggingFace { repo, revision, file } => {
                let place = ["resolve", revision.as_str()];
                let segments = repo.split('/').chain(place).chain(file.split('/'));
                let start = client.address(segments);
                let subject = Subject::File {
                    repo: repo.clone(),
                    revision: revision.clone(),
                    file: file.clone(),
                };
                (subject, start)
            }
            Source::Url(words) => (Subject::Address, parse(words)?),
        };
        Ok(Self {
            client,
            subject,
            start,
            direct: Arc::default(),
        })
    }

    /// The same file over connections of its own.
    pub(super) fn apart(&self) -> Result<Self, Error> {
        Ok(Self {
            client: self.client.apart()?,
            ..self.clone()
        })
    }

    /// Where the file is asked for, as it may be shown.
    pub(super) fn start(&self) -> String {
        shown(&self.start)
    }

    /// The limits of waiting.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Next time, `start` is asked where the file is.
    pub(super) fn forget(&self) {
        self.set_direct(None);
    }

    /// Asks what the file is.
    pub(super) async fn probe(&self) -> Result<Facts, Error> {
        let ask = || async {
            let mut answer = self.open(Some(0..1), None).await?;
            let facts = Facts::of(&answer)?;
            // Read to its end, the connection can be used again; a whole file is not worth that.
            while facts.ranges && self.piece(&mut answer).await?.is_some() {}
            Ok(facts)
        };
        ask.retry(self.client.patience.first_attempts())
            .when(Failure::passes)
            .adjust(Failure::delay)
            .await
            .map_err(Failure::into_error)
    }

    /// Asks for a part of the file, or for the whole.
    pub(super) async fn open(
        &self,
        range: Option<Range<u64>>,
        condition: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(range) = range {
            let value = format!("bytes={}-{}", range.start, range.end - 1);
            headers.extend(HeaderValue::from_str(&value).map(|value| (RANGE, value)));
            headers.extend(condition.map(|value| (IF_RANGE, value)));
        }
        if let Some(direct) = self.direct() {
            match self.client.get(&direct, &headers).await {
                // Such addresses are good for an hour or so.
                Ok(answer) if matches!(answer.response.status().as_u16(), 400 | 401 | 403 | 404 | 410) => {
                    self.set_direct(None);
                }
                Ok(answer) => return check(&self.client, &self.subject, answer),
                Err(failure) => {
                    self.set_direct(None);
                    return Err(failure);
                }
            }
        }
        let answer = self.client.get(&self.start, &headers).await?;
        let answer = check(&self.client, &self.subject, answer)?;
        if answer.url != self.start {
            self.set_direct(Some(answer.url.clone()));
        }
        Ok(answer)
    }

    /// The next piece of an answer's body.
    pub(super) async fn piece(&self, answer: &mut Answer) -> Result<Option<Bytes>, Failure> {
        self.client.piece(answer).await
    }

    fn direct(&self) -> Option<Url> {
        self.direct.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_direct(&self, url: Option<Url>) {
        *self.direct.lock().unwrap_or_else(PoisonError::into_inner) = url;
    }
}

fn parse(words: &str) -> Result<Url, Error> {
    let refuse = |cause: String| Error::Address {
        url: words.to_owned(),
        cause,
    };
    let url = Url::parse(words).map_err(|error| refuse(error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(refuse(format!("{scheme} is neither http nor https"))),
    }
}
