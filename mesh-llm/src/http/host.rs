//! Which names a server that only this machine reaches may be called by.
//!
//! A web page whose name is pointed at 127.0.0.1 after it was loaded (DNS rebinding) is, to the
//! browser, the same origin as this server; only the `Host` header still tells the page's name.

use hyper::Request;
use hyper::header::HOST;
use std::net::{IpAddr, Ipv6Addr};

/// The foreign name that a request calls the server by, if it does.
pub fn foreign<B>(request: &Request<B>) -> Option<String> {
    let in_target = request.uri().authority().map(|authority| authority.as_str());
    let in_header = request
        .headers()
        .get_all(HOST)
        .iter()
        .map(|value| value.to_str().unwrap_or("?"));
    in_target
        .into_iter()
        .chain(in_header)
        .find(|host| !is_local(host))
        .map(str::to_owned)
}

/// Whether nobody else can own this host, which may carry a port: addresses, `localhost`, and the
/// top-level domain for private use, by which containers call the machine that they run on.
fn is_local(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| {
            address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || port.starts_with(':'))
        });
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || name.ends_with(".internal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_others_can_own_are_foreign() {
        for host in [
            "localhost",
            "localhost:9337",
            "LOCALHOST.",
            "a.localhost:1",
            "127.0.0.1",
            "127.0.0.1:9337",
            "192.168.1.5:80",
            "[::1]",
            "[::1]:9337",
            "host.docker.internal:9337",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.com",
            "evil.com:9337",
            "localhost.evil.com",
            "127.0.0.1.evil.com",
            "mylocalhost",
            "[evil.com]",
            "[::1",
            "[::1].evil.com",
            "127.0.0.1.nip.io:9337",
            "internal.com",
            "?",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn the_target_and_every_header_count() {
        let foreign = |target: &str, hosts: &[&str]| {
            let mut request = Request::builder().uri(target);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            super::foreign(&request.body(()).unwrap())
        };
        assert_eq!(foreign("/v1/models", &[]), None);
        assert_eq!(foreign("/v1/models", &["localhost:9337"]), None);
        assert_eq!(foreign("/v1/models", &["evil.com"]), Some("evil.com".to_owned()));
        assert_eq!(
            foreign("http://evil.com/", &["localhost"]),
            Some("evil.com".to_owned())
        );
        assert_eq!(
            foreign("/", &["localhost", "evil.com"]),
            Some("evil.com".to_owned())
        );
    }

    proptest! {
        #[test]
        fn no_public_domain_is_local(name in "[a-z0-9.-]{0,20}\\.(com|net|org|dev)(:[0-9]{1,5})?") {
            prop_assert!(!is_local(&name));
        }
    }
}
