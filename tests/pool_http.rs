//! Conversion from and to the types of the crate `http`.
#![cfg(feature = "http")]

use http::{HeaderMap, Method, StatusCode, Version};
use shockwave_alloc::pool::{ArenaPool, PartsError, RequestPool, SlabPool, StandardPool};

const VERSIONS: [Version; 5] =
    [Version::HTTP_09, Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3];

#[test]
fn a_request_survives_the_round_trip() {
    let uris =
        ["/", "/a/b?c=d&e", "*", "https://user@example.com:8443/a?b", "http://[::1]:80/", "example.com:443"];
    for pool in [&StandardPool::new() as &dyn RequestPool, &SlabPool::new(), &ArenaPool::new()] {
        for uri in uris {
            for version in VERSIONS {
                let parts = http::Request::builder()
                    .method(Method::PATCH)
                    .uri(uri)
                    .version(version)
                    .header("Accept", "a")
                    .header("Host", "example.com")
                    .header("accept", &b"\xFFb"[..])
                    .body(())
                    .expect("valid")
                    .into_parts()
                    .0;
                let mut request = pool.get();
                request.add_header("left", "over");
                request.set_close(true);
                request.set_parts(&parts, b"\0body");
                assert!(!request.close());
                assert_eq!(request.path(), uri.as_bytes());
                let (back, body) = request.to_parts().expect("valid");
                assert_eq!(
                    (&back.method, &back.uri, back.version),
                    (&parts.method, &parts.uri, parts.version)
                );
                assert_eq!((back.headers, body), (parts.headers, &b"\0body"[..]));
            }
        }
    }
}

#[test]
fn a_response_survives_the_round_trip() {
    let pool = SlabPool::new();
    for status in [100, 200, 404, 599, 999] {
        for version in VERSIONS {
            let mut builder = http::Response::builder().status(status).version(version);
            *builder.headers_mut().expect("valid") =
                HeaderMap::from_iter([(http::header::SET_COOKIE, http::HeaderValue::from_static("a=b"))]);
            let parts = builder.header("set-cookie", "c=d").body(()).expect("valid").into_parts().0;
            let mut response = pool.get_response();
            response.add_header("left", "over");
            response.set_parts(&parts, "body");
            let (back, body) = response.to_parts().expect("valid");
            assert_eq!((back.status, back.version), (parts.status, parts.version));
            assert_eq!((back.headers, body), (parts.headers, &b"body"[..]));
            let reason = StatusCode::from_u16(status).expect("valid").canonical_reason().unwrap_or("");
            assert_eq!(response.reason(), reason.as_bytes());
        }
    }
}

#[test]
fn what_http_does_not_allow_is_an_error() {
    let pool = StandardPool::new();
    let mut request = pool.get();
    request.set_method("GET");
    request.set_path("/");
    assert_eq!(request.to_parts().expect("valid").0.version, Version::HTTP_11, "an empty protocol");
    request.set_proto("HTTP/1.2");
    let error = request.to_parts().expect_err("unknown protocol");
    assert!(matches!(error, PartsError::Proto) && error.to_string().contains("unknown protocol"));
    request.set_proto("HTTP/1.1");
    request.set_method("G T");
    assert!(matches!(request.to_parts(), Err(PartsError::Http(_))));
    request.set_method("GET");
    request.set_path("not a path");
    assert!(request.to_parts().is_err());
    request.set_path("/");
    request.add_header("a b", "c");
    assert!(request.to_parts().is_err());

    let mut response = pool.get_response();
    response.add_header("a", "line\nfeed");
    assert!(response.to_parts().is_err());
    response.clear();
    response.set_status(7);
    assert!(response.to_parts().is_err());
}
