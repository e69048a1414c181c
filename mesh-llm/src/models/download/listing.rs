//! What a repository has.

use super::error::Names;
use super::facts::Sha256;
use super::http::{Client, Failure, broken, shown};
use super::patience::Patience;
use super::status::{Subject, check};
use super::{Error, Settings};
use backon::Retryable;
use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Pages of a listing, of a thousand entries each.
const MAX_PAGES: usize = 50;

/// One page.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its path in the repository.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its hash; only large files (those in LFS) have one.
    pub sha256: Option<Sha256>,
}

/// An entry of `/api/models/REPO/tree/REVISION`.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    oid: String,
}

/// The answer of `/api/models/REPO/refs`.
#[derive(Debug, Deserialize)]
struct Refs {
    #[serde(default)]
    branches: Vec<Ref>,
    #[serde(default)]
    tags: Vec<Ref>,
}

#[derive(Debug, Deserialize)]
struct Ref {
    name: String,
}

/// The files of a repository, with their sizes, those in folders too.
pub async fn list(settings: &Settings, repo: &str, revision: &str) -> Result<Vec<RemoteFile>, Error> {
    if settings.offline {
        return Err(Error::Offline {
            what: format!("the list of files of {repo}"),
        });
    }
    let client = Client::new(settings, Patience::default())?;
    files(&client, repo, revision).await
}

pub(super) async fn files(client: &Client, repo: &str, revision: &str) -> Result<Vec<RemoteFile>, Error> {
    match tree(client, repo, revision).await {
        Ok(files) => Ok(files),
        Err(error) => Err(explain(client, error).await),
    }
}

/// Adds to an error about a name which names there are; if they cannot be had, it stays as it is.
pub(super) async fn explain(client: &Client, mut error: Error) -> Error {
    match &mut error {
        Error::NoFile {
            repo,
            revision,
            file,
            known,
        } => {
            let mut names: Vec<_> = match tree(client, repo, revision).await {
                Ok(files) => files.into_iter().map(|file| file.name).collect(),
                Err(_) => Vec::new(),
            };
            // Those of the wanted kind first: an error names only some.
            let kind = file.rsplit_once('.').map_or("", |(_, kind)| kind).to_owned();
            names.sort_by_key(|name| (!name.ends_with(&kind), name.clone()));
            *known = Names(names);
        }
        Error::NoRevision { repo, known, .. } => {
            let segments = ["api", "models"]
                .into_iter()
                .chain(repo.split('/'))
                .chain(["refs"]);
            let subject = Subject::Repository {
                repo: repo.clone(),
                revision: String::new(),
            };
            if let Ok((Refs { branches, tags }, _)) = page(client, &subject, &client.address(segments)).await
            {
                *known = Names(branches.into_iter().chain(tags).map(|known| known.name).collect());
            }
        }
        _ => {}
    }
    error
}

async fn tree(client: &Client, repo: &str, revision: &str) -> Result<Vec<RemoteFile>, Error> {
    let place = ["tree", revision];
    let segments = ["api", "models"].into_iter().chain(repo.split('/')).chain(place);
    let mut url = client.address(segments);
    url.set_query(Some("recursive=true"));
    let subject = Subject::Repository {
        repo: repo.to_owned(),
        revision: revision.to_owned(),
    };
    let mut files = Vec::new();
    for _ in 0..MAX_PAGES {
        let (entries, headers) = page::<Vec<Entry>>(client, &subject, &url).await?;
        files.extend(
            entries
                .into_iter()
                .filter(|entry| entry.kind == "file")
                .map(|entry| RemoteFile {
                    name: entry.path,
                    bytes: entry.size,
                    sha256: entry.lfs.and_then(|lfs| lfs.oid.parse().ok()),
                }),
        );
        match next(&url, &headers) {
            Some(next) => url = next,
            None => return Ok(files),
        }
    }
    Err(Error::Unexpected {
        url: shown(&url),
        what: format!("more than {MAX_PAGES} pages of files"),
    })
}

/// Where the list goes on: `Link: <ADDRESS>; rel="next"`.
fn next(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let link = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let (_, rest) = link.split_once('<')?;
    url.join(rest.split_once('>')?.0).ok()
}

async fn page<T: DeserializeOwned>(
    client: &Client,
    subject: &Subject,
    url: &Url,
) -> Result<(T, HeaderMap), Error> {
    let ask = || async {
        let answer = client.get(url, &HeaderMap::new()).await?;
        let mut answer = check(client, subject, answer)?;
        let unexpected = |what: String| {
            Failure::Final(Error::Unexpected {
                url: shown(url),
                what,
            })
        };
        let expected = answer.response.content_length();
        let mut body = Vec::new();
        while let Some(piece) = client.piece(&mut answer).await? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_PAGE_BYTES {
                return Err(unexpected(format!("more than {MAX_PAGE_BYTES} bytes")));
            }
        }
        if expected.is_some_and(|expected| expected != body.len() as u64) {
            return Err(Failure::again(broken(url, "the answer ended early".to_owned())));
        }
        let value = serde_json::from_slice(&body);
        let value = value.map_err(|error| unexpected(format!("something that is no list: {error}")))?;
        Ok((value, answer.response.headers().clone()))
    };
    ask.retry(client.patience.first_attempts())
        .when(Failure::passes)
        .adjust(Failure::delay)
        .await
        .map_err(Failure::into_error)
}
