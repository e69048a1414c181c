//! Which paths there are, and who may call them.

use super::status::Viewer;
use crate::dialects::Problem;
use crate::http::refused;
use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    /// What there is.
    Index,
    /// The description of all paths.
    OpenApi,
    /// The status now.
    Status,
    /// The status now, and after each change.
    Events,
    /// A new token.
    CreateToken,
    /// To revoke this one.
    RevokeToken(String),
    /// Who may take part.
    Members,
    /// To put this one out.
    Kick(String),
    /// To serve a model.
    Load,
    /// To serve this one no more.
    Drop(String),
    /// To end the daemon.
    Stop,
}

/// A path with the one method that it takes.
pub(super) struct Route {
    /// The method.
    pub(super) method: &'static str,
    /// The path; its last segment may be a name in braces, for any other.
    pub(super) path: &'static str,
    /// Whom it is open to.
    pub(super) viewer: Viewer,
    /// Makes the call of what stands in the place of the braces.
    call: fn(String) -> Call,
}

/// All of them.
pub(super) const ROUTES: [Route; 11] = [
    open("/", |_| Call::Index),
    open("/api/openapi.json", |_| Call::OpenApi),
    open("/api/status", |_| Call::Status),
    open("/api/events", |_| Call::Events),
    owners("POST", "/api/tokens", |_| Call::CreateToken),
    owners("DELETE", "/api/tokens/{id}", Call::RevokeToken),
    owners("GET", "/api/members", |_| Call::Members),
    owners("DELETE", "/api/members/{id}", Call::Kick),
    owners("POST", "/api/models", |_| Call::Load),
    owners("DELETE", "/api/models/{id}", Call::Drop),
    owners("POST", "/api/stop", |_| Call::Stop),
];

const fn open(path: &'static str, call: fn(String) -> Call) -> Route {
    Route {
        method: "GET",
        path,
        viewer: Viewer::Anybody,
        call,
    }
}

const fn owners(method: &'static str, path: &'static str, call: fn(String) -> Call) -> Route {
    Route {
        method,
        path,
        viewer: Viewer::Owner,
        call,
    }
}

impl Route {
    /// The route of a path.
    pub(super) fn of(path: &str) -> Result<(&'static Route, String), Problem> {
        let found = ROUTES.iter().find_map(|route| Some((route, route.fit(path)?)));
        found.ok_or_else(|| {
            Problem::not_found(format!(
                "there is nothing at {path}: GET /api/openapi.json tells what there is"
            ))
        })
    }

    /// What is asked for by a request with this method, if `viewer` may have it.
    pub(super) fn call(&self, method: &Method, viewer: Viewer, segment: String) -> Result<Call, Problem> {
        if (viewer, self.viewer) == (Viewer::Anybody, Viewer::Owner) {
            return Err(refused(
                StatusCode::FORBIDDEN,
                "owner_only",
                "every user of this machine reaches this port, so nothing is changed by it: the daemon's user does this with the commands of mesh-llm, or over the daemon's socket",
            ));
        }
        if method.as_str() != self.method {
            return Err(Problem::wrong_method(self.method));
        }
        Ok((self.call)(segment))
    }

    /// What stands in the place of the braces, if this is a path of the route.
    fn fit(&self, path: &str) -> Option<String> {
        let Some((before, _)) = self.path.split_once('{') else {
            return (path == self.path).then(String::new);
        };
        let segment = path
            .strip_prefix(before)
            .filter(|rest| !rest.is_empty() && !rest.contains('/'))?;
        let decoded = percent_decode_str(segment).decode_utf8().ok()?;
        Some(decoded.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(viewer: Viewer, method: Method, path: &str) -> Result<Call, u16> {
        let called = Route::of(path).and_then(|(route, segment)| route.call(&method, viewer, segment));
        called.map_err(|problem| problem.status)
    }

    #[test]
    fn a_path_has_one_method() {
        let call = |method: &str, path: &str| call(Viewer::Owner, method.parse().unwrap(), path);
        assert_eq!(call("GET", "/api/status"), Ok(Call::Status));
        assert_eq!(call("POST", "/api/stop"), Ok(Call::Stop));
        assert_eq!(
            call("DELETE", "/api/members/a%20b%2Fc"),
            Ok(Call::Kick("a b/c".into()))
        );
        assert_eq!(call("GET", "/api/stop"), Err(405));
        for path in [
            "/api",
            "/api/status/",
            "/api/tokens/",
            "/api/tokens/a/b",
            "/api/tokens/%ff",
            "*",
            "",
        ] {
            assert_eq!(call("GET", path), Err(404), "{path}");
        }
    }

    #[test]
    fn what_changes_something_is_for_the_owner_alone() {
        for route in &ROUTES {
            let path = route.path.replace("{id}", "x");
            let method = route.method.parse::<Method>().unwrap();
            let by_anybody = call(Viewer::Anybody, method.clone(), &path);
            match route.viewer {
                Viewer::Anybody => assert!(by_anybody.is_ok() && method == Method::GET, "{path}"),
                Viewer::Owner => assert_eq!(by_anybody, Err(403), "{path}"),
            }
            assert!(call(Viewer::Owner, method, &path).is_ok(), "{path}");
        }
    }
}
