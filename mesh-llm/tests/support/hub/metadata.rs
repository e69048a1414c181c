//! The hub: what it says about repositories, and who may read them.

use super::reply::{Reply, asked, failed, reply};
use super::storage::ranged;
use super::{COMMIT, Fault, Repository, Shared, lock};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_RANGES, AUTHORIZATION, ETAG, LINK, LOCATION};
use serde_json::json;

fn refusal(status: u16, code: &'static str, message: &'static str) -> Reply {
    reply(status, json!({ "error": message }).to_string())
        .header("x-error-code", code)
        .header("x-error-message", message)
}

pub(super) fn reply_to(shared: &Shared, request: &Request<Incoming>) -> Reply {
    if let Some(Fault::Status(status, after)) = lock(&shared.behaviour).hub_faults.pop_front() {
        return failed(status, after);
    }
    let path: Vec<String> = request.uri().path().split('/').skip(1).map(decoded).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path[..] {
        ["detour", name] => {
            reply(302, "").header(LOCATION, format!("http://{}/plain/{name}", shared.storage))
        }
        ["api", "models", owner, name, "tree", revision] => {
            with_repository(shared, request, owner, name, Some(revision), |repository| {
                tree(shared, request, repository)
            })
        }
        ["api", "models", owner, name, "refs"] => with_repository(shared, request, owner, name, None, |_| {
            let named = |name| json!([{ "name": name, "ref": name, "targetCommit": COMMIT }]);
            reply(
                200,
                json!({ "branches": named("main"), "converts": [], "tags": named("v1") }).to_string(),
            )
        }),
        ["api", "models", owner, name, "revision", revision] => {
            with_repository(shared, request, owner, name, Some(revision), |repository| {
                let siblings: Vec<_> = repository
                    .files
                    .iter()
                    .map(|(name, file)| json!({ "rfilename": name, "size": file.bytes.len() }))
                    .collect();
                let id = format!("{owner}/{name}");
                reply(
                    200,
                    json!({ "id": id, "sha": COMMIT, "siblings": siblings }).to_string(),
                )
            })
        }
        [owner, name, "resolve", revision, ..] => {
            with_repository(shared, request, owner, name, Some(revision), |repository| {
                resolve(shared, request, repository, &path[4..].join("/"))
            })
        }
        _ => reply(404, "Not Found"),
    }
}

/// Looks who asks, and whether what they ask for exists, in the hub's order.
fn with_repository(
    shared: &Shared,
    request: &Request<Incoming>,
    owner: &str,
    name: &str,
    revision: Option<&str>,
    then: impl FnOnce(&Repository) -> Reply,
) -> Reply {
    let token = asked(request, AUTHORIZATION).map(|value| value.trim_start_matches("Bearer ").to_owned());
    let (good, stranger) = {
        let behaviour = lock(&shared.behaviour);
        (behaviour.token.clone(), behaviour.stranger.clone())
    };
    let knows = token.is_some() && (token == good || token == stranger);
    if token.is_some() && !knows {
        return refusal(401, "", "Invalid credentials in Authorization header");
    }
    let repositories = lock(&shared.repositories);
    let Some(repository) = repositories
        .get(&format!("{owner}/{name}"))
        .filter(|repository| !repository.private || token.is_some())
    else {
        // Strangers may not learn what exists.
        let status = if knows { 404 } else { 401 };
        return refusal(status, "RepoNotFound", "Repository not found");
    };
    let is_content = !request.uri().path().starts_with("/api/");
    if repository.gated && is_content && (token.is_none() || token != good) {
        let status = if token.is_none() { 401 } else { 403 };
        return refusal(status, "GatedRepo", "Access to this model is restricted");
    }
    if revision.is_some_and(|revision| !["main", "v1", "refs/pr/1", COMMIT].contains(&revision)) {
        return refusal(404, "RevisionNotFound", "Invalid rev id");
    }
    then(repository)
}

fn tree(shared: &Shared, request: &Request<Incoming>, repository: &Repository) -> Reply {
    let query = request.uri().query().unwrap_or_default();
    assert!(
        query.contains("recursive=true"),
        "folders would be missing: {query}"
    );
    let cursor = query.split('&').find_map(|part| part.strip_prefix("cursor="));
    let from: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
    let folder = |name: &String| Some(name.rsplit_once('/')?.0.to_owned());
    let folders: std::collections::BTreeSet<_> = repository.files.keys().filter_map(folder).collect();
    let false_size = lock(&shared.behaviour).false_size;
    let mut entries: Vec<_> = folders
        .into_iter()
        .map(|path| json!({ "type": "directory", "oid": COMMIT, "size": 0, "path": path }))
        .collect();
    entries.extend(repository.files.iter().map(|(name, file)| {
        let size = false_size.unwrap_or(file.bytes.len() as u64);
        let entry = json!({ "type": "file", "oid": COMMIT, "size": size, "path": name });
        match (file.lfs, entry) {
            (true, serde_json::Value::Object(mut entry)) => {
                let lfs = json!({ "oid": file.sha256, "size": size, "pointerSize": 135 });
                entry.insert("lfs".to_owned(), lfs);
                entry.into()
            }
            (_, entry) => entry,
        }
    }));
    let page = match lock(&shared.behaviour).page {
        0 => entries.len(),
        page => page,
    };
    let to = (from + page).min(entries.len());
    let list = reply(200, serde_json::Value::from(&entries[from..to]).to_string());
    if to == entries.len() {
        return list;
    }
    let path = request.uri().path();
    let next = format!("http://{}{path}?recursive=true&cursor={to}", shared.hub);
    list.header(LINK, format!("<{next}>; rel=\"next\""))
}

fn resolve(shared: &Shared, request: &Request<Incoming>, repository: &Repository, file: &str) -> Reply {
    let Some(stored) = repository.files.get(file) else {
        return refusal(404, "EntryNotFound", "Entry not found").header("x-repo-commit", COMMIT);
    };
    let bytes = stored.bytes.clone();
    if !stored.lfs {
        let tag = format!("\"{}\"", &stored.sha256[..40]);
        let headers = [("x-repo-commit", COMMIT.to_owned()), (ETAG.as_str(), tag.clone())];
        return ranged(request, bytes, Some(&tag), None, false, headers);
    }
    let behaviour = lock(&shared.behaviour);
    let hash = &stored.sha256;
    let place = format!(
        "http://{}/blobs/{hash}?generation={}",
        shared.storage, behaviour.generation
    );
    let size = behaviour.false_size.unwrap_or(bytes.len() as u64);
    reply(302, format!("Found. Redirecting to {place}"))
        .header(LOCATION, &place)
        .header("x-repo-commit", COMMIT)
        .header("x-linked-size", size)
        .header("x-linked-etag", format!("\"{hash}\""))
        .header("x-xet-hash", hash)
        .header(
            LINK,
            format!("<http://{}/xet-auth>; rel=\"xet-auth\"", shared.hub),
        )
        .header(ACCEPT_RANGES, "bytes")
}

/// What a path's segment says.
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}
