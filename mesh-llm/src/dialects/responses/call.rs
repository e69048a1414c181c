//! Which paths are the dialect's.

use hyper::Method;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `POST /v1/responses`
    Create,
    /// `GET /v1/responses/{id}`
    Retrieve(String),
    /// `DELETE /v1/responses/{id}`
    Delete(String),
    /// `POST /v1/responses/{id}/cancel`
    Cancel(String),
    /// `GET /v1/responses/{id}/input_items`
    InputItems(String),
    /// One of these paths with another method than these.
    WrongMethod(&'static str),
}

/// Finds what a request asks for; none is not of this dialect.
pub fn call(method: &Method, path: &str) -> Option<Call> {
    let rest = path.strip_prefix("/v1/responses")?;
    if rest.is_empty() {
        return Some(match *method {
            Method::POST => Call::Create,
            _ => Call::WrongMethod("POST"),
        });
    }
    let mut parts = rest.strip_prefix('/')?.split('/');
    let id = parts.next().filter(|id| !id.is_empty())?.to_owned();
    let verb = parts.next();
    if parts.next().is_some() {
        return None;
    }
    Some(match (verb, method) {
        (None, &Method::GET) => Call::Retrieve(id),
        (None, &Method::DELETE) => Call::Delete(id),
        (None, _) => Call::WrongMethod("GET, DELETE"),
        (Some("cancel"), &Method::POST) => Call::Cancel(id),
        (Some("cancel"), _) => Call::WrongMethod("POST"),
        (Some("input_items"), &Method::GET) => Call::InputItems(id),
        (Some("input_items"), _) => Call::WrongMethod("GET"),
        (Some(_), _) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_methods() {
        let id = || "resp_1".to_owned();
        for (method, path, expected) in [
            (Method::POST, "/v1/responses", Some(Call::Create)),
            (Method::GET, "/v1/responses", Some(Call::WrongMethod("POST"))),
            (Method::GET, "/v1/responses/resp_1", Some(Call::Retrieve(id()))),
            (Method::DELETE, "/v1/responses/resp_1", Some(Call::Delete(id()))),
            (
                Method::PUT,
                "/v1/responses/resp_1",
                Some(Call::WrongMethod("GET, DELETE")),
            ),
            (
                Method::POST,
                "/v1/responses/resp_1/cancel",
                Some(Call::Cancel(id())),
            ),
            (
                Method::GET,
                "/v1/responses/resp_1/cancel",
                Some(Call::WrongMethod("POST")),
            ),
            (
                Method::GET,
                "/v1/responses/resp_1/input_items",
                Some(Call::InputItems(id())),
            ),
            (
                Method::POST,
                "/v1/responses/resp_1/input_items",
                Some(Call::WrongMethod("GET")),
            ),
            (Method::GET, "/v1/responses/", None),
            (Method::GET, "/v1/responses/resp_1/other", None),
            (Method::GET, "/v1/responses/resp_1/cancel/x", None),
            (Method::POST, "/v1/responsesx", None),
            (Method::POST, "/v1/chat/completions", None),
        ] {
            assert_eq!(call(&method, path), expected, "{method} {path}");
        }
    }
}
