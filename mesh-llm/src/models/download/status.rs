//! What the statuses of the hub, and of other servers, mean.

use super::Error;
use super::error::Names;
use super::http::{Answer, Client, Failure, bad_token, host, shown};
use super::patience::retry_after;
use std::time::SystemTime;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A repository.
    Repository { repo: String, revision: String },
    /// A file of a repository.
    File {
        repo: String,
        revision: String,
        file: String,
    },
    /// A plain address.
    Address,
}

impl Subject {
    fn repo(&self) -> Option<(&str, &str)> {
        match self {
            Subject::Repository { repo, revision } | Subject::File { repo, revision, .. } => {
                Some((repo, revision))
            }
            Subject::Address => None,
        }
    }
}

/// Lets an answer with content pass, and one that says that there is none for this range (416).
pub(super) fn check(client: &Client, subject: &Subject, answer: Answer) -> Result<Answer, Failure> {
    let status = answer.response.status().as_u16();
    match status {
        200 | 206 | 416 => Ok(answer),
        408 | 429 | 500 | 502..=504 => {
            let after = retry_after(answer.response.headers(), SystemTime::now());
            let host = host(&answer.url);
            let error = Error::Busy { host, status, after };
            match after {
                Some(after) if after > client.patience.longest_wait => Err(Failure::Final(error)),
                after => Err(Failure::Again { error, after }),
            }
        }
        _ => Err(Failure::Final(refusal(client, subject, &answer, status))),
    }
}

fn refusal(client: &Client, subject: &Subject, answer: &Answer, status: u16) -> Error {
    match subject.repo() {
        Some((repo, revision)) if client.is_hub(&answer.url) => {
            of_hub(client, subject, (repo, revision), answer, status)
        }
        _ => of_server(answer, status),
    }
}

/// The hub tells its reasons in `X-Error-Code`. Without a good token it answers 401 for what does not
/// exist, as for what is private.
fn of_hub(
    client: &Client,
    subject: &Subject,
    (repo, revision): (&str, &str),
    answer: &Answer,
    status: u16,
) -> Error {
    let header = |name| {
        let value = answer.response.headers().get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    let (repo, revision) = (repo.to_owned(), revision.to_owned());
    let has_token = client.has_token();
    let no_repository = |repo| Error::NoRepository {
        repo,
        host: host(client.endpoint()),
        has_token,
    };
    match (status, header("x-error-code")) {
        (401 | 403, "GatedRepo") => Error::Gated {
            page: shown(&client.address(repo.split('/'))),
            repo,
            has_token,
        },
        (401, _) if header("x-error-message").starts_with("Invalid credentials") => {
            bad_token(client.endpoint())
        }
        (401 | 404, "RepoNotFound") => no_repository(repo),
        (401, _) if has_token => bad_token(client.endpoint()),
        (401, _) => no_repository(repo),
        (404, "RevisionNotFound") => Error::NoRevision {
            repo,
            revision,
            known: Names::default(),
        },
        (404, "EntryNotFound") if matches!(subject, Subject::File { .. }) => {
            let Subject::File { file, .. } = subject else {
                return of_server(answer, status);
            };
            Error::NoFile {
                repo,
                revision,
                file: file.clone(),
                known: Names::default(),
            }
        }
        _ => of_server(answer, status),
    }
}

fn of_server(answer: &Answer, status: u16) -> Error {
    let url = shown(&answer.url);
    let message = answer.response.headers().get("x-error-message");
    let message = message.and_then(|value| value.to_str().ok());
    let said = match message {
        Some(message) => format!("status {status}: {message}"),
        None => format!("status {status}"),
    };
    match status {
        401 | 403 => Error::Forbidden { url, said },
        404 | 410 => Error::NotFound { url, status },
        _ => Error::Unexpected { url, what: said },
    }
}
